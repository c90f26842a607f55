"""From options to the runs to train and what they train on: images, or features of them."""

import math
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from tqdm import tqdm

from office import distributed
from office.console import UserError, visible
from office.data import features, hashes, images
from office.data.features import Stored
from office.data.hashes import check_images
from office.data.layouts import DATASETS
from office.data.tasks import Task, available_tasks, load_folders, load_task
from office.models import backbones
from office.options import Recipe, Runtime, Selection
from office.training import extraction
from office.training.batches import Batches, FeatureBatches, ImageBatches
from office.training.runs import Run, plan

EPOCHS, STEPS = 20, 1000  # at least, for --preset quick
NO_MEMORY = "out of memory|(can't|not enough|unable to) (allocate )?memory"  # CUDA's and the CPU's
VIEWS = 2  # of each image, for --preset quick: the centre crop and its mirror image


@dataclass(frozen=True)
class Plan:
    """Runs to report, those of them to train, and the batches of each."""

    runs: list[Run]
    to_train: list[Run]
    batches: Callable[[Run], Batches]


def load_tasks(dataset: str, selection: Selection, *, partial: bool = False) -> list[Task]:
    """Load the selected tasks; warn only in the first process.

    In ``partial`` adaptation a target may lack categories of its source.

    Raises:
        UserError: As :func:`load_task` or :func:`load_folders`.
    """
    with warnings.catch_warnings():
        if distributed.rank():
            warnings.simplefilter("ignore")
        source, target, unlabelled = selection.source, selection.target, selection.unlabelled
        if source and target:
            return [load_folders(source, target, partial=partial, unlabelled=unlabelled)]
        names = selection.tasks
        if "all" in names:
            names = DATASETS[dataset].tasks
            if selection.check:  # look at the domains that are there
                names = available_tasks(dataset, selection.root) or names
        return [load_task(dataset, selection.root, name, partial=partial) for name in names]


def from_images(recipe: Recipe, runtime: Runtime, selection: Selection) -> Plan:
    """Plan runs that train the whole network on images; with ``--check``, look at them and exit."""
    tasks = load_tasks(recipe.dataset, selection, partial=recipe.partial)
    if selection.check:
        sys.exit(0 if check_images(tasks) else 1)

    def planned() -> tuple[list[Run], list[Run]]:
        listings = hashes.listings(tasks, recipe.weights_file)
        return plan(tasks, listings, recipe, runtime, selection)

    runs, to_train = distributed.in_first(planned)
    if to_train:  # weights that do not fit are reported before the images are decoded
        backbones.build_extractor(recipe.backbone, recipe.weights, recipe.bottleneck)
    pairs = [(run.task.source, run.task.target) for run in to_train]
    domains = {domain.name: domain.paths for pair in pairs for domain in pair}
    bits = distributed.in_first(lambda: images.grey_bits(domains))
    decoded = images.decode(
        runtime.cache,
        [path for paths in domains.values() for path in paths],
        recipe.preprocessing,
        runtime.device,
        runtime.out,
        bits,
    )
    return Plan(runs, to_train, partial(ImageBatches, runtime=runtime, decoded=decoded, bits=bits))


def from_features(
    stored: Mapping[str, Stored], recipe: Recipe, runtime: Runtime, selection: Selection
) -> Plan:
    """Plan runs that train a bottleneck and a head on the features of a frozen network."""
    tasks = features.tasks(stored, recipe.dataset, selection.tasks, partial=recipe.partial)
    contents = {
        path: content
        for domain in stored.values()
        for path, content in zip(
            domain.extraction.images(), domain.extraction.contents, strict=True
        )
    }
    content = next(iter(stored.values())).extraction.weights_content
    weights = (recipe.weights, content) if content else None
    listings = {task.name: hashes.listing(task, contents, weights) for task in tasks}
    runs, to_train = distributed.in_first(lambda: plan(tasks, listings, recipe, runtime, selection))
    rows = {
        path: torch.from_numpy(row)
        for domain in stored.values()
        for path, row in zip(domain.extraction.images(), domain.features, strict=True)
    }
    return Plan(runs, to_train, partial(FeatureBatches, runtime=runtime, features=rows))


def quick(recipe: Recipe, runtime: Runtime, selection: Selection) -> Plan:
    """Extract features of two folders with a frozen network, and plan runs on them."""
    (task,) = load_tasks(recipe.dataset, selection, partial=recipe.partial)
    if selection.check:
        sys.exit(0 if check_images([task]) else 1)
    domains = (task.source, task.target)
    recipe = fitted(recipe, [len(domain.paths) for domain in domains])
    out = runtime.out / "features"
    extraction.extract([task], recipe, replace(runtime, out=out), VIEWS)
    by_file = features.read(out / recipe.dataset, [visible(domain.name) for domain in domains])
    stored = {domain.name: by_file[visible(domain.name)] for domain in domains}
    recipe = replace(recipe, frozen=extraction.frozen(stored))
    return from_features(stored, recipe, runtime, replace(selection, tasks=(task.name,)))


def fitted(recipe: Recipe, images: list[int]) -> Recipe:
    """Return a quick recipe for domains of so many images: smaller batches, enough epochs."""
    size = min(recipe.batch_size, *images)
    if size < recipe.batch_size:
        warnings.warn(
            f"--batch-size {recipe.batch_size} exceeds the smaller domain; using {size}",
            stacklevel=2,
        )
    epochs = recipe.epochs or max(EPOCHS, math.ceil(STEPS / (max(images) // size)))
    return replace(recipe, batch_size=size, epochs=epochs)


@contextmanager
def interruptions(run: Run, runtime: Runtime) -> Iterator[None]:
    """Say which checkpoint is left if the run in the block is stopped or lacks memory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or re.search(NO_MEMORY, str(error))):
            raise
        raise UserError(
            "out of memory: try a smaller --batch-size, --cache off or --precision bf16; finished "
            "epochs are kept for --resume with the same settings"
        ) from None
    except KeyboardInterrupt:
        if distributed.rank() == 0:
            tqdm.write(f"{run.title}: stopped; {run.checkpoint_left(runtime.out)}")
        raise
