"""Cost of the losses, forward and backward, compared with the formulas as printed.

    straightforward       softmax, sum, log, one line per equation
    functional, composed  the functions of symloss.functional, called one by one
    symloss               symnet_losses on the same logits
    symloss, compiled     the same under torch.compile

SymNets' six losses, then SymmNets-V2's five ("V2": symnet_v2_losses) and category_balance alone
("balance"). All use the four tensors of two RoutedLogits, random float32, and compute the gradient
of losses.total(1) with respect to each; the balance uses one. Joint logits are (N, 2K), on a GPU
also (4, 2K, 512, 1024).

Time and ratio are medians over rounds in which they take turns, with first and third quartiles; a
sample lasts at least 5 ms. The ratio is to the straightforward formulas in the same round. "Kept"
is what autograd saves between forward and backward (measured with saved_tensors_hooks), in units of
the source's and the target's joint logits together: first intermediate tensors, then inputs kept
alive. On a GPU, "of copy bandwidth" is the traffic per second if each tensor is read once forward
and once backward and its gradient written once, relative to the bytes per second that Tensor.copy_
of a large tensor reads and writes. It can exceed 1 if the tensors fit in a cache.
"""

import argparse
import math
from collections.abc import Callable
from functools import partial

import timing
import torch
from torch import Tensor

import symloss
from symloss import functional as L

Terms = symloss.SymNetLosses | symloss.SymNetV2Losses | Tensor
Losses = Callable[[symloss.RoutedLogits, Tensor, symloss.RoutedLogits], Terms]

SHAPES: list[tuple[int, ...]] = [(128, 62), (128, 130), (128, 2000), (200_000, 38)]
DENSE = (4, 38, 512, 1024)
QUICK_SHAPES: list[tuple[int, ...]] = [(16, 6), (2, 6, 4, 4)]
COPY_BYTES = 2**28


def straightforward(
    source: symloss.RoutedLogits, labels: Tensor, target: symloss.RoutedLogits
) -> symloss.SymNetLosses:
    """Compute eqs. (5) to (10) as printed: probabilities by softmax, their sums, then the log."""
    k = source.head.shape[1] // 2
    y = labels.unsqueeze(1)
    p_s, p_t = source.head[:, :k].softmax(1), source.head[:, k:].softmax(1)
    p_source, p_target = source.head.softmax(1), target.head.softmax(1)
    g_source, g_target = source.extractor.softmax(1), target.extractor.softmax(1)
    q = g_target[:, :k] + g_target[:, k:]
    as_source, as_target = g_target[:, :k].sum(1), g_target[:, k:].sum(1)
    return symloss.SymNetLosses(
        source_task=-p_s.gather(1, y).log().mean(),
        target_task=-p_t.gather(1, y).log().mean(),
        domain_discrimination=-p_target[:, k:].sum(1).log().mean()
        - p_source[:, :k].sum(1).log().mean(),
        category_confusion=-g_source.gather(1, y + k).log().mean() / 2
        - g_source.gather(1, y).log().mean() / 2,
        domain_confusion=-as_target.log().mean() / 2 - as_source.log().mean() / 2,
        symmetric_entropy=-(q * q.log()).sum(1).mean(),
    )


def composed(
    source: symloss.RoutedLogits, labels: Tensor, target: symloss.RoutedLogits
) -> symloss.SymNetLosses:
    """Compute eqs. (5) to (10) with the library's functions."""
    return symloss.SymNetLosses(
        source_task=L.source_task(source.head, labels),
        target_task=L.target_task(source.head, labels),
        domain_discrimination=L.domain_discrimination(source.head, target.head),
        category_confusion=L.category_confusion(source.extractor, labels),
        domain_confusion=L.domain_confusion(target.extractor),
        symmetric_entropy=L.symmetric_entropy(target.extractor),
    )


def straightforward_v2(
    source: symloss.RoutedLogits, labels: Tensor, target: symloss.RoutedLogits
) -> symloss.SymNetV2Losses:
    """Compute eqs. (33) to (37) as printed."""
    k = source.head.shape[1] // 2
    y = labels.unsqueeze(1)
    p_s, p_t = source.head[:, :k].softmax(1), source.head[:, k:].softmax(1)
    p_source, p_target = source.head.softmax(1), target.head.softmax(1)
    g_source, g_target = source.extractor.softmax(1), target.extractor.softmax(1)
    g_s, g_t = g_target[:, :k], g_target[:, k:]
    return symloss.SymNetV2Losses(
        source_task=-p_s.gather(1, y).log().mean(),
        target_task=-p_t.gather(1, y).log().mean(),
        category_discrimination=-p_source.gather(1, y).log().mean()
        - p_target[:, k:].sum(1).log().mean(),
        category_confusion=-g_source.gather(1, y + k).log().mean() / 2
        - g_source.gather(1, y).log().mean() / 2,
        target_category_confusion=-(g_t * g_s.log() + g_s * g_t.log()).sum(1).mean() / 2,
    )


def composed_v2(
    source: symloss.RoutedLogits, labels: Tensor, target: symloss.RoutedLogits
) -> symloss.SymNetV2Losses:
    """Compute eqs. (33) to (37) with the library's functions."""
    return symloss.SymNetV2Losses(
        source_task=L.source_task(source.head, labels),
        target_task=L.target_task(source.head, labels),
        category_discrimination=L.category_discrimination(source.head, labels, target.head),
        category_confusion=L.category_confusion(source.extractor, labels),
        target_category_confusion=L.target_category_confusion(target.extractor),
    )


