"""Tables 1 to 4 and the figures of the paper, out of finished runs.

The published numbers are in published.json: each table's tasks and rows as printed, a cell a pair
of mean and standard error. A row's "ours" names the method of ours that stands beside it.
Table 1's ResNet-50 is quoted from other work, so our source-only runs stand beside Table 4's.
"""

import csv
import json
import math
import re
import statistics
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

PUBLISHED = json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))
# Table 4's names, but for the backbone, which need not be ResNet-50 in ours.
NAMES = {
    row["ours"]: row["method"].replace("ResNet-50", "Source only")
    for row in PUBLISHED["Table 4"]["rows"]
}
COLUMN, PAGE = 3.3, 6.9  # width of a column and of a page, in inches
# Okabe and Ito's colours, told apart with any colour vision.
BLACK, ORANGE, SKY, GREEN, VERMILION, BLUE = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#D55E00",
    "#0072B2",
)
STYLE = {
    "font.size": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "savefig.dpi": 200,
}

Cell = tuple[float, float | None]  # mean and standard error


class ReportError(Exception):
    """What keeps the report from being written, in one line."""


@dataclass(frozen=True)
class Table:
    """Rows of (label, a cell or ``None`` per task, average or ``None``)."""

    title: str
    tasks: list[str]
    rows: list[tuple[str, list[Cell | None], float | None]]
    note: str


def load_runs(folder: Path) -> list[dict]:
    """Return every ``result.json`` below ``folder``, with its ``path``.

    Raises:
        ReportError: If there is none, one is broken, or one seed of a method was run twice.
    """
    runs: dict[tuple, dict] = {}
    for path in sorted(folder.rglob("result.json")):
        try:
            run = json.loads(path.read_text(encoding="utf-8"))
            _check_run(run)
        except (OSError, ValueError) as error:
            raise ReportError(f"{path} is not the result of a run: {error}") from None
        run["path"] = path
        key = tuple(run[name] for name in ("dataset", "task", "method", "seed"))
        if key in runs:
            raise ReportError(
                f"{path} and {runs[key]['path']} hold the same run: {' '.join(map(str, key))}"
            )
        runs[key] = run
    if not runs:
        raise ReportError(f"no finished run (result.json) in {folder}")
    return list(runs.values())


def _check_run(run: object) -> None:
    if not isinstance(run, dict):
        raise ValueError("not a JSON object")
    number = (int, float)
    kinds = {
        "dataset": str,
        "task": str,
        "method": str,
        "seed": int,
        "accuracy": (*number, type(None)),
        "arguments": dict,
        "categories": list,
        "confusion": (list, type(None)),
        "epochs": list,
    }
    for key, kind in kinds.items():
        if key not in run:
            raise ValueError(f"{key!r} is missing")
        if not isinstance(run[key], kind):
            raise ValueError(f"{key!r} is {run[key]!r}")
    for epoch in run["epochs"]:
        if not isinstance(epoch, dict) or not isinstance(epoch.get("epoch"), int):
            raise ValueError(f"'epochs' holds {epoch!r}")
        for key in ("source", "target"):
            if not isinstance(epoch.get(key), (*number, type(None))):
                raise ValueError(f"'epochs' holds {epoch!r}")
    size = len(run["categories"])
    if run["confusion"] and np.shape(run["confusion"]) != (size, size):
        raise ValueError(f"'confusion' is not {size} x {size}")


