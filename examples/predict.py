"""Predict category and confidence of images with a model that train_office.py saved.

    python examples/predict.py runs/office31/A2W/symnets/seed0/model.pt photo.jpg folder/ more/*.jpg
    python examples/predict.py MODEL folder/ --top 3 --csv predictions.csv
    python examples/predict.py MODEL --export model.pt2

Unreadable images are named on stderr and skipped, and the exit code is then 1.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from office import console
from office.console import UserError
from office.data import folders, images
from office.models import exported
from office.results import outputs
from torch import Tensor


@torch.no_grad()
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
    try:
        model = outputs.read_model(args.model)
        if model.frozen:
            raise UserError(
                f"{args.model} was trained on features of {model.backbone}; it cannot read images"
            )
        if args.export:
            print(exported.write(model, args.export))
    except (UserError, OSError) as error:
        parser.error(str(error))
    failed: list[str] = []
    rows = predict(model, find(args.images, failed), args, failed)
    try:
        if args.csv:
            outputs.write_answers(args.csv, [*rows], args.top)
        else:
            for path, answers in rows:
                cells = [f"{name}\t{confidence:.3f}" for name, confidence in answers]
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
    add, positive = parser.add_argument, console.positive
    add("model", type=Path, help="a run's model.pt")
    add(
        "images",
        nargs="*",
        type=Path,
        metavar="image",
        help="an image, or a folder, searched at any depth",
    )
    add(
        "--top",
        type=positive,
        default=1,
        metavar="N",
        help="show the N most likely categories (default: 1)",
    )
    add("--csv", type=Path, metavar="FILE", help="write a table to FILE instead of printing")
    add(
        "--batch-size",
        type=positive,
        default=32,
        metavar="N",
        help="images at a time (default: 32)",
    )
    add("--device", type=console.device, default="cpu", metavar="D", help="default: cpu")
    add(
        "--export",
        type=Path,
        metavar="FILE",
        help="write the model as FILE.pt2 (torch.export) or FILE.onnx, to run without symloss",
    )
    return parser


def find(given: Iterable[Path], failed: list[str]) -> Iterator[Path]:
    """Yield images, given or in folders; report unreadable ones and add them to ``failed``."""
    for one in given:
        try:
            yield from find_images(one)
        except (UserError, OSError) as error:
            tell(failed, error)


def find_images(given: Path) -> list[Path]:
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


def tell(failed: list[str], error: Exception) -> None:
    """Report an error on stderr and continue."""
    failed.append(str(error))
    print(error, file=sys.stderr, flush=True)


def predict(
    model: outputs.Model, paths: Iterable[Path], args: argparse.Namespace, failed: list[str]
) -> Iterator[tuple[Path, list[tuple[str, float]]]]:
    """Yield the path and most likely categories, with probabilities, of each readable image."""
    prepare = images.eval_transform(model.preprocessing)
    network = exported.Classifier(model).to(args.device)
    top = min(args.top, len(model.categories))
    for batch in _batches(paths, prepare, args.batch_size, failed):
        p = network(torch.stack([image for _, image in batch]).to(args.device))
        best = p.topk(top)
        for (path, _), values, indices in zip(batch, *(t.tolist() for t in best), strict=True):
            yield path, [(model.categories[k], v) for k, v in zip(indices, values, strict=True)]


def _batches(
    paths: Iterable[Path], prepare: images.Transform, size: int, failed: list[str]
) -> Iterator[list[tuple[Path, Tensor]]]:
    batch = []
    for path in paths:
        try:
            batch.append((path, prepare(images.load_image(path))))
        except (UserError, OSError) as error:
            tell(failed, error)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


if __name__ == "__main__":
    console.run(main)
