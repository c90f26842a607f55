"""What the page's one line is run with."""

import torch
from torch import nn

import symloss

source_classifier, target_classifier = nn.Linear(64, 3), nn.Linear(64, 3)


def check(names):
    features = torch.randn(5, 64)
    source, target = symloss.functional.split_logits(names["head"](features))
    torch.testing.assert_close(source, source_classifier(features))
    torch.testing.assert_close(target, target_classifier(features))
