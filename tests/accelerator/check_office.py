"""The scripts' step and batches on an accelerator without one; see check_library.py."""

import pytest
import torch
from office.data import images
from office.data.images import Preprocessing
from office.methods import METHODS, Settings, losses
from office.options import Runtime
from office.training.batches import EpochSampler, ImageBatches
from private import put
from torch import nn
from train_office import Network

import symloss

K, F = 3, 5


def small_network(method, device):
    extractor = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    extractor.append(nn.Linear(4, F))
    return put(Network(extractor, method.head(F, K)), device)


@pytest.mark.parametrize("name", METHODS)
def test_every_methods_step(device, name):
    method = METHODS[name]
    network = small_network(method, device)
    players = [
        torch.optim.SGD(part.parameters(), lr=0.1, momentum=0.9, nesterov=True)
        for part in (network.extractor, network.head)
    ]
    step = symloss.TwoOptimizerStep(*players)
    schedules = [symloss.AnnealedLR(optimizer, total_steps=3) for optimizer in players]
    labels = torch.zeros(6, dtype=torch.long, device=device)
    for i in range(2):
        x_s, x_t = (torch.randn(6, 3, 8, 8, device=device) for _ in range(2))
        source, target = network(x_s, x_t if method.target else None)
        prior, weight = torch.full((K,), 1 / K, device=device), torch.ones(K, device=device)
        lam, settings = symloss.progressive_lambda(i / 3), Settings(K, 3.0, prior, weight)
        loss, terms = losses(method, source, labels, target, lam, settings)
        assert step(loss) is True
        for schedule in schedules:
            schedule.step()
    assert loss.device == torch.stack([*terms.values()]).device == device
    assert {p.grad.device for p in network.parameters()} == {device}


def test_batches_are_prepared_on_the_device(device):
    batches = ImageBatches.__new__(ImageBatches)
    batches.layout = torch.channels_last
    batches.samplers = [EpochSampler(4, 4, seed=0, domain=domain) for domain in (0, 1)]
    batches.domains = [[], []]
    batches.runtime = Runtime(device)
    batches.normalize = put(images.Normalize(Preprocessing(36, 32)), device)
    batches.labels = torch.zeros(9, dtype=torch.long, device=device)
    crops = torch.zeros(4, 3, 32, 32, dtype=torch.uint8, device=device)
    flips = torch.zeros(4, dtype=torch.bool, device=device)
    index = torch.zeros(4, dtype=torch.long, device=device)
    batches._crops = lambda paths, keys: [(crops, flips, index)]
    ((x_s, labels, x_t),) = batches.epoch(0, 1)
    assert [(x.device, x.dtype, tuple(x.shape)) for x in (x_s, x_t)] == [
        (device, torch.float32, (4, 3, 32, 32))
    ] * 2
    assert labels.device == device
