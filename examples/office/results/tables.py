"""Finished runs as tables and in words: Tables 1 to 4 of the paper, a summary, a label-free look.

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
from pathlib import Path
from textwrap import indent
from typing import Any, NamedTuple, TypeAlias

from office import console
from office.console import visible
from office.methods import METHODS
from office.options import BALANCE
from office.results import targets
from office.results.outputs import Mean, Result, mean_and_error, plus_minus, read_result

PUBLISHED = json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))
# Table 4's names, except the backbone's, because ours need not be ResNet-50.
NAMES = {name: method.row.replace("ResNet-50", "Source only") for name, method in METHODS.items()}
OF_SOME = (*BALANCE, "partial")  # settings that only some methods have
# The settings in every note; others appear only if the rows of a table differ in them.
NOTED = (
    *("backbone", "weights", "features", "bottleneck", "batch size", "length", "lr", "precision"),
    *(*OF_SOME, "seeds"),
)

Groups: TypeAlias = dict[str, list[Result]]  # by method


class Row(NamedTuple):
    """A method's accuracies in %: a cell or ``None`` per task, and the average or ``None``.

    ``uneven`` says that the average is over tasks that were run with different seeds.
    """

    label: str
    cells: list[Mean | None]
    uneven: bool = False


class Table(NamedTuple):
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
    rows, left = [], dict(ours)
    for row in published:
        cells = [cell and tuple(cell) for cell in row["cells"]]
        theirs = Row(row["method"], [*cells, (row["average"], None)])
        if group := left.pop(row.get("ours", ""), None):
            mine = _row(f"{NAMES[row['ours']]}, ours", group, tasks)
            rows += [theirs._replace(label=f"{theirs.label}, published"), mine]
            pairs = zip(mine.cells, theirs.cells, strict=True)
            differences: list[Mean | None] = [
                (a[0] - b[0], None) if a and b else None for a, b in pairs
            ]
            rows.append(Row("difference", differences, mine.uneven))
        else:
            rows.append(theirs)
    for method, group in left.items():
        label = NAMES.get(method, method) + ", ours" * bool(published)
        rows.append(_row(label, group, tasks))
    # If only some results use frozen features, the note warns of it.
    if ours and all(result.recipe.get("frozen") for group in ours.values() for result in group):
        title += f", {'ours ' if published else ''}on frozen features"
    note = _note(ours)
    if any(row.uneven for row in rows):
        note += "\n\n† Mean over tasks that were run with different seeds."
    return Table(title, tasks, rows, note)


def _row(label: str, results: list[Result], tasks: list[str]) -> Row:
    cells: list[Mean | None] = []
    for task in tasks:
        values = [r.accuracy for r in results if r.task == task and r.accuracy is not None]
        cells.append(mean_and_error(values) if values else None)
    means = [cell[0] for cell in cells if cell]
    if len(means) < len(tasks):
        return Row(label, [*cells, None])
    seeds = {frozenset(r.seed for r in results if r.task == task) for task in tasks}
    return Row(label, [*cells, (statistics.fmean(means), None)], len(seeds) > 1)


def _note(ours: Groups) -> str:
    """Say how a table's results were made, and warn if their settings, seeds or images differ."""
    if not ours:
        return "Published numbers only: none of our runs belongs in this table."
    runs: dict[str, list[dict[str, str]]] = {}  # by method
    images: dict[str, set[int]] = defaultdict(set)
    for method, group in ours.items():
        for result in group:
            seeds = sorted({r.seed for r in group if r.task == result.task})
            settings = _settings(result) | {"seeds": ", ".join(map(str, seeds))}
            runs.setdefault(method, []).append(settings)
            images[result.task].update(result.images[-1:])
    every = [settings for group in runs.values() for settings in group]
    names = dict.fromkeys([*NOTED, *(name for settings in every for name in settings)])
    words = {
        name: " / ".join(dict.fromkeys(settings.get(name, "not set") for settings in every))
        for name in names
    }
    made = [f"{name} {words[name]}" for name in NOTED if words[name] != "not set"]
    note = f"Ours: {'; '.join(made)}. Mean ± standard error over the seeds."
    if differing := [f"{name} {words[name]}" for name in names if _differs(name, runs)]:
        listed = "; ".join(differing)
        note += f"\n\n**Warning: settings differ between the runs of this table:** {listed}."
    if other := [arrow(task) for task, sums in sorted(images.items()) if len(sums) > 1]:
        note += (
            f"\n\n**Warning: runs of the same task are on different images:** {', '.join(other)}."
        )
    return note


def _differs(name: str, runs: dict[str, list[dict[str, str]]]) -> bool:
    """Whether a setting has several values; that some methods lack it need not be one."""
    of_each = [{settings.get(name, "not set") for settings in group} for group in runs.values()]
    values = set().union(*of_each) - ({"not set"} if name in OF_SOME else set())
    return len(values) > 1 or any(len(values) > 1 for values in of_each)


