import json
import re
import statistics

import pytest
import torch
from digits import Run, print_diagnosis, print_table, write_results
from torch import nn

import symloss

SOURCE_ONLY = [
    {"target_accuracy/C_t": x, "target_worst_recall/C_t": 20.0, "source_accuracy/C_t": 99.0}
    for x in (70.0, 72.0, 77.0)
]
SYMNETS = [
    {
        "target_accuracy/C_t": x,
        "target_worst_recall/C_t": worst,
        "target_accuracy/C_s": x - 1,
        "source_accuracy/C_s": 98.0,
    }
    for x, worst in ((81.0, 1.0), (85.0, 3.0), (86.0, 8.0))
]
BALANCED = [{name: x + 10 for name, x in final.items()} for final in SYMNETS]
FINALS = {"source-only": SOURCE_ONLY, "symnets": SYMNETS, "symnets-balanced": BALANCED}


@pytest.fixture
def runs():
    """Three seeds of all methods, in the order in which the script trains them."""
    network = nn.Identity(), symloss.SymmetricHead(2, 10)
    return [
        Run(method, seed, *network, history=[{"loss": 1.0, **final}], final=final, seconds=seed)
        for seed, finals in enumerate(zip(*FINALS.values(), strict=True), start=4)
        for method, final in zip(FINALS, finals, strict=True)
    ]


def cells(text, *first):
    """The cells of the one row of the table that begins with these, without ±."""
    rows = [line.replace("±", " ").split() for line in text.splitlines()]
    (row,) = [row[len(first) :] for row in rows if row[: len(first)] == list(first)]
    return row


def test_a_row_says_whose_accuracy_and_where(runs, capsys):
    print_table(runs, scored=898)
    text = capsys.readouterr().out
    head = "target C_t worst digit target C_s source C_t source C_s seconds"
    assert cells(text, "method", "seed") == head.split()
    assert cells(text, "source-only", "5") == ["72.0", "20.0", "-", "99.0", "-", "5.0"]
    assert cells(text, "symnets", "6") == ["86.0", "8.0", "85.0", "-", "98.0", "6.0"]
    assert cells(text, "symnets-balanced", "4") == ["91.0", "11.0", "90.0", "-", "108.0", "4.0"]
    assert "898 handwritten" in text


def test_means_come_with_standard_errors(runs, capsys):
    print_table(runs, scored=898)
    text = capsys.readouterr().out
    values = [81.0, 85.0, 86.0]
    expected = f"{statistics.mean(values):.1f}", f"{statistics.stdev(values) / 3**0.5:.1f}"
    assert tuple(cells(text, "symnets", "mean")[:2]) == expected
    assert cells(text, "source-only", "mean")[2:4] == ["20.0", "0.0"]
    assert cells(text, "source-only", "mean")[4:] == ["-", "99.0", "0.0", "-", "5.0"]


def test_one_seed_has_no_mean(runs, capsys):
    print_table(runs[:3], scored=898)
    assert "mean" not in capsys.readouterr().out


def test_the_file_holds_settings_versions_and_every_run(runs, tmp_path):
    write_results(runs, {"lr": 0.05}, tmp_path / "results.json")
    saved = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert saved["settings"] == {"lr": 0.05}
    assert saved["versions"]["symloss"] == symloss.__version__
    for run in runs:
        assert saved["results"][run.method][str(run.seed)] == {
            "seconds": run.seconds,
            "final": run.final,
            "epochs": run.history,
        }


def test_the_diagnosis_is_that_of_the_trained_classifiers(capsys):
    head = symloss.SymmetricHead(10, 10)
    with torch.no_grad():
        head.weight.copy_(torch.eye(10).repeat(2, 1))
        head.weight[0, 4] = 2.0  # C^s calls a 4 a 0
        head.bias.zero_()
    read = torch.tensor([0] * 4 + [1, 2, 3, 5, 6, 7, 8, 9] * 2 + [4] * 5)
    runs = [Run(method, 4, nn.Identity(), head, [], {}, 1.0) for method in FINALS]
    print_diagnosis(runs, torch.eye(10)[read])
    text = capsys.readouterr().out
    assert "all 25 handwritten digits, seed 4" in text
    plain, symnets, _ = re.split("(?=\nsymnets)", text)
    assert "agree" not in plain
    assert "agree on 80.0 %" in symnets
    for part in (plain, symnets):
        assert "four: 20.0 (10.0)" in part
        assert "All 10 categories are predicted." in part


def test_the_diagnosis_names_a_lost_digit_and_the_method_that_may_help(capsys):
    head = symloss.SymmetricHead(10, 10)
    with torch.no_grad():
        head.weight.copy_(torch.eye(10).repeat(2, 1))
        head.bias.zero_()
    images = torch.eye(10)[torch.arange(90) % 9]  # no 9
    runs = [Run(method, 4, nn.Identity(), head, [], {}, 1.0) for method in FINALS]
    print_diagnosis(runs, images)
    text = capsys.readouterr().out
    lost = "1 of 10 categories is rarely or never predicted (nine)"
    plain, symnets, balanced = re.split("(?=\nsymnets)", text)
    assert plain.endswith(f"{lost}.")  # it is the one to compare with
    assert symnets.endswith(f"{lost}: if the target contains it, try symnets-balanced.")
    assert balanced.endswith(f"{lost}.\n")  # it has no other to recommend
