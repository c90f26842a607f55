"""Balance, category weights and SymmNets-V2 on the digits: when each helps and when it harms.

    python benchmarks/balance.py

Network, source and settings are those of examples/train_digits.py, whose numbers are repeated in
the first target's rows "source only" and "SymNets". The targets:

    all digits    the 1,797 handwritten digits
    5 to 9 rare   every image of the digits 0 to 4, every tenth of each other digit
    0 to 4 only   the other digits are missing; the source has them

"Balance w" adds w λ category_balance; SymNets is balance 0. The balance expects equal shares or,
where the row says so, the target's own, which are unknown in practice (0.1 % for a missing digit).
"Category weights" are those of diagnostics.category_weights, re-estimated after every epoch.
"Estimated shares" is the demo's symnets-balanced.

Scores are those of C^t, the target classifier, after the last epoch on odd-indexed images: accuracy
on the target as it is, recalls on all images of the target's digits, since the target has few of
the rare ones. "Beside SymNets" is the difference in accuracy with the same seed. The lowest digits
are the two with the lowest mean recall over seeds. "Absent" is the share of the target that is
predicted as a digit it does not have.
"""

import argparse
import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import timing
import torch

# timing has put examples/ on the path.
from digits import Digits, Run, load_handwritten, mean_and_error, render_digits
from timing import console
from torch import Tensor, nn
from train_digits import SCORED, SOURCE_SIZE, Method, Recipe, symnets_balanced, train
from train_digits import Objective as Loss

import symloss

BALANCE = 5.0  # with the target's shares, and beside V2
BALANCES = [0.5, 1.0, 3.0, 5.0, 10.0]
ESTIMATED = "estimated shares"
HEADER = [
    "Target",
    "Method",
    "Accuracy",
    "Beside SymNets",
    "Mean recall",
    "Worst digit",
    "Lowest digits",
    "Absent",
]


@dataclass
class Objective:
    """V1 or V2 with or without balance and category weights, for ``train`` of train_digits.py.

    Attributes:
        losses: V1 or V2.
        balance: Weight of the balance.
        prior: Shares that the balance expects, ``(10,)``.
        partial: Whether to weight the source's categories.
        weight: Their current weights, ``(10,)``.
        lam: λ of the last step.
    """

    losses: Callable[..., symloss.SymNetLosses | symloss.SymNetV2Losses] = symloss.symnet_losses
    balance: float = 0.0
    prior: Tensor | None = None
    partial: bool = False
    weight: Tensor | None = None
    lam: float = 0.0

    def __call__(
        self, source: symloss.RoutedLogits, labels: Tensor, target: symloss.RoutedLogits, lam: float
    ) -> Tensor:
        """Return the sum of both players' losses."""
        self.lam = lam
        loss = self.losses(source, labels, target, weight=self.weight).total(lam)
        if self.balance:
            balance = symloss.functional.category_balance(target.extractor, self.prior)
            loss = loss + self.balance * lam * balance
        return loss

    def estimate(self, target_logits: Tensor) -> None:
        """Re-estimate the category weights."""
        if self.partial:
            target = symloss.functional.split_logits(target_logits)[1]
            self.weight = symloss.diagnostics.category_weights(target, self.lam)


@torch.no_grad()
def score(
    extractor: nn.Module,
    head: symloss.SymmetricHead,
    handwritten: Digits,
    kept: Tensor,
    objective: Loss | None,
) -> dict[str, float]:
    """Return accuracy, share of absent digits and recalls of C^t (%), and estimate the weights.

    ``kept`` says which handwritten digits are the target, ``(N,)`` bool.
    """
    extractor.eval()
    logits = head(extractor(handwritten.images))
    if isinstance(objective, Objective):
        objective.estimate(logits[kept])
    predicted = symloss.functional.split_logits(logits)[1].argmax(1)[SCORED]
    labels, kept = handwritten.labels[SCORED], kept[SCORED]
    digits = labels[kept].unique()
    right = (predicted == labels).double()
    absent = ~torch.isin(predicted, digits)
    return {
        "target_accuracy/C_t": 100 * right[kept].mean().item(),
        "absent": 100 * absent[kept].double().mean().item(),
        **{f"recall/{k}": 100 * right[labels == k].mean().item() for k in digits.tolist()},
    }


def targets(labels: Tensor) -> dict[str, Tensor]:
    """Return, by target name, which handwritten digits it has."""
    rank = (labels.unsqueeze(1) == labels).tril().sum(1) - 1  # among the images of its digit
    return {
        "all digits": labels >= 0,
        "5 to 9 rare": (labels < 5) | (rank % 10 == 0),
        "0 to 4 only": labels < 5,
    }


