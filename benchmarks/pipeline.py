"""Does training wait for its images? The loop of train_office.py compared with its parts.

    python benchmarks/pipeline.py --root data/office_caltech10 --device cuda --precision bf16
    python benchmarks/pipeline.py --quick

"cached" is --cache ram or device, as given; "uncached" is --cache off. Each round measures every
row once, so that a change in the machine's speed affects them all; a ratio compares two times from
the same round.
"""

import argparse
import itertools
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import timing
import torch
from office.console import UserError

# timing has put examples/ on the path.
from office.data import datasets, images
from office.options import WORKERS, Recipe, Runtime
from office.training import methods
from office.training import trainer as training
from office.training.runs import Run
from PIL import Image
from timing import console

STEP = "training step, one fixed batch"
Batches = Iterator[tuple[list[torch.Tensor], torch.Tensor]]


def main(argv: list[str] | None = None) -> None:
    """Measure and print one table."""
    parser = build_parser()
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        if args.quick:
            args.dataset, args.task, args.root = "office-caltech10", "A2W", Path(folder)
            args.backbone, args.weights = "shufflenet_v2_x0_5", "none"
            args.batch_size, args.steps, args.repeat, args.workers = 4, 2, 2, 0
            write_images(args.root)
            warnings.filterwarnings("ignore", ".*published")
        try:
            run, runtime = read_run(args, Path(folder))
            seconds = measure(run, runtime, args.steps, args.repeat)
        except UserError as error:
            parser.error(str(error))
    per_round = args.steps * run.recipe.batch_size * (1 + methods.METHODS[run.method].target)
    title = (
        f"{args.dataset} {args.task}, {args.method}, {args.backbone}, batches of {args.batch_size} "
        f"per domain, {args.precision}; {args.workers} workers per domain for uncached images, "
        f"`--cache {args.cache}` for cached ones; median (quartiles) of {args.repeat} rounds of "
        f"{args.steps} steps"
    )
    timing.report(title, table(seconds, per_round), [], args.device, args.out)


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser; options as in train_office.py."""
    parser = timing.parser(__doc__, repeat=5)
    add, positive = parser.add_argument, console.positive
    add("--root", type=Path, metavar="DIR", help="folder of the benchmark")
    add("--dataset", default="office-caltech10", choices=[*datasets.DATASETS])
    add("--task", default="A2W", metavar="S2T")
    add("--method", default="symnets", choices=[*methods.METHODS])
    add("--backbone", default="resnet50", metavar="NAME")
    add("--weights", default="none", metavar="W", help="imagenet, none or FILE (default: none)")
    add("--batch-size", type=positive, default=32, metavar="N", help="per domain (default: 32)")
    add("--steps", type=positive, default=20, metavar="N", help="per round (default: 20)")
    add("--cache", choices=["ram", "device"], default="ram")
    add("--workers", type=console.whole(0), default=WORKERS, metavar="N")
    add("--precision", choices=[*training.DTYPES], default="fp32")
    return parser


def read_run(args: argparse.Namespace, out: Path) -> tuple[Run, Runtime]:
    """Return what to train, and where; decoded images lie in ``out``."""
    task = datasets.load_task(args.dataset, args.root, args.task)
    smallest = min(len(domain.paths) for domain in (task.source, task.target))
    if args.batch_size > smallest:
        raise UserError(
            f"--batch-size must be at most {smallest} for {task.name}, got {args.batch_size}"
        )
    recipe = Recipe(
        args.dataset,
        backbone=args.backbone,
        weights=args.weights,
        # At most five rows train, in every round and one more to warm up.
        max_steps=5 * args.steps * (args.repeat + 1),
        batch_size=args.batch_size,
        precision=args.precision,
    )
    runtime = Runtime(args.device, workers=args.workers, cache=args.cache, out=out)
    return Run(recipe, task, args.method, seed=0), runtime


def write_images(root: Path) -> None:
    """Write two domains with two categories of four images each."""
    for seed, place in enumerate(itertools.product(("amazon", "webcam"), ("bike", "mug"))):
        folder = root.joinpath(*place)
        folder.mkdir(parents=True)
        noise = np.random.default_rng(seed).integers(0, 256, (4, 48, 64, 3), dtype=np.uint8)
        for i, pixels in enumerate(noise):
            Image.fromarray(pixels).save(folder / f"{i}.jpg")


def measure(run: Run, runtime: Runtime, steps: int, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each round, by row."""
    paths = [*run.task.source.paths, *run.task.target.paths]
    cache = images.decode(
        runtime.cache, paths, run.recipe.preprocessing, runtime.device, runtime.out
    )
    trainer = training.Trainer(run, runtime, cache)
    inputs = {
        "cached": trainer.inputs.epoch,
        "uncached": training.Inputs(run, runtime, {}).epoch,
    }
    fixed = next(trainer.inputs.epoch(0, 1))
    epochs, done = itertools.count(), itertools.count(step=steps)

    def loop(source: Callable[[int, int], Batches]) -> None:
        trainer.train(source(next(epochs), steps), next(done), steps)

    def pipeline(source: Callable[[int, int], Batches]) -> None:
        for _ in source(next(epochs), steps):
            pass

    rows = {STEP: lambda: loop(lambda _, steps: iter([fixed] * steps))}
    for part, call in (("whole loop", loop), ("input pipeline", pipeline)):
        for name, source in inputs.items():
            rows[f"{part}, {name}"] = partial(call, source)
    return interleave(rows, rounds, runtime.device)


def interleave(
    rows: dict[str, Callable[[], None]], rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Time every row once a round, in alternating order, after a warm-up round."""
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    wait = timing.waiter(device)
    for i in range(rounds + 1):
        # So that no row always follows the same one.
        for name, call in [*rows.items()][:: 1 if i % 2 else -1]:
            start = time.perf_counter()
            call()
            wait()
            if i:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def table(seconds: dict[str, list[float]], images_per_round: int) -> list[list[str]]:
    """Return header and rows: images per second, time relative to the step, share of waiting."""
    rows = [["", "images/s", "time / step alone", "waits for data"]]
    for name, samples in seconds.items():
        ratios = [t / alone for t, alone in zip(samples, seconds[STEP], strict=True)]
        waits = f"{max(0, 100 - 100 / timing.median(ratios)):.1f} %"
        rows.append(
            [
                name,
                timing.spread(images_per_round / t for t in samples),
                "1" if name == STEP else timing.spread(ratios),
                waits if name.startswith("whole loop") else "",
            ]
        )
    return rows


if __name__ == "__main__":
    main()
