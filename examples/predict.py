"""Category and confidence of images, by a model that train_office.py saved.

    python examples/predict.py runs/office31/A2W/symnets/seed0/model.pt photo.jpg folder/ more/*.jpg

An image that cannot be read is named on stderr, the others are predicted, and the exit code is 1.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import console
import torch
from office import formats, images, listing, outputs
from office.errors import UserError


@torch.inference_mode()
def main(argv: Sequence[str] | None = None) -> None:
    """Print path, category and confidence of each image.

    Raises:
        SystemExit: 1 if an image could not be read, 2 if nothing can be predicted.
    """
    console.take_any_character()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="a run's model.pt")
    parser.add_argument(
        "images",
        nargs="+",
        type=Path,
        metavar="image",
        help="an image, or a folder: all images in it and in its folders",
    )
    args = parser.parse_args(argv)
    try:
        model = outputs.read_model(args.model)
        if model.frozen:
            raise UserError(
                f"{args.model} was trained on features of {model.backbone}; it takes no images"
            )
    except UserError as error:
        parser.error(str(error))
    failed = False
    for given in args.images:
        try:
            for path in find_images(given):
                failed |= not predict(model, path)
        except BrokenPipeError:
            raise
        except (UserError, OSError) as error:
            failed = True
            print(error, file=sys.stderr, flush=True)
    if failed:
        sys.exit(1)


def find_images(given: Path) -> Iterator[Path]:
    """Yield an image, or those of a folder and of the folders in it.

    Raises:
        UserError: If there is none in a folder.
    """
    if not given.is_dir():
        yield given
        return
    found = False
    folders, seen = [given], set()
    while folders:
        folder = folders.pop(0)
        if folder.resolve() in seen:  # a link to a folder that it is in
            continue
        seen.add(folder.resolve())
        held = listing.look(folder)
        found |= bool(held.images)
        yield from held.images
        folders += held.folders
        unread = [item for item in held.left_out if formats.is_image(item.path)]
        if unread:
            print(listing.summary(str(folder), unread), file=sys.stderr, flush=True)
    if not found:
        raise UserError(f"no images in the folder {given}")


def predict(model: outputs.Model, path: Path) -> bool:
    """Print the prediction of an image; return whether it can be read, else name it on stderr."""
    try:
        image = images.eval_transform(model.preprocessing)(images.load_image(path))
    except UserError as error:
        print(error, file=sys.stderr, flush=True)
        return False
    logits = model.classifier(model.extractor(image.unsqueeze(0)))[0]
    confidence, category = logits.softmax(0).max(0)
    print(path, model.categories[category], f"{confidence:.3f}", sep="\t", flush=True)
    return True


if __name__ == "__main__":
    console.run(main)
