"""Does training wait for its images? The loop of train_office.py beside its parts.

    python benchmarks/pipeline.py --root data/office_caltech10 --device cuda --precision bf16
    python benchmarks/pipeline.py --quick

"cached" and "uncached" are --cache ram (or, with --cache device, that) and --cache off. Each round
measures every row once, so that a change of the machine's speed meets them all; a ratio is that of
two times of one round.
"""

import argparse
import itertools
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import timing
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
import train_office
from office import cache, data, training
from office.files import FileError
from office.methods import METHODS
from office.models import ModelError

STEP = "training step, one fixed batch"


class Silent:
    """A :class:`office.progress.Progress` that tells nothing."""

    def step(self) -> None:
        """Count one step."""

    def losses(self, step: int, scalars: dict[str, float]) -> None:
        """Take the losses of a step."""


def main(argv: list[str] | None = None) -> None:
    """Measure and print one table."""
    parser = build_parser()
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        if args.quick:
            args.dataset, args.task, args.root = "office-caltech10", "A2W", Path(folder)
            args.backbone, args.weights = "shufflenet_v2_x0_5", "none"
            args.batch_size, args.steps, args.rounds, args.workers = 4, 2, 2, 0
            write_images(args.root)
            warnings.filterwarnings("ignore", ".*published")
        try:
            text = report(args, *measure(parser, args))
        except (data.DataError, FileError, ModelError, training.RunError) as error:
            parser.error(str(error))
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; options as in train_office.py."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    positive = train_office.positive
    add = parser.add_argument
    add("--root", type=Path, metavar="DIR", help="folder of the benchmark")
    add("--dataset", default="office-caltech10", choices=[*data.DATASETS])
    add("--task", default="A2W", metavar="S2T")
    add("--method", default="symnets", choices=[*METHODS])
    add("--backbone", default="resnet50", metavar="NAME")
    add("--weights", default="none", metavar="W", help="imagenet, none or FILE (default: none)")
    add("--batch-size", type=positive, default=32, metavar="N", help="per domain (default: 32)")
    add("--steps", type=positive, default=20, metavar="N", help="per round (default: 20)")
    add("--rounds", type=positive, default=5, metavar="N", help="of all rows (default: 5)")
    add("--cache", choices=["ram", "device"], default="ram")
    default = train_office.build_parser().get_default
    add("--workers", type=int, default=default("workers"), metavar="N")
    add("--device", default=default("device"), metavar="D")
    add("--precision", choices=[*training.DTYPES], default="fp32")
    add("--quick", action="store_true", help="a few steps on small generated images")
    add("--out", type=Path, metavar="FILE", help="write the table there too")
    return parser


def write_images(root: Path) -> None:
    """Write two domains of two categories, four images each."""
    for seed, place in enumerate(itertools.product(("amazon", "webcam"), ("bike", "mug"))):
        folder = root.joinpath(*place)
        folder.mkdir(parents=True)
        noise = np.random.default_rng(seed).integers(0, 256, (4, 48, 64, 3), dtype=np.uint8)
        for i, pixels in enumerate(noise):
            Image.fromarray(pixels).save(folder / f"{i}.jpg")


def measure(
    parser: argparse.ArgumentParser, args: argparse.Namespace
) -> tuple[dict[str, list[float]], int, torch.device]:
    """Return the seconds of each round by row, the images of a round, and the device."""
    options = train_office.build_parser().parse_args(["--dataset", args.dataset])
    vars(options).update(vars(args))
    device = train_office.choose_device(parser, options)
    task = data.load_task(args.dataset, args.root, args.task)
    smallest = min(len(domain.paths) for domain in (task.source, task.target))
    if args.batch_size > smallest:
        parser.error(
            f"--batch-size must be at most {smallest} for {task.name}, got {args.batch_size}"
        )
    images = cache.fill(args.cache, [task], device)
    if not images:
        parser.error("the images do not fit into the memory")

    def build(cached: dict[Path, torch.Tensor]) -> training.Trainer:
        trainer = training.Trainer(
            options,
            device,
            METHODS[args.method],
            len(task.categories),
            task.source,
            task.target.paths,
            seed=0,
            cache=cached,
        )
        trainer.per_epoch = args.steps
        trainer.total = 5 * args.steps * (args.rounds + 1)
        return trainer

    trainer = build(images)
    inputs = {"cached": trainer.inputs, "uncached": build({}).inputs}
    fixed = next(trainer.inputs(0, 1))
    epochs = itertools.count()

    def loop(source: Callable[[int, int], Iterator]) -> None:
        trainer.inputs = source
        trainer.epoch(next(epochs), Silent())

    def pipeline(source: Callable[[int, int], Iterator]) -> None:
        for _ in source(next(epochs), args.steps):
            pass

    rows = {STEP: lambda: loop(lambda _, steps: itertools.repeat(fixed, steps))}
    for part, run in (("whole loop", loop), ("input pipeline", pipeline)):
        for name, source in inputs.items():
            rows[f"{part}, {name}"] = partial(run, source)
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    for i in range(args.rounds + 1):
        # Forwards and backwards in turn, so that no row always follows the same one.
        for name, run in [*rows.items()][:: 1 if i % 2 else -1]:
            start = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if i:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
    return seconds, args.steps * trainer.images_per_step, device


def report(
    args: argparse.Namespace, seconds: dict[str, list[float]], images: int, device: torch.device
) -> str:
    """Return the Markdown table and the line that names the machine."""
    lines = ["| | images/s | time / step alone | waits for data |", "| --- | ---: | ---: | ---: |"]
    for name in seconds:
        rates = [images / t for t in seconds[name]]
        ratios = [t / alone for t, alone in zip(seconds[name], seconds[STEP], strict=True)]
        loop = name.startswith("whole")
        wait = f"{max(0, 100 - 100 / median(ratios)):.1f} %" if loop else ""
        cells = [name, spread(rates, timing.three_digits)]
        cells += ["1" if name == STEP else spread(ratios, "{:.3f}".format), wait]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(
        [
            *lines,
            "",
            f"{args.dataset} {args.task}, {args.method}, {args.backbone}, batches of "
            f"{args.batch_size} per domain, {args.precision}; {args.workers} workers per domain "
            f"for uncached images, `--cache {args.cache}` for cached ones; median (least to most) "
            f"of {args.rounds} rounds of {args.steps} steps.",
            "",
            timing.machine(device),
        ]
    )


def spread(values: list[float], form: Callable[[float], str]) -> str:
    """Return the median and the range."""
    middle, least, most = (form(f(values)) for f in (median, min, max))
    return f"{middle} ({least} to {most})"


if __name__ == "__main__":
    main()
