# ruff: noqa: RUF009  (option() is dataclasses.field(), with what argparse needs)
"""Every option of the training scripts, declared once: a field of one of three dataclasses.

To add one, add a field; the command line follows. A setting that changes the numbers belongs in
:class:`Recipe`, which makes it part of a run's identity.
"""

import argparse
import json
import os
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import torch

from office import console, distributed
from office.console import UserError, positive, real, whole
from office.data.images import Preprocessing
from office.data.layouts import DATASETS
from office.data.tasks import Shares, read_shares
from office.methods import METHODS

T = TypeVar("T")
PROG = "train_office.py"
WORKERS = min(4, os.cpu_count() or 1)
# A first answer on a CPU: a small frozen network, and a bottleneck trained on its features.
QUICK = {"backbone": "mobilenet_v2", "bottleneck": 256, "epochs": None, "seeds": (0,)}
OWN_METHODS = ("source-only", "symnets")  # for own images, if none are named
BALANCE = ("balance", "prior")  # settings of the balanced methods only
PRIORS = ("estimate", "uniform", "source")  # besides a file


def option(default: T, help: str, **settings: Any) -> T:
    """Return a dataclass field that is an option too.

    ``help`` has ``{}`` for the default; ``settings`` are those of argparse's ``add_argument``, and
    ``flag``, if the option is not named like the field.
    """
    if isinstance(default, bool):
        settings["action"] = argparse.BooleanOptionalAction if default else "store_true"
    elif isinstance(default, tuple):
        settings["nargs"] = "+"
    if settings.get("type") is Path:
        settings.setdefault("metavar", "DIR")
    return field(default=default, metadata={"help": help.format(default), **settings})


def _prior(text: str) -> str | Shares:
    """Read ``estimate``, ``uniform``, ``source`` or a file of shares."""
    if text in PRIORS:
        return text
    if not Path(text).exists():
        raise argparse.ArgumentTypeError(f"must be {', '.join(PRIORS)} or a file, got {text!r}")
    try:
        return read_shares(Path(text))
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _device(text: str) -> torch.device:
    """Read a device's name, or choose one; with CUDA, torchrun gives each process its own GPU."""
    text = text or ("cuda" if torch.cuda.is_available() else "cpu")
    rank = os.environ.get("LOCAL_RANK")
    if text == "cuda" or (rank and text.startswith("cuda:")):
        text = f"cuda:{rank or 0}"
    return console.device(text)


@dataclass(frozen=True)
class Frozen:
    """Features that a run is trained on instead of images."""

    width: int  # of each view
    views: int  # of each image
    precision: str  # of the forward pass that made them


