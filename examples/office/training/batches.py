"""The batches of a run: which images and crops at which step, all set by the seed."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from office import distributed
from office.data import images, loading
from office.options import Runtime
from office.training.methods import METHODS
from office.training.runs import Run


def stream(*key: int) -> int:
    """Return the seed of an independent random stream for each key."""
    entropy = (len(key), *key)  # numpy treats (1,) and (1, 0) as the same
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)


class EpochBatches(Sampler):
    """This process's part of each batch of an epoch, as (index, seed) pairs.

    Batches are cut from one permutation after another, seeded by (seed, epoch, domain); incomplete
    ones are dropped. They are the same for any number of processes.
    """

    def __init__(self, images: int, batch_size: int, seed: int, domain: int) -> None:
        self.images, self.batch_size, self.seed, self.domain = images, batch_size, seed, domain
        self.epoch, self.steps = 0, 0

    def __len__(self) -> int:
        """Return the number of batches in this epoch."""
        return self.steps

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Yield the batches of ``epoch``."""
        generator = torch.Generator().manual_seed(stream(self.seed, self.epoch, self.domain))
        share = slice(distributed.rank(), None, distributed.processes())
        batches: list[Tensor] = []
        for _ in range(self.steps):
            if not batches:
                order = torch.randperm(self.images, generator=generator)
                batches = [b for b in order.split(self.batch_size) if len(b) == self.batch_size]
            batch = batches.pop(0)
            seeds = torch.randint(2**62, batch.shape, generator=generator)
            yield [*zip(batch[share].tolist(), seeds[share].tolist(), strict=True)]


def _domains(run: Run) -> list[list[Path]]:
    """Return the paths of the source and, if the method trains on it, of the target."""
    # Sorted by path, because a task's own order depends on the labels.
    target = [sorted(run.task.target.paths)] if METHODS[run.method].target else []
    return [run.task.source.paths, *target]


def _share(paths: list[Path]) -> range:
    """Return this process's share of images that are read once."""
    return range(distributed.rank(), len(paths), distributed.processes())


class Inputs:
    """Batches of the source and, if the method trains on it, of the target, without its labels.

    Args:
        run: Gives the images, the batch size and the seed.
        runtime: Gives the device and the number of workers.
        cache: Images that are decoded already; others are read.
    """

    def __init__(self, run: Run, runtime: Runtime, cache: dict[Path, Tensor]) -> None:
        recipe, task, paths = run.recipe, run.task, _domains(run)
        self.runtime, self.cache, self.recipe = runtime, cache, recipe
        self.device = runtime.device
        self.layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self.labels = torch.tensor(task.source.labels, device=runtime.device)
        self.normalize = images.Normalize(recipe.preprocessing).to(runtime.device)
        self.batches = [
            EpochBatches(len(domain), recipe.batch_size, run.seed, i)
            for i, domain in enumerate(paths)
        ]
        self.loaders = [
            loading.loader(
                loading.Images(domain, recipe.preprocessing, cache),
                runtime.device,
                runtime.workers,
                batch_sampler=batches,
            )
            for domain, batches in zip(paths, self.batches, strict=True)
        ]

    def epoch(self, number: int, steps: int) -> Iterator[tuple[list[Tensor], Tensor]]:
        """Yield each step's images, by domain, and source labels, on the device, for an epoch."""
        for batches in self.batches:
            batches.epoch, batches.steps = number, steps
        for domains in zip(*self.loaders, strict=True):
            crops, flips, indices = (
                [tensor.to(self.device, non_blocking=True) for tensor in tensors]
                for tensors in zip(*domains, strict=True)
            )
            batch = [
                self.normalize(torch.where(flip[:, None, None, None], x.flip(-1), x), self.layout)
                for x, flip in zip(crops, flips, strict=True)
            ]
            yield batch, self.labels[indices[0]]

    def once(self, paths: list[Path]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this process's share of centre crops, on the device, and their index in ``paths``.

        Unlike a DistributedSampler, this adds no padding.
        """
        loader = loading.loader(
            loading.Images(paths, self.recipe.preprocessing, self.cache),
            self.device,
            self.runtime.workers,
            # Two training batches fit in memory even with gradients.
            batch_size=2 * self.recipe.batch_size // distributed.processes(),
            sampler=[(i, None) for i in _share(paths)],
        )
        for crops, _, index in loader:
            yield self.normalize(crops.to(self.device, non_blocking=True)), index
        with distributed.uninterrupted():  # Python drops exceptions raised while workers stop
            del loader


class FeatureInputs:
    """The same for features: each step uses one of the views of each of its images.

    Args:
        run: Gives the images, the batch size and the seed.
        runtime: Gives the device.
        cache: Features ``(views, F)`` by path; the first view is the centre crop's.
    """

    layout = torch.contiguous_format

    def __init__(self, run: Run, runtime: Runtime, cache: dict[Path, Tensor]) -> None:
        self.batch_size, self.device, self.cache = run.recipe.batch_size, runtime.device, cache
        self.labels = torch.tensor(run.task.source.labels, device=runtime.device)
        paths = _domains(run)
        self.features = [
            torch.stack([cache[path] for path in domain]).to(runtime.device) for domain in paths
        ]
        self.batches = [
            EpochBatches(len(domain), self.batch_size, run.seed, i)
            for i, domain in enumerate(paths)
        ]

    def epoch(self, number: int, steps: int) -> Iterator[tuple[list[Tensor], Tensor]]:
        """Yield each step's features, by domain, and source labels, on the device, for an epoch."""
        for batches in self.batches:
            batches.epoch, batches.steps = number, steps
        for domains in zip(*self.batches, strict=True):
            chosen = [torch.tensor(pairs).to(self.device) for pairs in domains]
            batch = [
                features[pairs[:, 0], pairs[:, 1] % features.shape[1]].float()
                for features, pairs in zip(self.features, chosen, strict=True)
            ]
            yield batch, self.labels[chosen[0][:, 0]]

    def once(self, paths: list[Path]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield first views, on the device, and their index in ``paths``, as for images."""
        for index in torch.tensor(_share(paths)).split(2 * self.batch_size):
            features = torch.stack([self.cache[paths[i]][0] for i in index])
            yield features.to(self.device).float(), index
