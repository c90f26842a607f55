"""Accuracy and seconds of several methods on the same features of two domains.

    python benchmarks/features.py amazon.npz webcam.npz

trains on the features and labels of one domain and on the features of another, for every pair of
domains in both directions, and prints the accuracy on the domain without labels. A file is an .npz
with `features` (N, F) and `labels` (N,), or the output of extract_features.py, NAME.npy and
NAME.json, with the views of an image averaged. Every method gets the same rows, scaled to length 1.

    logistic regression   scikit-learn's, on the source alone
    CORAL, TCA, OT        skada 0.6's, followed by the same logistic regression
    MCC, skada            its deep MCC, with the bottleneck and training of SymNetClassifier
    MCC, this script      minimum class confusion and cross-entropy, in the lines below
    SymNets, pytorch-adapt    its adapter on the same bottleneck, steps and batches
    SymNetClassifier      with its defaults, and as plain SymNets without balance

Accuracy is the mean over seeds, with its standard error, at the end of training; settings are the
packages' defaults except where the code says otherwise. MCC has the temperature of its paper, 2.5.
Seconds are those of one run, fit and predict, from the fastest pair of domains to the slowest.
Missing packages are named below the table.
"""

import argparse
import contextlib
import csv
import dataclasses
import importlib.metadata
import itertools
import json
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import timing
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import symloss

STEPS, BATCH, LR, BOTTLENECK = 1000, 128, 0.01, 256
SGD: dict[str, Any] = {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-4}
TEMPERATURE = 2.5

Method = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]
Domains = dict[str, tuple[np.ndarray, np.ndarray]]  # features and labels by name


def logistic_regression(source: np.ndarray, labels: np.ndarray, target: np.ndarray, _: int) -> Any:
    """Train scikit-learn's logistic regression on the source."""
    return classifier().fit(source, labels).predict(target)


def classifier() -> Any:
    """Return a logistic regression for rows of length 1."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=100, max_iter=1000)


def shallow(name: str, **options: Any) -> Method:
    """Return a method of skada followed by the logistic regression."""

    def run(source: np.ndarray, labels: np.ndarray, target: np.ndarray, _: int) -> Any:
        import skada

        adapter = getattr(skada, name)(**options)
        return skada_fit(skada.make_da_pipeline(adapter, classifier()), source, labels, target)

    return run


def skada_fit(model: Any, source: np.ndarray, labels: np.ndarray, target: np.ndarray) -> Any:
    """Fit in skada's form: one table, domains by sign, target labels masked."""
    domains = np.repeat([1, -2], [len(source), len(target)])
    masked = np.concatenate([labels, np.full(len(target), -1)])
    model.fit(np.concatenate([source, target]), masked, sample_domain=domains)
    return model.predict(target, sample_domain=domains[len(source) :])


def deep_mcc(source: np.ndarray, labels: np.ndarray, target: np.ndarray, seed: int) -> Any:
    """Train skada's deep MCC."""
    from skada.deep import MCC

    torch.manual_seed(seed)
    per_epoch = max(len(source), len(target)) // BATCH
    model = MCC(
        Weightless(bottleneck(source.shape[1]), nn.Linear(BOTTLENECK, labels.max() + 1)),
        layer_name="0",
        T=TEMPERATURE,
        batch_size=BATCH,
        max_epochs=math.ceil(STEPS / per_epoch),
        train_split=None,
        verbose=0,
        **{f"optimizer__{name}": value for name, value in SGD.items()},
        optimizer=torch.optim.SGD,
        lr=LR,
    )
    return skada_fit(model, source, labels, target)


class Weightless(nn.Sequential):
    """Accept the sample weights, None here, that skada passes to every network."""

    def forward(self, x: Tensor, sample_weight: None = None) -> Tensor:
        """Return the logits."""
        for layer in self:
            x = layer(x)
        return x


def bottleneck(width: int) -> nn.Sequential:
    """Build the bottleneck of SymNetClassifier."""
    return nn.Sequential(nn.Linear(width, BOTTLENECK), nn.BatchNorm1d(BOTTLENECK), nn.ReLU())


