"""What would stop a run, tried in small before the first image is decoded."""

import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from office import distributed, files, models
from office.errors import UserError
from office.methods import METHODS, Network
from office.options import Machine, Recipe
from office.runs import Run

FILES = (
    "checkpoint.json",
    "checkpoint.pt",
    "features.npz",
    "inputs.csv",
    "log.jsonl",
    "model.pt",
    "predictions.csv",
    "result.json",
)


def check(runs: Sequence[Run], machine: Machine) -> None:
    """Try in small what runs of one recipe will do: compile, normalise batches, write their files.

    Raises:
        UserError: With one line on what would stop a run.
    """
    if not runs:
        return
    recipe = runs[0].recipe
    if recipe.compile:
        _try_compiler(machine.device)
    # A run seeds itself, so its numbers do not depend on this.
    extractor = models.build_extractor(
        recipe.backbone, recipe.weights, recipe.bottleneck, recipe.width
    )
    if recipe.batch_size == distributed.launched():
        _try_one_image(extractor, recipe)
    _try_writing(runs, machine.out, extractor)


def _try_compiler(device: torch.device) -> None:
    new = time.time()  # so that it is not in the compiler's cache
    try:
        torch.compile(lambda x: x.cos() * new)(torch.ones(2, device=device))
    except Exception as error:  # whatever a compiler may meet
        why = str(error).strip().partition("\n")[0]
        raise UserError(
            f"--compile does not work here: {type(error).__name__}: {why}; it needs a C++ "
            "compiler (and Triton on a GPU): install one, or leave --compile out"
        ) from None


def _try_one_image(extractor: nn.Module, recipe: Recipe) -> None:
    """Forward one image in training: batch norm needs several values of each channel."""
    side = recipe.preprocessing.crop
    shape = (recipe.width,) if recipe.frozen else (3, side, side)
    try:
        with torch.no_grad():
            extractor.train()(torch.zeros(1, *shape))
    except ValueError as error:
        where = "--bottleneck" if recipe.bottleneck else f"--backbone {recipe.backbone}"
        n = distributed.launched()
        each = f" for each of {n} processes" if n > 1 else ""
        raise UserError(
            f"--batch-size {recipe.batch_size} is one image of a domain{each}, and the batch norm "
            f"of {where} needs at least two ({error})"
        ) from None


def _try_writing(runs: Sequence[Run], out: Path, extractor: nn.Module) -> None:
    """Write where each run will, and see whether its files fit."""
    if str(out).encode("utf-8", "ignore").decode() != str(out):
        raise UserError(f"--out {out} is not UTF-8, which TensorBoard needs: choose another")
    needed, largest = 0, 0
    for run in runs:
        folder = run.folder(out)
        there = folder
        while not os.path.exists(there) and there != out:
            there = there.parent
        files.try_writing(there)
        files.try_writing(folder)
        blocked = [folder / name for name in FILES if (folder / name).is_dir()]
        if blocked:
            raise UserError(f"cannot write {blocked[0]}: it is a folder")
        old = sum(path.stat().st_size for path in map(folder.joinpath, FILES) if path.exists())
        sizes = _sizes(run, extractor)
        needed, largest = needed + max(0, sum(sizes) - old), max(largest, *sizes)
        for made in (folder, *folder.parents[:3]):
            with suppress(OSError):  # it is not empty
                made.rmdir()
    # A file is written beside the old one before it takes its place.
    needed, free = needed + largest, shutil.disk_usage(out).free
    if needed > free:
        size, left = (tqdm.format_sizeof(n, "B") for n in (needed, free))
        what = f"{len(runs)} runs" if len(runs) > 1 else "the run"
        raise UserError(f"{out} has {left} free, {what} will write {size} at most")


def _sizes(run: Run, extractor: nn.Module) -> tuple[int, int, int]:
    """Return the bytes of a run's checkpoint.pt, model.pt and features.npz, about."""
    task = run.task
    network = Network(extractor, METHODS[run.method], len(task.categories))
    weights = sum(p.nbytes for p in network.parameters())
    counts = [len(domain.paths) for domain in (task.source, task.target)]
    features = 2 * extractor.num_features * sum(counts)
    return 2 * weights, sum(p.nbytes for p in extractor.parameters()), features
