"""The scripts' step and batches on an accelerator without one; see check_library.py."""

import pytest
import torch
from office.data import images
from office.data.images import Preprocessing
from office.options import Recipe
from office.training.batches import Inputs
from office.training.methods import METHODS, Network, losses
from private import put
from torch import nn

import symloss

K, F = 3, 5


def small_network(method, device):
    extractor = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    extractor.append(nn.Linear(4, F))
    extractor.num_features = F
    return put(Network(extractor, method, K), device)


@pytest.mark.parametrize("name", METHODS)
def test_every_methods_step(device, name):
    method, recipe = METHODS[name], Recipe("office31")
    network = small_network(method, device)
    players = [
        torch.optim.SGD(part.parameters(), lr=0.1, momentum=0.9, nesterov=True)
        for part in (network.extractor, network.heads)
    ]
    step = symloss.TwoOptimizerStep(*players)
    schedules = [symloss.AnnealedLR(optimizer, total_steps=3) for optimizer in players]
    labels = torch.zeros(6, dtype=torch.long, device=device)
    for i in range(2):
        batch = [torch.randn(6, 3, 8, 8, device=device) for _ in range(1 + method.target)]
        lam = symloss.progressive_lambda(i / 3)
        prior, weight = torch.full((K,), 1 / K, device=device), torch.ones(K, device=device)
        loss, terms = losses(method, network(*batch), labels, lam, recipe, prior, weight)
        assert step(loss) is True
        for schedule in schedules:
            schedule.step()
    assert loss.device == torch.stack([*terms.values()]).device == device
    assert {p.grad.device for p in network.parameters()} == {device}


def test_batches_are_prepared_on_the_device(device):
    inputs = Inputs.__new__(Inputs)
    inputs.device, inputs.layout, inputs.batches = device, torch.channels_last, []
    inputs.normalize = put(images.Normalize(Preprocessing(36, 32)), device)
    inputs.labels = torch.zeros(9, dtype=torch.long, device=device)
    crops = torch.zeros(4, 3, 32, 32, dtype=torch.uint8, device=device)
    flips = torch.zeros(4, dtype=torch.bool, device=device)
    index = torch.zeros(4, dtype=torch.long, device=device)
    inputs.loaders = [[(crops, flips, index)]] * 2
    ((batch, labels),) = inputs.epoch(0, 1)
    assert [(x.device, x.dtype, tuple(x.shape)) for x in batch] == [
        (device, torch.float32, (4, 3, 32, 32))
    ] * 2
    assert labels.device == device
