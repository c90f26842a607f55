"""The summary after training on own images: a table, and the files with the rest."""

from collections.abc import Sequence
from pathlib import Path

from office.console import visible
from office.results import health
from office.results.outputs import Result, read_result
from office.training.runs import Run

FILES = {
    "predictions.csv": "the target's images with their predictions",
    "model.pt": "for predict.py",
    "result.json": "every number",
}


def ending(run: Run, result: Result, folder: Path) -> str:
    """Return what a run says at its end."""
    advice = health.remedy(run.method, run.settings)
    diagnosis = health.diagnosis(result).describe(advice)
    return f"{run.title}: done in {result.seconds:.0f} s, see {folder}\n{diagnosis}"


def answer(runs: Sequence[Run], out: Path) -> str:
    """Return a table of the runs, a line for each with rarely predicted categories, the files."""
    folders = [run.folder(out) for run in runs]
    results = [read_result(folder / "result.json") for folder in folders]
    lines = ["", *_table(results), ""]
    for result in results:
        found = health.diagnosis(result)
        if found.rarely_predicted:
            advice = health.remedy(result.method, result.recipe)
            lines.append(f"{result.method}, seed {result.seed}: {found.sentence(advice)}")
    lines.append("Files:")
    for folder in folders:
        there = [f"{name} ({what})" for name, what in FILES.items() if (folder / name).exists()]
        lines.append(f"  {visible(folder)}: {', '.join(there)}")
    return "\n".join(lines)


def _table(results: Sequence[Result]) -> list[str]:
    """Return the table's lines, with accuracies if the target has labels."""
    labelled = any(result.accuracy is not None for result in results)
    header = ["method", "seed"]
    header += ["accuracy", "worst category"] if labelled else []
    rows = [[*header, "C^s and C^t agree", "rarely predicted", "seconds"]]
    for result in results:
        row = [result.method, str(result.seed)]
        if labelled:
            row += [_percent(result.accuracy), _worst(result)]
        same = None if result.agreement is None else 100 * result.agreement
        lost = len(health.diagnosis(result).rarely_predicted)
        rows.append(
            [*row, _percent(same), f"{lost} of {len(result.categories)}", f"{result.seconds:.0f}"]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} %"


def _worst(result: Result) -> str:
    recalls = {name: r for name, r in result.per_category.items() if r is not None and r == r}
    if not recalls:
        return "-"
    name = min(recalls, key=recalls.__getitem__)
    return f"{visible(name)} {recalls[name]:.0f} %"
