"""Cost of a SymNets training step, compared with supervised training on the same images.

    supervised         cross-entropy on all images, source and target, with a linear head of 2K
                       outputs (random labels stand in for the target's); one backward
    two backwards      the recipe of the authors' released script: both players' losses from one
                       set of joint logits, by softmax, sums and logarithm (losses.py); backward of
                       the head's loss with retain_graph; save its gradients; zero; backward of the
                       extractor's loss; restore the head's gradients
    authors' settings  two backwards in float32 and contiguous memory, regardless of the options
    symloss            head.route, symnet_losses, TwoOptimizerStep
    symloss, compiled  the same with extractor, head and losses under torch.compile
    pytorch-adapt      its adapters.SymNets, if installed; two linear heads with K outputs

Every variant forwards source and target separately and steps two SGD optimizers (momentum 0.9,
Nesterov, weight decay 1e-4). Images and weights are random, and the same in all variants.

Time and ratio are medians over rounds in which the variants take turns, with first and third
quartiles; the ratio to supervised is taken within a round. Peak memory is that of two steps in a
fresh process per variant: on a GPU torch.cuda.max_memory_allocated in the second step, on a CPU
(Linux only) the peak resident size minus that before the model was built, so "compiled" includes
the compiler. "Backbone backwards" counts how often the backbone's first parameter gets a gradient
in a step.
"""

import argparse
import multiprocessing
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import timing
import torch
import torch.nn.functional as F
import torchvision
from losses import straightforward
from timing import console
from torch import Tensor, nn

import symloss

LAM = 1.0
AUTHORS = "authors' settings"


class Trainer:
    """Network, optimizers and batch, the same for all variants, and a method for each variant."""

    def __init__(self, args: argparse.Namespace) -> None:
        torch.manual_seed(0)
        layout = torch.channels_last if args.channels_last else torch.contiguous_format
        extractor, features = build_extractor(args.backbone)
        self.extractor = extractor.to(args.device).to(memory_format=layout)
        self.head = symloss.SymmetricHead(features, args.num_classes).to(args.device)
        self.optimizers = [sgd(self.extractor, lr=0.001), sgd(self.head, lr=0.01)]
        size = (2, args.batch_size, 3, args.size, args.size)
        self.images = [x.to(args.device, memory_format=layout) for x in torch.randn(size)]
        self.labels = torch.randint(args.num_classes, size[:2]).to(args.device)
        bf16 = args.precision == "bf16"
        self.autocast = partial(torch.autocast, args.device.type, torch.bfloat16, bf16)
        self.backwards = 0
        next(extractor.parameters()).register_post_accumulate_grad_hook(self._count)

    def _count(self, _: Tensor) -> None:
        self.backwards += 1

    def logits(self) -> list[Tensor]:
        """Forward source and target, in this order."""
        return [self.head(self.extractor(x)) for x in self.images]

    def supervised(self) -> None:
        """Train on the labels of both domains."""
        with self.autocast():
            pairs = zip(self.logits(), self.labels, strict=True)
            source, target = (F.cross_entropy(logits, labels) for logits, labels in pairs)
            loss = source + target
        self.zero_grad()
        loss.backward()
        self.update()

    def two_backwards(self) -> None:
        """Give each player its gradient with its own backward, both over one graph."""
        with self.autocast():
            source, target = (symloss.RoutedLogits(v, v.view_as(v)) for v in self.logits())
            losses = straightforward(source, self.labels[0], target)
        self.zero_grad()
        losses.head().backward(retain_graph=True)  # the extractor's walks the same graph
        kept = [parameter.grad for parameter in self.head.parameters()]
        self.zero_grad()
        losses.extractor(LAM).backward()
        for parameter, grad in zip(self.head.parameters(), kept, strict=True):
            parameter.grad = grad
        self.update()

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def update(self) -> None:
        """Step both optimizers."""
        for optimizer in self.optimizers:
            optimizer.step()

    def loss(self) -> Tensor:
        """Sum both players' losses with symloss."""
        source, target = (self.head.route(self.extractor(x)) for x in self.images)
        return symloss.symnet_losses(source, self.labels[0], target).total(LAM)

    def one_backward(self) -> None:
        """Train with symloss."""
        with self.autocast():
            loss = self.loss()
        self.symloss_step(loss)

    def one_backward_compiled(self) -> None:
        """Train with symloss under torch.compile."""
        with self.autocast():
            loss = self.compiled_loss()
        self.symloss_step(loss)

    def pytorch_adapt(self) -> None:
        """Train with pytorch-adapt's SymNets."""
        source, target = self.images
        labels = self.labels[0]
        data = {"src_imgs": source, "src_labels": labels, "src_domain": torch.zeros_like(labels)}
        data |= {"target_imgs": target, "target_domain": torch.ones_like(labels)}
        with self.autocast():
            self.adapter.training_step(data)

    @cached_property
    def symloss_step(self) -> symloss.TwoOptimizerStep:
        """The step of both optimizers."""
        return symloss.TwoOptimizerStep(*self.optimizers)

    @cached_property
    def compiled_loss(self) -> Callable[[], Tensor]:
        """Extractor, head and losses under torch.compile."""
        return torch.compile(self.loss)

    @cached_property
    def adapter(self) -> Any:
        """pytorch-adapt's SymNets on the same extractor."""
        from pytorch_adapt.adapters import SymNets
        from pytorch_adapt.containers import Models, Optimizers
        from pytorch_adapt.layers import MultipleModels

        size = self.head.in_features, self.head.num_classes
        head = MultipleModels(nn.Linear(*size), nn.Linear(*size)).to(self.head.weight.device)
        optimizers = {"G": self.optimizers[0], "C": sgd(head, lr=0.01)}
        return SymNets(Models({"G": self.extractor, "C": head}), Optimizers(optimizers))


