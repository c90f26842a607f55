"""SymNets instead of DANN, in the same script."""

import torch
from torch import nn

import symloss

# Toy data: three categories; the target is shifted, without labels. Yours goes here.
torch.manual_seed(0)
labels = torch.arange(384) % 3
centres = 2 * torch.randn(3, 16)
x_source = centres[labels] + torch.randn(384, 16)
x_target = centres[labels] + torch.randn(384, 16) + torch.randn(16)
total = 300
draws = torch.randint(384, (total, 2, 32))
batches = [((x_source[i], labels[i]), x_target[j]) for i, j in draws]


backbone = nn.Sequential(nn.Linear(16, 64), nn.ReLU())
head = symloss.SymmetricHead(64, num_classes=3)
modules = nn.ModuleList([backbone, head])
optimizer = torch.optim.SGD(modules.parameters(), lr=0.01, momentum=0.9)

for i, ((x_s, y_s), x_t) in enumerate(batches):
    f_s, f_t = backbone(x_s), backbone(x_t)
    lam = symloss.progressive_lambda(i / total)
    loss = symloss.symnet_losses(head.route(f_s), y_s, head.route(f_t)).total(lam)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

with torch.inference_mode():
    predicted = head.predict(backbone(x_target))
print(f"target accuracy: {100 * (predicted == labels).float().mean():.1f} %")
