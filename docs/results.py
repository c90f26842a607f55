"""Write every table of the results page, docs/results/_*.md, from the files in results/.

    python docs/results.py

A cell is the mean over seeds of the target accuracy in %, with its standard error.
"""

import argparse
import csv
import json
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

from office.results.outputs import mean_and_error, plus_minus  # noqa: E402

RESULTS = HERE.parent / "results"
PUBLISHED = EXAMPLES / "office" / "results" / "published.json"
DEVELOPMENT = "A2W"  # the task on which settings were chosen
OFFICE31 = ["A2W", "D2W", "W2D", "A2D", "D2A", "W2A"]
OTHERS = [task for task in OFFICE31 if task != DEVELOPMENT]
ROWS = {
    "source-only": "source only",
    "source-only-em": "source only + Em",
    "domain-confusion": "domain confusion",
    "domain-confusion-em": "domain confusion + Em",
    "symnets-wo-target-task": r"SymNets w/o $\mathcal{E}^t_{task}$ ($C^s$)",
    "symnets-wo-entropy": r"SymNets w/o $\mathcal{M}^{st}$",
    "symnets-wo-confusion": "SymNets w/o confusion",
    "symnets-wo-category-confusion": "SymNets w/o category confusion",
    "symnets": "SymNets",
    "symnets-v2": "SymmNets-V2",
    "symnets-balanced": "SymNets, balanced",
    "symnets-v2-balanced": "SymmNets-V2, balanced",
}
NETWORKS = {"resnet50_v1": "ResNet-50", "mobilenet_v2": "MobileNetV2"}
# The paper's claims about Table 4, as pairs of methods: the first is below the second.
ORDER = [
    ("source-only", "domain-confusion"),
    ("domain-confusion", "symnets-wo-entropy"),
    ("symnets-wo-entropy", "source-only-em"),
    ("source-only-em", "domain-confusion-em"),
    ("domain-confusion-em", "symnets"),
    ("symnets-wo-confusion", "symnets"),
    ("symnets-wo-category-confusion", "symnets"),
    ("symnets-wo-target-task", "symnets-wo-entropy"),
]

Run = dict[str, str]  # a line of a results file
Line = list[str]


def main(argv: list[str] | None = None) -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE / "results", metavar="DIR")
    out = parser.parse_args(argv).out
    out.mkdir(parents=True, exist_ok=True)
    for name, (file, table) in TABLES.items():
        (out / f"_{name}.md").write_text(markdown(table(read(file))), encoding="utf-8")


def read(name: str) -> list[Run]:
    """Return the lines of a results file."""
    with open(RESULTS / f"{name}.csv", encoding="utf-8", newline="") as file:
        return [*csv.DictReader(file)]


def markdown(lines: Sequence[Line]) -> str:
    """Return a table whose first line is its header."""
    header, *body = lines
    rows = [header, ["---", *["---:"] * (len(header) - 1)], *body]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def numbers(runs: Iterable[Run], column: str) -> list[float]:
    """Return a column's numbers, without the runs that lack one."""
    return [float(run[column]) for run in runs if run[column]]


def cell(values: Sequence[float]) -> str:
    """Format mean and standard error, on one line."""
    if not values:
        return "-"
    return plus_minus(*mean_and_error(values)).replace(" ", "\N{NO-BREAK SPACE}")


def of(runs: list[Run], **wanted: str) -> list[Run]:
    """Return the runs with these values."""
    return [run for run in runs if all(run[name] == value for name, value in wanted.items())]


def setting(run: Run, name: str) -> object:
    """Return a setting of a run."""
    return json.loads(run["settings"]).get(name)


def average(runs: list[Run], tasks: Sequence[str], column: str = "accuracy") -> float | None:
    """Return the mean over tasks of the mean over seeds; ``None`` if a task is missing."""
    means = [numbers(of(runs, task=task), column) for task in tasks]
    return statistics.fmean(map(statistics.fmean, means)) if all(means) else None


def arrow(task: str) -> str:
    """Write A2W as A→W, and mark the task of development."""
    source, target = task.split("2")
    return f"{source}→{target}" + (" (dev.)" if task == DEVELOPMENT else "")


def on_tasks(runs: list[Run], name: str, tasks: Sequence[str]) -> Line:
    """Return a row: a cell for each task, the mean of all, and of those but the development's."""
    line = [name, *(cell(numbers(of(runs, task=task), "accuracy")) for task in tasks)]
    others = [task for task in tasks if task != DEVELOPMENT]
    means = [average(runs, tasks), average(runs, others)]
    return line + ["-" if mean is None else f"{mean:.1f}" for mean in means]


