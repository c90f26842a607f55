"""How does the cost of symnet_losses, forward and backward, grow with N and with K?

    python benchmarks/scaling.py --plot scaling.png

N positions at K = 31, and K categories at N = 256, float32 joint logits (N, 2K). The sizes take
turns in every round; a sample lasts 5 ms or more. The exponent is the slope of a least-squares line
through the logarithms of size and median time, over the last decade of sizes: below it, the fixed
cost of some dozens of operations shows, on a GPU also in it. 1 means proportional.
"""

from functools import partial
from pathlib import Path

import losses
import timing
import torch
from matplotlib.figure import Figure

import symloss

K, N = 31, 256  # what stays fixed while the other grows
SIZES_N = [1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000]
SIZES_K = [10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000]
BLUE, ORANGE = "#0072B2", "#D55E00"  # told apart by the colour-blind


def fit(sizes: list[int], seconds: list[float]) -> tuple[float, float]:
    """Fit seconds = c * size ** slope over the last decade of sizes; return (slope, c)."""
    upper = [i for i, size in enumerate(sizes) if 10 * size >= sizes[-1]]
    x, y = (torch.tensor(v, dtype=torch.float64)[upper].log() for v in (sizes, seconds))
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    return slope.item(), (y.mean() - slope * x.mean()).exp().item()


def measure(
    sizes: dict[str, tuple[int, int]], repeat: int, device: torch.device
) -> dict[str, list[float]]:
    """Time forward and backward for each (N, K), on the beginnings of four tensors they share."""
    torch.manual_seed(0)
    pool = torch.randn(4, max(2 * n * k for n, k in sizes.values()), device=device)

    loss = partial(losses.total, symloss.symnet_losses)
    calls = {}
    for name, (n, k) in sizes.items():
        logits = [v[: 2 * n * k].view(n, 2 * k).requires_grad_() for v in pool]
        labels = torch.randint(k, (n,), device=device)
        calls[name] = partial(losses.forward_backward, loss, logits, labels)
    return timing.interleave(calls, repeat, device, at_least=0.005)


def plot(curves: dict[str, tuple[list[int], list[float]]], path: Path) -> None:
    """Draw both curves with their fitted lines, at the width of a column."""
    figure = Figure(figsize=(3.5, 2.8), dpi=300, layout="constrained")
    axes = figure.subplots()
    styles = zip(curves.items(), (BLUE, ORANGE), "os", strict=True)
    for (label, (sizes, seconds)), colour, marker in styles:
        slope, c = fit(sizes, seconds)
        upper = [size for size in sizes if 10 * size >= sizes[-1]]
        axes.plot(
            sizes, [1000 * t for t in seconds], marker, color=colour, markersize=4, label=label
        )
        axes.plot(
            upper,
            [1000 * c * size**slope for size in upper],
            color=colour,
            linewidth=1,
            label=f"fit: exponent {slope:.2f}",
        )
    axes.set(xscale="log", yscale="log", xlabel="N or K", ylabel="Forward and backward (ms)")
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
    axes.xaxis.label.set_size(8)
    axes.yaxis.label.set_size(8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False)
    figure.savefig(path)


def main(argv: list[str] | None = None) -> None:
    """Measure all sizes, print the table and draw the plot."""
    parser = timing.parser(__doc__, repeat=10)
    parser.add_argument(
        "--plot", type=timing.new_file, metavar="FILE", help="draw both curves here (PNG, PDF, SVG)"
    )
    args = parser.parse_args(argv)
    sizes_n, sizes_k = (SIZES_N, SIZES_K) if not args.quick else ([10, 20, 50], [5, 10, 20])
    if args.quick:
        args.repeat = 2
    sizes = {f"N = {n:,}, K = {K}": (n, K) for n in sizes_n}
    sizes |= {f"K = {k:,}, N = {N}": (N, k) for k in sizes_k}
    times = measure(sizes, args.repeat, args.device)
    medians = [torch.tensor(t, dtype=torch.float64).median().item() for t in times.values()]
    curves = {
        f"N, at K = {K}": (sizes_n, medians[: len(sizes_n)]),
        f"K, at N = {N}": (sizes_k, medians[len(sizes_n) :]),
    }
    notes = []
    for label, (grown, seconds) in curves.items():
        first = next(size for size in grown if 10 * size >= grown[-1])
        notes.append(
            f"Exponent in {label}: {fit(grown, seconds)[0]:.3f}, fitted from {first:,} to "
            f"{grown[-1]:,}."
        )
    rows = [
        [
            name,
            *timing.median_and_quartiles(1000 * t for t in times[name]),
            timing.three_digits(1e9 * seconds / (2 * n * k)),
        ]
        for (name, (n, k)), seconds in zip(sizes.items(), medians, strict=True)
    ]
    timing.report(
        f"symnet_losses, forward and backward, float32, {args.repeat} interleaved rounds",
        ["Size", "Time (ms)", "Quartiles", "ns per joint logit"],
        rows,
        notes,
        args.device,
        args.out,
    )
    if args.plot:
        plot(curves, args.plot)


if __name__ == "__main__":
    main()
