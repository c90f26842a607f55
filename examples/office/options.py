"""The command line of train_office.py as three frozen dataclasses; nothing else knows argparse.

A setting that changes the numbers is a field of :class:`Recipe`, and then part of what a run is.
"""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import arguments
import torch

from office import datasets, distributed
from office.images import Preprocessing
from office.methods import METHODS

PROG = "train_office.py"
WORKERS = min(4, os.cpu_count() or 1)
BALANCE = ("balance", "prior")  # settings of the balanced methods alone
T = TypeVar("T")


@dataclass(frozen=True)
class Recipe:
    """Whatever changes the numbers, whichever task, method and seed; see the parser's help."""

    dataset: str
    backbone: str = "resnet50"
    weights: str = "imagenet"
    bottleneck: int | None = None
    epochs: int = 200
    max_steps: int | None = None  # instead of epochs
    balance: float = 3.0
    prior: str = "uniform"
    batch_size: int = 128
    lr: float = 0.01
    weight_decay: float = 1e-4
    precision: str = "fp32"
    compile: bool = False
    channels_last: bool = True
    preprocessing: Preprocessing = field(default_factory=Preprocessing)

    @property
    def weights_file(self) -> Path | None:
        """The file that the backbone starts from, if it is one."""
        return None if self.weights in ("imagenet", "none") else Path(self.weights)

    def settings(self) -> dict[str, Any]:
        """Return the settings in JSON's values, for a result and for a run's identity."""
        file = self.weights_file  # which may lie elsewhere
        weights = file.name if file else self.weights
        epochs = None if self.max_steps else self.epochs
        return json.loads(json.dumps(asdict(self) | {"weights": weights, "epochs": epochs}))


@dataclass(frozen=True)
class Machine:
    """Where and how to train; a run may be resumed on another one."""

    device: torch.device
    workers: int = WORKERS
    cache: str = "ram"
    out: Path = Path("runs")
    resume: bool = False


@dataclass(frozen=True)
class Wanted:
    """Which runs: every task by every method with every seed; or to look at the images alone."""

    root: Path | None = None
    source: Path | None = None
    target: Path | None = None
    tasks: Sequence[str] = ("all",)
    methods: Sequence[str] = ("symnets",)
    seeds: Sequence[int] = (0, 1, 2)
    check: bool = False


def read(argv: Sequence[str] | None = None) -> tuple[Recipe, Machine, Wanted]:
    """Read the command line.

    Raises:
        SystemExit: With one clear line if options are wrong or do not fit each other.
    """
    parser = build_parser()
    args = parser.parse_args(argv)
    recipe, machine, wanted = (_filled(kind, args) for kind in (Recipe, Machine, Wanted))
    if recipe.precision == "fp16" and machine.device.type != "cuda":
        parser.error(f"--precision fp16 needs a CUDA GPU, got --device {machine.device}; try bf16")
    if recipe.batch_size % distributed.launched():
        parser.error(
            f"--batch-size {recipe.batch_size} must be divisible by the number of processes, "
            f"{distributed.launched()}"
        )
    if recipe.dataset != "folders":
        if wanted.source or wanted.target:
            parser.error(f"--source and --target belong to --dataset folders, not {recipe.dataset}")
    elif wanted.source is None or wanted.target is None:
        parser.error("--dataset folders needs --source DIR and --target DIR")
    elif wanted.root is not None or wanted.tasks != ("all",):
        parser.error("--root and --task belong to the benchmarks, not to --dataset folders")
    balanced = [name for name, method in METHODS.items() if method.balanced]
    for name in BALANCE:
        if name in args and not {*balanced} & {*wanted.methods}:
            parser.error(
                f"--{name} changes {' and '.join(balanced)} alone, not --method "
                f"{' '.join(wanted.methods)}"
            )
    return recipe, machine, wanted


def _filled(kind: type[T], args: argparse.Namespace) -> T:
    """Make a dataclass of the options that are named as its fields."""
    given = vars(args)
    return kind(**{f.name: given[f.name] for f in fields(kind) if f.name in given})


def _device(text: str) -> torch.device:
    """Read a device's name; of CUDA, torchrun gives each process its GPU."""
    rank = os.environ.get("LOCAL_RANK")
    if text == "cuda" or (rank and text.startswith("cuda:")):
        text = f"cuda:{rank or 0}"
    return arguments.device(text)


