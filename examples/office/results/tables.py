"""Tables 1 to 4 of the paper, with our accuracies beside the published ones.

The published numbers are in published.json: each table's tasks and rows as printed, each cell a
pair of mean and standard error; below them SymmNets-V2, from another paper, which gives only
averages. A row's "ours" names our method that is shown beside it. Table 1's ResNet-50 is quoted
from other work, so our source-only runs are shown beside Table 4's.
"""

import json
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from office.methods import METHODS
from office.options import BALANCE
from office.results.outputs import Result
from office.results.scores import Mean, mean_and_error, plus_minus

PUBLISHED = json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))
# Table 4's names, except the backbone's, because ours need not be ResNet-50.
NAMES = {name: method.row.replace("ResNet-50", "Source only") for name, method in METHODS.items()}
OF_SOME = (*BALANCE, "partial")  # settings that only some methods have
# The settings in every note; others appear only if the rows of a table differ in them.
NOTED = (
    *("backbone", "weights", "features", "bottleneck", "batch size", "length", "lr", "precision"),
    *OF_SOME,
)
POOLED = ("GFK", "TCA")  # on the network's pooled features

Groups: TypeAlias = dict[str, list[Result]]  # by method


class Row(NamedTuple):
    """A method's accuracies in %: a cell or ``None`` per task, average or ``None``.

    Uneven if the tasks have different seeds, so that the average is of means of more or fewer runs.
    """

    label: str
    cells: list[Mean | None]
    average: float | None
    uneven: bool = False


@dataclass(frozen=True)
class Table:
    """Accuracies of methods (rows) on tasks (columns), and a note on how ours were made."""

    title: str
    tasks: list[str]
    rows: list[Row]
    note: str


def tables(results: Iterable[Result]) -> dict[str, Table]:
    """Return a table by file name for every dataset among the results with an accuracy."""
    by_dataset: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        if result.accuracy is not None:
            by_dataset[result.dataset].append(result)
    made = {}
    for name, table in PUBLISHED.items():
        if table["dataset"] in by_dataset:
            tasks, rows = table["tasks"], table["rows"]
            ours = _by_method(r for r in by_dataset[table["dataset"]] if r.task in tasks)
            if name == "Table 1":  # of Table 4's methods, on the same tasks, those also in Table 1
                ablation = {row["ours"] for row in PUBLISHED["Table 4"]["rows"]}
                ablation -= {row.get("ours") for row in rows}
                ours = {method: group for method, group in ours.items() if method not in ablation}
            title = f"{name}. Accuracy (%) on {table['title']}"
            made[name.lower().replace(" ", "")] = _table(title, tasks, ours, rows)
    known = {table["dataset"] for table in PUBLISHED.values()}
    for dataset, group in by_dataset.items():
        if dataset not in known:
            tasks = sorted({result.task for result in group})
            made[dataset] = _table(f"Accuracy (%) on {dataset}", tasks, _by_method(group))
    return made


def _by_method(results: Iterable[Result]) -> Groups:
    """Group results by method, in the order of :data:`METHODS`."""
    groups: Groups = {method: [] for method in METHODS}
    for result in results:
        groups.setdefault(result.method, []).append(result)
    return {method: group for method, group in groups.items() if group}


def _table(
    title: str, tasks: list[str], ours: Groups, published: Sequence[dict[str, Any]] = ()
) -> Table:
    """Make a table, each of our rows below the published one of the same method, if any."""
    rows = []
    for row in published:
        printed = Row(
            row["method"], [cell and tuple(cell) for cell in row["cells"]], row["average"]
        )
        method = row.get("ours")
        if method in ours:
            rows += _compared(printed, _row(f"{NAMES[method]}, ours", ours[method], tasks))
        else:
            rows.append(printed)
    beside = {row.get("ours") for row in published}
    for method, group in ours.items():
        if method not in beside:
            label = f"{_label(method)}, ours" if published else _label(method)
            rows.append(_row(label, group, tasks))
    note = _note(ours)
    # If only some results use frozen features, the note warns of it.
    if ours and all(result.recipe.get("frozen") for group in ours.values() for result in group):
        title += f", {'ours ' if published else ''}on frozen features"
        pooled = [row["method"] for row in published if row["method"] in POOLED]
        if pooled:
            note += (
                f" Published {' and '.join(pooled)} also use frozen features of ResNet-50; the "
                "other published methods train the network."
            )
    return Table(title, tasks, rows, note)


def _label(method: str) -> str:
    return NAMES.get(method, method)


def _row(label: str, results: list[Result], tasks: list[str]) -> Row:
    cells: list[Mean | None] = []
    for task in tasks:
        values = [r.accuracy for r in results if r.task == task and r.accuracy is not None]
        cells.append(mean_and_error(values) if values else None)
    means = [cell[0] for cell in cells if cell]
    average = statistics.fmean(means) if len(means) == len(tasks) else None
    return Row(label, cells, average, len(_tasks_by_seeds(results)) > 1)


def _compared(published: Row, ours: Row) -> list[Row]:
    """Return the published row, ours, and the difference of their means."""
    cells: list[Mean | None] = [
        (mine[0] - theirs[0], None) if mine and theirs else None
        for mine, theirs in zip(ours.cells, published.cells, strict=True)
    ]
    average = None
    if ours.average is not None and published.average is not None:
        average = ours.average - published.average
    named = published._replace(label=f"{published.label}, published")
    return [named, ours, Row("difference", cells, average, ours.uneven)]


# Notes


