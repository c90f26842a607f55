"""The scripts' command lines, read into the dataclasses of :mod:`options`."""

import argparse
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import torch

from office import console, distributed
from office.console import UserError
from office.data import datasets, shares
from office.models import backbones
from office.options import BALANCE, OWN_METHODS, PROG, QUICK, Recipe, Runtime, Selection
from office.training.methods import METHODS

T = TypeVar("T")
Add: TypeAlias = Callable[..., None]  # argparse's add_argument


def read(argv: Sequence[str] | None = None) -> tuple[Recipe, Runtime, Selection]:
    """Read the command line.

    Raises:
        SystemExit: With one clear line if options are wrong or do not go together.
    """
    parser = build_parser()
    parser.set_defaults(methods=None)  # to tell whether any were named
    args = parser.parse_args(argv)
    if args.preset == "quick":
        if args.dataset != "folders":
            parser.error(f"--preset quick belongs to --dataset folders, not {args.dataset}")
        parser.set_defaults(**QUICK)
        args = parser.parse_args(argv)
    if args.methods is None:
        args.methods = OWN_METHODS if args.dataset == "folders" else Selection.methods
    return filled(parser, args)


def filled(
    parser: argparse.ArgumentParser, args: argparse.Namespace
) -> tuple[Recipe, Runtime, Selection]:
    """Return what was read, if the options go together; otherwise the parser reports an error."""
    recipe, runtime, selection = (_filled(kind, args) for kind in (Recipe, Runtime, Selection))
    if recipe.precision == "fp16" and runtime.device.type != "cuda":
        parser.error(f"--precision fp16 needs a CUDA GPU, got --device {runtime.device}; try bf16")
    if recipe.batch_size % distributed.launched():
        parser.error(
            f"--batch-size {recipe.batch_size} must be divisible by the number of processes, "
            f"{distributed.launched()}"
        )
    balanced = [name for name, method in METHODS.items() if method.balanced]
    for name in BALANCE:
        if name in args and not {*balanced} & {*selection.methods}:
            parser.error(
                f"--{name} only affects {' and '.join(balanced)}, not --method "
                f"{' '.join(selection.methods)}"
            )
    if recipe.frozen:  # the images are already taken care of
        return recipe, runtime, selection
    if recipe.dataset != "folders":
        if selection.source or selection.target:
            parser.error(f"--source and --target belong to --dataset folders, not {recipe.dataset}")
        if selection.unlabelled:
            parser.error(f"--unlabelled belongs to --dataset folders, not {recipe.dataset}")
    elif selection.source is None or selection.target is None:
        parser.error("--dataset folders needs --source DIR and --target DIR")
    elif selection.root is not None or selection.tasks != ("all",):
        parser.error("--root and --task belong to the benchmarks, not to --dataset folders")
    try:
        preprocessing = backbones.preprocessing(recipe.backbone)
    except UserError as error:
        parser.error(str(error))
    return replace(recipe, preprocessing=preprocessing), runtime, selection


def _filled(kind: type[T], args: argparse.Namespace) -> T:
    """Fill a dataclass from the options named like its fields."""
    given = vars(args)
    return kind(**{f.name: given[f.name] for f in fields(kind) if f.name in given})


def _prior(text: str) -> str | shares.Shares:
    """Read ``uniform``, ``source`` or a file of shares."""
    if text in ("uniform", "source"):
        return text
    if not Path(text).exists():
        raise argparse.ArgumentTypeError(f"must be uniform, source or a file, got {text!r}")
    try:
        return shares.read_shares(Path(text))
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _device(text: str) -> torch.device:
    """Read a device's name; with CUDA, torchrun gives each process its own GPU."""
    rank = os.environ.get("LOCAL_RANK")
    if text == "cuda" or (rank and text.startswith("cuda:")):
        text = f"cuda:{rank or 0}"
    return console.device(text)


class _Once(argparse.Action):
    """Keep each value once; "all" stands for ``const``."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        values = self.const if "all" in values else values
        setattr(namespace, self.dest, tuple(dict.fromkeys(values)))


def build_parser(
    prog: str = PROG,
    description: str = "SymNets and the rows of the paper's ablation on the Office benchmarks.",
    only: Collection[str] | None = None,
) -> argparse.ArgumentParser:
    """Return the parser; an option's default is its field's.

    Args:
        prog: Name of the script.
        description: What it does.
        only: Names of the options to include; all by default.
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog="Where defaults come from: [paper] section 4.1 of the paper, [script] the "
        "authors' released training script, [ours] our own choice.",
    )

    def adder(group: Any) -> Add:
        def add(flag: str, **settings: Any) -> None:
            if only is None or flag.removeprefix("--") in only:
                group.add_argument(flag, **settings)

        return add

    for title, add_all in (
        ("data", _data),
        ("method", _method),
        ("network", _network),
        ("training", _training),
        ("runtime", _machine),
        ("output", _output),
    ):
        group = parser.add_argument_group(title)
        add_all(adder(group))
        if title == "training" and (only is None or "epochs" in only):
            _length(adder(group.add_mutually_exclusive_group()))
    options = [*fields(Recipe), *fields(Runtime), *fields(Selection)]
    defaults = {f.name: f.default for f in options if f.default is not MISSING}
    parser.set_defaults(**{k: value for k, value in defaults.items() if k not in BALANCE})
    return parser


