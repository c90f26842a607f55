"""Which tasks and runs a command line asks for, all checked before the first is trained."""

import itertools
from collections.abc import Mapping

from office.data.tasks import Task
from office.options import Recipe, Runtime, Selection
from office.training import preflight
from office.training.runs import Run, open_runs


def make_plan(
    tasks: list[Task],
    listings: Mapping[str, str],
    recipe: Recipe,
    runtime: Runtime,
    selection: Selection,
) -> tuple[list[Run], list[Run]]:
    """Return the requested runs, and those of them that are not finished.

    Args:
        tasks: Tasks of the runs.
        listings: Listing of each task by name, from :func:`fingerprint.listings`.
        recipe: Settings of all runs.
        runtime: Where to run them.
        selection: Their methods and seeds.

    Raises:
        UserError: If something would stop one of them.
    """
    # Seeds outermost, so that a stopped sweep has complete tables.
    runs = [
        Run(recipe, task, method, seed, listings[task.name])
        for seed, task, method in itertools.product(selection.seeds, tasks, selection.methods)
    ]
    todo = open_runs(runs, runtime)
    preflight.check(todo, runtime)
    return runs, todo
