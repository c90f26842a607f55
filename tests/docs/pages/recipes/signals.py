"""What the page's one line is run with: AdaTime's classifier has one linear layer, ``logits``."""

from types import SimpleNamespace

import torch
from torch import nn

import symloss

head = symloss.SymmetricHead(64, 5)
self = SimpleNamespace(classifier=SimpleNamespace(logits=nn.Linear(64, 5)))


def check(names):
    features = torch.randn(7, 64)
    predicted = self.classifier.logits(features).argmax(1)
    torch.testing.assert_close(predicted, head.predict(features))
