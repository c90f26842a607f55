"""The batches of a run: which images, crops or features at which step, all set by the seed."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import v2

from office import distributed
from office.data import images
from office.data.images import Preprocessing, resized
from office.methods import METHODS
from office.options import Runtime
from office.training.runs import Run

Crop: TypeAlias = tuple[Tensor, bool, int]  # pixels, whether to flip them, the image's index


class Batch(NamedTuple):
    """One step's source images (or features) with labels, and its target ones, on the device.

    ``x_t`` is None if the method trains on the source alone.
    """

    x_s: Tensor
    y_s: Tensor
    x_t: Tensor | None


class Images(Dataset[Crop]):
    """Crops by (index, seed), without labels: only the seed sets crop and flip, in any worker.

    Args:
        paths: Image files.
        preprocessing: The sizes of images and crops.
        cache: Images that are decoded already; others are read.
        bits: Depths of grey, from :func:`images.grey_bits`.

    Returns:
        ``(crop, flip, index)``: a random uint8 crop ``(3, crop, crop)`` and whether to flip it;
        for the seed ``None``, the centre crop, not flipped.
    """

    def __init__(
        self,
        paths: list[Path],
        preprocessing: Preprocessing,
        cache: dict[Path, Tensor],
        bits: Mapping[Path, int] = images.AS_EACH,
    ) -> None:
        self.paths, self.preprocessing, self.cache, self.bits = paths, preprocessing, cache, bits

    def __getitem__(self, key: tuple[int, int | None]) -> Crop:
        """Return ``(crop, flip, index)``; :class:`UserError` names an unreadable file."""
        index, seed = key
        path = self.paths[index]
        image = self.cache.get(path)
        if image is None:
            image = resized(path, self.preprocessing, self.bits.get(path))
        side = self.preprocessing.crop
        if seed is None:
            return v2.functional.center_crop(image, [side]), False, index
        generator = torch.Generator().manual_seed(seed)
        top, left = (
            torch.randint(length - side + 1, (), generator=generator).item()
            for length in image.shape[1:]
        )
        flip = torch.rand((), generator=generator).item() < 0.5
        return image[:, top : top + side, left : left + side], flip, index


class _Loader(DataLoader[Crop]):
    def __iter__(self) -> Any:
        """Yield batches; Ctrl-C waits while workers start, and until a batch on its way has come.

        Torch would print a traceback here, and a worker whose batch is not taken in the worker.
        """
        with distributed.uninterrupted():
            batches = super().__iter__()
        while True:
            with distributed.uninterrupted():
                batch = next(batches, None)
            if batch is None:
                return
            yield batch


def crop_loader(
    images: Images, device: torch.device, workers: int, **batches: Any
) -> DataLoader[Crop]:
    """Return a loader of batches for a device; cached images need no worker processes.

    Drop it in :func:`distributed.uninterrupted`: its workers then stop, and Python ignores
    exceptions in a destructor, Ctrl-C's too.
    """
    first = next(iter(images.cache.values()), None)
    workers = 0 if images.cache else workers
    return _Loader(
        images,
        **batches,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda" and (first is None or not first.is_cuda),
        generator=torch.Generator(),
        worker_init_fn=distributed.leave_group,
    )


def seed_of(*key: int) -> int:
    """Return the seed of an independent random stream for each key."""
    entropy = (len(key), *key)  # numpy treats (1,) and (1, 0) as the same
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)


class EpochSampler(Sampler[list[tuple[int, int]]]):
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


def _domains(run: Run) -> list[list[Path]]:
    """Return the paths of the source and, if the method trains on it, of the target."""
    # Sorted by path, because a task's own order depends on the labels.
    target = [sorted(run.task.target.paths)] if METHODS[run.method].target else []
    return [run.task.source.paths, *target]


def _samplers(run: Run) -> list[EpochSampler]:
    return [
        EpochSampler(len(paths), run.recipe.batch_size, run.seed, domain)
        for domain, paths in enumerate(_domains(run))
    ]


def _share(paths: list[Path]) -> range:
    """Return this process's share of images that are read once."""
    return range(distributed.rank(), len(paths), distributed.processes())


