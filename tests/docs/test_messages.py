"""docs/messages.md lists every message of the library and the scripts, and no other.

A message is what is raised, warned of, or given to argparse as an error. In a term of the page,
"..." stands for whatever varies. The messages of others, in its first section, are provoked.
"""

import argparse
import ast
import re
import traceback
import warnings
from collections import defaultdict
from functools import partial
from itertools import chain, product
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import symloss

ROOT = Path(__file__).parents[2]
SOURCES = [*(ROOT / "symloss").glob("*.py"), *(ROOT / "examples").glob("*.py")]
SOURCES += (ROOT / "examples" / "office").rglob("*.py")
TREES = [ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES]
TELLERS = {"warn", "error", "exit", "report"}  # called with a message
PAGE = (ROOT / "docs" / "messages.md").read_text(encoding="utf-8")
FOREIGN, OWN = (
    [term.strip("` ") for term in re.findall(r"^(``?[^`].+`)$", part, re.MULTILINE)]
    for part in PAGE.split("\n## Heads")
)

functions, values = defaultdict(list), defaultdict(list)  # by name
for node in (node for tree in TREES for node in ast.walk(tree)):
    match node:
        case ast.FunctionDef(name=name):
            functions[name].append(node)
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            values[name].append(value)
        case ast.For(target=ast.Name(id=name), iter=value):
            values[name].append(value)


def templates(node):
    """Yield the strings that an expression may be, with "..." for what varies."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=parts):
            yield "".join(next(templates(part), "...") for part in parts)
        case ast.FormattedValue(value=ast.Name(id=name) as constant) if name.isupper():
            yield from templates(constant)
        case ast.BinOp(left=left, right=right):
            yield from map("".join, product(templates(left), templates(right)))
        case ast.IfExp(body=one, orelse=other):
            yield from (*templates(one), *templates(other))
        case ast.Name(id=name):
            for value in values[name]:
                yield from templates(value)
        case ast.Subscript(value=value):
            yield from templates(value)
        case ast.Dict(values=parts):
            for part in parts:
                yield from templates(part)
        case ast.Call(func=ast.Attribute(attr="join"), args=[ast.Tuple(elts=[first, *_])]):
            yield from templates(first)
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            for inner in (inner for function in functions[name] for inner in ast.walk(function)):
                if isinstance(inner, ast.Return | ast.Yield):
                    yield from templates(inner.value)


def messages():
    """Yield the template of each message in the code that has words of its own."""
    for node in (node for tree in TREES for node in ast.walk(tree)):
        match node:
            case ast.Raise(exc=ast.Call(args=[message, *_])):
                told = templates(message)
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=[message, *_]):
                told = templates(message) if name in TELLERS else ()
            case _:
                told = ()
        yield from (text for text in told if re.search("[a-z]{2}", text))


def fits(template, text):
    """Whether a text is what a template stands for."""
    return re.fullmatch(".*".join(map(re.escape, template.split("..."))), text, re.DOTALL)


TEMPLATES = set(messages())
# A term stands for the template with most words of its own, among those that fit it.
MEANT = {
    term: max(
        (template for template in TEMPLATES if fits(template, term)),
        key=lambda template: len(template.replace("...", "")),
        default=None,
    )
    for term in OWN
}


def test_every_message_is_on_the_page():
    assert len(TEMPLATES) > 200
    assert sorted(TEMPLATES - set(MEANT.values())) == []


def test_every_term_is_a_message():
    assert [term for term in OWN if MEANT[term] is None] == []


# Messages of others


def wrapped(module):
    dist = torch.distributed
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        return nn.parallel.DistributedDataParallel(module)
    finally:
        dist.destroy_process_group()


def misuses():
    """Yield calls that torch refuses or warns of."""
    x, y = torch.randn(6, 8), torch.arange(6) % 3
    backbone, head = nn.Linear(8, 8), symloss.SymmetricHead(8, 3)
    optimizers = [torch.optim.SGD(player.parameters(), lr=0.1) for player in (backbone, head)]
    step = symloss.TwoOptimizerStep(*optimizers, accumulate=2)
    losses = symloss.symnet_losses(head.route(backbone(x)), y, head.route(backbone(x)))
    loss = losses.total(lam=1.0)
    for module in (nn.Linear(8, 6), nn.Sequential(head), wrapped(nn.Linear(8, 6))):
        yield partial(getattr, module, "route")
    for field in symloss.RoutedLogits._fields:
        yield partial(getattr, head(x), field)
    yield lambda: head.route(x).argmax(1)
    yield lambda: F.cross_entropy(head.route(x), y)
    yield lambda: losses.backward()
    yield lambda: losses.item()
    yield lambda: losses.total()
    yield lambda: step(loss.detach())
    yield lambda: [step(loss) for _ in range(2)]
    yield lambda: torch.optim.SGD(nn.Identity().parameters(), lr=0.1)
    yield lambda: head.classifier()(torch.randn(6, 5))
    yield lambda: head.load_state_dict(nn.Linear(8, 3).state_dict())
    yield lambda: nn.BatchNorm1d(8)(x[:1])
    yield symloss.AnnealedLR(optimizers[0], total_steps=10).step


def misuses_in_scikit_learn():
    """Yield calls that scikit-learn refuses."""
    compose = pytest.importorskip("sklearn.pipeline").Pipeline
    routing = pytest.importorskip("sklearn", minversion="1.6").config_context
    x, y = np.random.default_rng(0).normal(size=(40, 8)), np.arange(40) % 2
    plain = compose([("model", symloss.SymNetClassifier())])
    yield lambda: plain.fit(x, y)
    yield lambda: plain.fit(x, y, x)
    yield lambda: plain.fit(x, y, target_features=x)
    yield lambda: compose(plain.steps, transform_input=["target_features"]).fit(x, y)
    yield lambda: plain.diagnose(x)
    with routing(enable_metadata_routing=True):
        for request in (False, None):
            model = symloss.SymNetClassifier().set_fit_request(target_features=request)
            yield partial(compose([("model", model)]).fit, x, y, target_features=x)


def misspelt():
    """Yield command lines that argparse refuses."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=["cpu"], required=True)
    for line in ("", "--device cpu --devise cpu", "--device gpu"):
        yield partial(parser.parse_args, line.split())


def told(call, capsys):
    """Return what a user sees last of a call's exception, or of its warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            call()
        except SystemExit:
            return capsys.readouterr().err.splitlines()[-1]
        except Exception as error:
            return " ".join(traceback.format_exception_only(error)[-1].split())
    return f"{caught[-1].category.__name__}: {caught[-1].message}"


def test_messages_of_others_are_what_they_say(capsys):
    seen = []
    for call in chain(misuses(), misuses_in_scikit_learn(), misspelt()):
        seen.append(told(call, capsys))
    assert [term for term in FOREIGN if not any(fits(f"...{term}", text) for text in seen)] == []
    assert [text for text in seen if not any(fits(f"...{term}", text) for term in FOREIGN)] == []
