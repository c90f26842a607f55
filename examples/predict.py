"""Predict category and confidence of images with a model that train_office.py saved.

    python examples/predict.py runs/office31/A2W/symnets/seed0/model.pt photo.jpg folder/ more/*.jpg
    python examples/predict.py MODEL folder/ --top 3 --csv predictions.csv
    python examples/predict.py MODEL --export model.pt2

Unreadable images and folders are named on stderr and skipped, and the exit code is then 1. If it
is stopped, the table has the images predicted so far.
"""

import argparse
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from office import console, files
from office.console import UserError
from office.data import images, layouts
from office.models import saved
from torch import Tensor
from tqdm import tqdm

# An image with its most likely categories and their probabilities.
Row: TypeAlias = tuple[Path, list[tuple[str, float]]]


def main(argv: Sequence[str] | None = None) -> None:
    """Print path, category and confidence of each image, or export the model."""
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
    table = "write a table to FILE, or to standard output for -, instead of printing"
    depth = "of grey of more than 8 bits (default: the fewest that hold all the images)"
    add("--csv", type=Path, metavar="FILE", help=table)
    add("--grey-bits", type=int, choices=images.BITS, help=depth)
    add("--batch-size", type=count, default=32, metavar="N", help="images at a time (default: 32)")
    add("--device", type=console.device, default="cpu", metavar="D", help="default: cpu")
    add("--export", type=Path, metavar="FILE", help=program)
    args = parser.parse_args(argv)
    if not args.images and not args.export:
        parser.error("give images, or --export FILE")
    failed: list[str] = []
    try:
        for out in filter(None, (args.csv, args.export)):
            files.check(out)
        model = saved.read_model(args.model)
        if model.frozen:
            raise UserError(
                f"{args.model} was trained on features of {model.backbone} and cannot read images"
            )
        if args.export:
            print(saved.export(model, args.export))
        paths = [path for given in args.images for path in find(given, failed)]
        prepared = load(paths, model.preprocessing, args.grey_bits, failed, quiet=not args.csv)
        rows = predict(model, prepared, args.top, args.batch_size, args.device)
        if args.csv:
            write_table(args.csv, rows, args.top)
        else:
            for path, best in rows:
                cells = [f"{category}\t{confidence:.12g}" for category, confidence in best]
                print(path, *cells, sep="\t", flush=True)
    except UserError as error:
        parser.error(str(error))
    if failed:
        sys.exit(1)


def find(given: Path, failed: list[str]) -> list[Path]:
    """Return an image, or all images in a folder at any depth; say what is skipped.

    A folder that is empty or cannot be opened is added to ``failed``.
    """
    if not given.is_dir():
        return [given]
    contents = layouts.look_below(given)
    failed += [str(item.path) for item in contents.skipped if item.why.startswith(layouts.CLOSED)]
    if contents.skipped:
        print(layouts.summary(str(given), contents.skipped), file=sys.stderr, flush=True)
    if not contents.images:
        report(f"no images in the folder {given}", failed)
    return contents.images


def load(
    paths: Sequence[Path],
    preprocessing: images.Preprocessing,
    grey_bits: int | None,
    failed: list[str],
    *,
    quiet: bool,
) -> Iterator[tuple[Path, Tensor]]:
    """Yield images, with a progress bar unless ``quiet``; add unreadable ones to ``failed``."""
    prepare = images.eval_transform(preprocessing)
    if not grey_bits:
        images.find_depths({"images": paths}, sys.stderr)
    with console.bar("predicting", len(paths), disable=quiet) as bar:
        for path in paths:
            try:
                yield path, prepare(images.load_image(path, grey_bits))
            except (UserError, OSError) as error:
                report(str(error), failed)
            bar.update()


def report(fault: str, failed: list[str]) -> None:
    """Say on stderr what is left out, and remember it."""
    failed.append(fault)
    tqdm.write(fault, file=sys.stderr)


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
        logits = network.classifier(network.extractor(torch.stack(tensors).to(device)))
        # In float64, or all that are nearly certain would be equally so.
        p = logits.cpu().double().softmax(1).topk(min(top, len(model.categories)))
        for path, values, indices in zip(paths, *(t.tolist() for t in p), strict=True):
            yield path, [(model.categories[k], v) for k, v in zip(indices, values, strict=True)]


def write_table(path: Path, rows: Iterable[Row], top: int) -> None:
    """Write images with their ``top`` most likely categories as CSV; those so far, if stopped."""
    ranks = [""] if top == 1 else [f"_{n}" for n in range(1, top + 1)]
    table = [["path", *(f"{name}{n}" for n in ranks for name in ("category", "confidence"))]]
    try:
        for image, best in rows:
            cells = [cell for category, p in best for cell in (category, f"{p:.12g}")]
            table.append([str(image), *cells])
    except BaseException:
        if len(table) > 1:
            files.put(path, files.table(table))
            print(f"stopped: {path} has the first {len(table) - 1:,} images", file=sys.stderr)
        raise
    files.put(path, files.table(table))


if __name__ == "__main__":
    console.run(main)
