"""What does a training step of SymNets cost beside plain supervised training on the same images?

    supervised         cross-entropy on all images, source and target, with a linear head of 2K
                       outputs (random labels stand in for the target's); one backward
    two backwards      the recipe of the authors' released script: both players' losses from one
                       set of joint logits, by softmax, sums and logarithm (losses.py); backward of
                       the head's loss with retain_graph, its gradients kept; zero; backward of the
                       extractor's loss; the head's gradients put back
    symloss            head.adversarial, symnet_losses, TwoOptimizerStep
    symloss, compiled  the same with extractor, head and losses under torch.compile
    pytorch-adapt      its adapters.SymNets, where it is installed; two linear heads of K outputs

Every variant forwards source and target separately and steps two SGD optimizers (momentum 0.9,
Nesterov, weight decay 1e-4). Images and weights are random, and equal in all variants.

Time and ratio are medians over rounds in which the variants take turns, with first and third
quartiles; the ratio to supervised is that of one round. Peak memory is that of two steps in a
fresh process for each variant: on a GPU torch.cuda.max_memory_allocated in the second step, on a
CPU (Linux only) the peak resident size less what it was before the model was built, so that
"compiled" includes the compiler. Backbone backwards are counted: how often the backbone's first
parameter gets a gradient in a step.
"""

import argparse
import multiprocessing
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import timing
import torch
import torch.nn.functional as F
import torchvision
from losses import straightforward
from torch import Tensor, nn

import symloss

LAM = 1.0


class Batch(NamedTuple):
    """Images ``(N, 3, size, size)`` and categories ``(N,)`` of both domains."""

    source: Tensor
    source_labels: Tensor
    target: Tensor
    target_labels: Tensor


class Network:
    """Extractor and head with seed 0, their optimizers, and a count of backbone backwards."""

    def __init__(self, args: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self.args = args
        self.extractor, features = build_extractor(args.backbone)
        layout = torch.channels_last if args.channels_last else torch.contiguous_format
        self.extractor.to(args.device, memory_format=layout)
        self.head = symloss.SymmetricHead(features, args.num_classes, device=args.device)
        self.optimizers = [sgd(self.extractor, lr=0.001), sgd(self.head, lr=0.01)]
        self.backwards = 0
        next(self.extractor.parameters()).register_post_accumulate_grad_hook(self._count)

    def _count(self, _: Tensor) -> None:
        self.backwards += 1

    def autocast(self) -> torch.autocast:
        """Return the context of a forward pass in the wanted precision."""
        bf16 = self.args.precision == "bf16"
        return torch.autocast(self.args.device.type, torch.bfloat16, enabled=bf16)

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def update(self) -> None:
        """Step both optimizers."""
        for optimizer in self.optimizers:
            optimizer.step()


def sgd(module: nn.Module, lr: float) -> torch.optim.SGD:
    """Return the paper's optimizer."""
    return torch.optim.SGD(
        module.parameters(), lr=lr, momentum=0.9, nesterov=True, weight_decay=1e-4
    )


def build_extractor(backbone: str) -> tuple[nn.Module, int]:
    """Return a torchvision network without its last linear layer, and its number of features."""
    network = torchvision.models.get_model(backbone, weights=None)
    name, last = [*network.named_modules()][-1]
    if not isinstance(last, nn.Linear):
        raise ValueError(f"it does not end in a linear layer but in {type(last).__name__}")
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, nn.Identity())
    return network, last.in_features


def make_batch(args: argparse.Namespace) -> Batch:
    """Draw the images and labels that all variants see."""
    generator = torch.Generator().manual_seed(0)
    layout = torch.channels_last if args.channels_last else torch.contiguous_format

    def domain() -> tuple[Tensor, Tensor]:
        images = torch.randn(args.batch_size, 3, args.size, args.size, generator=generator)
        labels = torch.randint(args.num_classes, (args.batch_size,), generator=generator)
        return images.to(args.device, memory_format=layout), labels.to(args.device)

    return Batch(*domain(), *domain())


def supervised(net: Network, batch: Batch) -> Callable[[], object]:
    """Plain training on the labels of both domains."""

    def step() -> None:
        with net.autocast():
            source, target = (net.head(net.extractor(x)) for x in (batch.source, batch.target))
            loss = F.cross_entropy(source, batch.source_labels)
            loss = loss + F.cross_entropy(target, batch.target_labels)
        net.zero_grad()
        loss.backward()
        net.update()

    return step


def two_backwards(net: Network, batch: Batch) -> Callable[[], object]:
    """Give each player its gradient by a backward of its own."""

    def step() -> None:
        with net.autocast():
            source, target = (net.head(net.extractor(x)) for x in (batch.source, batch.target))
            source, target = (symloss.RoutedLogits(v, v) for v in (source, target))
            losses = straightforward(source, batch.source_labels, target)
            classifier, extractor = losses.classifier(), losses.extractor(LAM)
        net.zero_grad()
        classifier.backward(retain_graph=True)
        kept = [parameter.grad for parameter in net.head.parameters()]
        net.zero_grad()
        extractor.backward()
        for parameter, grad in zip(net.head.parameters(), kept, strict=True):
            parameter.grad = grad
        net.update()

    return step


def one_backward(net: Network, batch: Batch, compiled: bool = False) -> Callable[[], object]:
    """Train with symloss."""
    update = symloss.TwoOptimizerStep(*net.optimizers)

    def loss() -> Tensor:
        source, target = (
            net.head.adversarial(net.extractor(x)) for x in (batch.source, batch.target)
        )
        return symloss.symnet_losses(source, batch.source_labels, target).total(LAM)

    compute = torch.compile(loss) if compiled else loss

    def step() -> None:
        with net.autocast():
            total = compute()
        update(total)

    return step