def _note(ours: Groups) -> str:
    """Say how a table's results were made, and warn if their settings differ."""
    if not ours:
        return "Published numbers only: none of our runs belongs in this table."
    results = [result for group in ours.values() for result in group]
    runs = [(_label(result.method), result.task, _settings(result)) for result in results]
    made = []
    for name in NOTED:
        values = dict.fromkeys(settings[name] for _, _, settings in runs if name in settings)
        if values:
            made.append(f"{name} {' / '.join(values)}")
    note = f"Ours: {'; '.join([*made, _seeds(ours)])}. Mean ± standard error over the seeds."
    names = dict.fromkeys([*NOTED, *(name for _, _, settings in runs for name in settings)])
    differences = "; ".join(filter(None, (_differences(name, runs) for name in names)))
    if differences:
        note += f"\n\n**Warning: settings differ between the runs of this table:** {differences}."
    if any(len(_tasks_by_seeds(group)) > 1 for group in ours.values()):
        note += (
            "\n\n**Warning: not every task has the same seeds:** an Avg with * is of such tasks."
        )
    checksums: dict[str, set[int]] = defaultdict(set)
    for result in results:
        checksums[result.task].update(result.images[-1:])
    if other := [arrow(task) for task, images in sorted(checksums.items()) if len(images) > 1]:
        note += (
            f"\n\n**Warning: runs of the same task are on different images:** {', '.join(other)}."
        )
    return note


def _differences(name: str, runs: list[tuple[str, str, dict[str, str]]]) -> str:
    """List a setting's values with their rows, and tasks if a row has several values.

    Empty if all are equal; a setting that some methods lack is compared only where it is set.
    """
    rows: dict[str, dict[str, set[str]]] = {}
    for label, task, settings in runs:
        row = rows.setdefault(label, defaultdict(set))
        row[settings.get(name, "not set")].add(task)
    values = {value for row in rows.values() for value in row}
    if name in OF_SOME:
        values.discard("not set")
    if len(values) < 2 and all(len(row) == 1 for row in rows.values()):
        return ""
    places: dict[str, list[str]] = defaultdict(list)
    for label, row in rows.items():
        for value, tasks in row.items():
            only = f" on {', '.join(map(arrow, sorted(tasks)))}" if len(row) > 1 else ""
            places[value].append(f"{label}{only}")
    listed = ", ".join(f"{value} ({', '.join(labels)})" for value, labels in places.items())
    return f"{name} {listed}"


def _seeds(ours: Groups) -> str:
    """List the seeds, by row and task if they differ."""
    rows: dict[str, list[str]] = defaultdict(list)
    for method, group in ours.items():
        by_seeds = _tasks_by_seeds(group)
        for seeds, tasks in by_seeds.items():
            only = f" on {', '.join(map(arrow, tasks))}" if len(by_seeds) > 1 else ""
            rows[seeds].append(f"{_label(method)}{only}")
    if len(rows) == 1:
        return f"seeds {next(iter(rows))}"
    return "seeds " + " / ".join(f"{seeds} ({', '.join(labels)})" for seeds, labels in rows.items())


def _tasks_by_seeds(group: Sequence[Result]) -> dict[str, list[str]]:
    """Return a method's tasks by the seeds that each was run with."""
    seeds: dict[str, set[int]] = defaultdict(set)
    for result in group:
        seeds[result.task].add(result.seed)
    tasks: dict[str, list[str]] = defaultdict(list)
    for task in sorted(seeds):
        tasks[", ".join(map(str, sorted(seeds[task])))].append(task)
    return tasks


def _settings(result: Result) -> dict[str, str]:
    """Return a recipe's settings in words, by name; one length for epochs and steps."""
    recipe = dict(result.recipe)
    epochs, steps = recipe.pop("epochs", None), recipe.pop("max_steps", None)
    recipe["length"] = f"{steps} steps" if steps else f"{epochs} epochs" if epochs else None
    recipe["weights"] = recipe.get("weights") and Path(str(recipe["weights"])).name
    frozen = recipe.pop("frozen", None)
    if frozen:
        views = "one view" if frozen["views"] == 1 else f"{frozen['views']} views"
        recipe["features"] = f"frozen, {views} ({frozen['precision']})"
    recipe["partial"] = recipe.get("partial") or None
    if isinstance(recipe.get("prior"), list):
        recipe["prior"] = ", ".join(f"{category} {share:g}" for category, share in recipe["prior"])
    return {
        name.replace("_", " "): str(value) for name, value in recipe.items() if value is not None
    }


# Files


def arrow(task: str) -> str:
    """Write A2W as in the paper, A→W; other names are unchanged."""
    return re.sub(r"^([A-Z][a-z]?)2([A-Z][a-z]?)$", "\\1→\\2", task)


def markdown(table: Table) -> str:
    """Return the table in Markdown, with one decimal as in the paper."""
    lines = [["Methods", *map(arrow, table.tasks), "Avg"], ["---"] * (len(table.tasks) + 2)]
    for label, cells, average, uneven in table.rows:
        sign = "+" if label == "difference" else ""
        means = [*cells, None if average is None else (average, None)]
        *shown, last = (plus_minus(*mean, sign) if mean else "" for mean in means)
        lines.append([label, *shown, f"{last}*" if uneven and last else last])
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"**{table.title}**\n\n{body}\n\n{table.note}\n"


def csv_rows(table: Table) -> list[list[object]]:
    """Return the rows of a CSV file, a column for each mean and each standard error, unrounded."""
    columns = [column for task in table.tasks for column in (task, f"{task} error")]
    rows: list[list[object]] = [["method", *columns, "average"]]
    for label, cells, average, _ in table.rows:
        values = [value for cell in cells for value in cell or (None, None)]
        rows.append([label, *values, average])
    return rows