def published(table: str, method: str, name: str) -> Line:
    """Return a printed row of the paper, from published.json."""
    found = json.loads(PUBLISHED.read_text(encoding="utf-8"))[table]
    (row,) = (row for row in found["rows"] if row["method"] == method)
    values = dict(zip(found["tasks"], row["cells"], strict=True))
    line = [name, *("-" if values[t] is None else f"{values[t][0]:.1f}" for t in OFFICE31)]
    others = [values[t][0] for t in OFFICE31 if t != DEVELOPMENT and values[t] is not None]
    five = f"{statistics.fmean(others):.1f}" if len(others) == 5 else "-"
    return [*line, f"{row['average']:.1f}", five]


def header(tasks: Sequence[str], first: str = "Method") -> Line:
    """Return the header of a table of tasks."""
    return [first, *map(arrow, tasks), "Avg", "without dev."]


def frozen(runs: list[Run]) -> list[Line]:
    """Return Tables 1 and 4 on frozen features: published numbers first."""
    spl = ["SPL (Wang and Breckon, AAAI 2020), published", *["-"] * 6, "89.6", "-"]
    lines = [header(OFFICE31)]
    lines += [published("Table 1", name, f"{name}, published") for name in ("GFK", "TCA")]
    lines.append(spl)
    return lines + [on_tasks(of(runs, method=m), name, OFFICE31) for m, name in ROWS.items()]


def order(runs: list[Run]) -> list[Line]:
    """Return the paper's order of methods, each claim with our averages, true or false."""
    lines = [["The paper's order", "ours, frozen", "without dev.", "holds"]]
    for low, high in ORDER:
        cells, answers = [], []
        for tasks in (OFFICE31, OTHERS):
            a, b = (average(of(runs, method=m), tasks) for m in (low, high))
            assert a is not None
            assert b is not None
            cells.append(f"{a:.1f}, {b:.1f}")
            answers.append("yes" if a < b else "no")
        lines.append([f"{ROWS[low]} < {ROWS[high]}", *cells, " / ".join(dict.fromkeys(answers))])
    return lines


def finetuned(runs: list[Run]) -> list[Line]:
    """Return the fine-tuned runs, those of all tasks, beside the published ones."""
    lines = [header(OFFICE31), published("Table 1", "ResNet-50", "ResNet-50, published")]
    for method in ("source-only", "symnets", "symnets-balanced"):
        shown = [r for r in of(runs, method=method) if setting(r, "bottleneck") == 256]
        shown = [r for r in shown if setting(r, "epochs") == 20]
        lines.append(on_tasks(shown, ROWS[method], OFFICE31))
    lines.append(published("Table 1", "SymNets", "SymNets, published"))
    lines.append(published("Table 1", "SymmNets-V2", "SymmNets-V2, published"))
    return lines


def development(runs: list[Run]) -> list[Line]:
    """Return what was tried on the development task, fine-tuned."""
    lines = [["Method", "bottleneck", "balance", "epochs", "$C^t$", "worst category"]]
    for run in of(runs, task=DEVELOPMENT):
        weight = setting(run, "balance") if "balanced" in run["method"] else None
        values = (setting(run, "bottleneck"), weight, setting(run, "epochs"))
        told = ["-" if value is None else f"{value:g}" for value in values]
        worst = f"{float(run['worst_recall']):.0f} ({run['worst_category'].replace('_', ' ')})"
        lines.append([ROWS[run["method"]], *told, f"{float(run['accuracy']):.1f}", worst])
    return lines


def partial(runs: list[Run]) -> list[Line]:
    """Return partial adaptation, with and without weights."""
    lines = [header(OFFICE31)]
    for method in ROWS:
        for weighted in (False, True):
            shown = [r for r in of(runs, method=method) if bool(setting(r, "partial")) is weighted]
            if shown:
                name = ROWS[method] + (", `--partial`" if weighted else "")
                lines.append(on_tasks(shown, name, OFFICE31))
    return lines