class ImageBatches:
    """Batches of random crops of the source's images and of the target's, without its labels.

    Args:
        run: Gives the images, the batch size and the seed.
        runtime: Gives the device and the number of workers.
        decoded: What :func:`images.decode` returned; other images are read.
        bits: Depths of grey, from :func:`images.grey_bits`.
    """

    def __init__(
        self,
        run: Run,
        runtime: Runtime,
        decoded: dict[Path, Tensor],
        bits: Mapping[Path, int] = images.AS_EACH,
    ) -> None:
        self.recipe, self.runtime, self.decoded, self.bits = run.recipe, runtime, decoded, bits
        self.layout = torch.channels_last if run.recipe.channels_last else torch.contiguous_format
        self.labels = torch.tensor(run.task.source.labels, device=runtime.device)
        self.normalize = images.Normalize(run.recipe.preprocessing).to(runtime.device)
        self.samplers = _samplers(run)
        self.loaders = [
            crop_loader(
                Images(paths, run.recipe.preprocessing, decoded, bits),
                runtime.device,
                runtime.workers,
                batch_sampler=sampler,
            )
            for paths, sampler in zip(_domains(run), self.samplers, strict=True)
        ]

    def epoch(self, number: int, steps: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, counted from 0."""
        for sampler in self.samplers:
            sampler.epoch, sampler.steps = number, steps
        for domains in zip(*self.loaders, strict=True):
            crops, flips, indices = (
                [tensor.to(self.runtime.device, non_blocking=True) for tensor in tensors]
                for tensors in zip(*domains, strict=True)
            )
            x_s, *x_t = (
                self.normalize(torch.where(flip[:, None, None, None], x.flip(-1), x), self.layout)
                for x, flip in zip(crops, flips, strict=True)
            )
            yield Batch(x_s, self.labels[indices[0]], x_t[0] if x_t else None)

    def once(self, paths: list[Path]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this process's share of centre crops, on the device, and their index in ``paths``.

        Unlike a DistributedSampler, this adds no padding.
        """
        loader = crop_loader(
            Images(paths, self.recipe.preprocessing, self.decoded, self.bits),
            self.runtime.device,
            self.runtime.workers,
            # Two training batches fit in memory even with gradients.
            batch_size=2 * self.recipe.batch_size // distributed.processes(),
            sampler=[(i, None) for i in _share(paths)],
        )
        for crops, _, index in loader:
            yield self.normalize(crops.to(self.runtime.device, non_blocking=True)), index
        with distributed.uninterrupted():  # Python drops exceptions raised while workers stop
            del loader


class FeatureBatches:
    """The same for features of a frozen network: each step takes one view of each image.

    Args:
        run: Gives the images, the batch size and the seed.
        runtime: Gives the device.
        features: Features ``(views, F)`` by image; the first view is the centre crop's.
    """

    layout = torch.contiguous_format

    def __init__(self, run: Run, runtime: Runtime, features: Mapping[Path, Tensor]) -> None:
        self.batch_size, self.device, self.features = (
            run.recipe.batch_size,
            runtime.device,
            features,
        )
        self.labels = torch.tensor(run.task.source.labels, device=runtime.device)
        self.samplers = _samplers(run)
        self.domains = [
            torch.stack([features[path] for path in paths]).to(runtime.device)
            for paths in _domains(run)
        ]

    def epoch(self, number: int, steps: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, counted from 0."""
        for sampler in self.samplers:
            sampler.epoch, sampler.steps = number, steps
        for batches in zip(*self.samplers, strict=True):
            pairs = [torch.tensor(batch).to(self.device) for batch in batches]
            x_s, *x_t = (
                views[pair[:, 0], pair[:, 1] % views.shape[1]].float()
                for views, pair in zip(self.domains, pairs, strict=True)
            )
            yield Batch(x_s, self.labels[pairs[0][:, 0]], x_t[0] if x_t else None)

    def once(self, paths: list[Path]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield first views, on the device, and their index in ``paths``, as for images."""
        share, size = _share(paths), 2 * self.batch_size
        for start in range(0, len(share), size):
            index = share[start : start + size]
            features = torch.stack([self.features[paths[i]][0] for i in index])
            yield features.to(self.device).float(), torch.tensor(index)


Batches: TypeAlias = ImageBatches | FeatureBatches
