"""What is trained, where, and which runs, as three frozen dataclasses.

A setting that changes the numbers is a field of :class:`Recipe`, and so part of a run's identity.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from office.data import shares
from office.data.images import Preprocessing

PROG = "train_office.py"
WORKERS = min(4, os.cpu_count() or 1)
# A first answer on a CPU: a small frozen network, and a bottleneck trained on its features.
QUICK = {"backbone": "mobilenet_v2", "bottleneck": 256, "epochs": None, "seeds": (0,)}
OWN_METHODS = ("source-only", "symnets")  # for own images, if none are named
BALANCE = ("balance", "prior")  # settings of the balanced methods only


@dataclass(frozen=True)
class Frozen:
    """Features that a run is trained on instead of images.

    Attributes:
        width: Features per view.
        views: Views per image.
        precision: Precision of the forward pass that made them.
    """

    width: int
    views: int
    precision: str


@dataclass(frozen=True)
class Recipe:
    """Every setting that changes the numbers, besides task, method and seed; see ``--help``."""

    dataset: str
    backbone: str = "resnet50"
    weights: str = "imagenet"
    bottleneck: int | None = None
    epochs: int | None = 200  # None: in --preset quick, which then counts steps too
    max_steps: int | None = None  # instead of epochs
    balance: float = 3.0
    prior: str | shares.Shares = "uniform"
    partial: bool = False
    batch_size: int = 128
    lr: float = 0.01
    weight_decay: float = 1e-4
    precision: str = "fp32"
    compile: bool = False
    channels_last: bool = True
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    frozen: Frozen | None = None

    @property
    def width(self) -> int | None:
        """Width of the frozen features, if a run is trained on them."""
        return self.frozen.width if self.frozen else None

    @property
    def weights_file(self) -> Path | None:
        """The file with the backbone's initial weights, if any."""
        return None if self.weights in ("imagenet", "none") else Path(self.weights)

    def settings(self) -> dict[str, Any]:
        """Return the settings as JSON values, for a result and for a run's identity."""
        file = self.weights_file  # its folder does not matter
        weights = file.name if file else self.weights
        epochs = None if self.max_steps else self.epochs
        return json.loads(json.dumps(asdict(self) | {"weights": weights, "epochs": epochs}))


@dataclass(frozen=True)
class Runtime:
    """Where and how to train; a run may be resumed on another computer."""

    device: torch.device
    workers: int = WORKERS
    cache: str = "ram"
    out: Path = Path("runs")
    resume: bool = False


@dataclass(frozen=True)
class Selection:
    """Which runs: every task with every method and seed; or only a check of the images."""

    root: Path | None = None
    source: Path | None = None
    target: Path | None = None
    tasks: Sequence[str] = ("all",)
    methods: Sequence[str] = ("symnets",)
    seeds: Sequence[int] = (0, 1, 2)
    check: bool = False
    unlabelled: bool = False  # whether the target's folders are not categories
    preset: str = "paper"  # or "quick"
