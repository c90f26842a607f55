"""Scores for target rows that show an object the source lacks, on Office-31.

    python benchmarks/novelty.py features/office31 --csv results/novelty.csv

follows the protocol of universal adaptation (You et al., CVPR 2019): both domains have the ten
categories that Office-31 shares with Caltech-256, the next ten in alphabetical order are in the
source alone, and the last eleven in the target alone, the unknown ones. The views of an image are
averaged, and rows scaled to length 1. The scores:

    logistic regression    1 - top probability, trained on the source
    nearest neighbours     1 - cosine similarity to the fifth nearest source row; the category is
                           that of the nearest one
    source only            1 - top probability of the bottleneck and head that cross-entropy trains
    V2, no balance         1 - top probability of SymNetClassifier(balance=0)
    default                1 - top probability of SymNetClassifier()
    novelty                SymNetClassifier().novelty

Each line of the CSV is a run, in %: the area under the ROC curve of unknown rows against known
ones; accuracy on the known rows, with none rejected; and the H-score, the harmonic mean of the
known categories' mean recall (a rejected row counts as wrong) and the share of unknown rows that
are rejected. For every score, `h_score` rejects the share of the target that `diagnose` of the
defaults reports, which needs no labels; `h_best` uses the best threshold by target labels.
`unknown` is the true share of unknown rows, `reported` the one from `diagnose`. After an
interruption, the same command continues.
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

import features
import numpy as np
import shares
import timing
import torch

import symloss

TASKS = ["a2w", "d2w", "w2d", "a2d", "d2a"]
NEIGHBOURS = 5
Told = tuple[np.ndarray, np.ndarray]  # predicted categories and scores


@dataclasses.dataclass(frozen=True)
class Run:
    """One score on one pair of domains: see the module's docstring."""

    source: str
    target: str
    method: str
    seed: int
    auroc: float
    known: float
    h_score: float
    h_best: float
    unknown: float
    reported: float
    seconds: float


def split(names: Sequence[str]) -> tuple[list[int], list[int], list[int]]:
    """Return the categories of both domains, of the source alone and of the target alone."""
    known = [i for i, name in enumerate(names) if name in shares.CALTECH.split()]
    others = [i for i in range(len(names)) if i not in known]
    half = len(others) // 2
    return known, others[:half], others[half:]


def auroc(score: np.ndarray, unknown: np.ndarray) -> float:
    """Return the share of pairs, in %, in which the unknown row has the higher score."""
    order = np.sort(score[~unknown])
    below, upto = (np.searchsorted(order, score[unknown], side) for side in ("left", "right"))
    return 100 * float((below + upto).mean() / 2 / len(order))


def h_score(predicted: np.ndarray, rejected: np.ndarray, true: np.ndarray) -> float:
    """Return the H-score in %; ``true`` is -1 where unknown."""
    right = (predicted == true) & ~rejected
    known = np.mean([right[true == k].mean() for k in np.unique(true[true >= 0])])
    unknown = rejected[true < 0].mean()
    return 0.0 if right.sum() == 0 else 100 * float(2 * known * unknown / (known + unknown))


def best(predicted: np.ndarray, score: np.ndarray, true: np.ndarray) -> float:
    """Return the H-score with the best threshold."""
    return max(h_score(predicted, score > limit, true) for limit in np.unique(score))


def highest(score: np.ndarray, share: float) -> np.ndarray:
    """Return the mask of the rows that have the highest scores."""
    rejected: np.ndarray = score > np.quantile(score, 1 - share)
    return rejected


def told(
    x_s: np.ndarray, y_s: np.ndarray, x_t: np.ndarray, seed: int
) -> Iterator[tuple[str, Told, float]]:
    """Yield each score with its predictions and the share that its model reports."""
    ours = symloss.SymNetClassifier(random_state=seed).fit(x_s, y_s, x_t)
    reported = ours.diagnose(x_t).novel or 0.0
    yield "novelty", (ours.predict(x_t), ours.novelty(x_t)), reported
    yield "default", top(ours.predict_proba(x_t)), reported
    plain = symloss.SymNetClassifier(balance=0, random_state=seed).fit(x_s, y_s, x_t)
    yield "V2, no balance", top(plain.predict_proba(x_t)), reported
    net = shares.trained(x_s, y_s, x_t, seed).eval()
    with torch.no_grad():
        yield "source only", top(net(torch.from_numpy(x_t)).softmax(1).numpy()), reported
    if seed == 0:
        model = features.classifier().fit(x_s, y_s)
        yield "logistic regression", top(model.predict_proba(x_t)), reported
        similarity = x_t @ x_s.T
        nearest = np.sort(similarity, axis=1)[:, -NEIGHBOURS]
        yield "nearest neighbours", (y_s[similarity.argmax(1)], 1 - nearest), reported


