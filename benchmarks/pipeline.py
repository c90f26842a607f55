"""Time that training waits for its images: the loop of train_office.py against its parts.

    python benchmarks/pipeline.py --root data/office_caltech10 --device cuda --precision bf16
    python benchmarks/pipeline.py --quick

"cached" is --cache ram or device, as given; "uncached" is --cache off. Each round measures every
row once, so a change in the machine's speed affects them all; a ratio compares two times from the
same round.
"""

import argparse
import itertools
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import timing
import torch
from office.console import UserError

# timing has put examples/ on the path.
from office.data import images, tasks
from office.data.layouts import DATASETS
from office.models import backbones
from office.options import WORKERS, Recipe, Runtime
from office.training.batches import Batch, ImageBatches
from office.training.runs import Run
from PIL import Image
from timing import console
from train_office import Network

import symloss

STEP = "training step, one fixed batch"


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
    per_round = args.steps * run.recipe.batch_size * 2
    title = (
        f"{args.dataset} {args.task}, {args.backbone}, batches of {args.batch_size} "
        f"per domain, {args.precision}; {args.workers} threads per domain for uncached images, "
        f"`--cache {args.cache}` for cached ones; median (quartiles) of {args.repeat} rounds of "
        f"{args.steps} steps"
    )
    timing.report(title, table(seconds, per_round), [], args.device, args.out)


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser; options as in train_office.py."""
    parser = timing.parser(__doc__, repeat=5)
    add, positive = parser.add_argument, console.positive
    add("--root", type=Path, metavar="DIR", help="folder of the benchmark")
    add("--dataset", default="office-caltech10", choices=[*DATASETS])
    add("--task", default="A2W", metavar="S2T")
    add("--backbone", default="resnet50", metavar="NAME")
    add("--weights", default="none", metavar="W", help="imagenet, none or FILE (default: none)")
    add("--batch-size", type=positive, default=32, metavar="N", help="per domain (default: 32)")
    add("--steps", type=positive, default=20, metavar="N", help="per round (default: 20)")
    add("--cache", choices=["ram", "device"], default="ram")
    add("--workers", type=console.whole(0), default=WORKERS, metavar="N")
    add("--precision", choices=["fp32", "bf16", "fp16"], default="fp32")
    return parser


def read_run(args: argparse.Namespace, out: Path) -> tuple[Run, Runtime]:
    """Return the run, and where to train it; decoded images are kept in ``out``."""
    task = tasks.load_task(args.dataset, args.root, args.task)
    smallest = min(len(domain.paths) for domain in (task.source, task.target))
    if args.batch_size > smallest:
        raise UserError(
            f"--batch-size must be at most {smallest} for {task.name}, got {args.batch_size}"
        )
    recipe = Recipe(
        args.dataset,
        backbone=args.backbone,
        weights=args.weights,
        batch_size=args.batch_size,
        precision=args.precision,
    )
    runtime = Runtime(args.device, workers=args.workers, cache=args.cache, out=out)
    return Run(recipe, task, "symnets", seed=0), runtime


def write_images(root: Path) -> None:
    """Write two domains with two categories of four images each."""
    for seed, place in enumerate(itertools.product(("amazon", "webcam"), ("bike", "mug"))):
        folder = root.joinpath(*place)
        folder.mkdir(parents=True)
        noise = np.random.default_rng(seed).integers(0, 256, (4, 48, 64, 3), dtype=np.uint8)
        for i, pixels in enumerate(noise):
            Image.fromarray(pixels).save(folder / f"{i}.jpg")


def build_step(run: Run, runtime: Runtime) -> Callable[[Batch], None]:
    """Return the training step of train_office.py, without schedules and logs."""
    recipe, device = run.recipe, runtime.device
    extractor = backbones.build_extractor(recipe.backbone, recipe.weights)
    head = symloss.SymmetricHead(extractor.num_features, len(run.task.categories))
    network = Network(extractor, head).to(device).to(memory_format=torch.channels_last)
    optimizers = [
        torch.optim.SGD(player.parameters(), lr=0.01, momentum=0.9, nesterov=True)
        for player in (extractor, head)
    ]
    step = symloss.TwoOptimizerStep(*optimizers)
    autocast = recipe.autocast(device)

    def take(batch: Batch) -> None:
        with autocast:
            source, target = network(batch.x_s, batch.x_t)
            losses = symloss.symnet_losses(source, batch.y_s, target)
        step(losses.total(lam=1.0))

    return take


def measure(run: Run, runtime: Runtime, steps: int, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each round, by row."""
    paths = [*run.task.source.paths, *run.task.target.paths]
    cache = images.decode(
        runtime.cache, paths, run.recipe.preprocessing, runtime.device, runtime.out
    )
    step = build_step(run, runtime)
    epochs = {
        "cached": ImageBatches(run, runtime, cache).epoch,
        "uncached": ImageBatches(run, runtime, {}).epoch,
    }
    fixed = next(epochs["cached"](0, 1))
    numbers = itertools.count()

    def loop(batches: Callable[[int, int], Iterable[Batch]]) -> None:
        for batch in batches(next(numbers), steps):
            step(batch)

    def pipeline(batches: Callable[[int, int], Iterable[Batch]]) -> None:
        for _ in batches(next(numbers), steps):
            pass

    rows = {STEP: lambda: loop(lambda _, steps: [fixed] * steps)}
    for part, call in (("whole loop", loop), ("input pipeline", pipeline)):
        for name, batches in epochs.items():
            rows[f"{part}, {name}"] = partial(call, batches)
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
