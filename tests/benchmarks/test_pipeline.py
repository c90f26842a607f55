import re
from functools import partial

import pipeline
import pytest
import torch


@pytest.mark.slow
def test_quick_prints_one_table_and_the_machine(tmp_path, capsys):
    out = tmp_path / "pipeline.md"
    pipeline.main(["--quick", "--device", "cpu", "--out", str(out)])
    text = out.read_text()
    assert capsys.readouterr().out.endswith(text)
    settings, table, machine = text.rstrip("\n").split("\n\n")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert {len(row) for row in rows} == {4}
    found = {row[0]: row[1:] for row in rows[2:]}
    assert [*found] == [
        "training step, one fixed batch",
        "whole loop, cached",
        "whole loop, uncached",
        "input pipeline, cached",
        "input pipeline, uncached",
    ]
    for name, (rate, ratio, waits) in found.items():
        middle, first, third = map(float, re.findall(r"[\d.]+", rate.replace(",", "")))
        assert 0 < first <= middle <= third, name
        assert (ratio == "1") == ("fixed batch" in name)
        assert waits.endswith(" %") == name.startswith("whole loop")
    assert "office-caltech10 A2W, shufflenet_v2_x0_5" in settings
    assert "torch 2." in machine


def test_rows_take_turns_after_a_round_that_is_not_measured():
    order = []
    rows = {name: partial(order.append, name) for name in "abc"}
    seconds = pipeline.interleave(rows, 3, torch.device("cpu"))
    assert "".join(order) == "cbaabccbaabc"
    assert [len(samples) for samples in seconds.values()] == [3, 3, 3]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--root nowhere", "nowhere is not a folder"),
        ("--steps 0", "must be a whole number of at least 1"),
        ("--device nonsense", "must be a device that torch can use"),
    ],
)
def test_bad_arguments_exit_with_words(argv, message, capsys):
    with pytest.raises(SystemExit) as stop:
        pipeline.main(argv.split())
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
