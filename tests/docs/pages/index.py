"""What the home page's code is run with."""

import torch

torch.manual_seed(0)
backbone = torch.nn.Sequential(torch.nn.Linear(16, 2048), torch.nn.Tanh())
x, y = torch.randn(31, 16), torch.arange(31)
total = 40
batches = [((x, y), x + 0.1)] * total


def check(names):
    assert (names["predicted"] == y).float().mean() > 0.9
    assert not backbone.training
