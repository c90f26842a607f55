"""How well scores without target labels pick models, and how often they pick a bad one.

    python benchmarks/selection.py                  trains a grid of settings on the digits
    python benchmarks/selection.py --runs runs/     uses the finished runs of train_office.py

Candidates are the runs of one task after the last epoch; for the digits, network, source and
settings are those of examples/train_digits.py with one change at a time. A score sees the evaluated
classifier's logits on all target images. It is compared with the accuracy of the same run; for the
digits, on the even-indexed handwritten images, on which settings may be chosen.

    Spearman         rank correlation of score and accuracy over the candidates
    picks            accuracy of the candidate with the highest score; the mean if there are several
    worst quarter    how often the pick among 8 candidates, drawn 1,000 times, is in the quarter
                     with the lowest accuracy; a random pick is in it about 25 % of the time

A candidate without a score (source only has no agreement) is never picked by it and is left out of
its correlation. Ensemble agreement is computed within each draw. "No lost category" is minus the
number of categories predicted less than a fifth as often as if all were equally frequent. With
several tasks, every number is the mean over them.
"""

import argparse
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import timing
import torch

# timing has put examples/ on the path.
from digits import Digits, Run, load_handwritten, mean_and_error, render_digits
from office.console import UserError
from office.results import outputs
from office.results.outputs import by_classifier
from timing import console
from torch import Tensor
from train_digits import SOURCE_SIZE, Method, Recipe, accuracies, symnets_balanced, train

import symloss
from symloss import diagnostics, scores

DEVELOPMENT = slice(0, None, 2)
DRAWS, DRAWN = 1000, 8
LEAST = 4  # candidates, so that a quarter is at least one
DEFAULT = "symnets-balanced, the default"  # of train_digits.py


@dataclass(frozen=True)
class Candidate:
    """A trained model: its logits on the target, and numbers that scores do not see.

    Attributes:
        logits: The evaluated classifier's logits on the target, ``(N, K)``.
        agreement: Of the source and target classifiers, C^s and C^t; NaN if there is only one.
        source_accuracy: Accuracy on the source's training images, in %.
        accuracy: Accuracy on the target, in %.
        setting: The name of how it was trained.
    """

    logits: Tensor
    agreement: float
    source_accuracy: float
    accuracy: float
    setting: str = ""


# Scores of several candidates, NaN for those without one.
Score = Callable[[Sequence[Candidate]], Tensor]


def each(score: Callable[[Tensor], Tensor]) -> Score:
    """Turn a score of logits ``(N, K)`` into a score of candidates."""
    return lambda candidates: torch.stack([score(c.logits).double() for c in candidates])


def certainty(logits: Tensor) -> Tensor:
    """Return minus the mean entropy."""
    log_p = logits.log_softmax(1)
    return (log_p.exp() * log_p).sum(1).mean()


def no_lost_category(logits: Tensor) -> Tensor:
    """Return minus the number of rarely predicted categories."""
    return torch.tensor(-len(diagnostics.diagnose(logits).rarely_predicted))


def ensemble(candidates: Sequence[Candidate]) -> Tensor:
    """Return each candidate's agreement with the mean prediction of all."""
    return scores.ensemble_agreement([c.logits for c in candidates]).double()


SCORES: dict[str, Score] = {
    "minus the mean entropy": each(certainty),
    "`soft_neighborhood_density`": each(scores.soft_neighborhood_density),
    "`information_maximization`": each(scores.information_maximization),
    "`nuclear_norm`": each(scores.nuclear_norm),
    "`corr_c`": each(scores.corr_c),
    "`agreement`": lambda candidates: _told(c.agreement for c in candidates),
    "`ensemble_agreement`": ensemble,
    "no lost category": each(no_lost_category),
    "accuracy on the source": lambda candidates: _told(c.source_accuracy for c in candidates),
    "the target's labels, for comparison": lambda candidates: _told(c.accuracy for c in candidates),
}


def _told(values: Iterable[float]) -> Tensor:
    return torch.tensor([*values], dtype=torch.float64)


# What a score is worth


def spearman(x: Tensor, y: Tensor) -> float:
    """Return the rank correlation of two vectors; equal values get the mean of their ranks."""
    ranks = [(v > v.unsqueeze(1)).sum(0) + (v == v.unsqueeze(1)).sum(0) / 2 for v in (x, y)]
    return torch.corrcoef(torch.stack(ranks).double())[0, 1].item()


def picked(score: Tensor, value: Tensor) -> float:
    """Return the value of the candidate with the highest score, or the mean of several."""
    score = score.nan_to_num(-math.inf)
    return value[score == score.max()].mean().item()