def classifiers(runs: list[Run]) -> list[Line]:
    """Return means over tasks of what both classifiers and their sum say, and without A→W."""
    columns = {
        "$C^t$": "c_t",
        "$C^s$": "c_s",
        "largest $q_k$": "joint",
        "agreement": "agreement",
        "calibration error": "calibration_error",
        "worst category": "worst_recall",
    }
    lines = [["Method", *columns]]
    for method, name in ROWS.items():
        some, line = of(runs, method=method), [name]
        for column in columns.values():
            every, five = (average(some, tasks, column) for tasks in (OFFICE31, OTHERS))
            line.append("-" if every is None else f"{every:.1f} ({five:.1f})")
        lines.append(line)
    return lines


def length(runs: list[Run]) -> list[Line]:
    """Return the accuracy on A→W by the number of epochs."""
    epochs = sorted({int(setting(run, "epochs")) for run in runs})  # type: ignore[call-overload]
    lines = [["Epochs", *map(str, epochs)]]
    for method in ROWS:
        shown = of(runs, method=method)
        if shown:
            by_length = [[r for r in shown if setting(r, "epochs") == n] for n in epochs]
            cells = [cell(numbers(some, "accuracy")) for some in by_length]
            lines.append([ROWS[method], *cells])
    return lines


def long(runs: list[Run]) -> list[Line]:
    """Return SymNets by the number of epochs, on all tasks."""
    lines = [header(OFFICE31, "SymNets")]
    for epochs, some in (("20 epochs", read("frozen")), ("200 epochs", runs)):
        lines.append(on_tasks(of(some, method="symnets"), epochs, OFFICE31))
    return lines


def features(runs: list[Run]) -> list[Line]:
    """Return SymNetClassifier beside other packages, with the seconds of a run."""
    lines = [[*header(OFFICE31), "seconds"]]
    for method in dict.fromkeys(run["method"] for run in runs):
        shown = [
            run | {"task": f"{run['source'][0]}2{run['target'][0]}".upper()}
            for run in of(runs, method=method)
        ]
        name = method.replace("lines of this script", "our lines")
        name = name.replace("SymNetClassifier()", "SymNetClassifier, 0.2")
        seconds = statistics.fmean(numbers(shown, "seconds"))
        lines.append([*on_tasks(shown, name, OFFICE31), f"{seconds:.0f}"])
    return lines


def on_network(runs: list[Run], network: str, method: str, uniform: bool = True) -> list[Run]:
    """Return the runs of a method on a network's features, with a uniform prior or a known one."""
    return [
        run
        for run in of(runs, method=method)
        if setting(run, "backbone") == network
        and (setting(run, "prior") in (None, "uniform")) is uniform
    ]


def caltech(runs: list[Run]) -> list[Line]:
    """Return Office-Caltech10, a row for each task and a column for each network and method."""
    methods = ["source-only", "symnets", "symnets-balanced"]
    shown = [on_network(runs, network, m) for network in NETWORKS for m in methods]
    names = [ROWS[m].removeprefix("SymNets, ") for m in methods]
    first = [f"{name}: {names[0]}" for name in NETWORKS.values()]
    lines = [["Task", first[0], *names[1:], first[1], *names[1:]]]
    tasks = sorted({run["task"] for run in runs})
    others = [task for task in tasks if task != DEVELOPMENT]
    for task in tasks:
        cells = [cell(numbers(of(some, task=task), "accuracy")) for some in shown]
        lines.append([arrow(task), *cells])
    for name, over, column in (
        ("Avg", tasks, "accuracy"),
        ("without dev.", others, "accuracy"),
        ("worst category, avg", tasks, "worst_recall"),
    ):
        means = [average(some, over, column) for some in shown]
        lines.append([name, *("-" if mean is None else f"{mean:.1f}" for mean in means)])
    return lines


def prior(runs: list[Run]) -> list[Line]:
    """Return the balance with equal shares and with DSLR's own, where DSLR is the target."""
    lines = [["", "A→D", "C→D"]]
    for network, name in NETWORKS.items():
        for shares, uniform in (("equal shares", True), ("DSLR's shares", False)):
            some = on_network(runs, network, "symnets-balanced", uniform)
            cells = [cell(numbers(of(some, task=task), "accuracy")) for task in ("A2D", "C2D")]
            lines.append([f"{name}, {shares}", *cells])
    return lines


def kind_of(run: Run) -> str:
    """Name a target's kind; the ten categories of the partial protocol are one of their own."""
    kind = run["kind"].replace("dirichlet ", "Dirichlet, α\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")
    if kind == "partial":
        return "partial, the ten" if run["draw"] == "0" else "partial, random"
    return kind


