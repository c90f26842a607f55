"""The paper's experiments: SymNets and the rows of its ablation on the Office benchmarks.

    python examples/train_office.py --dataset office31 --root data/office31 --task A2W
    torchrun --nproc_per_node 4 examples/train_office.py ...

Each run (task, method, seed) leaves OUT/DATASET/TASK/METHOD/seedN/ with result.json, log.jsonl,
checkpoint.pt, features.npz, model.pt and TensorBoard's event files; report.py makes the tables.
"""

import argparse
import itertools
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from office import cache, data, distributed
from office.data import DataError
from office.files import FileError
from office.methods import METHODS
from office.models import ModelError
from office.runs import open_tasks, run
from office.training import RunError


def main(argv: list[str] | None = None) -> None:
    """Run what the command line asks for.

    Raises:
        SystemExit: With one clear line if something does not fit, 130 if stopped.
    """
    parser = build_parser()
    args = parser.parse_args(argv)
    methods = list(METHODS) if "all" in args.method else list(dict.fromkeys(args.method))
    device = choose_device(parser, args)
    try:
        with distributed.process_group(device):
            if args.batch_size % distributed.processes():
                parser.error(
                    f"--batch-size {args.batch_size} must be divisible by the number of "
                    f"processes, {distributed.processes()}"
                )
            with warnings.catch_warnings():
                if distributed.rank():
                    warnings.simplefilter("ignore")
                tasks = load_tasks(parser, args)
            if args.check:
                sys.exit(0 if data.check(tasks) else 1)
            todo = None if distributed.rank() else open_tasks(args, tasks, methods)
            images = cache.fill(args.cache, distributed.from_first(todo), device)
            # Seeds outermost, so that a stopped sweep has whole tables.
            for seed, task, method in itertools.product(args.seeds, tasks, methods):
                run(args, device, images, task, method, seed)
    except (DataError, FileError, ModelError, RunError, OSError) as error:
        sys.exit(f"{parser.prog}: error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def choose_device(parser: argparse.ArgumentParser, args: argparse.Namespace) -> torch.device:
    """Return this process's device, or exit if it or the precision is not to be had there."""
    try:
        device = torch.device(args.device)
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", device.index or 0)))
        torch.zeros(1, device=device).item()
    except (AssertionError, NotImplementedError, RuntimeError):
        parser.error(f"--device {args.device} is not a device of this machine that torch can use")
    if args.precision == "fp16" and device.type != "cuda":
        parser.error(f"--precision fp16 needs a CUDA GPU, got --device {device}; try bf16")
    return device


def load_tasks(parser: argparse.ArgumentParser, args: argparse.Namespace) -> list[data.Task]:
    """Return the tasks of the command line, all before the first is trained."""
    if args.dataset == "folders":
        if args.source is None or args.target is None:
            parser.error("--dataset folders needs --source DIR and --target DIR")
        if args.root is not None or args.task != ["all"]:
            parser.error("--root and --task belong to the benchmarks, not to --dataset folders")
        return [data.load_folders(args.source, args.target)]
    if args.source or args.target:
        parser.error(f"--source and --target belong to --dataset folders, not {args.dataset}")
    names = list(dict.fromkeys(args.task))
    if "all" in names:
        names = data.task_names(args.dataset)
        if args.check and args.root:  # look at the domains that are there
            names = data.available_tasks(args.dataset, args.root) or names
    return [data.load_task(args.dataset, args.root, name) for name in names]


def number(kind: type, least: float, above: bool = False) -> Callable[[str], float]:
    """Return a parser of numbers from ``least`` on, or only above it."""

    def parse(text: str) -> float:
        value = kind(text)
        if value < least or (above and value == least) or value != value:
            bound = f"above {least}" if above else f"at least {least}"
            raise argparse.ArgumentTypeError(f"must be {bound}, got {value}")
        return value

    parse.__name__ = kind.__name__  # which argparse puts into its message
    return parse


positive = number(int, 1)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="train_office.py",
        description="SymNets and the rows of the paper's ablation on the Office benchmarks.",
        epilog="Where a default comes from: [paper] section 4.1 of the paper, [script] the "
        "settings of the authors' released training script, [ours] a choice of this script.",
    )
    add = parser.add_argument_group("data").add_argument
    add("--dataset", required=True, choices=[*data.DATASETS, "folders"], help="benchmark")
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
        default=["all"],
        metavar="S2T",
        help="such as A2W, I2P or Ar2Cl, several, or all (default: all [paper])",
    )
    add("--check", action="store_true", help="open every image, print a table, train nothing")

    add = parser.add_argument_group("method").add_argument
    add(
        "--method",
        nargs="+",
        default=["symnets"],
        choices=[*METHODS, "all"],
        metavar="M",
        help="rows of Table 4, several, or all (default: symnets [ours]): "
        + ", ".join(f"{name} = {method.row}" for name, method in METHODS.items()),
    )
    add(
        "--seeds",
        nargs="+",
        type=number(int, 0),
        default=[0, 1, 2],
        metavar="N",
        help="one run for each (default: 0 1 2; three runs [paper])",
    )

    add = parser.add_argument_group("network").add_argument
    add(
        "--backbone",
        default="resnet50",
        metavar="NAME",
        help="torchvision classification network that ends in a linear layer "
        "(default: resnet50 [paper])",
    )
    add(
        "--weights",
        default="imagenet",
        metavar="W",
        help="imagenet (torchvision's IMAGENET1K_V1), none, or the FILE of a state_dict "
        "(default: imagenet [paper])",
    )
    add(
        "--bottleneck",
        type=positive,
        metavar="N",
        help="units of a linear layer with batch norm and ReLU behind the backbone, trained at "
        "--lr (default: no such layer [paper])",
    )

    group = parser.add_argument_group("training")
    add = group.add_argument
    length = group.add_mutually_exclusive_group()
    length.add_argument(
        "--epochs",
        type=positive,
        default=200,
        metavar="N",
        help="passes over the larger domain (default: 200 [script])",
    )
    length.add_argument(
        "--max-steps",
        type=positive,
        metavar="N",
        help="steps instead of epochs, with one evaluation at the end; checkpoints still come "
        "once per epoch's worth of steps",
    )
    add(
        "--batch-size",
        type=positive,
        default=128,
        metavar="N",
        help="images per step and domain, over all processes; batch norm sees the images of one "
        "process and one domain (default: 128 [paper])",
    )
    add(
        "--lr",
        type=number(float, 0, above=True),
        default=0.01,
        metavar="X",
        help="learning rate of the head at the start; the backbone has a tenth "
        "(default: 0.01 [paper])",
    )
    add(
        "--weight-decay",
        type=number(float, 0),
        default=1e-4,
        metavar="X",
        help="L2 penalty of all weights (default: 0.0001 [script])",
    )

    cores = os.cpu_count() or 1
    add = parser.add_argument_group("machine").add_argument
    add(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        metavar="D",
        help="cuda, cuda:N or cpu; torchrun gives each process its GPU (default: cuda, or cpu "
        "where torch sees no GPU [ours])",
    )
    add(
        "--workers",
        type=number(int, 0),
        default=min(4, cores),
        metavar="N",
        help="processes that read images where they are not cached, for each domain and each "
        "training process; results do not depend on it (default: 4, at most the number of cores "
        "[ours])",
    )
    add(
        "--cache",
        choices=["ram", "device", "off"],
        default="ram",
        help="where images are kept, decoded once for all runs, if half of the memory that is "
        "free there holds them, or off; results do not depend on it (default: ram [ours])",
    )
    add(
        "--precision",
        choices=["fp32", "bf16", "fp16"],
        default="fp32",
        help="of the forward pass; the losses are float32 always; fp16 scales its gradients and "
        "needs CUDA (default: fp32 [ours])",
    )
    add("--compile", action="store_true", help="torch.compile the backbone (default: off [ours])")
    add(
        "--channels-last",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="memory layout that convolutions are fastest in (default: on [ours])",
    )

    add = parser.add_argument_group("output").add_argument
    add(
        "--out",
        type=Path,
        default=Path("runs"),
        metavar="DIR",
        help="where the runs go (default: runs [ours]); finished ones are not run again",
    )
    add("--resume", action="store_true", help="go on with runs that were stopped")
    return parser


if __name__ == "__main__":
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    # A job scheduler's SIGTERM ends a run as Ctrl-C does: with a word on its checkpoint.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main()
