"""Write a CSV file with one line per finished run, as results/ keeps them.

    python examples/collect.py runs/ --out results/frozen.csv

Accuracies, worst category, agreement, calibration and label-free scores come from the run's
result.json and features.npz.
"""

import argparse
import json
from pathlib import Path
from typing import TypeAlias

import torch
from office import console, files
from office.console import UserError
from office.results import outputs
from office.results.outputs import Features, Result

import symloss

# The library's scores, of the classifier whose predictions count.
SCORES = ("information_maximization", "nuclear_norm", "soft_neighborhood_density", "corr_c")

Record: TypeAlias = dict[str, str | float | None]  # a line, by column


def main(argv: list[str] | None = None) -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("runs", nargs="+", type=Path, help="folders with runs, at any depth")
    add("--out", required=True, type=Path, metavar="FILE", help="CSV file to write, or -")
    args = parser.parse_args(argv)
    paths = {path.resolve() for runs in args.runs for path in runs.rglob("result.json")}
    if not paths:
        raise UserError(f"no finished run (result.json) in {' '.join(map(str, args.runs))}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    files.check(args.out)
    records = []
    for path in paths:
        saved = path.with_name("features.npz")
        features = outputs.read_features(saved) if saved.exists() else None
        records.append(record(outputs.read_result(path), features))
    key = ("dataset", "task", "method", "seed", "settings")
    records.sort(key=lambda line: [line[name] for name in key])
    rows = [
        [f"{value:.6g}" if isinstance(value, float) else value for value in line.values()]
        for line in records
    ]
    files.put(args.out, files.table([records[0], *rows]))


def record(result: Result, features: Features | None) -> Record:
    """Return a run's line; accuracies, recalls, shares and calibration errors are in %.

    The columns accuracy, c_t, c_s and joint are target accuracies: of the classifier whose
    predictions count, of each of the two, and of the largest sum of a category's two probabilities.
    A value is ``None`` if the target has no labels, the method no second classifier, or the run
    saved no logits.
    """
    category, recall = result.worst_category or (None, None)
    line: Record = {
        "dataset": result.dataset,
        "task": result.task,
        "method": result.method,
        "seed": result.seed,
        "accuracy": result.accuracy,
        "c_t": result.final["target_accuracy/C_t"],
        "c_s": result.final.get("target_accuracy/C_s"),
        "joint": None,
        "worst_category": category,
        "worst_recall": recall,
        "agreement": None,
        "calibration_error": None,
        **dict.fromkeys(SCORES),
        "seconds": result.seconds,
        "weights": str(result.recipe.get("weights")),
        "settings": json.dumps(result.recipe, sort_keys=True),
        "device": str(result.machine.get("device")),
        "versions": json.dumps(result.versions, sort_keys=True),
    }
    if features is None or features.logits is None:
        return line
    logits, k = torch.from_numpy(features.logits), len(result.categories)
    counting = outputs.by_classifier(logits, k)[result.classifier]
    same = outputs.agreement(logits, k)
    line |= {name: getattr(symloss.scores, name)(counting).item() for name in SCORES}
    line["agreement"] = None if same is None else 100 * same
    labels = torch.from_numpy(features.label[features.domain == 1]).long()
    if (labels >= 0).all():
        summed = logits.double().softmax(1).view(len(logits), -1, k).sum(1)
        line["joint"] = outputs.accuracy(summed, labels.tolist())
        line["calibration_error"] = outputs.calibration_error(counting, labels)
    return line


if __name__ == "__main__":
    console.run(main)
