"""Methods on targets that lack categories or have them in other proportions.

    python benchmarks/shares.py features/office31 --csv results/shares.csv

trains on one domain's features, as written by extract_features.py, and on another's without labels,
for every pair of domains and for these kinds of target:

    as it is    the whole domain
    uneven      half of its categories, drawn at random, keep every fifth image
    partial     ten categories; draw 0 keeps those that Office-31 shares with Caltech-256, the
                protocol of partial adaptation, the others random ones
    dirichlet   shares drawn from a Dirichlet distribution with --alpha, as many images as possible

A draw's generator is torch.Generator().manual_seed(draw). The views of an image are averaged, and
rows scaled to length 1. The methods: C^t of the source alone, minimum class confusion, and
SymNetClassifier as SymNets and SymmNets-V2 without balance, with equal shares, with its defaults
(estimated shares), and with the target's true shares, which are unknown in practice.

Each line of the CSV is a run: accuracy and mean recall of the target's categories in %, the L1
distance of the shares from the true ones and from equal ones, their trust, and seconds of fit and
predict. After an interruption, the same command continues. The table shows means over draws and
seeds.
"""

import argparse
import dataclasses
import itertools
import json
import statistics
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import features
import numpy as np
import timing
import torch

import symloss

KINDS = {"as it is": (0,), "uneven": (0, 1, 2), "partial": (0, 1, 2), "dirichlet": (0, 1, 2)}
CALTECH = (
    "back_pack bike calculator headphones keyboard laptop_computer monitor mouse mug projector"
)
LEAST = 1e-9  # of a share given to SymNetClassifier, which floors it


@dataclasses.dataclass(frozen=True)
class Run:
    """A method's run: see the module's docstring."""

    source: str
    target: str
    kind: str
    draw: int
    method: str
    seed: int
    accuracy: float
    recall: float
    error: float | None
    equal: float
    trust: float | None
    seconds: float

    @property
    def key(self) -> tuple[str, ...]:
        """The fields that tell runs apart."""
        return tuple(map(str, dataclasses.astuple(self)[:6]))