def mean_and_error(values: list[float]) -> Cell:
    """Return the mean and its standard error, the sample deviation over sqrt(n); none for n = 1."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return statistics.fmean(values), error


def tables(runs: list[dict]) -> dict[str, Table]:
    """Return a table by file name for every dataset among the runs."""
    made = {}
    datasets = list(dict.fromkeys(run["dataset"] for run in runs if run["accuracy"] is not None))
    for name, published in PUBLISHED.items():
        if published["dataset"] in datasets:
            ours = _cells(runs, published["dataset"])
            made[name.lower().replace(" ", "")] = _beside(
                name, published, ours, _note(runs, published["dataset"])
            )
    for dataset in datasets:
        if dataset not in {published["dataset"] for published in PUBLISHED.values()}:
            ours = _cells(runs, dataset)
            tasks = sorted({task for cells in ours.values() for task in cells})
            rows = [_row(NAMES.get(method, method), cells, tasks) for method, cells in ours.items()]
            made[dataset] = Table(f"Accuracy (%) on {dataset}", tasks, rows, _note(runs, dataset))
    return made


def _cells(runs: list[dict], dataset: str) -> dict[str, dict[str, Cell]]:
    """Mean and error by method, in Table 4's order, and task."""
    values: dict[str, dict[str, list[float]]] = {method: defaultdict(list) for method in NAMES}
    for run in runs:
        if run["dataset"] == dataset and run["accuracy"] is not None:
            values.setdefault(run["method"], defaultdict(list))[run["task"]].append(run["accuracy"])
    return {
        method: {task: mean_and_error(seeds) for task, seeds in by_task.items()}
        for method, by_task in values.items()
        if by_task
    }


def _row(
    label: str, cells: dict[str, Cell], tasks: list[str]
) -> tuple[str, list[Cell | None], float | None]:
    complete = all(task in cells for task in tasks)
    average = statistics.fmean(cells[task][0] for task in tasks) if complete else None
    return label, [cells.get(task) for task in tasks], average


def _beside(name: str, published: dict, ours: dict[str, dict[str, Cell]], note: str) -> Table:
    tasks, rows = published["tasks"], []
    for row in published["rows"]:
        cells = [tuple(cell) for cell in row["cells"]]
        own = ours.get(row.get("ours"))
        if own is None:
            rows.append((row["method"], cells, row["average"]))
            continue
        label, mine, average = _row(f"{NAMES[row['ours']]}, ours", own, tasks)
        rows.append((f"{row['method']}, published", cells, row["average"]))
        rows.append((label, mine, average))
        rows.append(
            (
                "difference",
                [(m[0] - p[0], None) if m else None for m, p in zip(mine, cells, strict=True)],
                None if average is None else average - row["average"],
            )
        )
    beside = {row.get("ours") for row in published["rows"]}
    if name != "Table 1":  # the other methods on its tasks are Table 4's
        rows += [
            _row(f"{NAMES.get(method, method)}, ours", cells, tasks)
            for method, cells in ours.items()
            if method not in beside
        ]
    return Table(f"{name}. Accuracy (%) on {published['title']}", tasks, rows, note)


def _note(runs: list[dict], dataset: str) -> str:
    """How the runs were made; several values where they differ."""
    runs = [run for run in runs if run["dataset"] == dataset]
    facts: dict[str, dict[str, None]] = defaultdict(dict)
    for run in runs:
        given = run["arguments"]
        length = "max_steps" if given.get("max_steps") else "epochs"
        for key in ("backbone", "weights", "bottleneck", "batch_size", length, "lr"):
            if given.get(key) is not None:
                facts[key.replace("_", " ")][Path(str(given[key])).name] = None
    seeds = sorted({run["seed"] for run in runs})
    made = "; ".join(f"{fact} {' / '.join(values)}" for fact, values in facts.items())
    return (
        f"Ours: {made}; seeds {', '.join(map(str, seeds))}. Mean ± standard error over the seeds."
    )


def _arrow(task: str) -> str:
    return re.sub(r"^([A-Z][a-z]?)2([A-Z][a-z]?)$", "\\1→\\2", task)


def markdown(table: Table) -> str:
    """Return the table in Markdown, one decimal as in the paper."""

    def text(cell: Cell | None, sign: str) -> str:
        if cell is None:
            return ""
        mean, error = cell
        return f"{mean:{sign}.1f}" + (f" ± {error:.1f}" if error is not None else "")

    lines = [["Methods", *map(_arrow, table.tasks), "Avg"]]
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


