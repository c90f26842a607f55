"""How do other packages fare on the features and targets on which SymNetClassifier is measured?

    pip install "skada[deep]" pytorch-adapt "setuptools<81"
    python benchmarks/field.py features/office31 --csv results/field.csv

trains on one domain's features, as extract_features.py writes them, and on another's without
labels, for every two domains, and on three targets of shares.py: as it is, and the first draws of
uneven and partial ones. The views of an image are averaged, and rows scaled to length 1; every
method gets the same.

    symloss          SymNetClassifier with its defaults
    scikit-learn     on the source alone: logistic regression, and support vectors, which are what
                     skada puts behind most of its adapters by default
    skada            CORAL, optimal transport and JCPOT with their defaults, subspace alignment with
                     100 components: by default it takes one for each column, and needs as many rows
    skada.deep       MCC, DAN and DeepCORAL with their defaults, on the network of SymNetClassifier
                     and for its number of steps, at least 1,000
    pytorch-adapt    MCC, BNM, DANN and CDAN with their defaults, on the same network and steps;
                     their domain classifiers have 256 hidden units

What a method's function below holds is what its user writes. The column `lines` counts that, and
the class or function that it needs besides, as ruff formats it, without docstrings, blank lines and
the imports at the top; a getattr() stands for a name. One line of the CSV is a run: accuracy in %,
seconds of processor time of fit and predict, imports apart. If it is stopped, the same command
continues. A method whose package is missing is named and left out. Tried with skada 0.6.0,
pytorch-adapt 0.0.83, which imports pkg_resources, scikit-learn 1.9.1 and torch 2.14.1.
"""

import argparse
import ast
import dataclasses
import functools
import importlib
import importlib.metadata
import inspect
import itertools
import json
import math
import statistics
import textwrap
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import features
import numpy as np
import shares
import timing
import torch
from torch import nn

KINDS = ["as it is", "partial", "uneven"]
STEPS, BATCH = features.STEPS, features.BATCH


# The code that users write


def symnet_classifier(source: Any, labels: Any, target: Any, seed: int) -> Any:
    """Adapt with SymNetClassifier."""
    from symloss import SymNetClassifier

    model = SymNetClassifier(random_state=seed).fit(source, labels, target)
    return model.predict(target)


def logistic_regression(source: Any, labels: Any, target: Any, seed: int) -> Any:
    """Train logistic regression on the source."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=1000).fit(source, labels)
    return model.predict(target)


def support_vectors(source: Any, labels: Any, target: Any, seed: int) -> Any:
    """Train a support vector machine on the source."""
    from sklearn.svm import SVC

    model = SVC().fit(source, labels)
    return model.predict(target)


def shallow(source: Any, labels: Any, target: Any, seed: int, *, name: str, **options: Any) -> Any:
    """Adapt with an estimator of skada."""
    import skada
    from skada.utils import source_target_merge

    hidden = np.full(len(target), -1)
    x, y, domain = source_target_merge(source, target, labels, hidden)
    model = getattr(skada, name)(**options).fit(x, y, sample_domain=domain)
    return model.predict(target)


class Network(nn.Module):
    """A network that takes the weights of samples, as skada calls it."""

    def __init__(self, width: int, categories: int) -> None:
        super().__init__()
        self.bottleneck = nn.Sequential(nn.Linear(width, 256), nn.BatchNorm1d(256), nn.ReLU())
        self.head = nn.Linear(256, categories)

    def forward(self, x: Any, sample_weight: Any = None) -> Any:
        """Return the logits."""
        return self.head(self.bottleneck(x))


def deep(source: Any, labels: Any, target: Any, seed: int, *, name: str, **options: Any) -> Any:
    """Adapt with a deep method of skada."""
    import skada.deep
    from skada.utils import source_target_merge

    torch.manual_seed(seed)
    hidden = np.full(len(target), -1)
    x, y, domain = source_target_merge(source, target, labels, hidden)
    steps = max(len(source), len(target)) // BATCH
    model = getattr(skada.deep, name)(
        Network(source.shape[1], labels.max() + 1),
        layer_name="bottleneck",
        batch_size=BATCH,
        max_epochs=math.ceil(STEPS / steps),
        train_split=None,
        verbose=0,
    )
    model.fit(x.astype("float32"), y.astype("int64"), sample_domain=domain)
    return model.predict(target, sample_domain=np.full(len(target), -2))


Adapters = Callable[[Any, Any], Any]


def adapted(source: Any, labels: Any, target: Any, seed: int, *, make: Adapters) -> Any:
    """Train an adapter of pytorch-adapt."""
    from pytorch_adapt.datasets import CombinedSourceAndTargetDataset, SourceDataset, TargetDataset
    from torch.utils.data import DataLoader, TensorDataset

    torch.manual_seed(seed)
    np.random.seed(seed)
    x_s, y_s, x_t = map(torch.from_numpy, (source, labels, target))
    pairs = CombinedSourceAndTargetDataset(
        SourceDataset(TensorDataset(x_s, y_s)), TargetDataset(x_t)
    )
    batches = DataLoader(pairs, min(BATCH, len(x_t)), shuffle=True, drop_last=True)
    bottleneck = nn.Sequential(nn.Linear(x_s.shape[1], 256), nn.BatchNorm1d(256), nn.ReLU())
    adapter = make(bottleneck, nn.Linear(256, labels.max() + 1))
    for _ in range(math.ceil(STEPS / len(batches))):
        for batch in batches:
            adapter.training_step(batch)
    adapter.models.eval()
    with torch.no_grad():
        return adapter.inference(x_t)["logits"].argmax(1).numpy()


def with_hook(bottleneck: nn.Module, head: nn.Module, *, name: str) -> Any:
    """Return pytorch-adapt's classifier with one more loss."""
    from pytorch_adapt import adapters, hooks
    from pytorch_adapt.containers import Models

    models = Models({"G": bottleneck, "C": head})
    return adapters.Classifier(models=models, hook_kwargs={"post": [getattr(hooks, name)()]})


