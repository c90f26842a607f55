"""Extract features of every image in a benchmark or two folders with a frozen network.

    python examples/extract_features.py --dataset office31 --root data/office31 --views 2

writes features/office31/NAME.npy and NAME.json for each domain, for train_features.py or any other
use. If it is stopped, the same command continues. Unreadable images are reported before extraction
starts.
"""

import signal
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from office import command_line, console
from office.console import UserError
from office.data.benchmarks import DATASETS
from office.data.loading_tmp import load_tasks
from office.options import Recipe, Runtime, Selection
from office.training import extraction

PROG = "extract_features.py"
OPTIONS = {"dataset", "root", "source", "target", "task", "backbone", "weights", "device"}
OPTIONS |= {"workers", "precision"}


def main(argv: Sequence[str] | None = None) -> None:
    """Extract the missing features of every selected domain.

    Raises:
        SystemExit: With one clear line if something is wrong, 130 if stopped.
    """
    console.take_any_character()
    try:
        recipe, runtime, selection, views = read(argv)
        # As for a check, "all" are the tasks whose domains are there.
        tasks = load_tasks(recipe.dataset, replace(selection, check=True), partial=True)
        pairs = [(side, task.categories) for task in tasks for side in (task.source, task.target)]
        domains = {domain.name: (domain, categories) for domain, categories in pairs}
        extraction.extract([*domains.values()], recipe, runtime, views)
    except BrokenPipeError:
        raise
    except (UserError, OSError) as error:
        sys.exit(f"{PROG}: error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def read(argv: Sequence[str] | None) -> tuple[Recipe, Runtime, Selection, int]:
    """Read the command line; the last is the number of views."""
    parser = command_line.build_parser(PROG, __doc__.partition("\n")[0], OPTIONS)
    add = parser.add_argument
    add(
        "--views",
        type=console.positive,
        default=1,
        metavar="N",
        help="per image: 1, the centre crop; 2, its mirror image too; more adds random crops "
        "(default: 1)",
    )
    add(
        "--batch-size",
        type=console.positive,
        metavar="N",
        help="approximate number of views per forward pass (default: 64)",
    )
    add("--out", type=Path, metavar="DIR", help="default: features")
    parser.set_defaults(batch_size=64, out=Path("features"))
    args = parser.parse_args(argv)
    if args.dataset in DATASETS and DATASETS[args.dataset].kept:
        parser.error(
            f"--dataset {args.dataset} uses another benchmark's images: extract that one, and pass "
            f"--dataset {args.dataset} to train_features.py"
        )
    return *command_line.filled(parser, args), args.views


if __name__ == "__main__":
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a job scheduler's, as Ctrl-C
    console.run(main)