def by_seed(runs: list[Run], column: str) -> dict[str, float]:
    """Return each seed's mean over tasks of the mean over draws."""
    groups: dict[str, dict[str, list[float]]] = {}
    for run in runs:
        task = f"{run['source']} {run['target']}"
        groups.setdefault(run["seed"], {}).setdefault(task, []).append(float(run[column]))
    return {seed: statistics.fmean(map(statistics.fmean, t.values())) for seed, t in groups.items()}


def without_dev(runs: list[Run]) -> list[Run]:
    """Return the runs on other tasks than A→W."""
    return [run for run in runs if (run["source"], run["target"]) != DEV]


def both(runs: list[Run], column: str) -> str:
    """Format mean and standard error over seeds, and in brackets the mean without A→W."""
    every, five = (by_seed(part, column).values() for part in (runs, without_dev(runs)))
    return f"{cell([*every])} ({statistics.fmean(five):.1f})"


def shares(runs: list[Run], column: str = "accuracy") -> list[Line]:
    """Return the mean on each kind of target, over tasks and draws, and without A→W."""
    kinds = list(dict.fromkeys(map(kind_of, runs)))
    lines = [["Method", *kinds]]
    for method, name in SHARES.items():
        line = [name]
        for kind in kinds:
            some = [run for run in of(runs, method=method) if kind_of(run) == kind]
            line.append(both(some, column) if some else "-")
        lines.append(line)
    return lines


def recalls(runs: list[Run]) -> list[Line]:
    """Return the mean recall of the target's categories, as :func:`shares` does the accuracy."""
    return shares(runs, "recall")


def paired(runs: list[Run]) -> list[Line]:
    """Return how far estimated shares are ahead of others, on the same targets and seeds."""
    kinds = list(dict.fromkeys(map(kind_of, runs)))
    lines = [["Estimated shares less", *kinds]]
    key = ("source", "target", "kind", "draw", "seed")
    for method in ("equal shares", "SymmNets-V2", "MCC", "true shares"):
        other = {tuple(run[name] for name in key): run for run in of(runs, method=method)}
        line = [SHARES[method]]
        for kind in kinds:
            pairs = [
                {**run, "gain": str(float(run["accuracy"]) - float(beside["accuracy"]))}
                for run in of(runs, method="estimated shares")
                if kind_of(run) == kind and (beside := other.get(tuple(run[n] for n in key)))
            ]
            line.append(both(pairs, "gain"))
        lines.append(line)
    return lines


def by_task(runs: list[Run]) -> list[Line]:
    """Return the mean of every method by task and kind, over draws and seeds."""
    ways = list(dict.fromkeys((run["source"], run["target"]) for run in runs))
    lines = [["Target", *(SHORT.get(method, method) for method in SHARES)]]
    for kind in dict.fromkeys(map(kind_of, runs)):
        for a, b in ways:
            some = [run for run in of(runs, source=a, target=b) if kind_of(run) == kind]
            means = [numbers(of(some, method=method), "accuracy") for method in SHARES]
            name = f"{arrow(f'{a[0]}2{b[0]}'.upper())}, {kind}"
            lines.append([name, *(f"{statistics.fmean(m):.1f}" if m else "-" for m in means)])
    return lines


def few_labels(runs: list[Run]) -> list[Line]:
    """Return the accuracy of every method, by task and number of target labels."""
    lines = [["Labels of each category", *FEW_LABELS.values()]]
    for a, b, shots in dict.fromkeys((run["source"], run["target"], run["shots"]) for run in runs):
        some = of(runs, source=a, target=b, shots=shots)
        cells = [cell(numbers(of(some, method=method), "accuracy")) for method in FEW_LABELS]
        lines.append([f"{arrow(f'{a[0]}2{b[0]}'.upper())}, {shots}", *cells])
    for shots in dict.fromkeys(run["shots"] for run in runs):
        others = [run for run in of(runs, shots=shots) if run["target"] != "webcam"]
        means = [numbers(of(others, method=method), "accuracy") for method in FEW_LABELS]
        lines.append([f"without dev., {shots}", *(f"{statistics.fmean(v):.1f}" for v in means)])
    return lines