def drawn(
    labels: np.ndarray, kind: str, draw: int, names: Sequence[str], alpha: float
) -> np.ndarray:
    """Return the indices of a target's rows."""
    generator, y = torch.Generator().manual_seed(draw), torch.from_numpy(labels)
    count = len(names)
    order = torch.randperm(count, generator=generator)
    rank = (y.unsqueeze(1) == y).tril().sum(1) - 1  # among the rows of its category
    if kind == "uneven":
        kept = ~torch.isin(y, order[: count // 2]) | (rank % 5 == 0)
    elif kind == "partial":
        known = [name for name in CALTECH.split() if name in names]
        protocol = draw == 0 and len(known) == 10 < count
        some = torch.tensor([names.index(name) for name in known]) if protocol else order[:10]
        kept = torch.isin(y, some if count > 10 else order[: count // 2])
    elif kind == "dirichlet":
        rng, rows = np.random.default_rng(draw), torch.bincount(y, minlength=count).numpy()
        shares = rng.dirichlet([alpha] * count)
        total = min(rows.sum(), (rows / shares.clip(1e-9))[shares > shares.max() / 5].min())
        wanted = np.minimum(np.round(shares * total), rows)
        kept = rank < torch.from_numpy(wanted)[y]
    else:
        kept = y >= 0
    return kept.nonzero().squeeze(1).numpy()


def methods(true: np.ndarray) -> dict[str, Any]:
    """Return, by method, a function that makes its classifier, or one that predicts."""
    ours = symloss.SymNetClassifier
    return {
        "source only": source_only,
        "MCC": features.mcc,
        "SymNets": lambda seed: ours(objective="symnets", balance=0, random_state=seed),
        "SymmNets-V2": lambda seed: ours(balance=0, random_state=seed),
        "equal shares": lambda seed: ours(prior=None, random_state=seed),
        "estimated shares": lambda seed: ours(random_state=seed),
        "true shares": lambda seed: ours(prior=true, random_state=seed),
    }


def source_only(source: np.ndarray, labels: np.ndarray, target: np.ndarray, seed: int) -> Any:
    """Predict with a network that saw the labelled source alone."""
    return features.predict(trained(source, labels, target, seed), target)


def trained(
    source: np.ndarray, labels: np.ndarray, target: np.ndarray, seed: int
) -> torch.nn.Module:
    """Train cross-entropy on the source alone, with the bottleneck and steps of the others."""
    torch.manual_seed(seed)
    head = torch.nn.Linear(features.BOTTLENECK, int(labels.max()) + 1)
    net = torch.nn.Sequential(features.bottleneck(source.shape[1]), head)
    optimizer = torch.optim.SGD(net.parameters(), lr=features.LR, **features.SGD)
    schedule = symloss.AnnealedLR(optimizer, features.STEPS)
    for _, x_s, y_s, _ in features.batches(source, labels, target, seed):
        loss = torch.nn.functional.cross_entropy(net(x_s), y_s)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net


def measure(args: argparse.Namespace, done: set[tuple[str, ...]]) -> Iterator[Run]:
    """Run whatever is not done yet."""
    names: list[str] = []
    domains = {}
    for path in sorted(args.folder.glob("*.npy")):
        domains[path.stem] = features.read(path)
        names = json.loads(path.with_suffix(".json").read_text("utf-8"))["categories"]
    pairs = [
        pair
        for pair in itertools.permutations(domains, 2)
        if not args.task or "2".join(name[0] for name in pair) in map(str.lower, args.task)
    ]
    if not pairs:
        known = ", ".join(domains) or "no domain"
        raise SystemExit(f"--task must be initials of two of {known}, as a2w, got {args.task}")
    cases = [(*pair, kind, draw) for kind in args.kinds for pair in pairs for draw in KINDS[kind]]
    for seed, (source, target, kind, draw) in itertools.product(args.seeds, cases):
        (x_s, y_s), (x_t, y_t) = domains[source], domains[target]
        index = drawn(y_t, kind, draw, names, args.alpha)
        x_t, y_t = x_t[index], y_t[index]
        true = np.bincount(y_t, minlength=len(names)) / len(y_t)
        equal = float(np.abs(true - 1 / len(names)).sum())
        named = f"{kind} {args.alpha:g}" if kind == "dirichlet" else kind
        for name, make in methods(np.maximum(true, LEAST) / np.maximum(true, LEAST).sum()).items():
            if (source, target, named, str(draw), name, str(seed)) in done or (
                args.methods and name not in args.methods
            ):
                continue
            start, error, trust = time.perf_counter(), None, None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # a batch larger than the target
                if name in ("source only", "MCC"):
                    predicted = make(x_s, y_s, x_t, seed)
                else:
                    model = make(seed).fit(x_s, y_s, x_t)
                    predicted = model.predict(x_t)
                    trust = model.trust_
                    if model.prior_ is not None:
                        error = float(np.abs(model.prior_ - true).sum())
            seconds = time.perf_counter() - start
            right = predicted == y_t
            recall = float(np.mean([right[y_t == k].mean() for k in np.unique(y_t)]))
            numbers = 100 * float(right.mean()), 100 * recall, error, equal, trust, seconds
            yield Run(source, target, named, draw, name, seed, *numbers)


def table(runs: Sequence[dict[str, str]]) -> list[list[str]]:
    """Return the mean accuracy of every kind and pair of domains, a column per method."""
    names = list(dict.fromkeys(run["method"] for run in runs))
    rows = [["Target", *names]]
    for kind in dict.fromkeys(run["kind"] for run in runs):
        some = [run for run in runs if run["kind"] == kind]
        ways = list(dict.fromkeys((run["source"], run["target"]) for run in some))
        means = {}
        for way in ways:
            for name in names:
                each = [
                    float(run["accuracy"])
                    for run in some
                    if (run["source"], run["target"], run["method"]) == (*way, name)
                ]
                means[way, name] = statistics.mean(each) if each else float("nan")
            cells = [f"{means[way, name]:.1f}" for name in names]
            rows.append([f"{way[0]} to {way[1]}, {kind}", *cells])
        averages = [statistics.mean(means[way, name] for way in ways) for name in names]
        rows.append([f"mean, {kind}", *(f"{average:.1f}" for average in averages)])
    return rows


def main(argv: list[str] | None = None) -> None:
    """Run every method on every target, and print the table."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    add = parser.add_argument
    add("folder", type=Path, metavar="DIR", help="features of a benchmark's domains")
    add("--csv", type=Path, required=True, metavar="FILE", help="a line per run is added to it")
    add("--kinds", nargs="+", choices=KINDS, default=["as it is", "uneven", "partial"])
    add("--task", nargs="+", metavar="S2T", help="initials of source and target (default: all)")
    add("--methods", nargs="+", choices=methods(np.ones(1)), metavar="NAME", help="default: all")
    add("--alpha", type=float, default=1.0, help="of the Dirichlet distribution (default: 1)")
    add("--seeds", type=timing.console.whole(0), nargs="+", default=[0, 1, 2], metavar="N")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    key = [field.name for field in dataclasses.fields(Run)][:6]
    for run in measure(args, timing.start(args.csv, Run, key)):
        timing.append(args.csv, run)
    rows = table(timing.read(args.csv))
    timing.report("Accuracy of C^t on the target (%)", rows, [], torch.device("cpu"), None)


if __name__ == "__main__":
    main()
