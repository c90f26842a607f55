"""Crops of images, each set by a seed, and their batches."""

from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from office import distributed
from office.data.images import Preprocessing, resized

Crop: TypeAlias = tuple[Tensor, bool, int]  # pixels, whether to flip them, the image's index


class Images(Dataset[Crop]):
    """Crops by (index, seed), without labels: only the seed sets crop and flip, in any worker.

    Args:
        paths: Image files.
        preprocessing: The sizes of images and crops.
        cache: Images that are decoded already; others are read.

    Returns:
        ``(crop, flip, index)``: a random uint8 crop ``(3, crop, crop)`` and whether to flip it;
        for the seed ``None``, the centre crop, not flipped.
    """

    def __init__(
        self, paths: list[Path], preprocessing: Preprocessing, cache: dict[Path, Tensor]
    ) -> None:
        self.paths, self.preprocessing, self.cache = paths, preprocessing, cache

    def __getitem__(self, key: tuple[int, int | None]) -> Crop:
        """Return ``(crop, flip, index)``; :class:`UserError` names an unreadable file."""
        index, seed = key
        image = self.cache.get(self.paths[index])
        if image is None:
            image = resized(self.paths[index], self.preprocessing)
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
        # Interrupted while starting its workers, torch's iterator would print a traceback.
        with distributed.uninterrupted():
            return super().__iter__()


def loader(images: Images, device: torch.device, workers: int, **batches: Any) -> DataLoader[Crop]:
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