def caltech_shares(runs: list[Run]) -> list[Line]:
    """Return the mean of every method by task, over tasks, and without A→W."""
    head, *lines = by_task(runs)
    lines = [[name.removesuffix(", as it is"), *cells] for name, *cells in lines]
    for name, part in (("Avg", runs), ("without dev.", without_dev(runs))):
        columns = [numbers(of(part, method=method), "accuracy") for method in SHARES]
        lines.append([name, *(f"{statistics.fmean(column):.1f}" for column in columns)])
    return [head, *lines]


def errors(runs: list[Run]) -> list[Line]:
    """Return by kind the L1 error of estimated and equal shares, and trust, and without A→W."""
    lines = [["Target", "estimated", "equal", "trust", "trust 0"]]
    for kind in dict.fromkeys(map(kind_of, runs)):
        some = [run for run in of(runs, method="estimated shares") if kind_of(run) == kind]
        line = [kind]
        for name in ("error", "equal", "trust"):
            every, five = (numbers(part, name) for part in (some, without_dev(some)))
            line.append(f"{statistics.fmean(every):.2f} ({statistics.fmean(five):.2f})")
        trust = numbers(some, "trust")
        lines.append([*line, f"{sum(value == 0 for value in trust)} of {len(trust)}"])
    return lines


def recipe(runs: list[Run]) -> list[Line]:
    """Return a recipe's methods, with the batch-norm statistics of training and of the target."""
    (first,) = {"accuracy", "miou"} & runs[0].keys()
    lines = [["statistics", "of training", "of the target"]]
    for name in dict.fromkeys(run["method"] for run in runs):
        own = of(runs, method=name)
        lines.append([name, *(cell(numbers(own, c)) for c in (first, "with_target_statistics"))])
    return lines


def cost(runs: list[Run]) -> list[Line]:
    """Return what a training step keeps in memory and takes, and the losses' share."""
    header = ["", "MB kept for the backward pass", "ms, forward and backward"]
    return [header, *([run["part"], run["megabytes"], run["milliseconds"]] for run in runs)]


def on_pairs(runs: list[Run], column: str) -> list[float]:
    """Return a column's means over seeds, by pair of domains."""
    return [statistics.fmean(numbers(of(runs, source=a, target=b), column)) for a, b in pairs(runs)]


def pairs(runs: list[Run]) -> list[tuple[str, str]]:
    """Return the pairs of domains in the order of the page."""
    ways = {(run["source"], run["target"]) for run in runs}
    return sorted(ways, key=lambda way: OFFICE31.index(f"{way[0][0]}2{way[1][0]}".upper()))


def novelty(runs: list[Run]) -> list[Line]:
    """Return the area under the ROC curve of each score."""
    names = [arrow(f"{a[0]}2{b[0]}".upper()) for a, b in pairs(runs)]
    lines = [["AUROC", *names, "Avg", "without dev."]]
    for method, name in SCORES.items():
        values = on_pairs(of(runs, method=method), "auroc")
        means = statistics.fmean(values), statistics.fmean(values[1:])  # A→W comes first
        lines.append([name, *(f"{value:.1f}" for value in (*values, *means))])
    return lines


def rejected(runs: list[Run]) -> list[Line]:
    """Return means over pairs of accuracy and H-scores, the latter where a share is reported."""
    columns = {"known": "accuracy on known", "h_score": "H-score", "h_best": "H-score, best"}
    lines = [["Score", *(f"{name}{tail}" for name in columns.values() for tail in TAILS)]]
    for method, name in SCORES.items():
        line = [name]
        for column in columns:
            some = [r for r in of(runs, method=method) if column == "known" or float(r["reported"])]
            values = on_pairs(some, column)
            line += [f"{statistics.fmean(values):.1f}", f"{statistics.fmean(values[1:]):.1f}"]
        lines.append(line)
    return lines


def reported(runs: list[Run]) -> list[Line]:
    """Return the share of unknown rows, and the one that diagnose reports."""
    some = of(runs, method="novelty")
    names = [arrow(f"{a[0]}2{b[0]}".upper()) for a, b in pairs(some)]
    lines = [["Share of the target in %", *names]]
    for column, name in (("unknown", "unknown"), ("reported", "reported by `diagnose`")):
        lines.append([name, *(f"{value:.0f}" for value in on_pairs(some, column))])
    return lines