def dann(bottleneck: nn.Module, head: nn.Module) -> Any:
    """Return pytorch-adapt's DANN."""
    from pytorch_adapt.adapters import DANN
    from pytorch_adapt.containers import Models
    from pytorch_adapt.models import Discriminator

    return DANN(models=Models({"G": bottleneck, "C": head, "D": Discriminator(256, h=256)}))


def cdan(bottleneck: nn.Module, head: nn.Linear) -> Any:
    """Return pytorch-adapt's CDAN with entropy weights and gradient reversal."""
    from pytorch_adapt.adapters import CDANNE
    from pytorch_adapt.containers import Misc, Models
    from pytorch_adapt.layers import RandomizedDotProduct
    from pytorch_adapt.models import Discriminator

    models = Models({"G": bottleneck, "C": head, "D": Discriminator(1024, h=256)})
    both = RandomizedDotProduct([256, head.out_features], out_dim=1024)
    return CDANNE(models=models, misc=Misc({"feature_combiner": both}))


# What is measured


@dataclasses.dataclass(frozen=True)
class Method:
    """A method of a package.

    Attributes:
        package: Its name on the package index.
        run: Predicts the target's labels from source, its labels, target and seed.
        beside: What its user writes beside ``run``.
    """

    package: str
    run: Callable[[Any, Any, Any, int], Any]
    beside: tuple[Callable[..., Any], ...] = ()

    @property
    def lines(self) -> int:
        """The lines that a user writes."""
        return lines(self.run) + sum(map(lines, self.beside))


def lines(code: Callable[..., Any]) -> int:
    """Count a function's body, or a whole class, without docstrings and blank lines."""
    code = code.func if isinstance(code, functools.partial) else code
    text = textwrap.dedent(inspect.getsource(code))
    (tree,) = ast.parse(text).body
    assert isinstance(tree, ast.FunctionDef | ast.ClassDef)
    rows = text.splitlines()
    first = tree.body[0].lineno if isinstance(tree, ast.FunctionDef) else tree.lineno
    docs = {
        row
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node)
        for row in range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)
    }
    kept = [i for i, row in enumerate(rows, 1) if i >= first and i not in docs and row.strip()]
    return len(kept)


# A package's first import takes seconds, which no fit should be charged with.
IMPORTS = {
    "symloss": ("symloss",),
    "scikit-learn": ("sklearn.linear_model", "sklearn.svm"),
    "skada": ("skada.deep",),
    "pytorch-adapt": ("pytorch_adapt.adapters", "pytorch_adapt.datasets", "pytorch_adapt.hooks"),
}


def version(package: str) -> str:
    """Name a package and its version; of symloss, it is this one."""
    if package == "symloss":
        return package
    return f"{package} {importlib.metadata.version(package)}"


