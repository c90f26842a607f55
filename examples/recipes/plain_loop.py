"""SymNets in a plain PyTorch loop: train on two loaders, then predict."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import symloss

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)

# Toy data: three categories; the target is shifted, without labels. Yours goes here.
labels = torch.arange(384) % 3
centres = 2 * torch.randn(3, 16)
x_source = centres[labels] + torch.randn(384, 16)
x_target = centres[labels] + torch.randn(384, 16) + torch.randn(16)
source_loader = DataLoader(TensorDataset(x_source, labels), 32, shuffle=True, drop_last=True)
target_loader = DataLoader(TensorDataset(x_target), 32, shuffle=True, drop_last=True)

# A network that ends in features (N, 64): yours, without its last layer.
backbone = nn.Sequential(nn.Linear(16, 64), nn.BatchNorm1d(64), nn.ReLU()).to(device)
head = symloss.SymmetricHead(64, num_classes=3).to(device)

# The head is new, so it learns ten times as fast as a pretrained backbone.
sgd = partial(torch.optim.SGD, momentum=0.9, nesterov=True, weight_decay=1e-4)
extractor_optimizer = sgd(backbone.parameters(), lr=0.001)
head_optimizer = sgd(head.parameters(), lr=0.01)
step = symloss.TwoOptimizerStep(extractor=extractor_optimizer, head=head_optimizer)

epochs = 20
total = epochs * max(len(source_loader), len(target_loader))
optimizers = extractor_optimizer, head_optimizer
schedulers = [symloss.AnnealedLR(optimizer, total) for optimizer in optimizers]


def forever(loader: DataLoader[Any]) -> Iterator[Any]:
    """Yield batches forever, in a new order on every pass."""
    if len(loader) == 0:
        raise ValueError(f"no batch: fewer than {loader.batch_size} samples, and drop_last=True")
    while True:
        yield from loader


source_batches, target_batches = forever(source_loader), forever(target_loader)
backbone.train()
for i in range(total):
    (x_s, y_s), (x_t,) = next(source_batches), next(target_batches)
    source = head.route(backbone(x_s.to(device)))  # each domain separately
    target = head.route(backbone(x_t.to(device)))
    losses = symloss.symnet_losses(source, y_s.to(device), target)
    if step(losses.total(lam=symloss.progressive_lambda(i / total))):
        for scheduler in schedulers:
            scheduler.step()
    if i % 100 == 0:  # rarely, since reading a loss waits for the GPU
        print(i, {name: loss.item() for name, loss in losses._asdict().items()})

backbone.eval()
with torch.inference_mode():
    predicted = head.predict(backbone(x_target.to(device))).cpu()
print(f"target accuracy: {100 * (predicted == labels).float().mean():.1f} %")