def one_backward_compiled(net: Network, batch: Batch) -> Callable[[], object]:
    """Train with symloss under torch.compile."""
    return one_backward(net, batch, compiled=True)


def pytorch_adapt(net: Network, batch: Batch) -> Callable[[], object]:
    """Train with pytorch-adapt's SymNets."""
    from pytorch_adapt.adapters import SymNets
    from pytorch_adapt.containers import Models, Optimizers
    from pytorch_adapt.layers import MultipleModels

    size = net.head.in_features, net.args.num_classes
    head = MultipleModels(nn.Linear(*size), nn.Linear(*size)).to(net.args.device)
    adapter = SymNets(
        models=Models({"G": net.extractor, "C": head}),
        optimizers=Optimizers({"G": net.optimizers[0], "C": sgd(head, lr=0.01)}),
    )
    data = {
        "src_imgs": batch.source,
        "src_labels": batch.source_labels,
        "src_domain": torch.zeros_like(batch.source_labels),
        "target_imgs": batch.target,
        "target_domain": torch.ones_like(batch.target_labels),
    }

    def step() -> None:
        with net.autocast():
            adapter.training_step(data)

    return step


VARIANTS = {
    "supervised": supervised,
    "two backwards": two_backwards,
    "symloss": one_backward,
    "symloss, compiled": one_backward_compiled,
    "pytorch-adapt": pytorch_adapt,
}


def peak_memory(args: argparse.Namespace, name: str) -> int:
    """Measure the peak bytes of two steps, in a process that did nothing else."""
    before = _resident_peak()
    step = VARIANTS[name](Network(args), make_batch(args))
    step()
    if args.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(args.device)
    step()
    if args.device.type == "cuda":
        return torch.cuda.max_memory_allocated(args.device)
    return _resident_peak() - before


def _resident_peak() -> int:
    # Not ru_maxrss: a process inherits that from the one that started it.
    status = Path("/proc/self/status")
    found = status.exists() and re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
    return 1024 * int(found[1]) if found else 0


def main(argv: list[str] | None = None) -> None:
    """Measure all variants and print the table."""
    parser = timing.parser(__doc__, repeat=10)
    add = parser.add_argument
    add("--backbone", default="resnet50", metavar="NAME", help="of torchvision (default: resnet50)")
    add(
        "--batch-size",
        type=timing.positive,
        default=32,
        metavar="N",
        help="images of each domain (default: 32; the paper's: 128)",
    )
    add("--num-classes", type=timing.positive, default=31, metavar="K", help="default: 31")
    add("--size", type=timing.positive, default=224, help="side of an image (default: 224)")
    add(
        "--precision",
        choices=["fp32", "bf16"],
        default="fp32",
        help="of the forward pass, by autocast (default: fp32)",
    )
    add(
        "--channels-last",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="memory layout of images and convolutions (default: on)",
    )
    add("--no-compile", action="store_true", help="leave out torch.compile")
    args = parser.parse_args(argv)
    if args.quick:
        args.backbone, args.batch_size, args.num_classes, args.size = "shufflenet_v2_x0_5", 2, 3, 32
        args.repeat, args.no_compile = 2, True
    names = [*VARIANTS]
    if args.no_compile:
        names.remove("symloss, compiled")
    try:
        import pytorch_adapt.adapters  # noqa: F401
    except ImportError:
        names.remove("pytorch-adapt")
    check_backbone(parser, args)
    try:
        memory = {name: in_a_process_of_its_own(peak_memory, args, name) for name in names}
        batch = make_batch(args)
        networks = {name: Network(args) for name in names}
        steps = {name: VARIANTS[name](networks[name], batch) for name in names}
        times = timing.interleave(steps, args.repeat, args.device)
    except (torch.cuda.OutOfMemoryError, BrokenProcessPool):
        parser.error(f"out of memory; take a --batch-size below {args.batch_size}")
    base = memory["supervised"]
    rows = []
    for name in names:
        networks[name].backwards = 0
        steps[name]()
        ratios = [a / b for a, b in zip(times[name], times["supervised"], strict=True)]
        rows.append(
            [
                name,
                *timing.median_and_quartiles(1000 * t for t in times[name]),
                *timing.median_and_quartiles(ratios),
                timing.three_digits(memory[name] / base) if base else "-",
                str(networks[name].backwards),
            ]
        )
    layout = "channels last" if args.channels_last else "contiguous"
    timing.report(
        f"One training step, {args.backbone}, {args.batch_size} + {args.batch_size} images of "
        f"{args.size}x{args.size}, K = {args.num_classes}, {args.precision}, {layout}; "
        f"{args.repeat} interleaved rounds",
        ["Step", "Time (ms)", "Quartiles", "Ratio", "Quartiles", "Peak memory", "Backwards"],
        rows,
        [f"Peak memory of supervised: {timing.three_digits(base / 2**20)} MiB."] if base else [],
        args.device,
        args.out,
    )


def check_backbone(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Leave with one line where the backbone is unknown or cannot take the images."""
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


def in_a_process_of_its_own(call: Callable[..., int], *args: object) -> int:
    """Run a function of this file in a fresh process, forked from one that did the imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torchvision", "symloss"])
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(call, *args).result()


if __name__ == "__main__":
    main()
