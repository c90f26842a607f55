"""Category and confidence of images, by a model that train_office.py saved.

    python examples/predict.py runs/office31/A2W/symnets/seed0/model.pt photo.jpg folder/ more/*.jpg
    python examples/predict.py MODEL folder/ --top 3 --csv predictions.csv
    python examples/predict.py MODEL --export model.pt2

An image that cannot be read is named on stderr, the others are predicted, and the exit code is 1.
"""

import argparse
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import arguments
import console
import torch
from office import exported, formats, images, listing, outputs
from office.errors import UserError
from torch import Tensor


@torch.no_grad()
def main(argv: Sequence[str] | None = None) -> None:
    """Print path, category and confidence of each image, or write the model without symloss.

    Raises:
        SystemExit: 1 if an image could not be read, 2 if nothing can be predicted.
    """
    console.take_any_character()
    parser = build_parser()
    args = parser.parse_args(argv)
    if not args.images and not args.export:
        parser.error("give images, or --export FILE")
    try:
        model = outputs.read_model(args.model)
        if model.frozen:
            raise UserError(
                f"{args.model} was trained on features of {model.backbone}; it takes no images"
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
    add, positive = parser.add_argument, arguments.positive
    add("model", type=Path, help="a run's model.pt")
    add(
        "images",
        nargs="*",
        type=Path,
        metavar="image",
        help="an image, or a folder: all images in it and in its folders",
    )
    add("--top", type=positive, default=1, metavar="N", help="the N likeliest (default: 1)")
    add("--csv", type=Path, metavar="FILE", help="write a table here, instead of lines")
    add("--batch-size", type=positive, default=32, metavar="N", help="at a time (default: 32)")
    add("--device", type=arguments.device, default="cpu", metavar="D", help="default: cpu")
    add(
        "--export",
        type=Path,
        metavar="FILE",
        help="write the model as FILE.pt2 (torch.export) or FILE.onnx: it runs without symloss",
    )
    return parser


def find(given: Iterable[Path], failed: list[str]) -> Iterator[Path]:
    """Yield images, and those of folders; name on stderr what cannot be read, and keep it."""
    for one in given:
        try:
            yield from find_images(one)
        except (UserError, OSError) as error:
            tell(failed, error)


def find_images(given: Path) -> list[Path]:
    """Return an image, or those of a folder and of the folders in it; tell what is left out.

    Raises:
        UserError: If there is none in a folder.
    """
    if not given.is_dir():
        return [given]
    held = listing.look_below(given)
    unread = [item for item in held.left_out if formats.is_image(item.path)]
    if unread:
        print(listing.summary(str(given), unread), file=sys.stderr, flush=True)
    if not held.images:
        raise UserError(f"no images in the folder {given}")
    return held.images


def tell(failed: list[str], error: Exception) -> None:
    """Name a fault on stderr, and go on."""
    failed.append(str(error))
    print(error, file=sys.stderr, flush=True)


def predict(
    model: outputs.Model, paths: Iterable[Path], args: argparse.Namespace, failed: list[str]
) -> Iterator[tuple[Path, list[tuple[str, float]]]]:
    """Yield path and likeliest categories, with their probabilities, of each image that is read."""
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
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    console.run(main)