VARIANTS = {
    "supervised": Trainer.supervised,
    "two backwards": Trainer.two_backwards,
    AUTHORS: Trainer.two_backwards,
    "symloss": Trainer.one_backward,
    "symloss, compiled": Trainer.one_backward_compiled,
    "pytorch-adapt": Trainer.pytorch_adapt,
}


def sgd(module: nn.Module, lr: float) -> torch.optim.SGD:
    """Return the paper's optimizer."""
    return torch.optim.SGD(module.parameters(), lr, 0.9, weight_decay=1e-4, nesterov=True)


def build_extractor(backbone: str) -> tuple[nn.Module, int]:
    """Return a torchvision network without its last linear layer, and its number of features."""
    network = torchvision.models.get_model(backbone, weights=None)
    name, last = [*network.named_modules()][-1]
    if not isinstance(last, nn.Linear):
        raise ValueError(f"it must end in a linear layer, got {type(last).__name__}")
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, nn.Identity())
    return network, last.in_features


def check_backbone(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Exit with one line if the backbone is unknown or cannot process the images."""
    if args.backbone not in torchvision.models.list_models(module=torchvision.models):
        parser.error(f"--backbone must be a classification network, got {args.backbone!r}")
    try:
        network, _ = build_extractor(args.backbone)
        features = network(torch.randn(min(2, args.batch_size), 3, args.size, args.size))
        if not isinstance(features, Tensor):
            raise ValueError("it has more than one output in training")
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        parser.error(f"--backbone {args.backbone} with --size {args.size}: {reason}")


def build_trainer(args: argparse.Namespace, name: str) -> Trainer:
    """Return a variant's trainer, with the options' or the authors' settings."""
    authors = {"precision": "fp32", "channels_last": False}
    return Trainer(argparse.Namespace(**vars(args) | (authors if name == AUTHORS else {})))


def peak_memory(args: argparse.Namespace, name: str) -> int:
    """Measure the peak bytes of two steps, in a process of their own."""
    before = _resident_peak()
    trainer = build_trainer(args, name)
    VARIANTS[name](trainer)
    if args.device.type == "cpu":
        VARIANTS[name](trainer)
        return _resident_peak() - before
    torch.cuda.reset_peak_memory_stats(args.device)
    VARIANTS[name](trainer)
    return torch.cuda.max_memory_allocated(args.device)


def _resident_peak() -> int:
    # Not ru_maxrss: a process inherits it from its parent.
    status = Path("/proc/self/status")
    found = status.exists() and re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
    return 1024 * int(found[1]) if found else 0


def in_a_fresh_process(call: Callable[..., int], *args: object) -> int:
    """Run a function of this file in a process forked from one that only did the imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torchvision", "symloss"])
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(call, *args).result()


def main(argv: list[str] | None = None) -> None:
    """Measure all variants and print the table."""
    parser = timing.parser(__doc__, repeat=10)
    add, number = parser.add_argument, partial(parser.add_argument, type=console.positive)
    add(
        "--backbone",
        default="resnet50",
        metavar="NAME",
        help="torchvision network (default: resnet50)",
    )
    number("--batch-size", default=32, metavar="N", help="images per domain (default: 32)")
    number("--num-classes", default=31, metavar="K", help="categories (default: 31)")
    number("--size", default=224, metavar="PIXELS", help="side of an image (default: 224)")
    forward = "of the forward pass, with autocast (default: fp32)"
    add("--precision", choices=["fp32", "bf16"], default="fp32", help=forward)
    layout = "memory layout of images and convolutions (default: on)"
    add("--channels-last", action=argparse.BooleanOptionalAction, default=True, help=layout)
    add("--no-compile", action="store_true", help="skip torch.compile")
    args = parser.parse_args(argv)
    if args.quick:
        args.backbone, args.batch_size, args.num_classes, args.size = "shufflenet_v2_x0_5", 2, 3, 32
        args.repeat, args.no_compile = 2, True
    check_backbone(parser, args)
    names = [*VARIANTS]
    if args.no_compile:
        names.remove("symloss, compiled")
    try:
        import pytorch_adapt.adapters  # noqa: F401
    except ImportError:
        names.remove("pytorch-adapt")
    try:
        memory = {name: in_a_fresh_process(peak_memory, args, name) for name in names}
        trainers = {name: build_trainer(args, name) for name in names}
        steps = {name: partial(VARIANTS[name], trainers[name]) for name in names}
        times = timing.interleave(steps, args.repeat, args.device)
    except (torch.cuda.OutOfMemoryError, BrokenProcessPool):
        parser.error(f"out of memory; use a --batch-size below {args.batch_size}")
    base = memory["supervised"]
    rows = [["Step", "Time, ms", "Ratio", "Peak memory", "Backbone backwards"]]
    for name in names:
        trainers[name].backwards = 0
        steps[name]()
        cells = timing.time_and_ratio(times[name], times["supervised"])
        peak = timing.three_digits(memory[name] / base) if base else "-"
        rows.append([name, *cells, peak, str(trainers[name].backwards)])
    layout = "channels last" if args.channels_last else "contiguous"
    title = (
        f"One training step: {args.backbone}, {args.batch_size} + {args.batch_size} images of "
        f"{args.size}x{args.size}, K = {args.num_classes}, {args.precision}, {layout}; median "
        f"(quartiles) of {args.repeat} interleaved rounds"
    )
    _, ratio = timing.time_and_ratio(times["symloss"], times[AUTHORS])
    notes = [f"symloss takes {ratio} times as long as the authors' settings."]
    if base:
        notes.append(f"Peak memory is relative to {timing.three_digits(base / 2**20)} MiB.")
    timing.report(title, rows, notes, args.device, args.out)


if __name__ == "__main__":
    main()
