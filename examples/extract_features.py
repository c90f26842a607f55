"""Extract features of every image in a benchmark or two folders with a frozen network.

    python examples/extract_features.py --dataset office31 --root data/office31 --views 2

writes features/office31/NAME.npy and NAME.json for each domain, for train_features.py or any other
use. If it is stopped, the same command extracts the domains that are missing. Unreadable images are
reported before extraction starts.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from office import console, options
from office.data.layouts import DATASETS
from office.data.tasks import available_tasks
from office.models import backbones
from office.training import extraction
from office.training.preparation import load_tasks

OPTIONS = {"dataset", "root", "source", "target", "task", "backbone", "weights", "device"}
OPTIONS |= {"workers", "precision"}


def main(argv: Sequence[str] | None = None) -> None:
    """Extract the missing features of every selected domain."""
    about = (__doc__ or "").partition("\n")[0]  # python -OO drops it
    parser = options.build_parser("extract_features.py", about, OPTIONS)
    number = partial(parser.add_argument, type=console.positive, metavar="N")
    crops = "1: the centre crop; 2: its mirror image too; more: random crops too (default: 1)"
    number("--views", default=1, help=f"views of each image. {crops}")
    number("--batch-size", default=64, help="about how many views per forward pass (default: 64)")
    folder = "folder for the features (default: features)"
    parser.add_argument("--out", type=Path, default=Path("features"), metavar="DIR", help=folder)
    given = vars(parser.parse_args(argv))
    dataset = given["dataset"]
    if dataset in DATASETS and DATASETS[dataset].kept:
        parser.error(
            f"--dataset {dataset} uses another benchmark's images: extract the features of that "
            f"benchmark, and pass --dataset {dataset} to train_features.py"
        )
    recipe, runtime, selection = options.filled(parser, given)
    if selection.tasks == ("all",) and dataset in DATASETS:
        available = available_tasks(dataset, selection.root)
        selection = replace(selection, tasks=available or selection.tasks)
    tasks = load_tasks(dataset, selection, partial=True)
    recipe = replace(recipe, preprocessing=backbones.preprocessing(recipe.backbone))
    extraction.extract(tasks, recipe, runtime, given["views"])


if __name__ == "__main__":
    console.run(main)
