import dataclasses
import warnings

from office import distributed
from office.data import datasets
from office.options import Selection


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