def objectives(
    labels: Tensor, balances: list[float], recipe: Recipe
) -> dict[str, Callable[[], Loss] | None]:
    """Return, by method name, what makes its objective; ``labels`` are the target's."""
    shares = torch.bincount(labels, minlength=10).double().div(len(labels)).clamp(min=0.001)
    v2 = symloss.symnet_v2_losses
    return {
        "source only": None,
        "SymNets": Objective,
        **{f"balance {w:g}": partial(Objective, balance=w) for w in balances},
        f"balance {BALANCE:g}, the target's shares": partial(
            Objective, balance=BALANCE, prior=shares / shares.sum()
        ),
        "category weights": partial(Objective, partial=True),
        "V2": partial(Objective, v2),
        f"V2, balance {BALANCE:g}": partial(Objective, v2, balance=BALANCE),
        "V2, category weights": partial(Objective, v2, partial=True),
        ESTIMATED: lambda: partial(symnets_balanced, weight=recipe.balance),
    }


def measure(
    handwritten: Digits,
    sources: dict[int, Digits],
    recipe: Recipe,
    balances: list[float],
    methods: list[str] | None,
) -> Iterator[tuple[str, str, list[Run]]]:
    """Yield target, method and its runs, one per seed of ``sources``, the printed digits."""
    for target, kept in targets(handwritten.labels).items():
        for name, make in objectives(handwritten.labels[kept], balances, recipe).items():
            if methods and name not in methods:
                continue
            runs = []
            for seed, source in sources.items():
                objective = make and make()
                method = Method(name, objective, estimates=name == ESTIMATED)
                score_ = partial(score, handwritten=handwritten, kept=kept, objective=objective)
                images = handwritten.images[kept]
                runs.append(train(method, source, images, score_, recipe, seed))
            yield target, name, runs


def save(path: Path, results: list[tuple[str, str, list[Run]]]) -> None:
    """Write a line per run."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["setting", "seed", "target", "accuracy", "worst_digit"])
        for target, method, runs in results:
            for run in runs:
                worst = min(v for name, v in run.final.items() if name.startswith("recall/"))
                numbers = run.final["target_accuracy/C_t"], worst
                writer.writerow([method, run.seed, target, *(f"{v:.2f}" for v in numbers)])


def cells(runs: list[Run], symnets: list[Run]) -> list[str]:
    """Format the numbers of one method's runs, compared with SymNets by seed."""
    finals = [run.final for run in runs]
    accuracy, before = (
        [run.final["target_accuracy/C_t"] for run in some] for some in (runs, symnets)
    )
    gains = [a - b for a, b in zip(accuracy, before, strict=True)]
    recalls = {
        name.removeprefix("recall/"): torch.tensor([final[name] for final in finals])
        for name in finals[0]
        if name.startswith("recall/")
    }
    by_seed = torch.stack([*recalls.values()])
    lowest = sorted(recalls, key=lambda digit: recalls[digit].mean().item())[:2]
    return [
        mean_and_error(accuracy),
        "" if runs is symnets else mean_and_error(gains),
        mean_and_error(by_seed.mean(0).tolist()),
        mean_and_error(by_seed.amin(0).tolist()),
        ", ".join(f"{digit} ({recalls[digit].mean():.0f})" for digit in lowest),
        mean_and_error([final["absent"] for final in finals]) if len(recalls) < 10 else "",
    ]


def main(argv: list[str] | None = None) -> None:
    """Train all methods on all targets and print the table."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    seed = console.whole(0, 2**32 - 1)
    help_ = "seeds of printed digits, weights, batches (default: 0 1 2 3 4)"
    parser.add_argument("--seeds", nargs="+", type=seed, default=range(5), metavar="N", help=help_)
    help_ = "few printed digits, one epoch, one balance, to check that the script runs"
    parser.add_argument("--quick", action="store_true", help=help_)
    names = [*objectives(torch.arange(10), BALANCES, Recipe())]
    help_ = "rows of the table, besides SymNets (default: all)"
    parser.add_argument("--methods", nargs="+", choices=names, metavar="NAME", help=help_)
    help_ = "write accuracy and worst digit of every run to FILE"
    parser.add_argument("--csv", type=timing.new_file, metavar="FILE", help=help_)
    help_ = "also write the table to FILE"
    parser.add_argument("--out", type=timing.new_file, metavar="FILE", help=help_)
    args = parser.parse_args(argv)
    # The network is too small to gain from threads; one gives the same numbers on every machine.
    torch.set_num_threads(1)
    recipe, balances, printed = Recipe(), BALANCES, SOURCE_SIZE
    if args.quick:
        recipe, balances, printed = Recipe(epochs=1), balances[:1], 320
    sources = {seed: render_digits(printed, seed) for seed in args.seeds}
    methods = args.methods and ["SymNets", *args.methods]
    results = [*measure(load_handwritten(), sources, recipe, balances, methods)]
    if args.csv:
        save(args.csv, results)
    symnets = {target: runs for target, method, runs in results if method == "SymNets"}
    rows = [[target, method, *cells(runs, symnets[target])] for target, method, runs in results]
    title = "C^t on handwritten digits (%); mean ± standard error of the seeds " + " ".join(
        map(str, sources)
    )
    timing.report(title, [HEADER, *rows], [], torch.device("cpu"), args.out)


if __name__ == "__main__":
    main()
