"""Semantic segmentation: every pixel is one sample."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import symloss

# Toy data: tiles of three colours; the target's are darker and have no labels.
torch.manual_seed(0)
tiles = torch.randint(3, (48, 8, 8))
labels = tiles.repeat_interleave(4, 1).repeat_interleave(4, 2)  # (N, 32, 32)
images = torch.eye(3)[labels].permute(0, 3, 1, 2) + 0.3 * torch.randn(48, 3, 32, 32)
x_source, x_target = images[:24], 0.6 * images[24:] + 0.2
y_source, y_target = labels[:24].clone(), labels[24:]
y_source[:, :2] = 255  # pixels without a label

backbone = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU())
head = symloss.SymmetricHead2d(16, num_classes=3)  # a 1x1 convolution
step = symloss.TwoOptimizerStep(
    extractor=torch.optim.SGD(backbone.parameters(), lr=0.01, momentum=0.9),
    head=torch.optim.SGD(head.parameters(), lr=0.01, momentum=0.9),
)


def routed(x: Tensor) -> symloss.RoutedLogits:
    """Return the joint logits, (N, 2K, H, W), at the size of the images."""
    logits = head.route(backbone(x))
    both = (F.interpolate(v, x.shape[-2:], mode="bilinear") for v in logits)
    return symloss.RoutedLogits(*both)


total = 150
for i in range(total):
    index_s, index_t = torch.randint(24, (2, 8))
    source, target = routed(x_source[index_s]), routed(x_target[index_t])
    losses = symloss.symnet_losses(source, y_source[index_s], target, ignore_index=255)
    step(losses.total(lam=symloss.progressive_lambda(i / total)))

with torch.inference_mode():
    predicted = symloss.functional.split_logits(routed(x_target).head)[1].argmax(1)
print(f"target pixel accuracy: {100 * (predicted == y_target).float().mean():.1f} %")