# Figures


def confusion_figure(run: dict, counts: np.ndarray) -> Figure:
    """Draw which categories are taken for which, in % of each true category's images."""
    names = run["categories"]
    share = 100 * counts / counts.sum(1, keepdims=True).clip(1)
    small = len(names) <= 12
    width = COLUMN if small else PAGE
    figure = Figure(figsize=(width, 0.92 * width), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[:].set_visible(False)
    # A root scale: the few confusions are what one looks for.
    image = axes.imshow(share, cmap="Blues", norm=PowerNorm(0.5, 0, 100))
    size = 6.5 if small else min(7, 300 / len(names))
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=size)
    axes.set_yticks(range(len(names)), names, fontsize=size)
    axes.tick_params(length=0)
    axes.set(xlabel="predicted", ylabel="true")
    if small:
        for i, j in zip(*np.nonzero(counts), strict=True):
            colour = "white" if share[i, j] > 30 else "black"
            text = f"{share[i, j]:.0f}"
            axes.text(j, i, text, ha="center", va="center", fontsize=6, color=colour)
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.02, ticks=[0, 5, 25, 50, 100])
    bar.set_label("% of the true category")
    bar.outline.set_visible(False)
    return figure


# Figure 4's curves: method, classifier, label, colour, line.
CURVES = [
    ("source-only", "target", NAMES["source-only"], BLACK, ":"),
    ("domain-confusion", "target", "Domain Confusion", ORANGE, "-."),
    ("domain-confusion-em", "target", "Domain Confusion (Em)", GREEN, (0, (5, 1.5))),
    ("symnets", "source", "SymNets-S", SKY, (0, (2, 1))),
    ("symnets", "target", "SymNets-T", VERMILION, "-"),
]


def convergence_figure(runs: list[dict]) -> Figure | None:
    """Draw the test error over epochs, mean of the seeds (Figure 4); ``None`` without curves."""
    figure = Figure(figsize=(COLUMN, 2.6), layout="constrained")
    axes = figure.add_subplot()
    for method, classifier, label, colour, line in CURVES:
        errors = defaultdict(list)
        for run in runs:
            if run["method"] == method:
                for epoch in run["epochs"]:
                    if epoch.get(classifier) is not None:
                        errors[epoch["epoch"]].append(100 - epoch[classifier])
        if len(errors) > 1:
            epochs = sorted(errors)
            means = [statistics.fmean(errors[epoch]) for epoch in epochs]
            axes.plot(epochs, means, color=colour, linestyle=line, linewidth=1.2, label=label)
    if not axes.lines:
        return None
    axes.set(xlabel="epoch", ylabel="test error (%)")
    axes.set_ylim(bottom=0)
    axes.margins(x=0.02)
    axes.grid(axis="y", color="0.9", linewidth=0.5)
    axes.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(loc="outside upper center", ncols=2, frameon=False, handlelength=2.8)
    return figure


PANELS = ("source-only", "domain-confusion", "domain-confusion-em", "symnets")


def tsne_figure(runs: list[dict], limit: int = 2000) -> Figure | None:
    """Draw t-SNE maps of saved features (Figure 3), one panel per method; ``None`` without any.

    The lowest seed of each method is shown, at most ``limit`` images of each domain.

    Raises:
        ReportError: If a features file cannot be read.
    """
    shown = {}
    for method in PANELS:
        for run in sorted(runs, key=lambda run: run["seed"]):
            path = run["path"].with_name("features.npz")
            if run["method"] == method and path.exists():
                shown.setdefault(method, path)
    if not shown:
        return None
    columns = min(2, len(shown))
    rows = math.ceil(len(shown) / 2)
    figure = Figure(
        figsize=(COLUMN, 0.3 + rows * (1.75 if columns == 2 else 2.6)), layout="constrained"
    )
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    marks = (("source", BLUE, "o", 3), ("target", VERMILION, "x", 6))
    for letter, axes, (method, path) in zip("abcd", grid, shown.items(), strict=False):
        points, domain = _embed(path, limit)
        axes.set_axis_on()
        axes.spines[:].set_visible(True)
        axes.spines[:].set_color("0.7")
        axes.set(xticks=[], yticks=[])
        for value, (_, colour, marker, size) in enumerate(marks):
            x, y = points[domain == value].T
            axes.scatter(x, y, s=size, c=colour, marker=marker, linewidths=0.4, alpha=0.6)
        axes.set_title(f"({letter}) {NAMES[method]}".replace("Adding ", ""), y=-0.14, fontsize=7)
    handles = [
        Line2D([], [], color=colour, marker=marker, markersize=4, linestyle="", label=name)
        for name, colour, marker, _ in marks
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2, frameon=False)
    return figure


