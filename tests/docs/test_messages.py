"""docs/messages.md lists every message of the library and the scripts, and no other.

A message is what is raised, warned of, or given to argparse as an error. In a term of the page,
"..." stands for whatever varies. The messages of others, in its first section, are provoked, and
compared by their essential words.
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
    """Yield calls that torch refuses or warns of, after the essential words of what it says."""
    x, y = torch.randn(6, 8), torch.arange(6) % 3
    backbone, head = nn.Linear(8, 8), symloss.SymmetricHead(8, 3)
    optimizers = [torch.optim.SGD(player.parameters(), lr=0.1) for player in (backbone, head)]
    step = symloss.TwoOptimizerStep(*optimizers, accumulate=2)
    losses = symloss.symnet_losses(head.route(backbone(x)), y, head.route(backbone(x)))
    loss = losses.total(lam=1.0)
    for module in (nn.Linear(8, 6), nn.Sequential(head), wrapped(nn.Linear(8, 6))):
        yield f"AttributeError {type(module).__name__} route", partial(getattr, module, "route")
    for field in symloss.RoutedLogits._fields:
        yield f"AttributeError Tensor {field}", partial(getattr, head(x), field)
    yield "AttributeError RoutedLogits argmax", lambda: head.route(x).argmax(1)
    yield "TypeError cross_entropy RoutedLogits", lambda: F.cross_entropy(head.route(x), y)
    yield "AttributeError SymNetLosses backward", lambda: losses.backward()
    yield "AttributeError SymNetLosses item", lambda: losses.item()
    yield "TypeError total lam", lambda: losses.total()
    yield "TypeError linear() input must Tensor list", lambda: backbone([x, y])
    yield "RuntimeError not require grad", lambda: step(loss.detach())
    yield "RuntimeError backward second time", lambda: [step(loss) for _ in range(2)]
    empty = nn.Identity().parameters()
    yield "ValueError empty parameter", lambda: torch.optim.SGD(empty, lr=0.1)
    yield "RuntimeError mat1 mat2 shapes", lambda: head.classifier()(torch.randn(6, 5))
    state = nn.Linear(8, 3).state_dict()
    yield "RuntimeError SymmetricHead size weight", lambda: head.load_state_dict(state)
    yield "ValueError more than 1 value channel", lambda: nn.BatchNorm1d(8)(x[:1])
    schedule = symloss.AnnealedLR(optimizers[0], total_steps=10)
    yield "UserWarning lr_scheduler.step optimizer.step", schedule.step


def misuses_in_scikit_learn():
    """Yield calls that scikit-learn refuses, after the essential words of what it says."""
    compose = pytest.importorskip("sklearn.pipeline").Pipeline
    routing = pytest.importorskip("sklearn", minversion="1.6").config_context
    x, y = np.random.default_rng(0).normal(size=(40, 8)), np.arange(40) % 2
    plain = compose([("model", symloss.SymNetClassifier())])
    routed = compose(plain.steps, transform_input=["target_features"])
    yield "TypeError fit missing target_features", lambda: plain.fit(x, y)
    yield "TypeError Pipeline fit positional", lambda: plain.fit(x, y, x)
    yield "ValueError fit target_features parameter", lambda: plain.fit(x, y, target_features=x)
    yield "ValueError transform_input routing", lambda: routed.fit(x, y)
    yield "AttributeError Pipeline diagnose", lambda: plain.diagnose(x)
    with routing(enable_metadata_routing=True):
        for request, words in (
            (False, "TypeError fit unexpected routed"),
            (None, "UnsetMetadataPassedError target_features SymNetClassifier"),
        ):
            model = symloss.SymNetClassifier().set_fit_request(target_features=request)
            yield words, partial(compose([("model", model)]).fit, x, y, target_features=x)


def misspelt():
    """Yield command lines that argparse refuses, after the essential words of what it says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=["cpu"], required=True)
    for words, line in (
        ("error required", ""),
        ("error unrecognized", "--device cpu --devise cpu"),
        ("error argument invalid", "--device gpu"),
    ):
        yield words, partial(parser.parse_args, line.split())


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
    # The words between change with the versions of torch, scikit-learn and Python.
    left = {*FOREIGN}
    for words, call in chain(misuses(), misuses_in_scikit_learn(), misspelt()):
        text = told(call, capsys)
        assert all(word in text for word in words.split()), (words, text)
        terms = {term for term in FOREIGN if all(word in term for word in words.split())}
        assert len(terms) == 1, (words, terms)
        left -= terms
    assert not left
