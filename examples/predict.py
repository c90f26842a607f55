"""Category and confidence of images, by a model that train_office.py saved.

python examples/predict.py runs/office31/A2W/symnets/seed0/model.pt photo.jpg more/*.jpg
"""

import argparse
from pathlib import Path

import torch
from office import images, outputs
from office.errors import UserError


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
        model = outputs.read_model(args.model)
        transform = images.eval_transform(model.preprocessing)
        for path in args.images:
            image = transform(images.load_image(path)).unsqueeze(0)
            logits = model.classifier(model.extractor(image))[0]
            confidence, category = logits.softmax(0).max(0)
            print(path, model.categories[category], f"{confidence:.3f}", sep="\t", flush=True)
    except UserError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