@dataclass(frozen=True)
class Recipe:
    """Every setting that changes the numbers, besides task, method and seed."""

    dataset: str = field(
        metadata={
            "help": f"{', '.join(DATASETS)}; or folders, for your own images",
            "required": True,
            "choices": [*DATASETS, "folders"],
            "metavar": "NAME",
        }
    )
    backbone: str = option(
        "resnet50",
        "torchvision classification network that ends in a linear layer, timm:NAME, or "
        "resnet50_v1, for weights from Keras, Caffe or TensorFlow (default: {} [paper])",
        metavar="NAME",
    )
    weights: str = option(
        "imagenet",
        "imagenet (torchvision's IMAGENET1K_V1, or those of a timm tag such as "
        "timm:resnet50.tv_in1k), none (random), or a FILE with a state_dict (default: {} [paper])",
        metavar="W",
    )
    bottleneck: int | None = option(
        None,
        "width of an added linear layer with batch norm and ReLU (default: none [paper])",
        type=positive,
    )
    epochs: int | None = option(  # None: in --preset quick, which then counts steps too
        200, "passes over the larger domain (default: {} [script])", type=positive
    )
    max_steps: int | None = option(
        None,
        "number of steps, in place of epochs, with one evaluation at the end",
        type=positive,
    )
    balance: float = option(
        3.0,
        "for balanced methods: weight (times λ) of the loss that pulls each target batch's mean "
        "prediction towards the prior; 1 is safer (default: {} [ours])",
        type=real(0),
    )
    prior: str | Shares = option(
        "estimate",
        "for balanced methods: shares of the categories in the target. estimate: from features of "
        "both domains, before the first step and at 20, 40, 60 and 80 %% of the steps; uniform: "
        "equal shares; source: the source's shares; FILE: from lines such as mug,0.05. Categories "
        "with less than a fifth of an equal share count less (default: {} [ours])",
        type=_prior,
    )
    partial: bool = option(
        False,
        "accept a target that lacks some of the source's categories; methods with a symmetric head "
        "then weight each category by its share among the target predictions, re-estimated every "
        "epoch (default: off [ours])",
    )
    batch_size: int = option(
        128,
        "images per step and domain, over all processes; batch norm sees the images of one process "
        "and one domain (default: {} [paper])",
        type=positive,
    )
    lr: float = option(
        0.01,
        "initial learning rate of head and bottleneck; the backbone's is a tenth "
        "(default: {} [paper])",
        type=real(0, above=True),
    )
    weight_decay: float = option(
        0.0001, "L2 penalty on all weights (default: {} [script])", type=real(0)
    )
    precision: str = option(
        "fp32",
        "precision of the forward pass; losses are always float32; fp16 needs CUDA "
        "(default: {} [ours])",
        choices=["fp32", "bf16", "fp16"],
    )
    compile: bool = option(False, "torch.compile the backbone (default: off [ours])")
    channels_last: bool = option(
        True, "memory layout in which convolutions are fastest (default: on [ours])"
    )
    preprocessing: Preprocessing = Preprocessing()  # the backbone's
    frozen: Frozen | None = None

    @property
    def width(self) -> int | None:
        """Width of the frozen features, if a run is trained on them."""
        return self.frozen.width if self.frozen else None

    @property
    def weights_file(self) -> Path | None:
        """The file with the backbone's initial weights, if any."""
        return None if self.weights in ("imagenet", "none") else Path(self.weights)

    def autocast(self, device: torch.device) -> torch.autocast:
        """Return the context of the forward pass."""
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.precision)
        return torch.autocast(device.type, dtype, enabled=dtype is not None)

    def settings(self) -> dict[str, Any]:
        """Return the settings as JSON values, for a result and for a run's identity."""
        file = self.weights_file  # its folder does not matter
        used: dict[str, Any] = {"weights": file.name if file else self.weights}
        used["epochs"] = None if self.max_steps else self.epochs
        settings: dict[str, Any] = json.loads(json.dumps(asdict(self) | used))
        return settings


@dataclass(frozen=True)
class Selection:
    """The runs to make: every task with every method and seed; or only a check of the images."""

    root: Path | None = option(None, "the benchmark's folder, in any common layout", type=Path)
    source: Path | None = option(None, "for folders: one subfolder per category", type=Path)
    target: Path | None = option(
        None,
        "for folders: the same subfolders, or just images, which are then predicted",
        type=Path,
    )
    unlabelled: bool = option(
        False,
        "for folders: the target's subfolders are not categories; predict all its images, at any "
        "depth",
    )
    tasks: Sequence[str] = option(
        ("all",),
        "one or several, for example A2W, I2P or Ar2Cl, or all (default: all [paper])",
        flag="--task",
        metavar="TASK",
    )
    methods: Sequence[str] = option(
        ("symnets",),
        "one, several, or all (default: symnets; for folders also source-only [ours]): "
        + ", ".join(f"{name} = {method.row}" for name, method in METHODS.items()),
        flag="--method",
        choices=[*METHODS, "all"],
        metavar="M",
    )
    seeds: Sequence[int] = option(
        (0, 1, 2),
        "one run per seed (default: 0 1 2; three runs [paper])",
        type=whole(0),
        metavar="N",
    )
    preset: str = option(
        "paper",
        "set of defaults; quick, for folders, gives a first answer on a CPU in minutes: it trains "
        "on features of a small frozen network, which is downloaded once unless --weights is "
        f"given (backbone {QUICK['backbone']}, bottleneck {QUICK['bottleneck']}, one seed, at "
        "least 20 epochs and 1,000 steps) (default: {})",
        choices=["quick", "paper"],
    )
    check: bool = option(False, "open every image and print a table, without training")


