"""Predict category and confidence of images with a model that train_office.py saved.

    python examples/predict.py runs/office31/A2W/symnets/seed0/model.pt photo.jpg folder/ more/*.jpg
    python examples/predict.py MODEL folder/ --top 3 --csv predictions.csv
    python examples/predict.py MODEL --export model.pt2

Unreadable images are named on stderr and skipped, and the exit code is then 1.
"""

import argparse
import csv
import io
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import torch
from office import console, files
from office.console import UserError
from office.data import folders, images
from office.models import saved
from torch import Tensor

# An image with its most likely categories and their probabilities.
Row: TypeAlias = tuple[Path, list[tuple[str, float]]]


def main(argv: Sequence[str] | None = None) -> None:
    """Print path, category and confidence of each image, or export the model.

    Raises:
        SystemExit: 1 if an image could not be read, 2 if nothing can be predicted.
    """
    parser = build_parser()
    args = parser.parse_args(argv)
    if not args.images and not args.export:
        parser.error("give images, or --export FILE")
    if models := [str(path) for path in args.images if path.suffix == ".pt"]:
        parser.error(f"name one model, got {args.model} and {', '.join(models)}")
    failed: list[str] = []
    try:
        model = saved.read_model(args.model)
        if model.frozen:
            raise UserError(
                f"{args.model} was trained on features of {model.backbone}; it cannot read images"
            )
        if args.export:
            print(saved.export(model, args.export))
        prepared = load(args.images, images.eval_transform(model.preprocessing), failed)
        rows = predict(model, prepared, args.top, args.batch_size, args.device)
        if args.csv:
            write_table(args.csv, rows, args.top)
        else:
            for path, best in rows:
                cells = [f"{category}\t{confidence:.3f}" for category, confidence in best]
                print(path, *cells, sep="\t", flush=True)
    except UserError as error:
        parser.error(str(error))
    if failed:
        sys.exit(1)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, count = parser.add_argument, console.positive
    either = "an image, or a folder, searched at any depth"
    ranks = "show the N most likely categories (default: 1)"
    program = "write the model as FILE.pt2 (torch.export) or FILE.onnx, to run without symloss"
    add("model", type=Path, help="a run's model.pt")
    add("images", nargs="*", type=Path, metavar="image", help=either)
    add("--top", type=count, default=1, metavar="N", help=ranks)
    add("--csv", type=Path, metavar="FILE", help="write a table to FILE instead of printing")
    add("--batch-size", type=count, default=32, metavar="N", help="images at a time (default: 32)")
    add("--device", type=console.device, default="cpu", metavar="D", help="default: cpu")
    add("--export", type=Path, metavar="FILE", help=program)
    return parser


def find(given: Path) -> list[Path]:
    """Return an image, or all images in a folder at any depth; report skipped ones.

    Raises:
        UserError: If a folder contains no image.
    """
    if not given.is_dir():
        return [given]
    contents = folders.look_below(given)
    unread = [item for item in contents.skipped if folders.is_image(item.path)]
    if unread:
        print(folders.summary(str(given), unread), file=sys.stderr, flush=True)
    if not contents.images:
        raise UserError(f"no images in the folder {given}")
    return contents.images


def load(
    given: Iterable[Path], prepare: images.Transform, failed: list[str]
) -> Iterator[tuple[Path, Tensor]]:
    """Yield images, given or in folders; report unreadable ones and add them to ``failed``."""
    for one in given:
        paths: list[Path] = []
        with reported(failed):
            paths = find(one)
        for path in paths:
            with reported(failed):
                yield path, prepare(images.load_image(path))


@contextmanager
def reported(failed: list[str]) -> Iterator[None]:
    """Report an error on stderr, and continue after the block."""
    try:
        yield
    except (UserError, OSError) as error:
        failed.append(str(error))
        print(error, file=sys.stderr, flush=True)


@torch.no_grad()
def predict(
    model: saved.Model,
    prepared: Iterator[tuple[Path, Tensor]],
    top: int,
    batch_size: int,
    device: torch.device,
) -> Iterator[Row]:
    """Yield each image with its ``top`` most likely categories."""
    network = saved.Predictor(model).to(device)
    while batch := [*itertools.islice(prepared, batch_size)]:
        paths, tensors = zip(*batch, strict=True)
        p = network(torch.stack(tensors).to(device)).topk(min(top, len(model.categories)))
        for path, values, indices in zip(paths, *(t.tolist() for t in p), strict=True):
            yield path, [(model.categories[k], v) for k, v in zip(indices, values, strict=True)]


def write_table(path: Path, rows: Iterable[Row], top: int) -> None:
    """Write images with their ``top`` most likely categories as CSV, safe for spreadsheets.

    A cell that could be read as a formula begins with an apostrophe.

    Raises:
        UserError: If the file cannot be written.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    ranks = [""] if top == 1 else [f"_{n}" for n in range(1, top + 1)]
    table.writerow(["path", *(f"{name}{n}" for n in ranks for name in ("category", "confidence"))])
    for image, best in rows:
        cells = [cell for category, p in best for cell in (_safe(category), f"{p:.4f}")]
        table.writerow([_safe(str(image)), *cells])
    files.write(path, text.getvalue().encode("utf-8", "backslashreplace"))


def _safe(text: str) -> str:
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


if __name__ == "__main__":
    console.run(main)