class _Once(argparse.Action):
    """Keep each value of several once; "all" stands for ``const``."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        values = self.const if "all" in values else values
        setattr(namespace, self.dest, tuple(dict.fromkeys(values)))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; an option's default is that of the field it fills."""
    parser = argparse.ArgumentParser(
        prog=PROG,
        description="SymNets and the rows of the paper's ablation on the Office benchmarks.",
        epilog="Where a default comes from: [paper] section 4.1 of the paper, [script] the "
        "settings of the authors' released training script, [ours] a choice of this script.",
    )
    add = parser.add_argument_group("data").add_argument
    add("--dataset", required=True, choices=[*datasets.DATASETS, "folders"], help="benchmark")
    add("--root", type=Path, metavar="DIR", help="folder of the benchmark, in any usual layout")
    add("--source", type=Path, metavar="DIR", help="folders: one subfolder per category")
    add(
        "--target",
        type=Path,
        metavar="DIR",
        help="folders: the same subfolders, or images alone, which are then predicted",
    )
    add(
        "--task",
        nargs="+",
        action=_Once,
        const=("all",),
        dest="tasks",
        metavar="S2T",
        help="such as A2W, I2P or Ar2Cl, several, or all (default: all [paper])",
    )
    add("--check", action="store_true", help="open every image, print a table, train nothing")

    add = parser.add_argument_group("method").add_argument
    add(
        "--method",
        nargs="+",
        action=_Once,
        const=METHODS,
        choices=[*METHODS, "all"],
        dest="methods",
        metavar="M",
        help="one, several, or all (default: symnets [ours]): "
        + ", ".join(f"{name} = {method.row}" for name, method in METHODS.items()),
    )
    add(
        "--balance",
        type=arguments.real(0),
        default=argparse.SUPPRESS,  # so that it is known whether it was given
        metavar="X",
        help="balanced methods: weight, beside λ, of the pull of each target batch's mean "
        "prediction to the prior; 1 is the safer choice, and where the target lacks categories it "
        f"does harm (default: {Recipe.balance} [ours])",
    )
    add(
        "--prior",
        choices=["uniform", "source"],
        default=argparse.SUPPRESS,
        help="balanced methods: the share that each category is expected to have of the target: "
        f"the same for all, or that of the source's images (default: {Recipe.prior} [ours])",
    )
    add(
        "--seeds",
        nargs="+",
        action=_Once,
        type=arguments.whole(0),
        metavar="N",
        help="one run for each (default: 0 1 2; three runs [paper])",
    )

    add = parser.add_argument_group("network").add_argument
    add(
        "--backbone",
        metavar="NAME",
        help="torchvision classification network that ends in a linear layer, or resnet50_v1, "
        "for weights of Keras, Caffe or TensorFlow (default: resnet50 [paper])",
    )
    add(
        "--weights",
        metavar="W",
        help="imagenet (torchvision's IMAGENET1K_V1), none, or the FILE of a state_dict "
        "(default: imagenet [paper])",
    )
    add(
        "--bottleneck",
        type=arguments.positive,
        metavar="N",
        help="units of a linear layer with batch norm and ReLU behind the backbone, trained at "
        "--lr (default: no such layer [paper])",
    )

    group = parser.add_argument_group("training")
    length, add = group.add_mutually_exclusive_group().add_argument, group.add_argument
    length(
        "--epochs",
        type=arguments.positive,
        metavar="N",
        help="passes over the larger domain (default: 200 [script])",
    )
    length(
        "--max-steps",
        type=arguments.positive,
        metavar="N",
        help="steps instead of epochs, with one evaluation at the end; checkpoints still come "
        "once per epoch's worth of steps",
    )
    add(
        "--batch-size",
        type=arguments.positive,
        metavar="N",
        help="images per step and domain, over all processes; batch norm sees the images of one "
        "process and one domain (default: 128 [paper])",
    )
    add(
        "--lr",
        type=arguments.real(0, above=True),
        metavar="X",
        help="learning rate of the head at the start; the backbone has a tenth "
        "(default: 0.01 [paper])",
    )
    add(
        "--weight-decay",
        type=arguments.real(0),
        metavar="X",
        help="L2 penalty of all weights (default: 0.0001 [script])",
    )

    add = parser.add_argument_group("machine").add_argument
    add(
        "--device",
        type=_device,
        default="cuda" if torch.cuda.is_available() else "cpu",
        metavar="D",
        help="cuda, cuda:N or cpu; torchrun gives each process its GPU (default: cuda, or cpu "
        "where torch sees no GPU [ours])",
    )
    add(
        "--workers",
        type=arguments.whole(0),
        metavar="N",
        help="processes that read images where they are not cached, for each domain and each "
        "training process; results do not depend on it (default: 4, at most the number of cores "
        "[ours])",
    )
    add(
        "--cache",
        choices=["ram", "device", "off"],
        help="where images are kept, decoded once for all runs, if half of the memory that is "
        "free there holds them, or off; results do not depend on it (default: ram [ours])",
    )
    add(
        "--precision",
        choices=["fp32", "bf16", "fp16"],
        help="of the forward pass; the losses are float32 always; fp16 scales its gradients and "
        "needs CUDA (default: fp32 [ours])",
    )
    add("--compile", action="store_true", help="torch.compile the backbone (default: off [ours])")
    add(
        "--channels-last",
        action=argparse.BooleanOptionalAction,
        help="memory layout that convolutions are fastest in (default: on [ours])",
    )

    add = parser.add_argument_group("output").add_argument
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="where the runs go (default: runs [ours]); finished ones are not run again",
    )
    add("--resume", action="store_true", help="go on with runs that were stopped")
    options = [*fields(Recipe), *fields(Machine), *fields(Wanted)]
    defaults = {f.name: f.default for f in options if f.default is not MISSING}
    parser.set_defaults(**{k: value for k, value in defaults.items() if k not in BALANCE})
    return parser