def _settings(result: Result) -> dict[str, str]:
    """Return a recipe's settings in words, by name; one length for epochs and steps."""
    recipe = dict(result.recipe)
    epochs, steps = recipe.pop("epochs", None), recipe.pop("max_steps", None)
    recipe["length"] = f"{steps} steps" if steps else f"{epochs} epochs" if epochs else None
    recipe["weights"] = recipe.get("weights") and Path(str(recipe["weights"])).name
    if frozen := recipe.pop("frozen", None):
        recipe["features"] = f"frozen, views: {frozen['views']} ({frozen['precision']})"
    recipe["partial"] = recipe.get("partial") or None
    if isinstance(recipe.get("prior"), list):
        recipe["prior"] = ", ".join(f"{category} {share:g}" for category, share in recipe["prior"])
    return {
        name.replace("_", " "): str(value) for name, value in recipe.items() if value is not None
    }


def arrow(task: str) -> str:
    """Write A2W as in the paper, A→W; other names are unchanged."""
    return re.sub(r"^([A-Z][a-z]?)2([A-Z][a-z]?)$", "\\1→\\2", task)


def markdown(table: Table) -> str:
    """Return the table in Markdown, with one decimal as in the paper."""
    lines = [["Methods", *map(arrow, table.tasks), "Avg"], ["---"] * (len(table.tasks) + 2)]
    for label, cells, uneven in table.rows:
        sign = "+" if label == "difference" else ""
        line = [label, *(plus_minus(*cell, sign) if cell else "" for cell in cells)]
        lines.append([*line[:-1], line[-1] + "†" * uneven])
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"**{table.title}**\n\n{body}\n\n{table.note}\n"


# In words; most of it needs no target labels


def _adapts(result: Result) -> bool:
    method = METHODS.get(result.method)
    return method is None or method.target


def remedy(result: Result) -> str | None:
    """Return the option to try if categories are rarely predicted, if there is one."""
    if not _adapts(result):
        return None
    method, prior = METHODS.get(result.method), result.recipe.get("prior", "uniform")
    if method and method.balanced:
        if prior == "estimate":
            return None if result.trust else "--prior FILE"
        return "--prior estimate" if isinstance(prior, str) else None
    balanced = f"{result.method}-balanced"
    return f"--method {balanced if balanced in METHODS else 'symnets-balanced'}"


def finished(result: Result, folder: Path) -> str:
    """Return the lines that a run prints at its end."""
    done = f"{result.title}: done in {result.seconds:.0f} s, see {folder}"
    if result.accuracy is not None:
        return f"{done}\n{result.diagnosis.describe(remedy(result))}"
    described = targets.describe(result.diagnosis, result.origin, remedy(result))
    return f"{done}\n{described}\n{targets.NAMED} {visible(folder / 'predictions.html')}"


def _concern(result: Result) -> str | None:
    """Return a sentence on classifiers that disagree or on lost categories, if there is reason."""
    if result.diagnosis.healthy:
        return None
    sentence = result.diagnosis.sentence(remedy(result))
    return sentence if _adapts(result) else f"without adaptation, {sentence}"


def summarise(folders: Sequence[Path]) -> str:
    """Return a table of finished runs, what each rarely predicts, and where their files are."""
    results = [read_result(folder / "result.json") for folder in folders]
    columns = "method, seed, accuracy, worst category, C^s and C^t agree, rarely predicted, seconds"
    rows = [columns.split(", ")]
    for result in results:
        worst = result.worst_category
        row = [result.method, str(result.seed)]
        row.append("-" if result.accuracy is None else f"{result.accuracy:.1f} %")
        row.append("-" if worst is None else f"{visible(worst[0])} {worst[1]:.0f} %")
        row.append("-" if result.agreement is None else f"{100 * result.agreement:.1f} %")
        row.append(f"{len(result.diagnosis.rarely_predicted)} of {len(result.categories)}")
        rows.append([*row, f"{result.seconds:.0f}"])
    concerns = [
        f"{result.method}, seed {result.seed}: {sentence}"
        for result in results
        if (sentence := _concern(result))
    ]
    where = "result.json, model.pt (for predict.py) and, without labels, predictions.csv "
    where += "and predictions.html are in:"
    places = (f"  {visible(folder)}" for folder in folders)
    return "\n".join(["", console.columns(rows), "", *concerns, where, *places])


def on_targets(results: Sequence[Result]) -> str:
    """Return a line per run with cause for concern, the others in one, and unlabelled shares."""
    sentences = [(result.title, _concern(result)) for result in results]
    lines = [f"- {title}: {sentence}" for title, sentence in sentences if sentence]
    healthy = len(results) - len(lines)
    lines.append(f"- Nothing looks wrong in {healthy} of {len(results)} runs.")
    if same := [100 * result.agreement for result in results if result.agreement is not None]:
        low, high = (f"{end(same):.1f}" for end in (min, max))
        spread = low if low == high else f"{low} to {high}"
        lines.append(f"- The source and target classifiers agree on {spread} % of the target.")
    for result in results:
        if result.accuracy is None:
            shares = targets.columns(result.diagnosis, result.origin)
            lines += ["", f"{result.title}:", "", indent(shares, "    ")]
    return "\n".join(["**On the targets, without their labels**", "", *lines, ""])