def _embed(path: Path, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Two-dimensional t-SNE coordinates and the domain of at most ``2 * limit`` images."""
    try:
        with np.load(path) as file:
            features, domain = file["features"].astype(np.float32), file["domain"]
    except Exception as error:  # a broken archive makes numpy raise nearly anything
        raise ReportError(f"cannot read the features in {path}: {error}") from None
    if not np.isfinite(features).all():
        raise ReportError(f"the features in {path} are not all finite")
    random = np.random.default_rng(0)
    order = random.permutation(len(features))
    keep = np.sort(np.concatenate([order[domain[order] == value][:limit] for value in (0, 1)]))
    features, domain = features[keep], domain[keep]
    components = min(50, *features.shape)
    features = PCA(components, random_state=0).fit_transform(features)
    perplexity = min(30, (len(features) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(features), domain


def write_report(folder: Path, out: Path, task: str | None = None) -> str:
    """Write tables and figures of the runs in ``folder`` to ``out``.

    Args:
        folder: Where to look for runs, at any depth.
        out: Where files go.
        task: The figures' task; by default the first of the benchmark's that was run.

    Returns:
        The tables in Markdown and the list of files, for printing.

    Raises:
        ReportError: If there is no run, a file is broken, or nobody ran ``task``.
    """
    runs = load_runs(folder)
    if task is not None and task not in {run["task"] for run in runs}:
        raise ReportError(f"no finished run of task {task} in {folder}")
    out.mkdir(parents=True, exist_ok=True)
    text, files = [], []
    for name, table in tables(runs).items():
        text.append(markdown(table))
        (out / f"{name}.md").write_text(text[-1], encoding="utf-8")
        write_csv(table, out / f"{name}.csv")
        files += [out / f"{name}.md", out / f"{name}.csv"]
    with matplotlib.rc_context(STYLE):
        for dataset in dict.fromkeys(run["dataset"] for run in runs):
            order = next((p["tasks"] for p in PUBLISHED.values() if p["dataset"] == dataset), [])
            found = {run["task"] for run in runs if run["dataset"] == dataset}
            first = task or next((name for name in order if name in found), min(found))
            shown = [run for run in runs if (run["dataset"], run["task"]) == (dataset, first)]
            for name, figure in _figures(shown).items():
                files.append(out / f"{name}-{dataset}-{first}.png")
                figure.savefig(files[-1])
    return "\n".join([*text, "Written:", *map(str, files)])


def _figures(runs: list[dict]) -> dict[str, Figure]:
    figures = {"convergence": convergence_figure(runs), "tsne": tsne_figure(runs)}
    with_counts = [run for run in runs if run["confusion"]]
    # SymNets where it was run, else the first method found; the seeds' counts are added up.
    with_counts.sort(key=lambda run: run["method"] != "symnets")
    if with_counts:
        run = with_counts[0]
        same = [
            np.array(r["confusion"])
            for r in with_counts
            if (r["method"], r["categories"]) == (run["method"], run["categories"])
        ]
        figures[f"confusion-{run['method']}"] = confusion_figure(run, np.sum(same, 0))
    return {name: figure for name, figure in figures.items() if figure is not None}
