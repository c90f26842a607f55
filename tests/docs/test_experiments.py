"""The recipes that compare methods, segmentation and signals, and what their pages say."""

import csv
import importlib.util
import re
import runpy
import statistics
from pathlib import Path

import pytest
import torch
from torch import nn

from symloss import functional as L

pytest.importorskip("torchvision", reason="the segmentation recipe needs torchvision")

ROOT = Path(__file__).parents[2]


def script(name):
    """A recipe as a module; pages have modules of the same names."""
    path = ROOT / "examples" / "recipes" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"recipe_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


dense, signals = script("dense_prediction"), script("signals")
SMALL = {"dense": {"count": 16, "steps": 2}, "signals": {"total": 2}}


def read(name):
    with open(ROOT / "results" / f"{name}.csv", encoding="utf-8", newline="") as file:
        return [*csv.DictReader(file)]


@pytest.mark.parametrize(("name", "recipe"), [("dense", dense), ("signals", signals)])
def test_a_recipe_prints_the_methods_of_its_file(name, recipe, capsys):
    recipe.main([0], **SMALL[name])
    printed = [*csv.DictReader(capsys.readouterr().out.splitlines())]
    committed = [row for row in read(name) if row["seed"] == "0"]
    assert [row.keys() for row in printed] == [row.keys() for row in committed]
    assert [row["method"] for row in printed] == [row["method"] for row in committed]
    assert all(0 <= float(row["with_target_statistics"]) <= 100 for row in printed)


@pytest.mark.parametrize(("name", "page"), [("dense", "dense-prediction"), ("signals", "signals")])
def test_the_numbers_of_a_page_are_in_its_files(name, page):
    """Each number with a decimal is a cell, or a method's mean over seeds."""
    stored = set()
    for file in (ROOT / "results").glob(f"{name}*.csv"):
        rows = read(file.stem)
        for column in rows[0].keys() - {"seed", "method", "part", "scenes", "setting"}:
            stored |= {f"{float(row[column]):.1f}" for row in rows if row[column]}
            for method in {row.get("method", row.get("setting")) for row in rows}:
                own = [r for r in rows if method in (r.get("method"), r.get("setting"))]
                values = [float(r[column]) for r in own if r[column]]
                stored |= {f"{statistics.fmean(values):.1f}" for values in [values] if values}
    text = (ROOT / "docs" / "recipes" / f"{page}.md").read_text("utf-8")
    prose = re.sub(r"```.*?```|\(https?:[^)]*\)|`[^`]*`", "", text, flags=re.DOTALL)
    assert set(re.findall(r"\d+\.\d+", prose)) - stored == set()


@pytest.mark.parametrize("name", [*dense.methods(torch.ones(dense.K))])
def test_every_method_of_segmentation_trains_both_players(name):
    torch.manual_seed(0)
    (images, labels), x_target, _ = dense.domains(0, count=8)
    weight = dense.class_weights(dense.shares_of(labels))
    network = dense.Network()
    before = [p.clone() for p in network.parameters()]
    dense.train(network, dense.methods(weight)[name], (images, labels), x_target, steps=2)
    assert all(not torch.equal(p, q) for p, q in zip(before, network.parameters(), strict=True))


def test_outlines_have_no_label_and_no_loss():
    torch.manual_seed(0)
    images, labels = dense.draw("source", 4)
    void = labels == dense.VOID
    assert void.any()
    loss = L.source_task(dense.Network()(images), labels, "none", ignore_index=dense.VOID)
    assert (loss[void] == 0).all()
    assert (loss[~void] > 0).all()


def test_intersection_over_union_counts_labelled_pixels_only():
    labels = torch.tensor([0, 0, 1, 2, 3, 4, 255])
    predicted = torch.tensor([0, 1, 1, 2, 3, 4, 0])
    assert dense.mean_iou(predicted, labels) == pytest.approx(100 * (0.5 + 0.5 + 3) / 5)


def test_class_weights_are_one_on_average():
    shares = dense.shares_of(torch.tensor([0, 0, 0, 0, 1, 2, 3, 4, dense.VOID]))
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.125, 0.125, 0.125, 0.125]))
    weights = dense.class_weights(shares)
    torch.testing.assert_close((weights * shares).sum(), torch.tensor(1.0))
    torch.testing.assert_close(weights[1] / weights[0], torch.tensor(2.0))


def test_target_statistics_are_those_of_the_target():
    """Of the first layer, whose input does not depend on other statistics."""
    torch.manual_seed(0)
    for recipe in (dense, signals):
        network = recipe.Network().train()
        if recipe is dense:
            x, _ = dense.draw("source", 64)
            conv, norm, *_ = network.backbone[0]
            target, _ = dense.draw("target", 64)
        else:
            x, _ = signals.record("source", 64)
            conv, norm, *_ = network.backbone
            target, _ = signals.record("target", 64)
        network(x)
        recipe.take_statistics(network, target)
        expected = conv(target).transpose(0, 1).flatten(1).mean(1)
        torch.testing.assert_close(norm.running_mean, expected, atol=1e-5, rtol=1e-4)
        assert not network.training
        assert isinstance(norm, nn.modules.batchnorm._BatchNorm)


def test_the_losses_keep_a_part_of_what_a_step_keeps(capsys):
    dense.print_cost()
    step, losses = csv.DictReader(capsys.readouterr().out.splitlines())
    assert 0 < float(losses["megabytes"]) < float(step["megabytes"])


def test_the_picture_shows_what_the_page_says(tmp_path):
    pytest.importorskip("matplotlib", reason="docs/figures/dense.py needs Matplotlib")
    from PIL import Image

    figures = ROOT / "docs" / "figures"
    page = (ROOT / "docs" / "recipes" / "dense-prediction.md").read_text("utf-8")
    runpy.run_path(str(figures / "dense.py"))["main"](tmp_path, steps=1)
    for name, theme in (("dense", "light"), ("dense_dark", "dark")):
        with (
            Image.open(figures / f"{name}.png") as shown,
            Image.open(tmp_path / f"{name}.png") as now,
        ):
            assert shown.size == now.size
        assert f"```{{image}} ../figures/{name}.png\n:alt: " in page
        assert f":class: only-{theme}\n" in page