@dataclass(frozen=True)
class Runtime:
    """Settings that do not change the numbers; a run may be resumed on another computer."""

    device: torch.device = field(
        metadata={
            "help": "cuda, cuda:N or cpu; torchrun gives each process its own GPU (default: cuda, "
            "or cpu if torch finds no GPU [ours])",
            "type": _device,
            "default": "",
            "metavar": "D",
        }
    )
    workers: int = option(
        WORKERS,
        "threads per domain and process that read images if they are not cached; does not change "
        "results (default: 4, at most the number of cores [ours])",
        type=whole(0),
    )
    cache: str = option(
        "ram",
        "where to keep the images, decoded once for all runs; off decodes them in every epoch; "
        "does not change results (default: {} [ours])",
        choices=["ram", "device", "off"],
    )
    out: Path = option(
        Path("runs"),
        "folder for the runs (default: {} [ours]); finished runs are not repeated",
        type=Path,
    )
    resume: bool = option(False, "continue runs that were stopped")


def read(argv: Sequence[str] | None = None) -> tuple[Recipe, Runtime, Selection]:
    """Read the command line of train_office.py."""
    parser = build_parser()
    return filled(parser, vars(parser.parse_args(argv)))


def build_parser(
    prog: str = PROG,
    description: str = "Train SymNets and the other methods of the paper's tables, on the Office "
    "benchmarks or on two folders of your own.",
    only: Collection[str] | None = None,
) -> argparse.ArgumentParser:
    """Return a parser of all options, or ``only`` some; its result holds only what was given."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog="Where defaults come from: [paper] is section 4.1 of the paper, [script] the "
        "authors' released training script, [ours] our own choice.",
        argument_default=argparse.SUPPRESS,
    )
    for kind, title in (
        (Recipe, "settings that change the numbers"),
        (Selection, "which runs"),
        (Runtime, "where and how to run them"),
    ):
        group = parser.add_argument_group(title)
        for each in fields(kind):
            settings = {"flag": "--" + each.name.replace("_", "-"), **each.metadata}
            flag = settings.pop("flag")
            if settings and (only is None or flag.removeprefix("--") in only):
                group.add_argument(flag, dest=each.name, **settings)
    return parser


def filled(
    parser: argparse.ArgumentParser, given: dict[str, Any]
) -> tuple[Recipe, Runtime, Selection]:
    """Fill the dataclasses with what was given; the parser refuses what does not go together."""
    folders, processes = given["dataset"] == "folders", distributed.launched()
    if {"epochs", "max_steps"} <= given.keys():
        parser.error("argument --max-steps: not allowed with argument --epochs")
    if given.get("preset") == "quick":
        if not folders:
            parser.error(f"--preset quick needs --dataset folders, got {given['dataset']}")
        if processes > 1:
            parser.error("--preset quick runs in one process: start it without torchrun")
        given = QUICK | given
    if folders:
        given = {"methods": OWN_METHODS} | given
    for name, every in (("tasks", ("all",)), ("methods", (*METHODS,)), ("seeds", ())):
        if name in given:  # each once
            values = every if "all" in given[name] else tuple(dict.fromkeys(given[name]))
            given = given | {name: values}
    recipe, runtime = _fill(Recipe, given), _fill(Runtime, given)
    selection = _fill(Selection, given)
    if recipe.precision == "fp16" and runtime.device.type != "cuda":
        parser.error(f"--precision fp16 needs a CUDA GPU, got --device {runtime.device}; try bf16")
    if recipe.batch_size % processes:
        parser.error(
            f"--batch-size {recipe.batch_size} must be divisible by the number of processes, "
            f"{processes}"
        )
    balanced = [name for name, method in METHODS.items() if method.balanced]
    for name in BALANCE:
        if name in given and not {*balanced} & {*selection.methods}:
            parser.error(
                f"--{name} only affects {' and '.join(balanced)}, not --method "
                f"{' '.join(selection.methods)}"
            )
    if recipe.frozen:  # the images are already taken care of
        return recipe, runtime, selection
    if folders and not ({"source", "target"} <= given.keys()):
        parser.error("--dataset folders needs --source DIR and --target DIR")
    for name in () if folders else ("source", "target", "unlabelled"):
        if name in given:
            parser.error(f"--{name} needs --dataset folders, got {recipe.dataset}")
    return recipe, runtime, selection


Part = TypeVar("Part", Recipe, Selection, Runtime)


def _fill(kind: type[Part], given: dict[str, Any]) -> Part:
    return kind(**{each.name: given[each.name] for each in fields(kind) if each.name in given})
