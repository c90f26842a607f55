"""Growth of the cost of symnet_losses, forward and backward, with N and with K.

    python benchmarks/scaling.py --plot scaling.png

N positions at K = 31, and K categories at N = 256, float32 joint logits (N, 2K). The sizes take
turns in every round; a sample lasts at least 5 ms. The exponent is the slope of a least-squares
line through the logarithms of size and median time; 1 means proportional. It is fitted twice: over
all sizes, where the fixed cost of several hundred operations lowers it, and over the last decade,
where data that outgrow the caches, and memory that each call requests from the system anew, raise
it. N = 1,000,000 needs about 5 GB.
"""

from functools import partial
from pathlib import Path

import losses
import timing
import torch
from matplotlib.figure import Figure

import symloss

K, N = 31, 256  # the fixed value while the other grows
SIZES_N = [1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000]
SIZES_K = [10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000]


def last_decade(sizes: list[int], seconds: list[float]) -> tuple[list[int], list[float]]:
    """Return the sizes from a tenth of the largest (the last) upwards, and their times."""
    upper = [size for size in sizes if 10 * size >= sizes[-1]]
    return upper, seconds[-len(upper) :]


def fit(sizes: list[int], seconds: list[float]) -> tuple[float, float]:
    """Fit seconds = c * size ** slope; return (slope, c)."""
    x, y = (torch.tensor(v, dtype=torch.float64).log() for v in (sizes, seconds))
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    return slope.item(), (y.mean() - slope * x.mean()).exp().item()


def measure(
    sizes: dict[str, tuple[int, int]], repeat: int, device: torch.device
) -> dict[str, list[float]]:
    """Time forward and backward for each (N, K), on slices of four shared tensors."""
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
    styles = zip(curves.items(), "os", ("-", "--"), strict=True)
    for (label, (sizes, seconds)), marker, line in styles:
        upper = last_decade(sizes, seconds)
        slope, c = fit(*upper)
        axes.plot(sizes, [1000 * t for t in seconds], "k" + marker, mfc="none", ms=4, label=label)
        fitted = [1000 * c * size**slope for size in upper[0]]
        axes.plot(upper[0], fitted, "k" + line, linewidth=1, label=f"fit: exponent {slope:.2f}")
    axes.set(xscale="log", yscale="log")
    axes.set_xlabel("N or K", fontsize=8)
    axes.set_ylabel("Forward and backward (ms)", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(color="0.9", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False)
    figure.savefig(path)


def main(argv: list[str] | None = None) -> None:
    """Measure all sizes, print the table and draw the plot."""
    parser = timing.parser(__doc__, repeat=10)
    help_ = "draw both curves to FILE (PNG, PDF or SVG)"
    parser.add_argument("--plot", type=timing.new_file, metavar="FILE", help=help_)
    args = parser.parse_args(argv)
    sizes_n, sizes_k = ([10, 20, 50], [5, 10, 20]) if args.quick else (SIZES_N, SIZES_K)
    args.repeat = 2 if args.quick else args.repeat
    sizes = {f"N = {n:,}, K = {K}": (n, K) for n in sizes_n}
    sizes |= {f"K = {k:,}, N = {N}": (N, k) for k in sizes_k}
    times = measure(sizes, args.repeat, args.device)
    medians = [timing.median(samples) for samples in times.values()]
    rows = [["Size", "Time, ms", "ns per joint logit"]]
    for (name, (n, k)), seconds in zip(sizes.items(), medians, strict=True):
        cells = [timing.spread(1000 * t for t in times[name])]
        rows.append([name, *cells, timing.three_digits(1e9 * seconds / (2 * n * k))])
    curves = {
        f"N, at K = {K}": (sizes_n, medians[: len(sizes_n)]),
        f"K, at N = {N}": (sizes_k, medians[len(sizes_n) :]),
    }
    notes = []
    for label, curve in curves.items():
        upper = last_decade(*curve)
        notes.append(
            f"Exponent in {label}: {fit(*curve)[0]:.3f} over all sizes, "
            f"{fit(*upper)[0]:.3f} from {upper[0][0]:,} upwards."
        )
    title = (
        "symnet_losses, forward and backward, float32; median (quartiles) of "
        f"{args.repeat} interleaved rounds"
    )
    timing.report(title, rows, notes, args.device, args.out)
    if args.plot:
        plot(curves, args.plot)


if __name__ == "__main__":
    main()
