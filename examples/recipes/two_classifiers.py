"""SymNets with two classifiers that you already have, instead of a new head."""

import torch
from torch import Tensor, nn

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
source_classifier, target_classifier = nn.Linear(64, 3), nn.Linear(64, 3)


class TwoClassifiers(nn.Module):
    """The outputs of two classifiers side by side, source first."""

    def __init__(self, source: nn.Linear, target: nn.Linear) -> None:
        """Keep both classifiers themselves, not copies."""
        super().__init__()
        self.source, self.target = source, target

    def forward(self, features: Tensor) -> Tensor:
        """Return joint logits, (N, 2K)."""
        return torch.cat([self.source(features), self.target(features)], dim=1)


head = TwoClassifiers(source_classifier, target_classifier)
step = symloss.TwoOptimizerStep(
    extractor=torch.optim.SGD(backbone.parameters(), lr=0.01, momentum=0.9),
    head=torch.optim.SGD(head.parameters(), lr=0.01, momentum=0.9),
)
for i, ((x_s, y_s), x_t) in enumerate(batches):
    source = symloss.route(head, backbone(x_s))
    target = symloss.route(head, backbone(x_t))
    losses = symloss.symnet_losses(source, y_s, target)
    step(losses.total(lam=symloss.progressive_lambda(i / total)))

with torch.inference_mode():
    predicted = target_classifier(backbone(x_target)).argmax(1)
print(f"target accuracy: {100 * (predicted == labels).float().mean():.1f} %")
