"""Finished runs in words, for the console and the report; most of it needs no target labels."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from office.console import visible
from office.methods import METHODS
from office.results.outputs import Result, read_result
from symloss.diagnostics import Diagnosis

FILES = {
    "predictions.csv": "the target's images with their predictions",
    "model.pt": "for predict.py",
    "result.json": "every number",
}


def diagnosis(result: Result) -> Diagnosis:
    """Return how a run's predictions spread over the categories, with printable names."""
    return Diagnosis(
        tuple(map(visible, result.predicted)),
        tuple(result.predicted.values()),
        tuple(result.expected.values()),
        result.agreement,
        samples=result.images[1] if result.images else None,
    )


def remedy(result: Result) -> str | None:
    """Return the option to try if categories are rarely predicted, if there is one."""
    method = METHODS.get(result.method)
    if result.recipe.get("partial") or (method and method.balanced):
        return None
    balanced = f"{result.method}-balanced"
    return f"--method {balanced if balanced in METHODS else 'symnets-balanced'}"


def finished(result: Result, folder: Path) -> str:
    """Return the lines that a run prints at its end."""
    description = diagnosis(result).describe(remedy(result))
    return f"{result.title}: done in {result.seconds:.0f} s, see {folder}\n{description}"


def _concern(result: Result) -> str | None:
    """Return a sentence on classifiers that disagree or on lost categories, if there is reason."""
    spread = diagnosis(result)
    return None if spread.healthy else spread.sentence(remedy(result))


# Own images


def summarise(folders: Sequence[Path]) -> str:
    """Return a table of finished runs, what each rarely predicts, and the files in its folder."""
    results = [read_result(folder / "result.json") for folder in folders]
    lines = ["", *_table(results), ""]
    for result in results:
        if sentence := _concern(result):
            lines.append(f"{result.method}, seed {result.seed}: {sentence}")
    lines.append("Files:")
    for folder in folders:
        written = [f"{name} ({use})" for name, use in FILES.items() if (folder / name).exists()]
        lines.append(f"  {visible(folder)}: {', '.join(written)}")
    return "\n".join(lines)


def _table(results: Sequence[Result]) -> list[str]:
    """Return the table's lines, with accuracies if the target has labels."""
    labelled = any(result.accuracy is not None for result in results)
    accuracies = ["accuracy", "worst category"] if labelled else []
    rows = [["method", "seed", *accuracies, "C^s and C^t agree", "rarely predicted", "seconds"]]
    for result in results:
        row = [result.method, str(result.seed)]
        if labelled:
            worst = result.worst_category
            row.append("-" if result.accuracy is None else f"{result.accuracy:.1f} %")
            row.append("-" if worst is None else f"{visible(worst[0])} {worst[1]:.0f} %")
        row.append("-" if result.agreement is None else f"{100 * result.agreement:.1f} %")
        row.append(f"{len(diagnosis(result).rarely_predicted)} of {len(result.categories)}")
        rows.append([*row, f"{result.seconds:.0f}"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


# The report


def on_targets(results: Iterable[Result]) -> str:
    """Return a line per run with cause for concern, and a summary of the others.

    Results from before the label-free numbers do not count.
    """
    results = [result for result in results if result.predicted]
    sentences = [(result.title, _concern(result)) for result in results]
    lines = [f"- {title}: {sentence}" for title, sentence in sentences if sentence]
    healthy = len(results) - len(lines)
    lines.append(f"- In {healthy} of {len(results)} runs nothing looks wrong.")
    same = [100 * result.agreement for result in results if result.agreement is not None]
    if same:
        spread = f"{min(same):.1f} to {max(same):.1f} %"
        lines.append(f"- The source and target classifiers agree on {spread} of the target.")
    return "\n".join(["**On the targets, without their labels**", "", *lines, ""])


def csv_rows(results: Iterable[Result]) -> list[list[object]]:
    """Return the rows of a CSV file with the shares of every run, one per category."""
    rows: list[list[object]] = [
        ["dataset", "task", "method", "seed", "agreement", "category", "predicted", "expected"]
    ]
    for result in results:
        run = [result.dataset, result.task, result.method, result.seed, result.agreement]
        for category, share in result.predicted.items():
            rows.append([*run, category, share, result.expected[category]])
    return rows
