"""torch.compile: everything up to the loss is one graph."""

import torch
from torch import Tensor, nn

import symloss

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)

# Toy data: three categories; the target is shifted, without labels. Yours goes here.
labels = torch.arange(384) % 3
centres = 2 * torch.randn(3, 16)
x_source = centres[labels] + torch.randn(384, 16)
x_target = centres[labels] + torch.randn(384, 16) + torch.randn(16)
total = 300
draws = torch.randint(384, (total, 2, 32))
batches = [((x_source[i], labels[i]), x_target[j]) for i, j in draws]

backbone = nn.Sequential(nn.Linear(16, 64), nn.ReLU()).to(device)
head = symloss.SymmetricHead(64, num_classes=3).to(device)
step = symloss.TwoOptimizerStep(
    extractor=torch.optim.SGD(backbone.parameters(), lr=0.01, momentum=0.9),
    head=torch.optim.SGD(head.parameters(), lr=0.01, momentum=0.9),
)


@torch.compile(fullgraph=True)
def objective(x_s: Tensor, y_s: Tensor, x_t: Tensor, lam: Tensor) -> Tensor:
    """Return the sum of both players' losses."""
    source, target = head.route(backbone(x_s)), head.route(backbone(x_t))
    return symloss.symnet_losses(source, y_s, target).total(lam)


for i, ((x_s, y_s), x_t) in enumerate(batches):
    lam = torch.tensor(symloss.progressive_lambda(i / total), device=device)
    step(objective(x_s.to(device), y_s.to(device), x_t.to(device), lam))

with torch.inference_mode():
    predicted = head.predict(backbone(x_target.to(device))).cpu()
print(f"target accuracy: {100 * (predicted == labels).float().mean():.1f} %")
