"""The batches of a run: which images, crops or features at which step, all set by the seed."""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from office import distributed
from office.data import images
from office.data.images import Preprocessing, resized
from office.methods import METHODS
from office.options import Runtime
from office.training.runs import Run

Key: TypeAlias = tuple[int, int | None]  # an image's index, and a seed or none
Crop: TypeAlias = tuple[Tensor, bool, int]  # pixels, whether to flip them, the image's index
AHEAD = 2  # batches that are read while one is used


class Batch(NamedTuple):
    """One step's source images (or features) with labels, and its target ones, on the device.

    ``x_t`` is None if the method trains on the source alone.
    """

    x_s: Tensor
    y_s: Tensor
    x_t: Tensor | None


class Images:
    """Crops by (index, seed), without labels: only the seed sets crop and flip.

    An item is ``(crop, flip, index)``: a random uint8 crop ``(3, crop, crop)`` and whether to flip
    it; for the seed ``None``, the centre crop, not flipped. Images that are not in ``cache`` are
    read.
    """

    def __init__(
        self, paths: list[Path], preprocessing: Preprocessing, cache: dict[Path, Tensor]
    ) -> None:
        self.paths, self.preprocessing, self.cache = paths, preprocessing, cache

    def __getitem__(self, key: Key) -> Crop:
        """Return ``(crop, flip, index)``; :class:`UserError` names an unreadable file."""
        index, seed = key
        path = self.paths[index]
        image = self.cache.get(path)
        if image is None:
            image = resized(path, self.preprocessing)
        side = self.preprocessing.crop
        rest = [length - side for length in image.shape[1:]]
        if seed is None:
            top, left = (round(length / 2) for length in rest)
            return image[:, top : top + side, left : left + side], False, index
        generator = torch.Generator().manual_seed(seed)
        top, left = (int(torch.randint(length + 1, (), generator=generator)) for length in rest)
        flip = torch.rand((), generator=generator).item() < 0.5
        return image[:, top : top + side, left : left + side], flip, index

    def batches(self, keys: Iterable[Sequence[Key]], runtime: Runtime) -> Iterator[list[Tensor]]:
        """Yield batches of crops, of whether to flip them and of indices, on the device.

        Images that are not cached are read ahead by threads: Pillow decodes and resizes without
        holding Python's lock.
        """
        left, waiting = iter(keys), deque[Iterable[Crop]]()
        with ThreadPoolExecutor(runtime.workers or 1) as pool:
            read = map if self.cache or not runtime.workers else pool.map
            try:
                while True:
                    for batch in itertools.islice(left, AHEAD + 1 - len(waiting)):
                        waiting.append(read(self.__getitem__, batch))
                    if not waiting:
                        return
                    tensors = default_collate([*waiting.popleft()])
                    if runtime.device.type == "cuda" and not tensors[0].is_cuda:
                        tensors = [tensor.pin_memory() for tensor in tensors]
                    yield [tensor.to(runtime.device, non_blocking=True) for tensor in tensors]
            finally:
                pool.shutdown(wait=False, cancel_futures=True)  # of an epoch that is cut short


def seed_of(*key: int) -> int:
    """Return the seed of an independent random stream for each key."""
    entropy = (len(key), *key)  # numpy treats (1,) and (1, 0) as the same
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)


class EpochSampler:
    """This process's part of each batch of an epoch, as (index, seed) pairs.

    Batches are cut from one permutation after another, seeded by (seed, epoch, domain); incomplete
    ones are dropped. They are the same for any number of processes.
    """

    def __init__(self, images: int, batch_size: int, seed: int, domain: int) -> None:
        self.images, self.batch_size, self.seed, self.domain = images, batch_size, seed, domain
        self.epoch, self.steps = 0, 0

    def __iter__(self) -> Iterator[list[Key]]:
        """Yield the batches of ``epoch``."""
        generator = torch.Generator().manual_seed(seed_of(self.seed, self.epoch, self.domain))
        share = slice(distributed.rank(), None, distributed.processes())
        batches: list[Tensor] = []
        for _ in range(self.steps):
            if not batches:
                order = torch.randperm(self.images, generator=generator)
                whole = self.images // self.batch_size * self.batch_size
                batches = [*order[:whole].view(-1, self.batch_size)]
            batch = batches.pop(0)
            seeds = torch.randint(2**62, batch.shape, generator=generator)
            yield [*zip(batch[share].tolist(), seeds[share].tolist(), strict=True)]