def batches(
    source: np.ndarray, labels: np.ndarray, target: np.ndarray, seed: int
) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    """Yield the number of each step, source rows, their labels and target rows."""
    x_s, y_s, x_t = map(torch.from_numpy, (source, labels, target))
    generator, size = torch.Generator().manual_seed(seed), min(BATCH, len(source), len(target))
    orders: list[list[Tensor]] = [[], []]
    for i in range(STEPS):
        for order, x in zip(orders, (x_s, x_t), strict=True):
            if not order:
                shuffled = torch.randperm(len(x), generator=generator)
                order += shuffled.split(size)[: len(x) // size]
        s, t = orders[0].pop(), orders[1].pop()
        yield i, x_s[s], y_s[s], x_t[t]


def class_confusion(logits: Tensor) -> Tensor:
    """Return the loss of Jin et al., *Minimum Class Confusion*, ECCV 2020, eqs. (2) to (6)."""
    p = (logits / TEMPERATURE).softmax(1)
    entropy = -torch.xlogy(p, p).sum(1)
    weight = 1 + torch.exp(-entropy.detach())
    weighted = p * (weight / weight.mean()).unsqueeze(1)
    confusion = weighted.T @ p
    confusion = confusion / confusion.sum(1, keepdim=True)
    return (confusion.sum() - confusion.trace()) / len(confusion)


def mcc(source: np.ndarray, labels: np.ndarray, target: np.ndarray, seed: int) -> Any:
    """Train with cross-entropy and class confusion, as SymNetClassifier trains."""
    torch.manual_seed(seed)
    net = nn.Sequential(bottleneck(source.shape[1]), nn.Linear(BOTTLENECK, labels.max() + 1))
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, **SGD)
    schedule = symloss.AnnealedLR(optimizer, STEPS)
    for _, x_s, y_s, x_t in batches(source, labels, target, seed):
        loss = F.cross_entropy(net(x_s), y_s) + class_confusion(net(x_t))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return predict(net, target)


@torch.no_grad()
def predict(net: nn.Module, target: np.ndarray) -> np.ndarray:
    """Return the categories of a network's logits."""
    predicted: np.ndarray = net.eval()(torch.from_numpy(target)).argmax(1).numpy()
    return predicted


def adapter(source: np.ndarray, labels: np.ndarray, target: np.ndarray, seed: int) -> Any:
    """Train pytorch-adapt's SymNets."""
    from pytorch_adapt.adapters import SymNets
    from pytorch_adapt.containers import Models, Optimizers
    from pytorch_adapt.layers import MultipleModels

    torch.manual_seed(seed)
    heads = MultipleModels(*(nn.Linear(BOTTLENECK, labels.max() + 1) for _ in "st"))
    models = Models({"G": bottleneck(source.shape[1]), "C": heads})
    method = SymNets(models, optimizers=Optimizers((torch.optim.SGD, {"lr": LR, **SGD})))
    for _, x_s, y_s, x_t in batches(source, labels, target, seed):
        zeros, ones = torch.zeros(len(x_s)), torch.ones(len(x_t))
        method.training_step(
            {
                "src_imgs": x_s,
                "src_labels": y_s,
                "src_domain": zeros,
                "target_imgs": x_t,
                "target_domain": ones,
            }
        )
    heads.models[0] = nn.Identity()
    return predict(nn.Sequential(models["G"], heads.models[1]), target)


def ours(**params: Any) -> Method:
    """Return SymNetClassifier with its defaults except for ``params``."""

    def run(source: np.ndarray, labels: np.ndarray, target: np.ndarray, seed: int) -> Any:
        model = symloss.SymNetClassifier(**params, random_state=seed)
        return model.fit(source, labels, target).predict(target)

    return run


SEEDLESS: dict[str, Method] = {
    "logistic regression on the source": logistic_regression,
    "CORAL, skada": shallow("CORALAdapter"),
    "TCA, skada": shallow("TransferComponentAnalysisAdapter", n_components=100, kernel="linear"),
    "optimal transport, skada": shallow("OTMappingAdapter"),
}
SEEDED: dict[str, Method] = {
    "MCC, skada": deep_mcc,
    "MCC, lines of this script": mcc,
    "SymNets, pytorch-adapt": adapter,
    "SymNets without balance": ours(objective="symnets", balance=0.0),
    "SymNetClassifier()": ours(),
}


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read features, float32 of length 1, and labels.

    Raises:
        SystemExit: If the file does not contain them.
    """
    try:
        if path.suffix == ".npz":
            stored = np.load(path)
            features, labels = stored["features"], stored["labels"]
        else:
            features = np.load(path, mmap_mode="r")
            labels = np.array(json.loads(path.with_suffix(".json").read_text("utf-8"))["labels"])
    except (OSError, KeyError, ValueError) as error:
        raise SystemExit(f"features.py: error: {path}: {error}") from None
    features = features.astype("float32")
    if features.ndim == 3:
        features = features.mean(1)
    return features / np.linalg.norm(features, axis=1, keepdims=True), labels


@dataclasses.dataclass(frozen=True)
class Run:
    """A method's run with one seed: accuracy on the target in %, and seconds of fit and predict."""

    source: str
    target: str
    method: str
    seed: int
    accuracy: float
    seconds: float


