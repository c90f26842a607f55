import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn", reason="benchmarks/selection.py needs scikit-learn")
pytest.importorskip("torchvision", reason="benchmarks/selection.py needs torchvision")

import selection
from digits import render_digits
from made_results import CATEGORIES, made_result
from office.results import outputs
from selection import Candidate, Objective
from train_digits import Recipe

import symloss


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def candidates(count=20, seed=0):
    """Accuracies 0 to 95 in some order; the better, the closer the logits to what is right."""
    generator = torch.Generator().manual_seed(seed)
    right = 4 * torch.nn.functional.one_hot(torch.arange(40) % 4, 4)
    order = torch.randperm(count, generator=generator).tolist()
    noise = torch.randn(count, 40, 4, generator=generator)
    return [
        Candidate(right * i / count + noise[i], i / count, 50.0, 100.0 * i / count) for i in order
    ]


# What a score is worth


def rank(values):
    values = np.asarray(values)
    return np.array([(values < v).sum() + ((values == v).sum() - 1) / 2 for v in values])


def test_spearman_is_the_correlation_of_ranks():
    for seed in range(5):
        x, y = np.random.default_rng(seed).integers(0, 6, (2, 15)) * 1.0
        want = np.corrcoef(rank(x), rank(y))[0, 1]
        got = selection.spearman(torch.from_numpy(x), torch.from_numpy(y))
        assert got == pytest.approx(want)
    x = doubles(1, 2, 3, 4)
    assert selection.spearman(x, x**3) == pytest.approx(1)
    assert selection.spearman(x, -x) == pytest.approx(-1)
    assert selection.spearman(doubles(1, 2, 3, 4, 5), doubles(2, 1, 4, 3, 5)) == pytest.approx(0.8)


def test_the_highest_score_is_picked_and_ties_are_averaged():
    assert selection.picked(doubles(0.1, 0.9, 0.5), doubles(10, 20, 30)) == 20
    assert selection.picked(doubles(0.9, 0.9, 0.5), doubles(10, 20, 30)) == 15
    assert selection.picked(doubles(math.nan, 0.1, -5), doubles(10, 20, 30)) == 20


