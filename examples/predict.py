"""Predict the categories of images, with a model that train_office.py saved.

    python examples/predict.py runs/office31/A2W/symnets/seed0/model.pt photo.jpg folder/ more/*.jpg
    python examples/predict.py MODEL folder/ --top 3 --csv predictions.csv --html predictions.html
    python examples/predict.py MODEL --export model.pt2

With --csv or --html, it also says how often each category is predicted, and how often it was
expected. Unreadable images and folders are named on stderr and skipped, and the exit code is then
1. If stopped, it still writes the table, with the images predicted so far.
"""

import argparse
import itertools
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from office import console, files
from office.console import UserError
from office.data import images, layouts
from office.models import saved
from office.results import outputs, targets
from office.results.targets import Row
from torch import Tensor
from tqdm import tqdm

from symloss.diagnostics import Diagnosis


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
    table = "write a table to FILE (- for standard output) instead of printing lines"
    page = "write a page with pictures of the least confident predictions"
    depth = "bit depth of grey images with more than 8 bits (default: the smallest that holds all)"
    add("--csv", type=Path, metavar="FILE", help=table)
    add("--html", type=Path, metavar="FILE", help=page)
    add("--grey-bits", type=int, choices=images.BITS, help=depth)
    add("--batch-size", type=count, default=32, metavar="N", help="images at a time (default: 32)")
    add("--device", type=console.device, default="cpu", metavar="D", help="default: cpu")
    add("--export", type=Path, metavar="FILE", help=program)
    args = parser.parse_args(argv)
    if not args.images and not args.export:
        parser.error("give images, or --export FILE")
    if args.html == Path("-"):
        parser.error("--html needs a file, got -")
    if models := [path for path in args.images if path.suffix == ".pt"]:
        parser.error(f"give one model, before the images; {models[0]} is among the images")
    failed: list[str] = []
    try:
        for out in filter(None, (args.csv, args.html, args.export)):
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
        top = max(args.top, 2)  # the page has second choices
        rows = again = predict(model, prepared, top, args.batch_size, args.device)
        if args.csv or args.html:
            rows, again = itertools.tee(rows)
        if args.csv:
            write_table(args.csv, rows, args.top)
        else:
            for path, best in rows:
                cells = [f"{name}\t{targets.confidence(p)}" for name, p in best[: args.top]]
                print(path, *cells, sep="\t", flush=True)
        if (args.csv or args.html) and (predicted := [*again]):
            spread, origin = look(args.model, model.categories, predicted)
            print(targets.describe(spread, origin), file=sys.stderr)
            if args.html:
                title = (
                    f"{len(predicted):,} images, predicted by {console.visible(args.model.name)}"
                )
                files.put(args.html, targets.page(title, spread, origin, predicted, args.grey_bits))
                print(targets.NAMED, args.html, file=sys.stderr)
    except UserError as error:
        parser.error(str(error))
    if failed:
        sys.exit(1)


def find(given: Path, failed: list[str]) -> list[Path]:
    """Return an image, or all images in a folder at any depth; say what is skipped.

    A folder that is empty or cannot be opened is added to ``failed``.
    """
    if not given.exists():
        report(f"{given} does not exist", failed)
        return []
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
        yield from zip(paths, targets.likeliest(logits, model.categories, top), strict=True)


def write_table(path: Path, rows: Iterable[Row], top: int) -> None:
    """Write images with their ``top`` most likely categories as CSV; those so far, if stopped."""
    done: list[Row] = []
    try:
        done.extend(rows)
    except BaseException:
        if done:
            files.put(path, targets.table(done, top))
            print(f"stopped: {path} has the first {len(done):,} images", file=sys.stderr)
        raise
    files.put(path, targets.table(done, top))


def look(path: Path, categories: list[str], rows: Sequence[Row]) -> tuple[Diagnosis, str]:
    """Return how predictions spread, compared with the shares of the model's run, if beside it."""
    expected, origin = dict.fromkeys(categories, 1 / len(categories)), "equal shares"
    with suppress(UserError):
        run = outputs.read_result(path.with_name("result.json"))
        if [*run.expected] == categories:
            expected, origin = run.expected, f"as in training, {run.origin}"
    counts = Counter(best[0][0] for _, best in rows)
    predicted = tuple(counts[name] / len(rows) for name in categories)
    names = tuple(map(console.visible, categories))
    return Diagnosis(names, predicted, tuple(expected.values()), samples=len(rows)), origin


if __name__ == "__main__":
    console.run(main)
