"""The ablations on the digits: what is trained, on which target, and what the table says of it."""

import csv
import statistics

import numpy as np
import pytest
import torch
from torch import nn

import symloss

pytest.importorskip("sklearn", reason="benchmarks/balance.py needs scikit-learn")
pytest.importorskip("matplotlib", reason="benchmarks/balance.py needs Matplotlib")

import balance
import train_digits
from digits import Digits, Run, load_handwritten


@pytest.mark.slow
def test_quick_prints_a_row_for_each_method_on_each_target(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("symloss.prior._STEPS", 20)
    out = tmp_path / "balance.md"
    runs = tmp_path / "runs.csv"
    balance.main(["--quick", "--seeds", "7", "--out", str(out), "--csv", str(runs)])
    text = out.read_text(encoding="utf-8")
    assert capsys.readouterr().out == text
    title, table, machine = text.rstrip("\n").split("\n\n")
    header, _, *rows = [[c.strip() for c in line.split("|")[1:-1]] for line in table.splitlines()]
    assert header == balance.HEADER
    labels = load_handwritten().labels
    methods = [*balance.objectives(labels, [0.5], train_digits.Recipe())]
    assert "balance 0.5" in methods
    assert [row[:2] for row in rows] == [[t, m] for t in balance.targets(labels) for m in methods]
    for target, method, accuracy, beside, *_, absent in rows:
        assert 0 < float(accuracy) < 100
        assert (beside == "") == (method == "SymNets")
        assert (absent == "") == (target != "0 to 4 only")
    lines = [*csv.reader(runs.read_text(encoding="utf-8").splitlines())][1:]
    assert [[target, method] for method, _, target, _, _ in lines] == [row[:2] for row in rows]
    assert [f"{float(line[3]):.1f}" for line in lines] == [row[2] for row in rows]
    assert "seeds 7" in title
    assert f"torch {torch.__version__}" in machine


def test_a_target_is_whole_or_thinned_or_lacks_digits():
    labels = load_handwritten().labels
    counts = torch.bincount(labels)
    whole, rare, few = (
        torch.bincount(labels[kept], minlength=10) for kept in balance.targets(labels).values()
    )
    assert torch.equal(whole, counts)
    assert torch.equal(rare[:5], counts[:5])
    assert torch.equal(rare[5:], (counts[5:] / 10).ceil().long())
    assert torch.equal(few, torch.where(torch.arange(10) < 5, counts, 0))


def routed(seed, rows=6):
    """Routed logits of 10 categories, as float64 leaves."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(2, rows, 20, generator=generator, dtype=torch.float64)
    return symloss.RoutedLogits(*(part.requires_grad_() for part in logits))


def test_the_demo_s_methods_are_among_the_objectives():
    step = routed(0), torch.arange(6), routed(1), 0.4
    methods = balance.objectives(torch.arange(10), [0.5, 5.0], train_digits.Recipe())
    assert methods["source only"] is None
    assert torch.equal(methods["SymNets"]()(*step), train_digits.symnets(*step))
    equal = symloss.EstimatedPrior(torch.full((10,), 0.1), trust=0.0)
    expected = train_digits.symnets_balanced(*step, weight=5.0, shares=equal)
    torch.testing.assert_close(methods["balance 5"]()(*step), expected)
    v2 = symloss.symnet_v2_losses(*step[:3]).total(0.4)
    assert torch.equal(methods["V2"]()(*step), v2)


def test_the_target_s_shares_are_what_the_balance_expects():
    labels = torch.tensor([0] * 6 + [1] * 3 + [2])
    source, y, target = routed(0), torch.arange(6), routed(1)
    (make,) = [
        make
        for name, make in balance.objectives(labels, [], train_digits.Recipe()).items()
        if name.endswith("the target's shares")
    ]
    prior = np.array([0.6, 0.3, 0.1] + [0.001] * 7)
    prior /= prior.sum()
    p = np.exp(target.extractor.detach().numpy())
    p /= p.sum(1, keepdims=True)
    m = (p[:, :10] + p[:, 10:]).mean(0)
    more = make()(source, y, target, 0.5) - train_digits.symnets(source, y, target, 0.5)
    expected = balance.BALANCE * 0.5 * (m * np.log(m / prior)).sum()
    assert more.item() == pytest.approx(expected)


@pytest.mark.parametrize("name", ["category weights", "V2, category weights"])
def test_category_weights_come_from_the_target_and_the_last_lambda(name):
    objective = balance.objectives(torch.arange(10), [], train_digits.Recipe())[name]()
    source, labels, target = routed(0), torch.arange(6), routed(1)
    losses = symloss.symnet_v2_losses if "V2" in name else symloss.symnet_losses
    first = objective(source, labels, target, 0.25)
    assert torch.equal(first, losses(source, labels, target).total(0.25))
    objective.estimate(target.head.detach())
    v = np.exp(target.head.detach().numpy()[:, 10:])
    mean = (v / v.sum(1, keepdims=True)).mean(0)
    weight = torch.from_numpy(0.25 * mean / mean.max() + 0.75)
    torch.testing.assert_close(objective.weight, weight)
    expected = losses(source, labels, target, weight=weight).total(0.5)
    torch.testing.assert_close(objective(source, labels, target, 0.5), expected)


def test_without_category_weights_none_are_estimated():
    objective = balance.objectives(torch.arange(10), [], train_digits.Recipe())["V2"]()
    objective(routed(0), torch.arange(6), routed(1), 0.5)
    objective.estimate(routed(2).head)
    assert objective.weight is None


def reader():
    """A head that reads a one-hot image with C^t; C^s always says 0."""
    head = symloss.SymmetricHead(10, 10)
    with torch.no_grad():
        head.weight.copy_(torch.cat([torch.zeros(10, 10), torch.eye(10)]))
        head.bias.zero_()
    return head


def test_accuracy_is_that_of_the_target_and_recalls_are_those_of_its_digits():
    labels = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2])
    answers = torch.tensor([9, 0, 9, 0, 9, 3, 9, 1, 9, 0, 9, 2])  # even indices are not scored
    kept = (labels < 2) & (torch.arange(12) != 7)
    weighed = balance.Objective(partial=True, lam=1.0)
    handwritten = Digits(torch.eye(10)[answers], labels)
    found = balance.score(nn.Identity(), reader(), handwritten, kept, weighed)
    # Scored are 0 0 1 1 1 2, read as 0 0 3 1 0 2; the target has 0 0 1 - 1 -.
    assert found == pytest.approx(
        {"target_accuracy/C_t": 50, "absent": 25, "recall/0": 100, "recall/1": 100 / 3}
    )
    p = np.exp(np.eye(10)[answers[kept].numpy()])  # only the target is looked at
    mean = (p / p.sum(1, keepdims=True)).mean(0)
    np.testing.assert_allclose(weighed.weight.numpy(), mean / mean.max(), rtol=1e-6)


def trained(**final):
    final = {name.replace("_", "/"): value for name, value in final.items()}
    final["target_accuracy/C_t"] = final.pop("accuracy")
    return Run("any", 0, nn.Identity(), reader(), [], final, 1.0)


def test_the_cells_are_means_with_errors_and_the_digits_that_lose():
    few = [
        trained(accuracy=90.0, absent=1.0, recall_0=80.0, recall_1=60.0, recall_2=90.0),
        trained(accuracy=94.0, absent=4.0, recall_0=70.0, recall_1=95.0, recall_2=60.0),
    ]
    before = [trained(accuracy=80.0), trained(accuracy=86.0)]
    by_seed = (80 + 60 + 90) / 3, (70 + 95 + 60) / 3
    mean = f"{statistics.mean(by_seed):.1f} ± {abs(by_seed[0] - by_seed[1]) / 2:.1f}"
    assert balance.cells(few, before) == [
        "92.0 ± 2.0",
        "9.0 ± 1.0",
        mean,
        "60.0 ± 0.0",
        "0 (75), 2 (75)",
        "2.5 ± 1.5",
    ]


def test_no_digit_is_absent_from_a_whole_target_and_symnets_gain_nothing_on_themselves():
    recalls = {f"recall_{k}": 10.0 * k for k in range(10)}
    runs = [trained(accuracy=50.0, absent=0.0, **recalls)]
    assert balance.cells(runs, runs) == ["50.0", "", "45.0", "0.0", "0 (0), 1 (10)", ""]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--seeds -1", "--seeds: must be a whole number from 0 to"),
        ("--out nowhere/table.md", "--out: must be a file in a folder that exists"),
    ],
)
def test_bad_arguments_exit_with_words(argv, message, capsys):
    with pytest.raises(SystemExit) as stop:
        balance.main(argv.split())
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
