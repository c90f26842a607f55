"""From domains to their features on the disk, made by a frozen network that training can reuse."""

import dataclasses
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from office import console, distributed, files
from office.console import visible
from office.data import hashes, images
from office.data.features import Extraction, Store, Stored
from office.data.tasks import Task
from office.models import backbones, saved
from office.options import Frozen, Recipe, Runtime
from office.training.batches import Images, crop_loader, seed_of


def extract(tasks: Sequence[Task], recipe: Recipe, runtime: Runtime, views: int) -> None:
    """Write the missing features of tasks' domains, all checked before the first is begun.

    The features go to the runtime's ``out``, below the name of the dataset. The batch size counts
    views: the centre crop; its mirror image; from the third on, random crops, half of them
    mirrored, seeded by the image's number.
    """
    network, folder = frozen_network(recipe), runtime.out / recipe.dataset
    files.try_writing(folder)
    with files.locked(folder):
        stores = [
            Store(folder, extraction, network.num_features)
            for extraction in describe(tasks, recipe, views)
        ]
        missing = {store: store.extraction.images() for store in stores if not store.finished}
        bits = images.grey_bits(
            {store.extraction.domain: paths for store, paths in missing.items()}
        )
        left = [path for store, paths in missing.items() for path in paths[store.done :]]
        preprocessing, out, device = recipe.preprocessing, runtime.out, runtime.device
        cache = images.decode(runtime.cache, left, preprocessing, device, out, bits)
        network.eval().to(device).to(memory_format=torch.channels_last)
        for store in stores:
            if store.finished:
                print(f"{store.extraction.domain}: already extracted, see {store.path}", flush=True)
            else:
                _extract(store, network, recipe, runtime, cache, bits)


def frozen_network(recipe: Recipe) -> backbones.Extractor:
    """Build the network that makes a recipe's features; random weights are the same every time."""
    torch.manual_seed(0)
    return backbones.build_extractor(recipe.backbone, recipe.weights)


def frozen(stored: Mapping[str, Stored]) -> Frozen:
    """Return what a recipe records about the features, the same in all domains."""
    one = next(iter(stored.values()))
    return Frozen(one.features.shape[2], one.extraction.views, one.extraction.precision)


def put_backbone(folder: Path, recipe: Recipe) -> None:
    """Put the network before the features into a run's model.pt, which can then predict images."""
    model = saved.read_model(folder / "model.pt")
    if model.frozen:
        model.extractor.backbone = frozen_network(recipe).backbone
        saved.write_model(folder, dataclasses.replace(model, frozen=None))


def describe(tasks: Sequence[Task], recipe: Recipe, views: int) -> Iterator[Extraction]:
    """Yield what to extract of each domain, with a hash of each file."""
    domains = {
        domain.name: (domain, task.categories)
        for task in tasks
        for domain in (task.source, task.target)
    }
    weights = recipe.weights_file
    paths = [path for domain, _ in domains.values() for path in domain.paths]
    contents = hashes.hash_files([*paths, *filter(None, [weights])])
    for task in tasks:
        hashes.warn_about_copies(task, contents)
    for domain, categories in domains.values():
        folder = Path(os.path.commonpath([path.parent for path in domain.paths]))
        yield Extraction(
            dataset=recipe.dataset,
            domain=visible(domain.name),
            backbone=recipe.backbone,
            weights=weights.name if weights else recipe.weights,
            weights_content=contents[weights] if weights else None,
            preprocessing=recipe.preprocessing,
            precision=recipe.precision,
            views=views,
            categories=categories if domain.labels else [],
            labels=domain.labels,
            folder=str(folder.absolute()),
            paths=[path.relative_to(folder).as_posix() for path in domain.paths],
            contents=[contents[path] for path in domain.paths],
        )


def _extract(
    store: Store,
    network: nn.Module,
    recipe: Recipe,
    runtime: Runtime,
    cache: dict[Path, Tensor],
    bits: Mapping[Path, int],
) -> None:
    domain, total, begun = store.extraction.domain, store.shape[0], store.done
    started = time.perf_counter()
    with console.bar(domain, total, begun) as bar:
        try:
            for features in batches(store.extraction, begun, network, recipe, runtime, cache, bits):
                store.add(features)
                bar.update(len(features))
        except KeyboardInterrupt:
            tqdm.write(
                f"{domain}: stopped after {store.done:,} of {total:,} images; run the same "
                "command to continue"
            )
            raise
    store.finish()
    seconds = time.perf_counter() - started
    size = " x ".join(f"{n:,}" for n in store.shape)
    speed = f"{seconds:.0f} s, {(total - begun) / seconds:.1f} images/s"
    print(f"{domain}: {size} features in {speed}, see {store.path}", flush=True)


@torch.inference_mode()
def batches(
    extraction: Extraction,
    first: int,
    network: nn.Module,
    recipe: Recipe,
    runtime: Runtime,
    cache: dict[Path, Tensor],
    bits: Mapping[Path, int] = images.AS_EACH,
) -> Iterator[np.ndarray]:
    """Yield the features of images from number ``first`` on, float16 ``(n, views, F)``, in order.

    The network is in evaluation mode on the runtime's device; images not in the cache are read.
    """
    device, paths, views = runtime.device, extraction.images(), extraction.views
    seeds = [None, *range(2, views)]  # the mirror image is not cropped again
    keys = [(i, seed and seed_of(i, seed)) for i in range(first, len(paths)) for seed in seeds]
    step = max(1, recipe.batch_size // views) * len(seeds)
    loader = crop_loader(
        Images(paths, recipe.preprocessing, cache, bits),
        device,
        runtime.workers,
        [keys[i : i + step] for i in range(0, len(keys), step)],
    )
    normalize = images.Normalize(recipe.preprocessing).to(device)
    autocast = recipe.autocast(device)
    for crops, flips, _ in loader:
        crops, flips = (t.to(device, non_blocking=True) for t in (crops, flips))
        crops = torch.where(flips[:, None, None, None], crops.flip(-1), crops)
        crops = crops.reshape(-1, len(seeds), *crops.shape[1:])
        if views > 1:
            crops = torch.cat([crops[:, :1], crops[:, :1].flip(-1), crops[:, 1:]], 1)
        with autocast:
            features = network(normalize(crops.flatten(0, 1), torch.channels_last))
        yield features.half().unflatten(0, (-1, views)).cpu().numpy()
    with distributed.uninterrupted():  # Python drops exceptions raised while workers stop
        del loader