def test_scores_that_follow_oppose_or_ignore_accuracy_are_told_apart(monkeypatch):
    found = candidates()
    accuracy = doubles(*(c.accuracy for c in found))
    noise = torch.rand(20, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    monkeypatch.setattr(
        selection,
        "SCORES",
        {"good": lambda c: accuracy, "bad": lambda c: -accuracy, "blind": lambda c: noise * 0},
    )
    worth = selection.worth(found)
    assert worth["good"] == (pytest.approx(1), 95, 0)
    assert worth["bad"][:2] == (pytest.approx(-1), 0)
    # None of the worst 5 of 20 is among 8.
    missed = math.comb(15, 8) / math.comb(20, 8)
    assert worth["bad"][2] == pytest.approx(100 * (1 - missed), abs=2)
    assert worth["blind"][1] == pytest.approx(accuracy.mean().item())
    assert worth["blind"][2] == pytest.approx(25, abs=2)


@pytest.fixture
def few_draws(monkeypatch):
    """For what does not depend on the candidates that are drawn."""
    monkeypatch.setattr(selection, "DRAWS", 20)


@pytest.mark.usefixtures("few_draws")
def test_candidates_without_a_score_are_not_counted():
    found = candidates()
    found[:3] = [replace(c, agreement=math.nan) for c in found[:3]]
    correlation, accuracy, _ = selection.worth(found)["`agreement`"]
    assert correlation == pytest.approx(1)
    assert accuracy == max(c.accuracy for c in found[3:])


def test_the_scores_are_those_of_the_library():
    found = candidates(5)
    for name, score in selection.SCORES.items():
        values = score(found)
        assert values.shape == (5,)
        assert values.dtype == torch.float64
        public = name.strip("`")
        if hasattr(symloss.scores, public) and public != "ensemble_agreement":
            want = [getattr(symloss.scores, public)(c.logits) for c in found]
            assert values.tolist() == pytest.approx([x.item() for x in want])
    all_ = symloss.scores.ensemble_agreement([c.logits for c in found])
    assert selection.SCORES["`ensemble_agreement`"](found).tolist() == pytest.approx(all_.tolist())
    p = found[0].logits.double().softmax(1).numpy()
    entropy = -(p * np.log(p)).sum(1).mean()
    assert selection.SCORES["minus the mean entropy"](found)[0].item() == pytest.approx(-entropy)
    lost = torch.zeros(10, 4)
    lost[:, 1] = 1
    assert selection.no_lost_category(lost) == -3


def test_an_ensemble_score_sees_only_the_drawn_candidates(monkeypatch):
    sizes = []

    def ensemble(found):
        sizes.append(len(found))
        return doubles(*(c.accuracy for c in found))

    monkeypatch.setattr(selection, "ensemble", ensemble)
    monkeypatch.setattr(selection, "SCORES", {"ensemble": ensemble})
    monkeypatch.setattr(selection, "DRAWS", 3)
    selection.worth(candidates())
    assert sizes == [20, 8, 8, 8]


def test_the_table_has_the_mean_over_tasks(monkeypatch):
    values = iter([{"a": (0.5, 80.0, 10.0)}, {"a": (0.1, 60.0, 30.0)}])
    monkeypatch.setattr(selection, "worth", lambda _: next(values))
    assert selection.table([[], []])[1:] == [["a", "0.30", "70.0", "20"]]


def test_a_pick_is_named_and_costs_what_the_best_has_more(monkeypatch):
    found = [replace(c, setting=f"s{i}") for i, c in enumerate(candidates(5))]
    accuracy = doubles(*(c.accuracy for c in found))
    scores = {"best": lambda _: accuracy, "second": lambda _: doubles(0, math.nan, 5, 1, 5)}
    monkeypatch.setattr(selection, "SCORES", scores)
    _, best, second = selection.picks(found)
    assert best == ["best", f"s{int(accuracy.argmax())}", "0.0"]
    cost = 80 - (found[2].accuracy + found[4].accuracy) / 2
    assert second == ["second", "s2, s4", f"{cost:.1f}"]


# The digits


@pytest.fixture
def routed():
    torch.manual_seed(0)
    parts = [torch.randn(8, 20, requires_grad=True) for _ in range(4)]
    return symloss.RoutedLogits(*parts[:2]), symloss.RoutedLogits(*parts[2:])


def test_each_field_of_an_objective_changes_its_own_term(routed):
    source, target = routed
    labels = torch.arange(8)

    def loss(**changes):
        return Objective(**changes)(source, labels, target, 0.3).item()

    terms = {
        k: v.item() for k, v in symloss.symnet_losses(source, labels, target)._asdict().items()
    }
    head = terms["source_task"] + terms["target_task"] + terms["domain_discrimination"]
    fixed = head + terms["category_confusion"]
    confusion, entropy = terms["domain_confusion"], terms["symmetric_entropy"]
    balance = symloss.functional.category_balance(target.extractor).item()
    v2 = symloss.symnet_v2_losses(source, labels, target).total(0.3).item()
    for got, want in (
        (loss(), fixed + 0.3 * (confusion + entropy)),
        (loss(lam=0.0), fixed),
        (loss(lam=1.0), fixed + confusion + entropy),
        (loss(entropy=0.0), fixed + 0.3 * confusion),
        (loss(entropy=10.0), fixed + 0.3 * (confusion + 10 * entropy)),
        (loss(balance=5.0), fixed + 0.3 * (confusion + entropy + 5 * balance)),
        (loss(losses=symloss.symnet_v2_losses), v2),
        (loss(losses=symloss.symnet_v2_losses, balance=3), v2 + 0.3 * 3 * balance),
    ):
        assert got == pytest.approx(want, rel=1e-5)


def test_no_two_settings_are_equal():
    recipe = Recipe(epochs=7)
    grid = selection.settings(recipe)
    assert grid["SymNets"] == (Objective(), recipe)
    assert len({(objective, recipe) for objective, recipe in grid.values()}) == len(grid)
    assert all(recipe.epochs == 7 for _, recipe in grid.values())


def test_only_the_default_estimates_shares(monkeypatch):
    methods = []
    monkeypatch.setattr(selection, "train", lambda method, *_: methods.append(method))
    monkeypatch.setattr(selection, "candidate", lambda *_: None)
    selection.train_digits(selection.settings(Recipe()), {100: render_digits(64, 100)})
    assert [method.name for method in methods if method.estimates] == [selection.DEFAULT]


def test_candidates_are_scored_on_the_development_half(monkeypatch):
    digits = selection.load_handwritten()
    monkeypatch.setattr(selection, "load_handwritten", lambda: digits)
    recipe = Recipe(epochs=1)
    grid = {"source only": (None, recipe), "SymNets": (Objective(), recipe)}
    runs = []
    train = selection.train
    monkeypatch.setattr(selection, "train", lambda *a: runs.append(train(*a)) or runs[-1])
    found = selection.train_digits(grid, {100: render_digits(128, 100)})
    for run, (name, (made,)) in zip(runs, found.items(), strict=True):
        logits = run.head(run.extractor(digits.images)).detach()
        assert torch.equal(made.logits, logits[:, 10:])
        right = logits[::2, 10:].argmax(1) == digits.labels[::2]
        assert made.accuracy == pytest.approx(100 * right.double().mean().item())
        assert math.isnan(made.agreement) == (name == "source only")  # C^s is not trained
        name = "source_accuracy/C_t" if name == "source only" else "source_accuracy/C_s"
        assert made.source_accuracy == run.final[name]
    assert found["SymNets"][0].agreement == symloss.diagnostics.agreement(logits)


@pytest.mark.slow
def test_quick_prints_both_tables_and_the_machine(capsys, tmp_path):
    out = tmp_path / "tables.md"
    selection.main(["--quick", "--seeds", "100", "--out", str(out)])
    text = out.read_text(encoding="utf-8")
    assert capsys.readouterr().out == text
    title, scores, picks, grid, machine = text.rstrip("\n").split("\n\n")
    assert "seeds 100;" in title
    assert title.endswith("16 candidates")
    assert scores.count("\n") == picks.count("\n") == 1 + len(selection.SCORES)
    assert grid.count("\n") == 1 + 16
    assert re.search(r"\| the target's labels, for comparison \| 1\.00 \| \d+\.\d \| 0 \|", scores)
    assert f"torch {torch.__version__}" in machine


# Finished runs


def write(runs, seed, *, labelled=True, logits=True, **changes):
    rng = np.random.default_rng(seed)
    made = made_result(seed=seed, accuracy=50.0 + seed if labelled else None, **changes)
    name = "source_accuracy/C_t" if made.method == "source-only" else "source_accuracy/C_s"
    made = replace(made, final={**made.final, name: 90.0 + seed})
    width = 3 if made.method == "source-only" else 6
    folder = runs / made.task / made.method / str(seed)
    folder.mkdir(parents=True)
    outputs.write_result(folder, made)
    values = rng.normal(size=(12, width)).astype(np.float32) if logits else None
    domain = np.repeat(np.array([0, 1], np.uint8), [18, 12])
    saved = outputs.Features(np.zeros((30, 8), np.float16), domain, np.zeros(30, np.int16), values)
    outputs.write_features(folder, saved)
    return values


def test_finished_runs_are_candidates_of_their_task(tmp_path):
    values = [write(tmp_path, seed) for seed in range(3)]
    alone = write(tmp_path, 3, method="source-only")
    answers = write(tmp_path, 4, method="symnets-wo-target-task", classifier="C_s")
    write(tmp_path, 5, labelled=False)
    write(tmp_path, 6, task="D2W")  # too few of its own
    ((task, found),) = selection.finished_runs(tmp_path).items()
    assert task == "office31 A2W"
    by_accuracy = {c.accuracy: c for c in found}
    assert sorted(by_accuracy) == [50, 51, 52, 53, 54]
    assert torch.equal(by_accuracy[51.0].logits, torch.from_numpy(values[1][:, 3:]))
    assert torch.equal(by_accuracy[54.0].logits, torch.from_numpy(answers[:, :3]))
    assert torch.equal(by_accuracy[53.0].logits, torch.from_numpy(alone))
    assert math.isnan(by_accuracy[53.0].agreement)
    same = np.mean(values[1][:, :3].argmax(1) == values[1][:, 3:].argmax(1))
    assert by_accuracy[51.0].agreement == pytest.approx(same)
    assert by_accuracy[51.0].source_accuracy == 91
    assert by_accuracy[53.0].source_accuracy == 93
    assert len(CATEGORIES) == found[0].logits.shape[1]


@pytest.mark.usefixtures("few_draws")
def test_the_table_of_finished_runs(tmp_path, capsys):
    for task in ("A2W", "D2W"):
        for seed in range(5):
            write(tmp_path, seed, task=task)
    selection.main(["--runs", str(tmp_path)])
    out = capsys.readouterr().out
    assert "office31 A2W, office31 D2W; 5 + 5 candidates" in out
    assert "| the target's labels, for comparison | 1.00 | 54.0 | 0 |" in out
    assert "| accuracy on the source | 1.00 | 54.0 | 0 |" in out


def fails(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        selection.main([*map(str, arguments)])
    assert stop.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_too_few_or_unreadable_runs_are_named(tmp_path, capsys):
    assert "no task with 4 finished runs" in fails(capsys, "--runs", tmp_path)
    for seed in range(3):
        write(tmp_path, seed)
    assert "no task with 4 finished runs" in fails(capsys, "--runs", tmp_path)
    write(tmp_path, 3, logits=False)
    assert "3/features.npz has no logits" in fails(capsys, "--runs", tmp_path)
    (tmp_path / "A2W/symnets/3/features.npz").unlink()
    assert "3/features.npz" in fails(capsys, "--runs", tmp_path)
