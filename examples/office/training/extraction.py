"""Features of images, from a frozen network."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from office import distributed
from office.data import images, loading
from office.options import Recipe, Runtime
from office.training.batches import stream
from office.training.trainer import DTYPES


@torch.inference_mode()
def extract(
    network: nn.Module,
    paths: list[Path],
    views: int,
    recipe: Recipe,
    runtime: Runtime,
    cache: dict[Path, Tensor],
    first: int = 0,
) -> Iterator[np.ndarray]:
    """Yield the features of images, float16 ``(n, views, F)``, batch by batch, in order.

    Args:
        network: In evaluation mode, on the runtime's device.
        paths: The images.
        views: Views per image: the centre crop; its mirror image; from the third on, random crops,
            half of them mirrored, seeded by the image's number.
        recipe: Preprocessing, precision and batch size, which counts views.
        runtime: Where to run.
        cache: Images that are decoded already; others are read.
        first: Number of the first image.
    """
    device = runtime.device
    seeds = [None, *range(2, views)]  # the mirror image is not cropped again
    keys = [(i, seed and stream(first + i, seed)) for i in range(len(paths)) for seed in seeds]
    step = max(1, recipe.batch_size // views) * len(seeds)
    loader = loading.loader(
        loading.Images(paths, recipe.preprocessing, cache),
        device,
        runtime.workers,
        batch_sampler=[keys[i : i + step] for i in range(0, len(keys), step)],
    )
    normalize = images.Normalize(recipe.preprocessing).to(device)
    autocast = torch.autocast(
        device.type, DTYPES[recipe.precision], enabled=recipe.precision != "fp32"
    )
    for crops, flips, _ in loader:
        crops, flips = (t.to(device, non_blocking=True) for t in (crops, flips))
        crops = torch.where(flips[:, None, None, None], crops.flip(-1), crops)
        crops = crops.unflatten(0, (-1, len(seeds)))
        if views > 1:
            crops = torch.cat([crops[:, :1], crops[:, :1].flip(-1), crops[:, 1:]], 1)
        with autocast:
            features = network(normalize(crops.flatten(0, 1), torch.channels_last))
        yield features.half().unflatten(0, (-1, views)).cpu().numpy()
    with distributed.uninterrupted():  # Python drops exceptions raised while workers stop
        del loader