def straightforward_balance(
    source: symloss.RoutedLogits, labels: Tensor, target: symloss.RoutedLogits
) -> Tensor:
    """Compute log K - H(m) as printed."""
    k = target.extractor.shape[1] // 2
    p = target.extractor.softmax(1)
    m = (p[:, :k] + p[:, k:]).mean([0, *range(2, p.dim())])
    return math.log(k) + (m * m.log()).sum()


def balance(source: symloss.RoutedLogits, labels: Tensor, target: symloss.RoutedLogits) -> Tensor:
    """Compute log K - H(m) with the library's function."""
    return L.category_balance(target.extractor)


METHODS: list[dict[str, Losses]] = [
    {
        "straightforward": straightforward,
        "functional, composed": composed,
        "symloss": symloss.symnet_losses,
    },
    {
        "V2, straightforward": straightforward_v2,
        "V2, functional, composed": composed_v2,
        "V2, symloss": symloss.symnet_v2_losses,
    },
    {"balance, straightforward": straightforward_balance, "balance, symloss": balance},
]


def total(losses: Losses, logits: list[Tensor], labels: Tensor) -> Tensor:
    """Sum both players' losses, λ = 1, of [source, source, target, target] logits."""
    source, target = symloss.RoutedLogits(*logits[:2]), symloss.RoutedLogits(*logits[2:])
    terms = losses(source, labels, target)
    return terms if isinstance(terms, Tensor) else terms.total(1.0)


def forward_backward(loss: Callable[..., Tensor], logits: list[Tensor], labels: Tensor) -> None:
    """Compute the loss and its gradient with respect to the logits."""
    torch.autograd.grad(loss(logits, labels), logits, allow_unused=True)


def make_inputs(shape: tuple[int, ...], device: torch.device) -> tuple[list[Tensor], Tensor]:
    """Draw four tensors of joint logits ``(N, 2K, ...)`` and the source's labels."""
    torch.manual_seed(0)
    logits = [torch.randn(shape, device=device, requires_grad=True) for _ in range(4)]
    return logits, torch.randint(shape[1] // 2, (shape[0], *shape[2:]), device=device)


def kept_bytes(
    loss: Callable[..., Tensor], logits: list[Tensor], labels: Tensor
) -> tuple[int, int]:
    """Count the bytes of storages that autograd saves: (intermediate tensors, inputs)."""
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    inputs = {tensor.untyped_storage().data_ptr() for tensor in (*logits, labels)}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        graph = loss(logits, labels)  # keeps saved tensors alive, so that no address is reused
    made = sum(size for address, size in saved.items() if address not in inputs)
    del graph
    return made, sum(saved.values()) - made


def copy_bandwidth(size: int, repeat: int, device: torch.device) -> float:
    """Measure the bytes per second that copying a tensor of ``size`` bytes reads and writes."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = timing.interleave({"copy": lambda: target.copy_(source)}, repeat, device, 0.005)
    return 2 * size / timing.median(times["copy"])


def measure(
    method: dict[str, Losses],
    logits: list[Tensor],
    labels: Tensor,
    args: argparse.Namespace,
    bandwidth: float | None,
) -> list[list[str]]:
    """Measure the ways to compute one method's losses, the straightforward one first."""
    variants: dict[str, Callable[..., Tensor]] = {
        name: partial(total, losses) for name, losses in method.items()
    }
    *_, (ours, loss) = variants.items()
    if not args.no_compile:
        variants[f"{ours}, compiled"] = torch.compile(loss, dynamic=False)
    calls = {
        name: partial(forward_backward, loss, logits, labels) for name, loss in variants.items()
    }
    times = timing.interleave(calls, args.repeat, args.device, at_least=0.005)
    size = logits[0].nbytes
    used = 1 if ours.startswith("balance") else 4
    rows = []
    for name, loss in variants.items():
        cells = timing.time_and_ratio(times[name], next(iter(times.values())))
        cells += [f"{kept / (2 * size):.2f}" for kept in kept_bytes(loss, logits, labels)]
        if bandwidth:
            share = 3 * used * size / timing.median(times[name]) / bandwidth
            cells.append(timing.three_digits(share))
        rows.append([str(tuple(logits[0].shape)), name, *cells])
    return rows


def main(argv: list[str] | None = None) -> None:
    """Measure all shapes and print the table."""
    parser = timing.parser(__doc__, repeat=30)
    parser.add_argument("--no-compile", action="store_true", help="skip torch.compile")
    args = parser.parse_args(argv)
    on_gpu = args.device.type == "cuda"
    shapes = SHAPES + [DENSE] * on_gpu
    if args.quick:
        args.repeat, args.no_compile, shapes = 2, True, QUICK_SHAPES
    rows = [["Joint logits", "Computation", "Time, ms", "Ratio", "Kept: made", "Kept: inputs"]]
    notes = []
    bandwidth = None
    if on_gpu:
        bandwidth = copy_bandwidth(COPY_BYTES, args.repeat, args.device)
        rows[0].append("Of copy bandwidth")
        notes.append(f"Copy bandwidth: {timing.three_digits(bandwidth / 1e9)} GB/s.")
    for shape in shapes:
        logits, labels = make_inputs(shape, args.device)
        for method in METHODS:
            rows += measure(method, logits, labels, args, bandwidth)
    title = (
        "Losses and their gradients, float32; median (quartiles) of "
        f"{args.repeat} interleaved rounds"
    )
    timing.report(title, rows, notes, args.device, args.out)


if __name__ == "__main__":
    main()
