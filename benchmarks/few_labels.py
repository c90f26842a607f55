"""How much a few target labels gain, and how to use them best.

    python benchmarks/few_labels.py features/office31 --csv results/few_labels.csv

labels --shots images of each target category, drawn by torch.Generator().manual_seed(seed), and
trains on them, on another domain's labelled features and on the target's features, as written by
extract_features.py. Accuracy is measured on the target's other images. The methods:

    labels alone        scikit-learn's logistic regression on the labelled target images
    no target labels    SymNetClassifier()
    as source images    SymNetClassifier(), with the labelled target images added to the source
    target_labels       SymNetClassifier().fit(..., target_labels=)

The views of an image are averaged, and rows scaled to length 1. Each line of the CSV is a run.
After an interruption, the same command continues.
"""

import argparse
import dataclasses
import itertools
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import features
import numpy as np
import timing
import torch

import symloss

METHODS = ["labels alone", "no target labels", "as source images", "target_labels"]
TASKS = ["a2w", "w2a", "d2a"]

Domain = tuple[np.ndarray, np.ndarray]  # features and labels


@dataclasses.dataclass(frozen=True)
class Run:
    """A method's run: see the module's docstring."""

    source: str
    target: str
    shots: int
    method: str
    seed: int
    accuracy: float
    seconds: float


def drawn(labels: np.ndarray, shots: int, seed: int) -> np.ndarray:
    """Return the indices of the first ``shots`` rows of each category, in a random order."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed)).numpy()
    return np.concatenate([order[labels[order] == k][:shots] for k in np.unique(labels)])


def measure(args: argparse.Namespace, done: set[tuple[str, ...]]) -> Iterator[Run]:
    """Run whatever is not done yet."""
    domains = {path.stem: features.read(path) for path in sorted(args.folder.glob("*.npy"))}
    for (source, target), seed in itertools.product(itertools.permutations(domains, 2), args.seeds):
        if f"{source[0]}2{target[0]}" not in args.task:
            continue
        (x_s, y_s), (x_t, y_t) = domains[source], domains[target]
        without: Any = None  # the model without target labels, for any number of shots
        for shots, method in itertools.product(args.shots, METHODS):
            if (source, target, str(shots), method, str(seed)) in done:
                continue
            known, start = drawn(y_t, shots, seed), time.perf_counter()
            if method == "no target labels" and without is not None:
                model = without
            else:
                model = train(method, (x_s, y_s), (x_t, y_t), known, seed)
            right = model.predict(x_t) == y_t
            if method == "no target labels":
                without = model
            seconds = time.perf_counter() - start
            accuracy = 100 * float(np.delete(right, known).mean())
            yield Run(source, target, shots, method, seed, accuracy, seconds)


def train(method: str, source: Domain, target: Domain, known: np.ndarray, seed: int) -> Any:
    """Return a method's model, which has seen the labels of the ``known`` rows of the target."""
    (x_s, y_s), (x_t, y_t) = source, target
    labels = None
    if method == "target_labels":
        labels = np.full(len(y_t), -1)
        labels[known] = y_t[known]
    elif method == "as source images":
        x_s, y_s = np.concatenate([x_s, x_t[known]]), np.concatenate([y_s, y_t[known]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of batches larger than the target, few rows
        if method == "labels alone":
            return features.classifier().fit(x_t[known], y_t[known])
        model = symloss.SymNetClassifier(random_state=seed)
        return model.fit(x_s, y_s, x_t, target_labels=labels)


def table(runs: list[dict[str, str]]) -> list[list[str]]:
    """Return the mean accuracy of every pair of domains and number of shots."""
    rows = [["Source to target, labels of each category", *METHODS]]
    for source, target, shots in sorted({(r["source"], r["target"], r["shots"]) for r in runs}):
        cells = [f"{source} to {target}, {shots}"]
        for method in METHODS:
            accuracies = [
                float(r["accuracy"])
                for r in runs
                if (r["source"], r["target"], r["shots"], r["method"])
                == (source, target, shots, method)
            ]
            cells.append(features.mean_and_error(accuracies) if accuracies else "-")
        rows.append(cells)
    return rows


def main(argv: list[str] | None = None) -> None:
    """Run every method on every task, and print the table."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    add, whole = parser.add_argument, timing.console.whole
    add("folder", type=Path, metavar="DIR", help="features of a benchmark's domains")
    add("--csv", type=Path, required=True, metavar="FILE", help="a line per run is added to it")
    help_ = f"initials of source and target (default: {' '.join(TASKS)})"
    add("--task", nargs="+", default=TASKS, metavar="S2T", help=help_)
    help_ = "labels of each category (default: 1 3 5)"
    add("--shots", type=whole(1), nargs="+", default=[1, 3, 5], metavar="N", help=help_)
    add("--seeds", type=whole(0), nargs="+", default=[0, 1, 2], metavar="N")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    key = [field.name for field in dataclasses.fields(Run)][:5]
    for run in measure(args, timing.start(args.csv, Run, key)):
        timing.append(args.csv, run)
    rows = table(timing.read(args.csv))
    title = "Accuracy of C^t on the target's unlabelled images (%)"
    timing.report(title, rows, [], torch.device("cpu"), None)


if __name__ == "__main__":
    main()
