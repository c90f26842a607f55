"""Domain-adversarial training (DANN) with a gradient reversal layer."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Toy data: three categories; the target is shifted, without labels. Yours goes here.
torch.manual_seed(0)
labels = torch.arange(384) % 3
centres = 2 * torch.randn(3, 16)
x_source = centres[labels] + torch.randn(384, 16)
x_target = centres[labels] + torch.randn(384, 16) + torch.randn(16)
total = 300
draws = torch.randint(384, (total, 2, 32))
batches = [((x_source[i], labels[i]), x_target[j]) for i, j in draws]


class GradientReversal(torch.autograd.Function):
    """The identity, with the gradient reversed."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: float) -> Tensor:
        """Return the features unchanged."""
        ctx.weight = weight
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """Return the gradient times -weight."""
        return -ctx.weight * gradient, None


backbone = nn.Sequential(nn.Linear(16, 64), nn.ReLU())
classifier = nn.Linear(64, 3)
discriminator = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
modules = nn.ModuleList([backbone, classifier, discriminator])
optimizer = torch.optim.SGD(modules.parameters(), lr=0.01, momentum=0.9)

for i, ((x_s, y_s), x_t) in enumerate(batches):
    f_s, f_t = backbone(x_s), backbone(x_t)
    lam = 2 / (1 + math.exp(-10 * i / total)) - 1
    features = GradientReversal.apply(torch.cat([f_s, f_t]), lam)
    domain = torch.cat([torch.ones(len(f_s), 1), torch.zeros(len(f_t), 1)])
    loss = F.cross_entropy(classifier(f_s), y_s)
    loss = loss + F.binary_cross_entropy_with_logits(discriminator(features), domain)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

with torch.inference_mode():
    predicted = classifier(backbone(x_target)).argmax(1)
print(f"target accuracy: {100 * (predicted == labels).float().mean():.1f} %")