def worth(candidates: Sequence[Candidate]) -> dict[str, tuple[float, float, float]]:
    """Return for each score its correlation, the accuracy (%) it picks, and worst quarters (%)."""
    accuracy = _told(c.accuracy for c in candidates)
    worst = torch.zeros(len(candidates), dtype=torch.float64)
    worst[accuracy.argsort(stable=True)[: len(candidates) // 4]] = 100
    generator = torch.Generator().manual_seed(0)
    draws = [torch.randperm(len(candidates), generator=generator)[:DRAWN] for _ in range(DRAWS)]
    found = {}
    for name, score in SCORES.items():
        values = score(candidates)
        known = ~values.isnan()
        bad = [
            picked(
                ensemble([candidates[i] for i in draw]) if score is ensemble else values[draw],
                worst[draw],
            )
            for draw in draws
        ]
        found[name] = (
            spearman(values[known], accuracy[known]),
            picked(values, accuracy),
            statistics.fmean(bad),
        )
    return found


def picks(candidates: Sequence[Candidate]) -> list[list[str]]:
    """Return header and rows: the setting each score picks, and the points that it costs."""
    rows = [["Score", "Setting it picks", "Costs, points"]]
    best = max(c.accuracy for c in candidates)
    for name, score in SCORES.items():
        values = score(candidates).nan_to_num(-math.inf)
        top = [c for c, value in zip(candidates, values, strict=True) if value == values.max()]
        names = dict.fromkeys(c.setting for c in top)
        cost = best - statistics.fmean(c.accuracy for c in top)
        rows.append([name, ", ".join(names) if len(names) < 4 else "many", f"{cost:.1f}"])
    return rows


def table(tasks: Sequence[Sequence[Candidate]]) -> list[list[str]]:
    """Return header and rows: how well each score picks, on average over the tasks."""
    found = [worth(candidates) for candidates in tasks]
    rows = [["Score, higher is better", "Spearman", "Picks, %", "Worst quarter, %"]]
    for name in found[0]:
        correlation, accuracy, bad = (
            statistics.fmean(values) for values in zip(*(one[name] for one in found), strict=True)
        )
        rows.append([name, f"{correlation:.2f}", f"{accuracy:.1f}", f"{bad:.0f}"])
    return rows


# Candidates


@dataclass(frozen=True)
class Objective:
    """Both players' losses with one change, for ``train`` of train_digits.py.

    Attributes:
        losses: SymNets or SymmNets-V2.
        lam: Constant λ instead of the schedule's.
        entropy: Weight of eq. (10), 1 in SymNets.
        balance: Weight of the balance.
    """

    losses: Callable[..., symloss.SymNetLosses | symloss.SymNetV2Losses] = symloss.symnet_losses
    lam: float | None = None
    entropy: float = 1.0
    balance: float = 0.0

    def __call__(
        self, source: symloss.RoutedLogits, labels: Tensor, target: symloss.RoutedLogits, lam: float
    ) -> Tensor:
        """Return the sum of both players' losses."""
        lam = lam if self.lam is None else self.lam
        losses = self.losses(source, labels, target)
        loss = losses.total(lam)
        if self.entropy != 1:
            assert isinstance(losses, symloss.SymNetLosses)  # V2 has no entropy
            loss = loss + (self.entropy - 1) * lam * losses.symmetric_entropy
        if self.balance:
            balance = symloss.functional.category_balance(target.extractor)
            loss = loss + self.balance * lam * balance
        return loss


Grid = dict[str, tuple[Callable[..., Tensor] | None, Recipe]]


def settings(recipe: Recipe) -> Grid:
    """Return objective and recipe, by setting name."""
    v2 = symloss.symnet_v2_losses
    return {
        DEFAULT: (partial(symnets_balanced, weight=recipe.balance), recipe),
        "source only": (None, recipe),
        "SymNets": (Objective(), recipe),
        "λ = 0 throughout": (Objective(lam=0.0), recipe),
        "λ = 1 from the start": (Objective(lam=1.0), recipe),
        "without the entropy (10)": (Objective(entropy=0.0), recipe),
        "the entropy ten times as heavy": (Objective(entropy=10.0), recipe),
        "batches of 16 + 16": (Objective(), replace(recipe, batch_size=16)),
        "batches of 256 + 256": (Objective(), replace(recipe, batch_size=256)),
        "both learning rates a tenth": (Objective(), replace(recipe, lr=recipe.lr / 10)),
        **{f"balance {w}": (Objective(balance=w), recipe) for w in (1, 3, 5, 10)},
        "SymmNets-V2": (Objective(v2), recipe),
        "SymmNets-V2, balance 3": (Objective(v2, balance=3), recipe),
    }


@torch.no_grad()
def candidate(run: Run, method: Method, handwritten: Digits) -> Candidate:
    """Return a run as a candidate; only its accuracy uses target labels."""
    run.extractor.eval()
    logits = run.head(run.extractor(handwritten.images))
    final = run.final
    trained = method.classifiers[-1]
    return Candidate(
        symloss.functional.split_logits(logits)[1],
        diagnostics.agreement(logits).item() if trained == "source" else math.nan,
        final[f"source_accuracy/C_{trained[0]}"],
        final["target_accuracy/C_t"],
        method.name,
    )


def train_digits(grid: Grid, sources: dict[int, Digits]) -> dict[str, list[Candidate]]:
    """Return, by setting, a candidate per seed of ``sources``, the printed digits."""
    handwritten = load_handwritten()
    scored = Digits(*(part[DEVELOPMENT] for part in handwritten))
    found = defaultdict(list)
    for name, (objective, recipe) in grid.items():
        method = Method(name, objective, estimates=name == DEFAULT)
        score = partial(accuracies, domain="target", digits=scored, classifiers=method.classifiers)
        for seed, source in sources.items():
            run = train(method, source, handwritten.images, score, recipe, seed)
            found[name].append(candidate(run, method, handwritten))
    return found


def finished_runs(folder: Path) -> dict[str, list[Candidate]]:
    """Return, by task, the finished runs of train_office.py below a folder.

    Raises:
        UserError: If a file is broken, or no task has 4 runs whose target has labels.
    """
    found = defaultdict(list)
    for path in sorted(folder.rglob("result.json")):
        result = outputs.read_result(path)
        if result.accuracy is None:
            continue
        saved = path.with_name("features.npz")
        logits = outputs.read_features(saved).logits
        if logits is None:
            raise UserError(f"{saved} has no logits: an older train_office.py wrote it")
        parts = by_classifier(torch.from_numpy(logits), len(result.categories))
        symmetric = len(parts) == 2
        source = result.final["source_accuracy/C_s" if symmetric else "source_accuracy/C_t"]
        assert source is not None  # the source has labels
        made = Candidate(
            parts[result.classifier],
            diagnostics.agreement(torch.from_numpy(logits)).item() if symmetric else math.nan,
            source,
            result.accuracy,
        )
        found[f"{result.dataset} {result.task}"].append(made)
    enough = {task: candidates for task, candidates in found.items() if len(candidates) >= LEAST}
    if not enough:
        raise UserError(f"no task with {LEAST} finished runs and target labels in {folder}")
    return enough


def main(argv: list[str] | None = None) -> None:
    """Train or read the candidates, and print how well each score picks."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    add, seed = parser.add_argument, console.whole(0, 2**32 - 1)
    add("--runs", type=Path, metavar="DIR", help="use finished runs instead of the digits")
    help_ = "seeds of printed digits, weights, batches (default: 100 101 102)"
    add("--seeds", nargs="+", type=seed, default=range(100, 103), metavar="N", help=help_)
    add("--quick", action="store_true", help="one epoch of few digits, to check that it runs")
    add("--out", type=timing.new_file, metavar="FILE", help="also write the tables to FILE")
    args = parser.parse_args(argv)
    # The network is too small to gain from threads; one gives the same numbers on every machine.
    torch.set_num_threads(1)
    notes = []
    if args.runs:
        try:
            tasks = finished_runs(args.runs)
        except (UserError, OSError) as error:
            parser.error(str(error))
        title = f"Finished runs of train_office.py: {', '.join(tasks)}"
    else:
        recipe, printed = (Recipe(epochs=1), 320) if args.quick else (Recipe(), SOURCE_SIZE)
        sources = {seed: render_digits(printed, seed) for seed in args.seeds}
        grid = train_digits(settings(recipe), sources)
        tasks = {"digits": [c for candidates in grid.values() for c in candidates]}
        rows = [["Setting", "C^t, %"]]
        rows += [[name, mean_and_error([c.accuracy for c in same])] for name, same in grid.items()]
        notes += [timing.markdown(picks(tasks["digits"])), timing.markdown(rows)]
        title = (
            f"Digits, {recipe.epochs} epochs, seeds {' '.join(map(str, sources))}; accuracy on the "
            "even-indexed handwritten images, below as mean ± standard error of the seeds"
        )
    counts = [len(candidates) for candidates in tasks.values()]
    title += f"; {' + '.join(map(str, counts))} candidates"
    timing.report(title, table([*tasks.values()]), notes, torch.device("cpu"), args.out)


if __name__ == "__main__":
    main()