def top(probabilities: np.ndarray) -> Told:
    """Return predictions, and 1 - the top probability."""
    return probabilities.argmax(1), 1 - probabilities.max(1)


def measure(args: argparse.Namespace, done: set[tuple[str, ...]]) -> Iterator[list[Run]]:
    """Run all scores on the pairs and seeds that are not done yet."""
    names: list[str] = []
    domains = {}
    for path in sorted(args.folder.glob("*.npy")):
        domains[path.stem] = features.read(path)
        names = json.loads(path.with_suffix(".json").read_text("utf-8"))["categories"]
    known, source_only, target_only = split(names)
    for seed, (source, target) in itertools.product(args.seeds, itertools.permutations(domains, 2)):
        if (source, target, str(seed)) in done or f"{source[0]}2{target[0]}" not in args.task:
            continue
        (x_s, y_s), (x_t, y_t) = domains[source], domains[target]
        from_s = np.isin(y_s, known + source_only)
        from_t = np.isin(y_t, known + target_only)
        categories = np.array(sorted(known + source_only))
        x_s, y_s = x_s[from_s], np.searchsorted(categories, y_s[from_s])
        x_t, y_t = x_t[from_t], y_t[from_t]
        unknown = np.isin(y_t, target_only)
        true = np.where(unknown, -1, np.searchsorted(categories, y_t))
        runs, start = [], time.perf_counter()
        for name, (predicted, score), reported in told(x_s, y_s, x_t, seed):
            runs.append(
                Run(
                    source,
                    target,
                    name,
                    seed,
                    auroc(score, unknown),
                    100 * float((predicted == true)[~unknown].mean()),
                    h_score(predicted, highest(score, reported), true),
                    best(predicted, score, true),
                    100 * float(unknown.mean()),
                    100 * reported,
                    time.perf_counter() - start,
                )
            )
            start = time.perf_counter()
        yield runs


def table(runs: Sequence[dict[str, str]]) -> list[list[str]]:
    """Return the mean over seeds of every score, by pair of domains, and the mean over pairs."""
    ways = list(dict.fromkeys((run["source"], run["target"]) for run in runs))
    rows = [["Score", *(f"{a[0]} to {b[0]}: AUROC" for a, b in ways), "mean", "known", "H", "best"]]
    for name in dict.fromkeys(run["method"] for run in runs):
        means = {
            column: [
                statistics.mean(
                    float(run[column])
                    for run in runs
                    if (run["source"], run["target"], run["method"]) == (*way, name)
                )
                for way in ways
            ]
            for column in ("auroc", "known", "h_score", "h_best")
        }
        cells = [*means["auroc"], *(statistics.mean(values) for values in means.values())]
        rows.append([name, *(f"{value:.1f}" for value in cells)])
    return rows


def main(argv: list[str] | None = None) -> None:
    """Run every score on every pair of domains, and print the table."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    add = parser.add_argument
    add("folder", type=Path, metavar="DIR", help="features of Office-31's domains")
    add("--csv", type=Path, required=True, metavar="FILE", help="a line per run is added to it")
    add("--task", nargs="+", default=TASKS, metavar="S2T", help="initials of source and target")
    add("--seeds", type=timing.console.whole(0), nargs="+", default=[0, 1, 2], metavar="N")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", UserWarning)  # what diagnose says, batches of small domains
    for runs in measure(args, timing.start(args.csv, Run, ("source", "target", "seed"))):
        timing.append(args.csv, *runs)
    rows = table(timing.read(args.csv))
    timing.report("Unknown rows against known ones (%)", rows, [], torch.device("cpu"), None)


if __name__ == "__main__":
    main()
