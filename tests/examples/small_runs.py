"""Small runs of train_office.py, and what they left, for the tests of examples/office/."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import torch
import train_office
from office import files
from office.console import UserError
from office.data.images import Preprocessing
from office.data.tasks import Domain, Task
from office.options import Recipe, Runtime, Selection
from office.results import outputs
from office.training.runs import Run
from torch import nn
from torchvision.models._api import WeightsEnum, register_model


class TinyWeights(WeightsEnum):
    """None are published."""


def tiny(*, weights: TinyWeights | None = None) -> nn.Module:
    """A network with batch norm and dropout, a hundred times faster than torchvision's smallest."""
    layers = nn.Conv2d(3, 8, 5, stride=3, bias=False), nn.BatchNorm2d(8), nn.ReLU()
    pooled = nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 16), nn.Dropout(0.1)
    return nn.Sequential(*layers, *pooled, nn.Linear(16, 5))


tiny.__module__ = "torchvision.models.tiny"  # where its list of networks looks
register_model()(tiny)

PREPROCESSING = Preprocessing(resize=36, crop=32)
RECIPE = Recipe(
    "office31",
    backbone="tiny",
    weights="none",
    batch_size=4,
    epochs=2,
    preprocessing=PREPROCESSING,
)
RUNTIME = Runtime(torch.device("cpu"), workers=0)
SELECTION = Selection(tasks=("A2W",), seeds=(0,))


def changed(**changes: Any) -> tuple[Recipe, Runtime, Selection]:
    """Change fields by name, each in the one of the three that has it."""
    three = (RECIPE, RUNTIME, SELECTION)
    names = [{field.name for field in dataclasses.fields(part)} for part in three]
    assert set().union(*names) >= changes.keys()
    return tuple(
        dataclasses.replace(part, **{name: changes[name] for name in own & changes.keys()})
        for part, own in zip(three, names, strict=True)
    )


def carry_out(method: str = "symnets", **changes: Any) -> Path:
    """Do small runs and return the first one's folder; ``method`` is short for one method."""
    recipe, runtime, selection = changed(**{"methods": (method,), **changes})
    try:
        train_office.run_all(recipe, runtime, selection)
    except (UserError, OSError) as error:
        sys.exit(f"train_office.py: error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    run = f"{selection.tasks[0]}/{selection.methods[0]}/seed{selection.seeds[0]}"
    return runtime.out / recipe.dataset / run


def made_task(images: int = 9) -> Task:
    """amazon -> webcam with images that are nowhere."""
    labels = [i % 3 for i in range(images)]
    domains = (
        Domain(name, [Path(name) / f"{i}.jpg" for i in range(images)], labels)
        for name in ("amazon", "webcam")
    )
    return Task("A2W", *domains, ["bike", "mouse", "mug"])


def made_run(task: Task | None = None, method: str = "symnets", **changes: Any) -> Run:
    """A run with the seed 0; ``changes`` are fields of its recipe."""
    return Run(dataclasses.replace(RECIPE, **changes), task or made_task(), method, 0)


def network(folder: Path) -> dict[str, torch.Tensor]:
    """All weights and buffers of a run, as its last checkpoint has them."""
    return files.load(folder / "checkpoint.pt")["network"]


def assert_same_weights(folder: Path, other: Path) -> None:
    left, right = network(folder), network(other)
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


def assert_same_run(folder: Path, other: Path) -> None:
    """Bit for bit, but for the time it took and where."""
    assert_same_weights(folder, other)
    assert result(folder).epochs == result(other).epochs
    assert (folder / "features.npz").read_bytes() == (other / "features.npz").read_bytes()


def result(folder: Path) -> outputs.Result:
    return outputs.read_result(folder / "result.json")


def features(folder: Path) -> outputs.Features:
    return outputs.read_features(folder / "features.npz")
