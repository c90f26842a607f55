"""Which tasks and runs a command line asks for, all checked before the first is trained."""

import dataclasses
import itertools
import warnings
from collections.abc import Mapping

from office import distributed
from office.data import datasets
from office.options import Recipe, Runtime, Selection
from office.training import preflight
from office.training.runs import Run, open_runs


def make_plan(
    tasks: list[datasets.Task],
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


def load_tasks(dataset: str, selection: Selection, *, partial: bool = False) -> list[datasets.Task]:
    """Return the tasks, all before the first is trained; warn only in the first process.

    In ``partial`` adaptation a target may lack categories of its source.
    """
    with warnings.catch_warnings():
        if distributed.rank():
            warnings.simplefilter("ignore")
        if dataset == "folders":
            task = datasets.load_folders(
                selection.source, selection.target, partial=partial, unlabelled=selection.unlabelled
            )
            return [readable(task)]
        names = list(selection.tasks)
        if "all" in names:
            names = datasets.task_names(dataset)
            if selection.check and selection.root:  # look at the domains that are there
                names = datasets.available_tasks(dataset, selection.root) or names
        return [
            readable(datasets.load_task(dataset, selection.root, name, partial=partial))
            for name in names
        ]


def readable(task: datasets.Task) -> datasets.Task:
    """Escape what is not UTF-8 in names taken from folders, because files and figures use them.

    The images' paths are unchanged.
    """
    name, *categories = (
        name.encode("utf-8", "backslashreplace").decode() for name in (task.name, *task.categories)
    )
    return dataclasses.replace(task, name=name, categories=categories)
