"""Results and features as finished runs write them, made up for tables, figures and report."""

import csv
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from office.results.outputs import Features, Result

CATEGORIES = ["bike", "mouse", "mug"]
RECIPE = {
    "backbone": "resnet18",
    "weights": "imagenet",
    "bottleneck": None,
    "epochs": 4,
    "max_steps": None,
    "batch_size": 8,
    "lr": 0.01,
    "precision": "fp32",
    "channels_last": False,
}


def made_result(
    task: str = "A2W",
    method: str = "symnets",
    seed: int = 0,
    accuracy: float | None = 90.0,
    dataset: str = "office31",
    length: int = 4,
    **changes: Any,
) -> Result:
    """A run whose target error falls by 1 % an epoch, from 39 % for C^t and 49 % for C^s."""
    symmetric = method == "symnets"
    epochs = [
        {
            "epoch": epoch,
            "target_accuracy/C_s": 50.0 + epoch if symmetric else None,
            "target_accuracy/C_t": 60.0 + epoch + seed,
        }
        for epoch in range(1, length + 1)
    ]
    final = {"target_accuracy/C_t": accuracy, "target_accuracy/C_s": None}
    fields = {
        "dataset": dataset,
        "task": task,
        "method": method,
        "seed": seed,
        "classifier": "C_t",
        "accuracy": accuracy,
        "final": {**final, "source_accuracy/C_s": None},
        "epochs": epochs,
        "per_category": {},
        "confusion": [[3, 1, 0], [0, 4, 0], [0, 0, 2]],
        "categories": CATEGORIES,
        "recipe": RECIPE,
        "predicted": dict(zip(CATEGORIES, (0.5, 0.3, 0.2), strict=True)),
        "expected": dict.fromkeys(CATEGORIES, 1 / 3),
        "trust": None,
        "agreement": 0.9 if symmetric else None,
        "images": [18, 12, 0],
        "machine": {"device": "cpu"},
        "versions": {},
        "commit": None,
        "processes": 1,
        "seconds": 0.0,
        "peak_memory_bytes": None,
    }
    return Result(**{**fields, **changes})


def made_features(gap: float = 0.0, **changes: Any) -> Features:
    """Noise: 18 images of the source and 12 of the target, ``gap`` apart in each dimension."""
    domain = np.repeat([0, 1], [18, 12]).astype(np.uint8)
    features = np.random.default_rng(0).normal(size=(30, 8)) + gap * domain[:, None]
    fields = {"domain": domain, "label": np.zeros(30, np.int16)} | changes
    return Features(features.astype(np.float16), **fields)


class Prediction(NamedTuple):
    path: Path
    category: str
    confidence: float


def read_predictions(path: Path) -> list[Prediction]:
    """Rows of a predictions.csv, without its escapes."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = [*csv.DictReader(file, strict=True)]
    return [
        Prediction(
            Path(re.sub(r"\\udc([89a-f][0-9a-f])", _surrogate, row["path"].removeprefix("'"))),
            row["category"].removeprefix("'"),
            float(row["confidence"]),
        )
        for row in rows
    ]


def _surrogate(escape: re.Match[str]) -> str:
    return chr(0xDC00 + int(escape[1], 16))