class Batches:
    """Batches of the source's images and of the target's, without its labels."""

    layout = torch.contiguous_format

    def __init__(self, run: Run, runtime: Runtime) -> None:
        self.recipe, self.runtime = run.recipe, runtime
        self.labels = torch.tensor(run.task.source.labels, device=runtime.device)
        # Sorted by path, because a task's own order depends on the labels.
        target = [sorted(run.task.target.paths)] if METHODS[run.method].target else []
        self.domains = [run.task.source.paths, *target]
        self.samplers = [
            EpochSampler(len(paths), run.recipe.batch_size, run.seed, domain)
            for domain, paths in enumerate(self.domains)
        ]

    def epoch(self, number: int, steps: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, counted from 0."""
        for sampler in self.samplers:
            sampler.epoch, sampler.steps = number, steps
        for (x_s, index), *target in zip(*map(self._draw, range(len(self.domains))), strict=True):
            yield Batch(x_s, self.labels[index], target[0][0] if target else None)

    def _draw(self, domain: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield a domain's batches in the order of its sampler, and their index."""
        raise NotImplementedError

    def once(self, paths: list[Path]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this process's share of images for evaluation, and their index in ``paths``.

        Unlike a DistributedSampler, this adds no padding.
        """
        raise NotImplementedError

    def _shares(self, paths: list[Path]) -> list[range]:
        """Return this process's share of images that are read once, in batches."""
        share = range(distributed.rank(), len(paths), distributed.processes())
        # Two training batches fit in memory even with gradients.
        size = 2 * self.recipe.batch_size // distributed.processes()
        return [share[start : start + size] for start in range(0, len(share), size)]


class ImageBatches(Batches):
    """Random crops; ``decoded`` is what :func:`images.decode` returned, other images are read."""

    def __init__(self, run: Run, runtime: Runtime, decoded: dict[Path, Tensor]) -> None:
        super().__init__(run, runtime)
        self.decoded = decoded
        self.layout = torch.channels_last if run.recipe.channels_last else torch.contiguous_format
        self.normalize = images.Normalize(run.recipe.preprocessing).to(runtime.device)

    def _crops(self, paths: list[Path], keys: Iterable[Sequence[Key]]) -> Iterator[list[Tensor]]:
        return Images(paths, self.recipe.preprocessing, self.decoded).batches(keys, self.runtime)

    def _draw(self, domain: int) -> Iterator[tuple[Tensor, Tensor]]:
        for x, flip, index in self._crops(self.domains[domain], self.samplers[domain]):
            x = torch.where(flip[:, None, None, None], x.flip(-1), x)
            yield self.normalize(x, self.layout), index

    def once(self, paths: list[Path]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield centre crops, on the device, and their index."""
        keys = ([(i, None) for i in share] for share in self._shares(paths))
        for crops, _, index in self._crops(paths, keys):
            yield self.normalize(crops), index


class FeatureBatches(Batches):
    """Features of a frozen network, ``(views, F)`` by image: a step takes one view of each."""

    def __init__(self, run: Run, runtime: Runtime, features: Mapping[Path, Tensor]) -> None:
        super().__init__(run, runtime)
        self.features = features
        self.views = [
            torch.stack([features[path] for path in paths]).to(runtime.device)
            for paths in self.domains
        ]

    def _draw(self, domain: int) -> Iterator[tuple[Tensor, Tensor]]:
        views = self.views[domain]
        for batch in self.samplers[domain]:
            index, seed = torch.tensor(batch).to(self.runtime.device).T
            yield views[index, seed % views.shape[1]].float(), index

    def once(self, paths: list[Path]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield first views, those of the centre crops, on the device, and their index."""
        for share in self._shares(paths):
            features = torch.stack([self.features[paths[i]][0] for i in share])
            yield features.to(self.runtime.device).float(), torch.tensor(share)