def field(runs: list[Run]) -> list[Line]:
    """Return mean, without A→W in brackets, and worst task by kind, seconds, lines; best first."""
    kinds = ("as it is", "partial", "uneven")
    means: dict[str, float] = {}
    lines = {}
    for name in dict.fromkeys(run["method"] for run in runs):
        own = of(runs, method=name)
        line = [f"{name}, {own[0]['package'].split()[0]}"]
        for kind in kinds:
            some = of(own, kind=kind)
            if len(pairs(some)) < 6:
                line += ["-", "-"]
                continue
            by_pair = on_pairs(some, "accuracy")
            mean, five = statistics.fmean(by_pair), statistics.fmean(by_pair[1:])  # A→W is first
            means.setdefault(name, mean)
            line += [f"{mean:.1f}\N{NO-BREAK SPACE}({five:.1f})", f"{min(by_pair):.1f}"]
        seconds = statistics.fmean(numbers(of(own, kind=kinds[0]) or own, "seconds"))
        lines[name] = [*line, f"{seconds:.0f}", own[0]["lines"]]
    heads = [f"{kind}{tail}" for kind in kinds for tail in ("", ": worst")]
    best = sorted(means, key=means.__getitem__, reverse=True)
    published = [
        ["SPL, published", "89.6", *["-"] * 7],
        ["BA³US, published, fine-tuned", "-", "-", "97.8", *["-"] * 5],
    ]
    return [["Method", *heads, "seconds", "lines"], *(lines[name] for name in best), *published]


def last_stage(runs: list[Run]) -> list[Line]:
    """Return A→W by seed: on frozen features, and with the last stage trained after all epochs."""
    seeds = ("0", "1", "2")
    shares = of(read("shares"), source="amazon", target="webcam", kind="as it is")
    rows = {"frozen features": of(shares, method="estimated shares")}
    for run in runs:
        if run["after_epoch"] == run["epochs"]:
            rows.setdefault(f"{run['training']}, {run['epochs']} epochs", []).append(run)
    lines = [["A→W (dev.)", *(f"seed {seed}" for seed in seeds)]]
    for name, own in rows.items():
        cells = [numbers(of(own, seed=seed), "accuracy") for seed in seeds]
        lines.append([name, *(f"{values[0]:.1f}" if values else "-" for values in cells)])
    return lines


SCORES = {
    "logistic regression": "logistic regression, 1 - top probability",
    "nearest neighbours": "fifth nearest source row, cosine",
    "source only": "source only, 1 - top probability",
    "V2, no balance": "SymmNets-V2, no balance, 1 - top probability",
    "default": "`SymNetClassifier()`, 1 - top probability",
    "novelty": "`SymNetClassifier().novelty`",
}
TAILS = ("", ", without dev.")
DEV = ("amazon", "webcam")
SHORT = {"equal shares": "equal", "estimated shares": "estimated", "true shares": "true"}
SHARES = {
    "source only": "source only",
    "MCC": "minimum class confusion",
    "SymNets": "SymNets",
    "SymmNets-V2": "SymmNets-V2, no balance",
    "equal shares": "V2, balance, equal shares",
    "estimated shares": "`SymNetClassifier()`: estimated shares",
    "true shares": "true shares, unknown in practice",
}
FEW_LABELS = {
    "labels alone": "logistic regression on them",
    "no target labels": "`SymNetClassifier`, none",
    "as source images": "as source images",
    "target_labels": "`target_labels=`",
}
TABLES: dict[str, tuple[str, Callable[[list[Run]], list[Line]]]] = {
    "frozen": ("frozen", frozen),
    "order": ("frozen", order),
    "classifiers": ("frozen", classifiers),
    "finetuned": ("finetuned", finetuned),
    "development": ("finetuned", development),
    "partial": ("partial", partial),
    "length": ("length", length),
    "long": ("long", long),
    "features": ("features", features),
    "caltech": ("office_caltech10", caltech),
    "prior": ("office_caltech10", prior),
    "shares": ("shares", shares),
    "shares_recalls": ("shares", recalls),
    "shares_paired": ("shares", paired),
    "shares_by_task": ("shares", by_task),
    "shares_errors": ("shares", errors),
    "shares_caltech10": ("shares_caltech10", caltech_shares),
    "few_labels": ("few_labels", few_labels),
    "dense": ("dense", recipe),
    "dense_development": ("dense_development", recipe),
    "dense_cost": ("dense_cost", cost),
    "signals": ("signals", recipe),
    "last_stage": ("last_stage", last_stage),
    "field": ("field", field),
    "novelty": ("novelty", novelty),
    "novelty_h": ("novelty", rejected),
    "novelty_reported": ("novelty", reported),
}

if __name__ == "__main__":
    main()
