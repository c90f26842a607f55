"""Train the methods of train_office.py on frozen features, all tasks and seeds in one process.

    python examples/extract_features.py --dataset office31 --root data/office31 --views 2
    python examples/train_features.py features/office31 --method all
    python examples/report.py runs-frozen/

This trains a bottleneck and the heads, in seconds per run on a CPU. Each run writes the same files
as train_office.py, except checkpoints.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from office import console, distributed, options
from office.data import hashes
from office.data.benchmarks import DATASETS
from office.options import Recipe, Runtime, Selection
from office.training import features
from office.training.experiment import perform
from office.training.features import Stored
from office.training.plan import make_plan
from office.training.runs import Run

OPTIONS = {"task", "method", "balance", "prior", "partial", "seeds", "batch-size", "lr"}
OPTIONS |= {"weight-decay", "device"}


def main(argv: Sequence[str] | None = None) -> None:
    """Train and evaluate every requested run that is not finished."""
    carry_out(*read(argv))


def read(argv: Sequence[str] | None) -> tuple[dict[str, Stored], Recipe, Runtime, Selection]:
    """Read the command line and the features' folder, which records how they were made."""
    parser = options.build_parser("train_features.py", __doc__.partition("\n")[0], OPTIONS)
    add = parser.add_argument
    add("features", type=Path, help="folder that extract_features.py wrote, e.g. features/office31")
    add(
        "--epochs",
        type=console.positive,
        default=20,
        metavar="N",
        help="passes over the larger domain (default: 20)",
    )
    add(
        "--bottleneck",
        type=console.positive,
        default=256,
        metavar="N",
        help="units of the linear layer, with batch norm and ReLU, on the features (default: 256)",
    )
    add(
        "--dataset",
        choices=[*DATASETS, "folders"],
        help="another benchmark with the same domains, e.g. office31-partial (default: the "
        "features' own)",
    )
    add(
        "--out",
        type=Path,
        default=Path("runs-frozen"),
        metavar="DIR",
        help="folder for the runs (default: runs-frozen)",
    )
    given = vars(parser.parse_args(argv))
    stored = features.read(given["features"])
    made = next(iter(stored.values())).extraction
    given = {"dataset": made.dataset} | given
    given |= {name: getattr(made, name) for name in ("backbone", "weights", "preprocessing")}
    given["frozen"] = features.frozen(stored)
    return stored, *options.filled(parser, given)


def carry_out(
    stored: Mapping[str, Stored], recipe: Recipe, runtime: Runtime, selection: Selection
) -> list[Run]:
    """Train every requested run that is not finished; return all of them.

    Raises:
        UserError: With one clear line.
    """
    with distributed.process_group(runtime.device):
        tasks = features.tasks(stored, recipe.dataset, selection.tasks, partial=recipe.partial)
        contents = {
            path: content
            for domain in stored.values()
            for path, content in zip(
                domain.extraction.images(), domain.extraction.contents, strict=True
            )
        }
        content = next(iter(stored.values())).extraction.weights_content
        weights = (recipe.weights, content) if content else None
        listings = {task.name: hashes.listing(task, contents, weights) for task in tasks}
        runs, _ = distributed.in_first(
            lambda: make_plan(tasks, listings, recipe, runtime, selection)
        )
        cache = {
            path: torch.from_numpy(row)
            for domain in stored.values()
            for path, row in zip(domain.extraction.images(), domain.features, strict=True)
        }
        for run in runs:
            perform(run, runtime, cache)
    return runs


if __name__ == "__main__":
    console.run(main)
