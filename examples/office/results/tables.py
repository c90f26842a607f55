"""Tables 1 to 4 of the paper, with our accuracies beside the published ones.

The published numbers are in published.json: each table's tasks and rows as printed, each cell a
pair of mean and standard error; below them SymmNets-V2, from another paper, which gives only
averages. A row's "ours" names our method that is shown beside it. Table 1's ResNet-50 is quoted
from other work, so our source-only runs are shown beside Table 4's.
"""

import csv
import json
import math
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from office.options import BALANCE
from office.results.outputs import Result
from office.training.methods import METHODS

PUBLISHED = json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))
# Table 4's names, except the backbone's, because ours need not be ResNet-50.
NAMES = {name: method.row.replace("ResNet-50", "Source only") for name, method in METHODS.items()}
# The settings in every note; others appear only if the rows of a table differ in them.
OWN = (*BALANCE, "partial")  # only some methods have these
TOLD = ("backbone", "weights", "features", "bottleneck", "batch size", "length", "lr")
TOLD += ("precision", *OWN)
POOLED = ("GFK", "TCA")  # on the network's pooled features

Cell = tuple[float, float | None]  # mean and standard error


class Row(NamedTuple):
    """A method's accuracies in %: a cell or ``None`` per task, average or ``None``."""

    label: str
    cells: list[Cell | None]
    average: float | None


@dataclass(frozen=True)
class Table:
    """Accuracies of methods (rows) on tasks (columns), and a note on how ours were made."""

    title: str
    tasks: list[str]
    rows: list[Row]
    note: str


def mean_and_error(values: Sequence[float]) -> Cell:
    """Return the mean and its standard error, the sample deviation over sqrt(n); none for n = 1."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return statistics.fmean(values), error


def tables(results: Iterable[Result]) -> dict[str, Table]:
    """Return a table by file name for every dataset among the results with an accuracy."""
    by_dataset: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        if result.accuracy is not None:
            by_dataset[result.dataset].append(result)
    made = {
        name.lower().replace(" ", ""): _beside(name, by_dataset[published["dataset"]])
        for name, published in PUBLISHED.items()
        if published["dataset"] in by_dataset
    }
    known = {published["dataset"] for published in PUBLISHED.values()}
    made |= {name: _alone(name, group) for name, group in by_dataset.items() if name not in known}
    return made


def _beside(name: str, results: list[Result]) -> Table:
    """Make a table of the paper, each of our rows below the published one of the same method."""
    published = PUBLISHED[name]
    tasks, beside = published["tasks"], {row.get("ours") for row in published["rows"]}
    ours = _by_method(result for result in results if result.task in tasks)
    if name == "Table 1":  # of Table 4's methods, on the same tasks, only those also in Table 1
        ablation = {row["ours"] for row in PUBLISHED["Table 4"]["rows"]} - beside
        ours = {method: shown for method, shown in ours.items() if method not in ablation}
    rows = []
    for row in published["rows"]:
        cells = [cell and tuple(cell) for cell in row["cells"]]
        printed = Row(row["method"], cells, row["average"])
        if row.get("ours") in ours:
            label = f"{NAMES[row['ours']]}, ours"
            rows += _compared(printed, _row(label, ours[row["ours"]], tasks))
        else:
            rows.append(printed)
    for method, shown in ours.items():
        if method not in beside:
            rows.append(_row(f"{NAMES.get(method, method)}, ours", shown, tasks))
    title, note = f"{name}. Accuracy (%) on {published['title']}", _note(ours)
    if _are_frozen(ours):
        title += ", ours on frozen features"
        pooled = [row["method"] for row in published["rows"] if row["method"] in POOLED]
        if pooled:
            note += (
                f" Published {' and '.join(pooled)} also use frozen features of ResNet-50; the "
                "other published methods train the network."
            )
    return Table(title, tasks, rows, note)


def _alone(dataset: str, results: list[Result]) -> Table:
    """Make the table of a dataset without published numbers."""
    tasks = sorted({result.task for result in results})
    ours = _by_method(results)
    rows = [_row(NAMES.get(method, method), shown, tasks) for method, shown in ours.items()]
    frozen = ", on frozen features" if _are_frozen(ours) else ""
    return Table(f"Accuracy (%) on {dataset}{frozen}", tasks, rows, _note(ours))


def _are_frozen(ours: dict[str, list[Result]]) -> bool:
    """Whether all results use frozen features; if only some do, the settings' warning says so."""
    results = [result for group in ours.values() for result in group]
    return bool(results) and all(result.recipe.get("frozen") for result in results)


