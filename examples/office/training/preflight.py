"""What would stop a run, tried on a small scale before the first image is decoded."""

import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from office import distributed, files
from office.console import UserError
from office.models import backbones
from office.options import Recipe, Runtime
from office.training.methods import METHODS, Network
from office.training.runs import Run

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


def check(runs: Sequence[Run], runtime: Runtime) -> None:
    """Try what runs of one recipe will do: compile, normalise batches, write their files.

    Raises:
        UserError: If something would stop a run, in one line.
    """
    if not runs:
        return
    recipe = runs[0].recipe
    if recipe.compile:
        _try_compiler(runtime.device)
    # Runs set their own seeds, so this does not change their numbers.
    extractor = backbones.build_extractor(
        recipe.backbone, recipe.weights, recipe.bottleneck, recipe.width
    )
    if recipe.batch_size == distributed.launched():
        _try_one_image(extractor, recipe)
    _try_writing(runs, runtime.out, extractor)


def _try_compiler(device: torch.device) -> None:
    new = time.time()  # so that nothing is in the compiler's cache
    try:
        torch.compile(lambda x: x.cos() * new)(torch.ones(2, device=device))
    except Exception as error:  # compilers raise nearly anything
        why = str(error).strip().partition("\n")[0]
        raise UserError(
            f"--compile does not work here: {type(error).__name__}: {why}; it needs a C++ "
            "compiler (and Triton on a GPU): install one, or drop --compile"
        ) from None


def _try_one_image(extractor: nn.Module, recipe: Recipe) -> None:
    """Forward one image in training mode: batch norm needs several values per channel."""
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
            f"--batch-size {recipe.batch_size} is one image per domain{each}, but the batch norm "
            f"of {where} needs at least two ({error})"
        ) from None


def _try_writing(runs: Sequence[Run], out: Path, extractor: nn.Module) -> None:
    """Write where each run will write, and check that its files fit."""
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
    # A file is written beside the old one before it replaces it.
    needed, free = needed + largest, shutil.disk_usage(out).free
    if needed > free:
        size, left = (tqdm.format_sizeof(n, "B") for n in (needed, free))
        what = f"{len(runs)} runs" if len(runs) > 1 else "the run"
        raise UserError(f"{out} has {left} free, but {what} may write up to {size}")


def _sizes(run: Run, extractor: nn.Module) -> tuple[int, int, int]:
    """Return the approximate bytes of a run's checkpoint.pt, model.pt and features.npz."""
    task = run.task
    network = Network(extractor, METHODS[run.method], len(task.categories))
    weights = sum(p.nbytes for p in network.parameters())
    counts = [len(domain.paths) for domain in (task.source, task.target)]
    features = 2 * extractor.num_features * sum(counts)
    return 2 * weights, sum(p.nbytes for p in extractor.parameters()), features
