"""From options to the runs to train and what they train on: images, or features of them."""

import itertools
import math
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from office import distributed, files
from office.console import UserError, visible
from office.data import features, hashes, images
from office.data.features import Stored
from office.data.hashes import check_images
from office.data.layouts import DATASETS
from office.data.tasks import Task, available_tasks, load_folders, load_task, shares_of
from office.methods import METHODS
from office.models import backbones
from office.options import Recipe, Runtime, Selection
from office.training import extraction
from office.training.batches import Batches, FeatureBatches, ImageBatches
from office.training.runs import Run

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
    """Load the selected tasks; with ``--check``, look at their images and exit.

    In ``partial`` adaptation a target may lack categories of its source.
    """
    with warnings.catch_warnings():
        if distributed.rank():
            warnings.simplefilter("ignore")
        source, target, unlabelled = selection.source, selection.target, selection.unlabelled
        if source and target:
            tasks = [load_folders(source, target, partial=partial, unlabelled=unlabelled)]
        else:
            names = selection.tasks
            if "all" in names:
                names = DATASETS[dataset].tasks
                if selection.check:  # look at the domains that are there
                    names = available_tasks(dataset, selection.root) or names
            tasks = [load_task(dataset, selection.root, name, partial=partial) for name in names]
    if selection.check:
        sys.exit(0 if check_images(tasks) else 1)
    return tasks


def from_images(recipe: Recipe, runtime: Runtime, selection: Selection) -> Plan:
    """Plan runs that train the whole network on images."""
    tasks = load_tasks(recipe.dataset, selection, partial=recipe.partial)
    listings = distributed.in_first(lambda: hashes.listings(tasks, recipe.weights_file))
    runs = planned(recipe, tasks, selection, listings)
    left = distributed.in_first(lambda: to_train(runs, runtime))
    if left:  # weights that do not fit are reported before the images are decoded
        backbones.build_extractor(recipe.backbone, recipe.weights, recipe.bottleneck)
    pairs = [(run.task.source, run.task.target) for run in left]
    domains = {domain.name: domain.paths for pair in pairs for domain in pair}
    images.find_depths(domains)
    paths = [path for paths in domains.values() for path in paths]
    decoded = images.decode(runtime.cache, paths, recipe.preprocessing, runtime.device, runtime.out)
    return Plan(runs, left, partial(ImageBatches, runtime=runtime, decoded=decoded))


def from_features(
    stored: Mapping[str, Stored], recipe: Recipe, runtime: Runtime, selection: Selection
) -> Plan:
    """Plan runs that train a bottleneck and a head on the features of a frozen network."""
    tasks = features.tasks(stored, recipe.dataset, selection.tasks, partial=recipe.partial)
    contents: dict[Path, hashes.Content] = {}
    rows: dict[Path, torch.Tensor] = {}
    for domain in stored.values():
        paths = domain.extraction.images()
        contents |= dict(zip(paths, domain.extraction.contents, strict=True))
        rows |= dict(zip(paths, map(torch.from_numpy, domain.features), strict=True))
    content = next(iter(stored.values())).extraction.weights_content
    weights = (recipe.weights, content) if content else None
    listings = {task.name: hashes.listing(task, contents, weights) for task in tasks}
    runs = planned(recipe, tasks, selection, listings)
    left = distributed.in_first(lambda: to_train(runs, runtime))
    return Plan(runs, left, partial(FeatureBatches, runtime=runtime, features=rows))


def quick(recipe: Recipe, runtime: Runtime, selection: Selection) -> Plan:
    """Extract features of two folders with a frozen network, and plan runs on them."""
    (task,) = load_tasks(recipe.dataset, selection, partial=recipe.partial)
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
    if size < 2:
        raise UserError(f"each domain must have at least two images, got {min(images)}")
    if size < recipe.batch_size:
        warnings.warn(
            f"batches of {recipe.batch_size} exceed the smaller domain; using {size}",
            stacklevel=2,
        )
    epochs = recipe.epochs or max(EPOCHS, math.ceil(STEPS / (max(images) // size)))
    return replace(recipe, batch_size=size, epochs=epochs)


def planned(
    recipe: Recipe, tasks: Sequence[Task], selection: Selection, listings: Mapping[str, str]
) -> list[Run]:
    """Return the selected runs; ``listings`` has each task's, by name."""
    # Seeds outermost, so that a stopped sweep has complete tables.
    return [
        Run(recipe, task, method, seed, listings[task.name])
        for seed, task, method in itertools.product(selection.seeds, tasks, selection.methods)
    ]


def to_train(runs: Sequence[Run], runtime: Runtime) -> list[Run]:
    """Return the runs that are not finished, after checking all of them; name the others."""
    for run in runs:
        check(run)
    finished = [run for run in runs if run.is_finished(runtime)]
    for run in finished:
        print(f"{run.title}: already finished, see {run.folder(runtime.out)}")
    files.try_writing(runtime.out)
    return [run for run in runs if run not in finished]


def check(run: Run) -> None:
    """Raise :class:`UserError` if a run's batches or shares do not fit; warn if they may not."""
    method, recipe, task = METHODS[run.method], run.recipe, run.task
    domains = (task.source, task.target)[: 1 + method.target]
    smallest = min(domains, key=lambda domain: len(domain.paths))
    size, k, processes = recipe.batch_size, len(task.categories), distributed.launched()
    if len(smallest.paths) < size:
        raise UserError(
            f"{smallest.name} has {len(smallest.paths)} images, fewer than one batch of "
            f"--batch-size {size}; use --batch-size {len(smallest.paths)} or less"
        )
    if size == processes:
        raise UserError(
            f"--batch-size {size} is one image per domain and process, but batch norm needs at "
            "least two"
        )
    if not method.balanced:
        return
    if not isinstance(recipe.prior, str):
        shares_of(recipe.prior, task.categories, task.source.labels or ())
    elif recipe.prior != "estimate" and (recipe.partial or task.lacking):
        lacks = f"lacks {', '.join(task.lacking)}" if task.lacking else "may lack categories"
        warnings.warn(
            f"{visible(task.target.name)} {lacks}, but {run.method} pulls the predictions towards "
            f"all {k} categories, which lowers accuracy here; use --prior estimate, or give the "
            "shares with --prior FILE",
            stacklevel=3,
        )
    if size < 2 * k:
        warnings.warn(
            f"{run.method} balances each batch, and --batch-size {size} is less than twice the {k} "
            "categories: chance decides how often each appears. Use larger batches or a --balance "
            f"below {recipe.balance:g}",
            stacklevel=3,
        )


@contextmanager
def interruptions(run: Run, runtime: Runtime) -> Iterator[None]:
    """Say which checkpoint is left if the run in the block is stopped or runs out of memory."""
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
