"""Mixed precision, gradient accumulation and clipping."""

import torch
from torch import nn

import symloss

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)

# Toy data: three categories; the target is shifted, without labels. Yours goes here.
labels = torch.arange(384) % 3
centres = 2 * torch.randn(3, 16)
x_source = centres[labels] + torch.randn(384, 16)
x_target = centres[labels] + torch.randn(384, 16) + torch.randn(16)
total, accumulate = 600, 2
draws = torch.randint(384, (total, 2, 16))
batches = [((x_source[i], labels[i]), x_target[j]) for i, j in draws]

backbone = nn.Sequential(nn.Linear(16, 64), nn.ReLU()).to(device)
head = symloss.SymmetricHead(64, num_classes=3).to(device)
optimizers = [torch.optim.SGD(m.parameters(), lr=0.01, momentum=0.9) for m in (backbone, head)]
step = symloss.TwoOptimizerStep(
    *optimizers,  # the extractor's, then the head's
    scaler=torch.amp.GradScaler(device),  # for float16 only; drop it for bfloat16
    max_grad_norm=10.0,  # for each player separately
    accumulate=accumulate,  # two batches make one step
)
schedulers = [symloss.AnnealedLR(o, total // accumulate) for o in optimizers]

for i, ((x_s, y_s), x_t) in enumerate(batches):
    with torch.autocast(device, dtype=torch.float16):
        source = head.route(backbone(x_s.to(device)))
        target = head.route(backbone(x_t.to(device)))
        losses = symloss.symnet_losses(source, y_s.to(device), target)
    if step(losses.total(lam=symloss.progressive_lambda(i / total))):
        for scheduler in schedulers:  # only if the optimizers stepped
            scheduler.step()
step.finish()  # if the last step is missing a batch

with torch.inference_mode():
    predicted = head.predict(backbone(x_target.to(device))).cpu()
print(f"target accuracy: {100 * (predicted == labels).float().mean():.1f} %")
