"""Category and confidence of images, by a model that train_office.py saved.

python examples/predict.py runs/office31/A2W/symnets/seed0/model.pt photo.jpg more/*.jpg
"""

import argparse
from pathlib import Path

import torch
from office.data import DataError, eval_transform, load_image
from office.files import FileError
from office.models import ModelError, load_model


@torch.inference_mode()
def main(argv: list[str] | None = None) -> None:
    """Print path, category and confidence of each image."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="a run's model.pt")
    parser.add_argument("images", nargs="+", type=Path, metavar="image")
    args = parser.parse_args(argv)
    try:
        extractor, head, meta = load_model(args.model)
        transform = eval_transform(**meta["preprocessing"])
        for path in args.images:
            logits = head(extractor(transform(load_image(path)).unsqueeze(0)))[0]
            if meta["reported"] != "single":
                source, target = logits.chunk(2)
                logits = source if meta["reported"] == "source" else target
            confidence, category = logits.softmax(0).max(0)
            print(path, meta["categories"][category], f"{confidence:.3f}", sep="\t", flush=True)
    except (DataError, FileError, ModelError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
