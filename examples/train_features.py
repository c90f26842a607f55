"""Train the methods of train_office.py on frozen features, all tasks and seeds in one process.

    python examples/extract_features.py --dataset office31 --root data/office31 --views 2
    python examples/train_features.py features/office31 --method all
    python examples/report.py runs-frozen/

The loop is train_office.py's, and so are the files of a run, except checkpoints. It trains a
bottleneck and the heads, in seconds per run on a CPU.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from office import console, distributed, options
from office.data import features
from office.data.layouts import DATASETS
from office.training import extraction, preparation
from train_office import train_all

OPTIONS = {"task", "method", "balance", "prior", "partial", "seeds", "batch-size", "lr"}
OPTIONS |= {"weight-decay", "device"}


def main(argv: Sequence[str] | None = None) -> None:
    """Train and evaluate every selected run that is not finished."""
    about = (__doc__ or "").partition("\n")[0]  # python -OO drops it
    parser = options.build_parser("train_features.py", about, OPTIONS)
    add, number = parser.add_argument, partial(parser.add_argument, type=console.positive)
    add("features", type=Path, help="folder that extract_features.py wrote, as features/office31")
    number("--epochs", default=20, help="passes over the larger domain (default: 20)")
    number("--bottleneck", default=256, help="width of the added linear layer (default: 256)")
    add(
        "--dataset",
        choices=[*DATASETS, "folders"],
        metavar="NAME",
        help="another benchmark with the same domains, such as office31-partial (default: the one "
        "whose features they are)",
    )
    folder = "folder for the runs (default: runs-frozen)"
    add("--out", type=Path, default=Path("runs-frozen"), metavar="DIR", help=folder)
    given = vars(parser.parse_args(argv))
    stored = features.read(given["features"])
    made = next(iter(stored.values())).extraction
    given = {"dataset": made.dataset} | given
    # The features record how they were made.
    given |= {name: getattr(made, name) for name in ("backbone", "weights", "preprocessing")}
    given["frozen"] = extraction.frozen(stored)
    recipe, runtime, selection = options.filled(parser, given)
    with distributed.process_group(runtime.device):
        train_all(preparation.from_features(stored, recipe, runtime, selection), runtime)


if __name__ == "__main__":
    console.run(main)