def measure(domains: Domains, seeds: list[int]) -> tuple[list[Run], Any]:
    """Run every method on every pair of domains; return the runs, and notes on missing packages."""
    runs, notes = [], []
    for name, method in (SEEDLESS | SEEDED).items():
        try:
            for (source, labelled), (target, (x_t, y_t)) in itertools.permutations(
                domains.items(), 2
            ):
                for seed in seeds[:1] if name in SEEDLESS else seeds:
                    start = time.perf_counter()
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")  # of other packages' own affairs
                        predicted = method(*labelled, x_t, seed)
                    seconds = time.perf_counter() - start
                    accuracy = 100 * float(np.mean(predicted == y_t))
                    runs.append(Run(source, target, name, seed, accuracy, seconds))
        except ImportError as error:
            notes.append(f"Not run: {name} ({error}).")
    return runs, notes


def table(runs: list[Run]) -> tuple[list[list[str]], list[str]]:
    """Return the rows of the table, and a note on the best methods."""
    ways = list(dict.fromkeys((run.source, run.target) for run in runs))
    average = len(ways) > 2
    rows = [["Method", *(f"{a} to {b}: %" for a, b in ways), *["mean"] * average, "seconds"]]
    means = {}
    for name in dict.fromkeys(run.method for run in runs):
        of = [[r for r in runs if (r.method, r.source, r.target) == (name, *way)] for way in ways]
        means[name] = [statistics.mean(run.accuracy for run in each) for each in of]
        cells = [mean_and_error([run.accuracy for run in each]) for each in of]
        if average:
            cells.append(f"{statistics.mean(means[name]):.1f}")
        seconds = [statistics.mean(run.seconds for run in each) for each in of]
        rows.append([name, *cells, f"{min(seconds):.1f} to {max(seconds):.1f}"])
    notes = []
    for way, (a, b) in enumerate(ways):
        best = max(means, key=lambda name: means[name][way])
        notes.append(f"Best from {a} to {b}: {best}.")
    return rows, notes


def write(path: Path, runs: list[Run]) -> None:
    """Write one line per run, with the versions of the packages."""
    versions = {}
    for package in ("symloss", "torch", "scikit-learn", "skada", "pytorch-adapt"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    with open(path, "w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow([*(field.name for field in dataclasses.fields(Run)), "versions"])
        for run in runs:
            numbers = (f"{run.accuracy:.6g}", f"{run.seconds:.3g}")
            lines.writerow([*dataclasses.astuple(run)[:4], *numbers, json.dumps(versions)])


def mean_and_error(values: list[float]) -> str:
    """Format the mean and its standard error."""
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values) / len(values) ** 0.5:.1f}"


def made() -> Domains:
    """Make two small domains."""
    rng = np.random.default_rng(0)
    labels = np.arange(160) % 4
    domains: Domains = {}
    for name, shift in (("made source", 0.0), ("made target", 0.3)):
        features = np.eye(4, 8)[labels] + 0.1 * rng.normal(size=(160, 8)) + shift
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        domains[name] = (features.astype("float32"), labels)
    return domains


def main(argv: list[str] | None = None) -> None:
    """Run every method in both directions and print the table."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    add = parser.add_argument
    add("files", type=Path, nargs="*", metavar="FILE", help="features of a domain, two or more")
    seed, help_ = timing.console.whole(0), "seeds of what depends on one (default: 0 1 2)"
    add("--seeds", type=seed, nargs="+", default=[0, 1, 2], metavar="N", help=help_)
    add("--quick", action="store_true", help="made features, to prove that the script runs")
    add("--out", type=timing.new_file, metavar="FILE", help="write the table here too")
    add("--csv", type=timing.new_file, metavar="FILE", help="write a line per run here")
    args = parser.parse_args(argv)
    if len(args.files) < 2 and not args.quick:
        parser.error(f"files of two or more domains must be given, got {len(args.files)}")
    domains = made() if args.quick else {path.stem: read(path) for path in args.files}
    if not args.quick and len(domains) < len(args.files):
        parser.error(f"files must have names of their own, got {', '.join(map(str, args.files))}")
    runs, missing = measure(domains, args.seeds)
    if args.csv:
        write(args.csv, runs)
    rows, notes = table(runs)
    counts = ", ".join(f"{name}: {len(labels)} rows" for name, (_, labels) in domains.items())
    title = (
        f"Accuracy on the domain without labels; {counts}; seeds {' '.join(map(str, args.seeds))}"
    )
    timing.report(title, rows, missing + notes, torch.device("cpu"), args.out)


if __name__ == "__main__":
    main()