def _by_method(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Group results by method, in the order of :data:`METHODS`."""
    groups: dict[str, list[Result]] = {method: [] for method in NAMES}
    for result in results:
        groups.setdefault(result.method, []).append(result)
    return {method: group for method, group in groups.items() if group}


def _row(label: str, results: list[Result], tasks: list[str]) -> Row:
    values = {task: [r.accuracy for r in results if r.task == task] for task in tasks}
    cells = [mean_and_error(values[task]) if values[task] else None for task in tasks]
    average = statistics.fmean(cell[0] for cell in cells) if all(cells) else None
    return Row(label, cells, average)


def _compared(published: Row, ours: Row) -> list[Row]:
    """Return the published row, ours, and the difference of their means."""
    pairs = zip(ours.cells, published.cells, strict=True)
    cells = [(mine[0] - theirs[0], None) if mine and theirs else None for mine, theirs in pairs]
    average = None if ours.average is None else ours.average - published.average
    named = published._replace(label=f"{published.label}, published")
    return [named, ours, Row("difference", cells, average)]


# Notes


def _note(ours: dict[str, list[Result]]) -> str:
    """Say how a table's results were made, and warn if their settings differ."""
    if not ours:
        return "Published numbers only: none of our runs belongs in this table."
    settings = [_settings(result) for results in ours.values() for result in results]
    facts = {name: dict.fromkeys(s[name] for s in settings if name in s) for name in TOLD}
    made = [f"{name} {' / '.join(values)}" for name, values in facts.items() if values]
    note = f"Ours: {'; '.join([*made, _seeds(ours)])}. Mean ± standard error over the seeds."
    names = dict.fromkeys([*TOLD, *(name for setting in settings for name in setting)])
    unequal = [name for name in names if _differs(name, ours)]
    if unequal:
        where = "; ".join(f"{name} {_where(name, ours)}" for name in unequal)
        note += f"\n\n**Warning: settings differ between the runs of this table:** {where}."
    return note


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


def _differs(name: str, ours: dict[str, list[Result]]) -> bool:
    """Whether a setting differs; one that some methods lack is compared only where it is set."""
    rows = [{_settings(result).get(name) for result in results} for results in ours.values()]
    every = set().union(*rows)
    return len(every - {None} if name in OWN else every) > 1 or max(map(len, rows)) > 1


def _seeds(ours: dict[str, list[Result]]) -> str:
    """List the seeds, by row if they differ."""
    rows: dict[str, list[str]] = defaultdict(list)
    for method, results in ours.items():
        seeds = ", ".join(map(str, sorted({result.seed for result in results})))
        rows[seeds].append(NAMES.get(method, method))
    if len(rows) == 1:
        return f"seeds {next(iter(rows))}"
    return "seeds " + " / ".join(f"{seeds} ({', '.join(labels)})" for seeds, labels in rows.items())


def _where(name: str, ours: dict[str, list[Result]]) -> str:
    """List a setting's values, each with its rows, and the tasks if a row has several values."""
    rows: dict[str, list[str]] = defaultdict(list)
    for method, results in ours.items():
        tasks: dict[str, set[str]] = defaultdict(set)
        for result in results:
            tasks[_settings(result).get(name, "not set")].add(result.task)
        for value, at in tasks.items():
            only = f" on {', '.join(map(arrow, sorted(at)))}" if len(tasks) > 1 else ""
            rows[value].append(f"{NAMES.get(method, method)}{only}")
    return ", ".join(f"{value} ({', '.join(labels)})" for value, labels in rows.items())


# Files


def arrow(task: str) -> str:
    """Write A2W as in the paper, A→W; other names are unchanged."""
    return re.sub(r"^([A-Z][a-z]?)2([A-Z][a-z]?)$", "\\1→\\2", task)


def markdown(table: Table) -> str:
    """Return the table in Markdown, with one decimal as in the paper."""

    def text(cell: Cell | None, sign: str) -> str:
        if cell is None:
            return ""
        mean, error = cell
        return f"{mean:{sign}.1f}" + (f" ± {error:.1f}" if error is not None else "")

    lines = [["Methods", *map(arrow, table.tasks), "Avg"]]
    lines.append(["---"] * len(lines[0]))
    for label, cells, average in table.rows:
        sign = "+" if label == "difference" else ""
        last = None if average is None else (average, None)
        lines.append([label, *(text(cell, sign) for cell in [*cells, last])])
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"**{table.title}**\n\n{body}\n\n{table.note}\n"


def write_csv(table: Table, path: Path) -> None:
    """Write the table with a column for each mean and each standard error, unrounded."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        columns = [column for task in table.tasks for column in (task, f"{task} error")]
        writer.writerow(["method", *columns, "average"])
        for label, cells, average in table.rows:
            values = [value for cell in cells for value in cell or (None, None)]
            writer.writerow([label, *values, average])
