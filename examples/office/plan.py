"""Which tasks and runs a command line asks for, all looked at before the first is trained."""

import dataclasses
import itertools
import warnings
from collections.abc import Mapping

from office import datasets, distributed, preflight
from office.options import Machine, Recipe, Wanted
from office.runs import Run, open_runs


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
            task = datasets.load_folders(
                wanted.source, wanted.target, partial=partial, unlabelled=wanted.unlabelled
            )
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