METHODS = {
    "SymNetClassifier": Method("symloss", symnet_classifier),
    "logistic regression": Method("scikit-learn", logistic_regression),
    "support vectors": Method("scikit-learn", support_vectors),
    **{
        name: Method("skada", functools.partial(shallow, name=called, **options))
        for name, called, options in (
            ("CORAL", "CORAL", {}),
            ("optimal transport", "OTMapping", {}),
            ("subspace alignment", "SubspaceAlignment", {"n_components": 100}),
            ("JCPOT", "JCPOTLabelProp", {}),
        )
    },
    **{
        f"deep {name}": Method("skada", functools.partial(deep, name=called), (Network,))
        for name, called in (("MCC", "MCC"), ("DAN", "DAN"), ("CORAL", "DeepCoral"))
    },
    **{
        name: Method("pytorch-adapt", functools.partial(adapted, make=make), (make,))
        for name, make in (
            ("MCC", functools.partial(with_hook, name="MCCHook")),
            ("BNM", functools.partial(with_hook, name="BNMHook")),
            ("DANN", dann),
            ("CDAN", cdan),
        )
    },
}


@dataclasses.dataclass(frozen=True)
class Run:
    """One method's run: see the module's docstring."""

    method: str
    kind: str
    source: str
    target: str
    seed: int
    package: str
    lines: int
    accuracy: float
    seconds: float


KEY = ["method", "kind", "source", "target", "seed"]


def measure(args: argparse.Namespace, done: set[tuple[str, ...]]) -> Iterator[Run]:
    """Run what is not done yet."""
    domains = {path.stem: features.read(path) for path in sorted(args.folder.glob("*.npy"))}
    about = next(args.folder.glob("*.json")).read_text("utf-8")
    names = json.loads(about)["categories"]
    ways = [
        way
        for way in itertools.permutations(domains, 2)
        if not args.task or "2".join(name[0] for name in way) in map(str.lower, args.task)
    ]
    for name, kind, (source, target), seed in itertools.product(
        args.methods, args.kinds, ways, args.seeds
    ):
        if (name, kind, source, target, str(seed)) in done:
            continue
        method = METHODS[name]
        x_t, y_t = domains[target]
        index = shares.drawn(y_t, kind, 0, names, alpha=1)
        x_t, y_t = x_t[index], y_t[index]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other packages' own affairs
            try:
                with suppress(ImportError):  # if it is needed, the run will say so
                    for module in IMPORTS[method.package]:
                        importlib.import_module(module)
                start = time.process_time()
                predicted = method.run(*domains[source], x_t, seed)
            except ImportError as error:
                print(f"Not run: {name} ({error}).")
                continue
        seconds = time.process_time() - start
        accuracy = 100 * float(np.mean(predicted == y_t))
        package = version(method.package)
        yield Run(name, kind, source, target, seed, package, method.lines, accuracy, seconds)


def table(runs: Sequence[dict[str, str]]) -> list[list[str]]:
    """Return a row for each method: mean, worst task and seconds on each kind of target, lines."""
    kinds = list(dict.fromkeys(run["kind"] for run in runs))
    head = [f"{kind}: {column}" for kind in kinds for column in ("mean, %", "worst, %", "s")]
    rows = [["Method", *head, "lines"]]
    for name in dict.fromkeys(run["method"] for run in runs):
        of = [run for run in runs if run["method"] == name]
        row = [name]
        for kind in kinds:
            some = [run for run in of if run["kind"] == kind]
            ways: dict[tuple[str, str], list[float]] = {}
            for run in some:
                ways.setdefault((run["source"], run["target"]), []).append(float(run["accuracy"]))
            means = [statistics.fmean(each) for each in ways.values()]
            seconds = [float(run["seconds"]) for run in some]
            numbers = (
                (statistics.fmean(means), min(means), statistics.fmean(seconds)) if some else ()
            )
            row += [f"{number:.1f}" for number in numbers] or ["-"] * 3
        rows.append([*row, of[0]["lines"]])
    return rows


def main(argv: list[str] | None = None) -> None:
    """Run every method on every target, and print the table."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    add = parser.add_argument
    add("folder", type=Path, metavar="DIR", help="features of a benchmark's domains")
    add("--csv", type=Path, required=True, metavar="FILE", help="a line per run is added to it")
    add("--kinds", nargs="+", choices=KINDS, default=KINDS)
    add("--task", nargs="+", metavar="S2T", help="initials of source and target (default: all)")
    add("--methods", nargs="+", choices=METHODS, default=METHODS, metavar="NAME")
    add("--seeds", type=timing.console.whole(0), nargs="+", default=[0], metavar="N")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    for run in measure(args, timing.start(args.csv, Run, KEY)):
        timing.append(args.csv, run)
    rows = table(timing.read(args.csv))
    timing.report("Accuracy on the target", rows, [], torch.device("cpu"), None)


if __name__ == "__main__":
    main()
