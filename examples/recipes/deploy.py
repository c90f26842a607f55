"""Turn a trained backbone and head into one model file that runs without symloss."""

import torch
from torch import nn

import symloss

# Stand-ins for what you have trained.
backbone = nn.Sequential(nn.Linear(16, 64), nn.BatchNorm1d(64), nn.ReLU())
head = symloss.SymmetricHead(64, num_classes=3)

# The target classifier as a plain nn.Linear; the source classifier is no longer needed.
model = nn.Sequential(backbone, head.classifier("target")).eval()

# 1. As weights, for PyTorch code that builds the same network.
torch.save(model.state_dict(), "weights.pt")

# 2. As a program, for any batch size.
example = torch.randn(2, 16)
batch = torch.export.Dim("batch")
program = torch.export.export(model, (example,), dynamic_shapes=({0: batch},))
torch.export.save(program, "model.pt2")

# Elsewhere, with torch alone:
deployed = torch.export.load("model.pt2").module()
x = torch.randn(5, 16)
probabilities = deployed(x).softmax(1)
print(probabilities.argmax(1))

backbone.eval()
assert torch.equal(probabilities.argmax(1), head.predict(backbone(x)))
