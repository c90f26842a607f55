"""The output of a run: the printed table and diagnosis, and results.json."""

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from textwrap import TextWrapper

import torch
from office.results import scores
from torch import Tensor, nn

import symloss
from symloss.diagnostics import diagnose

COLUMNS = {
    "target_accuracy/C_t": "target C_t",
    "target_worst_recall/C_t": "worst digit",
    "target_accuracy/C_s": "target C_s",
    "source_accuracy/C_t": "source C_t",
    "source_accuracy/C_s": "source C_s",
}
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
LINES = TextWrapper(99, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)
ROW = "{:16} {:>5}" + " {:>12}" * len(COLUMNS) + " {:>8}"


@dataclass(frozen=True)
class Run:
    """One trained network with its loss and accuracies (%).

    An accuracy's name gives domain and classifier: ``target_accuracy/C_s`` is the source
    classifier's, C^s, on the target. ``history`` has an entry per epoch, with ``"loss"``;
    ``final`` has the accuracies after the last one, including those on the source's training
    images.
    """

    method: str
    seed: int
    extractor: nn.Module
    head: symloss.SymmetricHead
    history: list[dict[str, float]]
    final: dict[str, float]
    seconds: float


def print_table(runs: list[Run], scored: int) -> None:
    """Print every run, then means, standard errors and gains over source-only, by seed.

    ``scored`` is the number of target images on which accuracy was measured.
    """
    print(f"\nAccuracy (%) after the last epoch: on {scored} handwritten digits (target), on the")
    print("worst digit among them, and on the printed training digits (source)")
    print(ROW.format("method", "seed", *COLUMNS.values(), "seconds"))
    for run in runs:
        print_row(run.method, str(run.seed), [run])
    methods = {run.method: [r for r in runs if r.method == run.method] for run in runs}
    if len(runs) > len(methods):
        for method, same in methods.items():
            print_row(method, "mean", same)
    before = methods.pop("source-only", [])
    for method, after in methods.items() if before else ():
        gains = [
            mean_and_error([a.final[c] - b.final[c] for a, b in zip(after, before, strict=True)])
            for c in ("target_accuracy/C_t", "target_worst_recall/C_t")
        ]
        print(ROW.format(method, "gain", *gains, *[""] * 4).rstrip())


@torch.no_grad()
def print_diagnosis(runs: list[Run], images: Tensor) -> None:
    """Print a label-free diagnosis on the target images, for runs of one seed."""
    print(f"\nWithout labels, on all {len(images)} handwritten digits, seed {runs[0].seed}")
    for run in runs:
        source, target = symloss.functional.split_logits(run.head(run.extractor(images)))
        other = None if run.method == "source-only" else source  # its C^s is not trained
        diagnosis = diagnose(target, NAMES, other_logits=other)
        remedy = None if run.method == "symnets-balanced" else "symnets-balanced"
        print(run.method)
        for line in diagnosis.describe(remedy).splitlines():
            print(LINES.fill(line))


def print_row(method: str, seed: str, runs: list[Run]) -> None:
    """Print a row of the table: the mean of runs of one method."""
    cells = [
        mean_and_error([run.final[name] for run in runs]) if name in runs[0].final else "-"
        for name in COLUMNS
    ]
    seconds = statistics.mean(run.seconds for run in runs)
    print(ROW.format(method, seed, *cells, f"{seconds:.1f}"))


def mean_and_error(values: list[float]) -> str:
    """Format the mean and its standard error."""
    return scores.plus_minus(*scores.mean_and_error(values))


def write_results(runs: list[Run], settings: dict[str, object], path: Path) -> None:
    """Write settings, versions and the accuracies of every run as JSON."""
    results: dict[str, dict[str, object]] = {}
    for run in runs:
        results.setdefault(run.method, {})[str(run.seed)] = {
            "seconds": run.seconds,
            "final": run.final,
            "epochs": run.history,
        }
    versions = {"symloss": symloss.__version__, "torch": torch.__version__}
    text = json.dumps({"settings": settings, "versions": versions, "results": results}, indent=2)
    path.write_text(text + "\n", encoding="utf-8")
