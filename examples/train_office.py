"""The paper's experiments: SymNets and the rows of its ablation on the Office benchmarks.

    python examples/train_office.py --dataset office31 --root data/office31 --task A2W
    torchrun --nproc_per_node 4 examples/train_office.py ...

Each run (task, method, seed) leaves OUT/DATASET/TASK/METHOD/seedN/ with result.json, log.jsonl,
checkpoint.pt, features.npz, model.pt and TensorBoard's event files; report.py makes the tables.
"""

import dataclasses
import itertools
import re
import signal
import sys
import warnings
from collections.abc import Mapping, Sequence

import console
from office import command_line, datasets, distributed, fingerprint, images, preflight
from office.errors import UserError
from office.experiment import perform
from office.options import PROG, Machine, Recipe, Wanted
from office.runs import Run, open_runs

NO_MEMORY = "out of memory|(can't|not enough|unable to) (allocate )?memory"  # CUDA's and the CPU's


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the command line asks for; it ends as :func:`carry_out` does."""
    console.take_any_character()
    carry_out(*command_line.read(argv))


def carry_out(recipe: Recipe, machine: Machine, wanted: Wanted) -> None:
    """Train and evaluate every run that is wanted and not finished, or look at the images alone.

    Raises:
        SystemExit: With one clear line if something does not fit, 130 if stopped.
    """
    try:
        with distributed.process_group(machine.device):
            tasks = load_tasks(recipe.dataset, wanted, partial=recipe.partial)
            if wanted.check:
                sys.exit(0 if datasets.check(tasks) else 1)
            # The first process alone looks at what is there, and says what is wrong.
            runs, todo = distributed.in_first(
                lambda: make_plan(
                    tasks,
                    fingerprint.listings(tasks, recipe.weights_file, machine.out),
                    recipe,
                    machine,
                    wanted,
                )
            )
            domains = [domain for run in todo for domain in (run.task.source, run.task.target)]
            paths = [path for domain in domains for path in domain.paths]
            cache = images.fill(machine.cache, paths, recipe.preprocessing, machine.device)
            for run in runs:
                perform(run, machine, cache)
    except BrokenPipeError:
        raise
    except (UserError, OSError) as error:
        sys.exit(f"{PROG}: error: {error}")
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or re.search(NO_MEMORY, str(error))):
            raise
        sys.exit(
            f"{PROG}: error: out of memory: try a smaller --batch-size, --cache off or "
            "--precision bf16; finished epochs are kept for --resume with the same settings"
        )
    except KeyboardInterrupt:
        sys.exit(130)


def make_plan(
    tasks: list[datasets.Task],
    listings: Mapping[str, str],
    recipe: Recipe,
    machine: Machine,
    wanted: Wanted,
) -> tuple[list[Run], list[Run]]:
    """Return the runs that are wanted and those of them that are not finished.

    Args:
        tasks: Of the runs.
        listings: Of each task by name, as :func:`fingerprint.listings` makes them.
        recipe: Of all runs.
        machine: Where they will be.
        wanted: Their methods and seeds.

    Raises:
        UserError: If something would stop one of them.
    """
    # Seeds outermost, so that a stopped sweep has whole tables.
    runs = [
        Run(recipe, task, method, seed, listings[task.name])
        for seed, task, method in itertools.product(wanted.seeds, tasks, wanted.methods)
    ]
    todo = open_runs(runs, machine)
    preflight.check(todo, machine)
    return runs, todo


def load_tasks(dataset: str, wanted: Wanted, *, partial: bool = False) -> list[datasets.Task]:
    """Return the tasks, all before the first is trained; warn in the first process alone.

    In ``partial`` adaptation a target may lack categories of its source.
    """
    with warnings.catch_warnings():
        if distributed.rank():
            warnings.simplefilter("ignore")
        if dataset == "folders":
            task = datasets.load_folders(wanted.source, wanted.target, partial=partial)
            return [readable(task)]
        names = list(wanted.tasks)
        if "all" in names:
            names = datasets.task_names(dataset)
            if wanted.check and wanted.root:  # look at the domains that are there
                names = datasets.available_tasks(dataset, wanted.root) or names
        return [
            readable(datasets.load_task(dataset, wanted.root, name, partial=partial))
            for name in names
        ]


def readable(task: datasets.Task) -> datasets.Task:
    """Escape what is not UTF-8 in names that came from folders: files and figures will hold them.

    The images' paths stay as they are.
    """
    name, *categories = (
        name.encode("utf-8", "backslashreplace").decode() for name in (task.name, *task.categories)
    )
    return dataclasses.replace(task, name=name, categories=categories)


if __name__ == "__main__":
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    # A job scheduler's SIGTERM ends a run as Ctrl-C does: with a word on its checkpoint.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console.run(main)
