"""From domains to their features on the disk, made by a frozen network that training can reuse."""

import dataclasses
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from office import console, files
from office.console import visible
from office.data import features, hashes, images
from office.data.features import Extraction, Stored
from office.data.tasks import Task
from office.models import backbones, saved
from office.options import Frozen, Recipe, Runtime
from office.training.batches import Images, seed_of


def extract(tasks: Sequence[Task], recipe: Recipe, runtime: Runtime, views: int) -> None:
    """Write the missing features of tasks' domains, after checking all of them.

    The features go to the runtime's ``out``, below the name of the dataset. The batch size counts
    views: the centre crop; its mirror image; from the third on, random crops, half of them
    mirrored, seeded by the image's number.
    """
    network, folder = frozen_network(recipe), runtime.out / recipe.dataset
    files.try_writing(folder)
    with files.locked(folder):
        extractions = [*describe(tasks, recipe, views)]
        missing = [each for each in extractions if not features.is_written(folder, each)]
        images.find_depths({each.domain: each.images() for each in missing})
        paths = [path for each in missing for path in each.images()]
        cache = images.decode(
            runtime.cache, paths, recipe.preprocessing, runtime.device, runtime.out
        )
        network.eval().to(runtime.device).to(memory_format=torch.channels_last)
        for each in extractions:
            about = f"{each.domain}: already extracted"
            if each in missing:
                started, made = time.perf_counter(), []
                with console.bar(each.domain, len(each.paths)) as bar:
                    for values in batches(each, network, recipe, runtime, cache):
                        made.append(values)
                        bar.update(len(values))
                values = np.concatenate(made)
                features.write(folder, each, values)
                size = " x ".join(f"{n:,}" for n in values.shape)
                about = f"{each.domain}: {size} features in {time.perf_counter() - started:.0f} s"
            print(f"{about}, see {folder / each.domain}.npy", flush=True)


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


@torch.inference_mode()
def batches(
    extraction: Extraction,
    network: nn.Module,
    recipe: Recipe,
    runtime: Runtime,
    cache: dict[Path, Tensor],
) -> Iterator[np.ndarray]:
    """Yield the features of a domain's images, float16 ``(n, views, F)``, in order.

    The network is in evaluation mode on the runtime's device; images not in the cache are read.
    """
    paths, views = extraction.images(), extraction.views
    seeds = [None, *range(2, views)]  # the mirror image is not cropped again
    keys = [(i, seed and seed_of(i, seed)) for i in range(len(paths)) for seed in seeds]
    step = max(1, recipe.batch_size // views) * len(seeds)
    parts = (keys[i : i + step] for i in range(0, len(keys), step))
    normalize = images.Normalize(recipe.preprocessing).to(runtime.device)
    autocast = recipe.autocast(runtime.device)
    for crops, flips, _ in Images(paths, recipe.preprocessing, cache).batches(parts, runtime):
        crops = torch.where(flips[:, None, None, None], crops.flip(-1), crops)
        crops = crops.reshape(-1, len(seeds), *crops.shape[1:])
        if views > 1:
            crops = torch.cat([crops[:, :1], crops[:, :1].flip(-1), crops[:, 1:]], 1)
        with autocast:
            made = network(normalize(crops.flatten(0, 1), torch.channels_last))
        yield made.half().unflatten(0, (-1, views)).cpu().numpy()