def _data(add: Add) -> None:
    add("--dataset", required=True, choices=[*datasets.DATASETS, "folders"], help="benchmark")
    add("--root", type=Path, metavar="DIR", help="the benchmark's folder, in any common layout")
    add("--source", type=Path, metavar="DIR", help="for folders: one subfolder per category")
    add(
        "--target",
        type=Path,
        metavar="DIR",
        help="for folders: the same subfolders, or just images, which are then predicted",
    )
    add(
        "--unlabelled",
        action="store_true",
        help="for folders: the target's subfolders are not categories; predict all its images, at "
        "any depth",
    )
    add(
        "--task",
        nargs="+",
        action=_Once,
        const=("all",),
        dest="tasks",
        metavar="S2T",
        help="one or several, for example A2W, I2P or Ar2Cl, or all (default: all [paper])",
    )
    add("--check", action="store_true", help="open every image, print a table, train nothing")


def _method(add: Add) -> None:
    add(
        "--method",
        nargs="+",
        action=_Once,
        const=METHODS,
        choices=[*METHODS, "all"],
        dest="methods",
        metavar="M",
        help="one, several, or all (default: symnets; for folders also source-only [ours]): "
        + ", ".join(f"{name} = {method.row}" for name, method in METHODS.items()),
    )
    add(
        "--balance",
        type=console.real(0),
        default=argparse.SUPPRESS,  # to tell whether it was given
        metavar="X",
        help="for balanced methods: weight (times λ) that pulls each target batch's mean "
        "prediction towards the prior; 1 is safer; harmful if the target lacks categories "
        f"(default: {Recipe.balance} [ours])",
    )
    add(
        "--prior",
        type=_prior,
        default=argparse.SUPPRESS,
        metavar="P",
        help="for balanced methods: expected share of each category in the target: uniform, source "
        "(the source's shares), or a FILE with lines such as mug,0.05 "
        f"(default: {Recipe.prior} [ours])",
    )
    add(
        "--partial",
        action="store_true",
        help="the target may lack some of the source's categories: methods with a symmetric head "
        "weight each category by its share among the target predictions, re-estimated every epoch; "
        "other methods ignore this (default: off [ours])",
    )
    add(
        "--seeds",
        nargs="+",
        action=_Once,
        type=console.whole(0),
        metavar="N",
        help="one run per seed (default: 0 1 2; three runs [paper])",
    )


def _network(add: Add) -> None:
    quick = ", ".join(f"{name} {QUICK[name]}" for name in ("backbone", "bottleneck"))
    add(
        "--preset",
        choices=["quick", "paper"],
        help="other defaults, for folders: quick gives a first answer on a CPU in minutes, by "
        f"training on features of a small frozen network ({quick}, one seed; 20 epochs, more in "
        "small folders to reach 1,000 steps) (default: paper)",
    )
    add(
        "--backbone",
        metavar="NAME",
        help="torchvision classification network that ends in a linear layer, timm:NAME, or "
        "resnet50_v1, for weights from Keras, Caffe or TensorFlow (default: resnet50 [paper])",
    )
    add(
        "--weights",
        metavar="W",
        help="imagenet (torchvision's IMAGENET1K_V1, or those of a timm tag such as "
        "timm:resnet50.tv_in1k), none, or the FILE of a state_dict "
        "(default: imagenet [paper])",
    )
    add(
        "--bottleneck",
        type=console.positive,
        metavar="N",
        help="add a linear layer of N units with batch norm and ReLU after the backbone, trained "
        "at --lr (default: no such layer [paper])",
    )


def _length(add: Add) -> None:
    add(
        "--epochs",
        type=console.positive,
        metavar="N",
        help="passes over the larger domain (default: 200 [script])",
    )
    add(
        "--max-steps",
        type=console.positive,
        metavar="N",
        help="steps instead of epochs, with one evaluation at the end; checkpoints are still "
        "written after every epoch's worth of steps",
    )


def _training(add: Add) -> None:
    add(
        "--batch-size",
        type=console.positive,
        metavar="N",
        help="images per step and domain, over all processes; batch norm sees the images of one "
        "process and one domain (default: 128 [paper])",
    )
    add(
        "--lr",
        type=console.real(0, above=True),
        metavar="X",
        help="initial learning rate of the head; the backbone's is a tenth (default: 0.01 [paper])",
    )
    add(
        "--weight-decay",
        type=console.real(0),
        metavar="X",
        help="L2 penalty on all weights (default: 0.0001 [script])",
    )


def _machine(add: Add) -> None:
    add(
        "--device",
        type=_device,
        default="cuda" if torch.cuda.is_available() else "cpu",
        metavar="D",
        help="cuda, cuda:N or cpu; torchrun gives each process its own GPU (default: cuda, or cpu "
        "if torch finds no GPU [ours])",
    )
    add(
        "--workers",
        type=console.whole(0),
        metavar="N",
        help="processes that read images if they are not cached, per domain and training process; "
        "does not change results (default: 4, at most the number of cores [ours])",
    )
    add(
        "--cache",
        choices=["ram", "device", "off"],
        help="where to keep the images, decoded once for all runs: ram (in a temporary file in "
        "--out, mapped into memory), device or off; does not change results (default: ram [ours])",
    )
    add(
        "--precision",
        choices=["fp32", "bf16", "fp16"],
        help="of the forward pass; losses are always float32; fp16 scales its gradients and needs "
        "CUDA (default: fp32 [ours])",
    )
    add("--compile", action="store_true", help="torch.compile the backbone (default: off [ours])")
    add(
        "--channels-last",
        action=argparse.BooleanOptionalAction,
        help="memory layout in which convolutions are fastest (default: on [ours])",
    )


def _output(add: Add) -> None:
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder for the runs (default: runs [ours]); finished runs are not repeated",
    )
    add("--resume", action="store_true", help="continue runs that were stopped")
