"""The options of the training scripts, as far as they are read before any file is looked at."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from office import options
from office.methods import METHODS
from office.options import Recipe, Runtime, Selection


def test_without_options_all_is_as_in_the_dataclasses():
    recipe, runtime, selection = options.read(["--dataset", "office31", "--device", "cpu"])
    assert recipe == Recipe("office31")
    assert runtime == Runtime(torch.device("cpu"))
    assert selection == Selection()
    assert (recipe.preprocessing.resize, recipe.preprocessing.crop) == (256, 224)


@pytest.mark.parametrize(
    ("option", "name", "value"),
    [
        ("--dataset office-home", "dataset", "office-home"),
        ("--bottleneck 256", "bottleneck", 256),
        ("--epochs 3", "epochs", 3),
        ("--batch-size 36", "batch_size", 36),
        ("--lr 0.02", "lr", 0.02),
        ("--compile", "compile", True),
        ("--no-channels-last", "channels_last", False),
        ("--device cpu", "device", torch.device("cpu")),
        ("--root here", "root", Path("here")),
        ("--task A2W D2W A2W", "tasks", ("A2W", "D2W")),
        ("--task A2W all", "tasks", ("all",)),
        ("--method symnets source-only symnets", "methods", ("symnets", "source-only")),
        ("--method source-only all", "methods", tuple(METHODS)),
        ("--seeds 5 3 5", "seeds", (5, 3)),
    ],
)
def test_an_option_fills_its_field_and_no_other(option, name, value):
    before, after = (
        {key: value for part in options.read(argv) for key, value in vars(part).items()}
        for argv in (["--dataset", "office31"], ["--dataset", "office31", *option.split()])
    )
    assert after == before | {name: value}


def test_every_setting_is_an_option_but_those_of_the_backbones_inputs():
    names = {f.name for kind in (Recipe, Runtime, Selection) for f in fields(kind)}
    actions = {action.dest for action in options.build_parser()._actions}
    assert names - actions == {"preprocessing", "frozen"}
    assert actions - names == {"help"}


def test_a_prior_may_be_a_file(tmp_path, capsys):
    path = tmp_path / "shares.csv"
    argv = ["--dataset", "office31", "--method", "symnets-balanced", "--prior", str(path)]
    path.write_text("mug,0.25\nbike,0.75\n")
    recipe, _, _ = options.read(argv)
    assert recipe.prior == (("mug", 0.25), ("bike", 0.75))
    assert recipe.settings()["prior"] == [["mug", 0.25], ["bike", 0.75]]
    path.write_text("mug,0.25\n")
    with pytest.raises(SystemExit):
        options.read(argv)
    assert f"--prior: {path}: the shares must be above 0 and sum to 1" in capsys.readouterr().err


@pytest.mark.parametrize("methods", ["symnets-balanced", "source-only symnets-balanced", "all"])
def test_balance_and_prior_are_settings_of_methods_that_have_them(methods):
    argv = f"--dataset office31 --device cpu --method {methods} --balance 0.5 --prior source"
    recipe, _, _ = options.read(argv.split())
    assert recipe == Recipe("office31", balance=0.5, prior="source")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("--precision fp16", "--precision fp16 needs a CUDA GPU"),
        ("--device nonsense", "argument --device: must be a device"),
        ("--device meta", "argument --device: must be a device"),
        ("--epochs abc", "--epochs: must be a whole number of at least 1, got 'abc'"),
        ("--batch-size 0", "--batch-size: must be a whole number of at least 1, got '0'"),
        ("--epochs 200 --max-steps 2", "not allowed with"),  # also at its default
        ("--source here", "--source needs --dataset folders, got office31"),
        ("--dataset folders", "--dataset folders needs --source DIR and --target DIR"),
        ("--dataset folders --source a", "--dataset folders needs --source DIR and --target DIR"),
        ("--lr 0", "--lr: must be a number above 0, got '0'"),
        ("--lr inf", "--lr: must be a number above 0, got 'inf'"),
        ("--weight-decay -1", "--weight-decay: must be a number of at least 0, got '-1'"),
        ("--workers -1", "--workers: must be a whole number of at least 0, got '-1'"),
        ("--seeds 0 -1", "--seeds: must be a whole number of at least 0, got '-1'"),
        # Also at its default, which someone who asks for it does not get either.
        (
            "--balance 3",
            "--balance only affects symnets-balanced and symnets-v2-balanced, not --method symnets",
        ),
        ("--prior uniform --method source-only symnets", "not --method source-only symnets"),
        ("--balance -1 --method symnets-balanced", "must be a number of at least 0, got '-1'"),
        ("--balance nan --method symnets-balanced", "must be a number of at least 0, got 'nan'"),
        (
            "--prior flat --method symnets-balanced",
            "--prior: must be estimate, uniform, source or a file, got 'flat'",
        ),
        ("--dataset visda", "invalid choice: 'visda'"),
        ("--method dann", "invalid choice: 'dann'"),
        ("--cache disk", "invalid choice: 'disk'"),
    ],
)
def test_bad_arguments_get_one_line(text, why, capsys):
    with pytest.raises(SystemExit) as stop:
        options.read(["--dataset", "office31", "--device", "cpu", *text.split()])
    assert stop.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]  # the usage comes first
    assert line.startswith("train_office.py: error: ")
    assert why in line


def test_the_batch_must_be_divisible_by_the_number_of_processes(monkeypatch, capsys):
    monkeypatch.setattr(options.distributed, "launched", lambda: 3)
    with pytest.raises(SystemExit):
        options.read(["--dataset", "office31", "--device", "cpu"])
    assert "--batch-size 128 must be divisible by the number of processes, 3" in (
        capsys.readouterr().err
    )


def test_help_tells_where_each_default_is_from(capsys):
    with pytest.raises(SystemExit):
        options.read(["--help"])
    out = " ".join(capsys.readouterr().out.split())
    for default in ("128 [paper]", "0.01 [paper]", "200 [script]", "0.0001 [script]"):
        assert default in out
    assert set(re.findall(r"\[(\w+)\]\)", out)) == {"paper", "script", "ours"}


def test_help_tells_the_defaults_that_hold():
    defaults = {f.name: f.default for kind in (Recipe, Runtime, Selection) for f in fields(kind)}
    words = {True: "on", False: "off"}
    told = {
        action.dest: re.search(r"default: ([^\[;]+)(;| \[)", action.help)
        for action in options.build_parser()._actions
        if isinstance(defaults.get(action.dest), (str, int, float, Path, tuple))
    }
    told = {name: found[1] for name, found in told.items() if found}
    assert {"backbone", "lr", "seeds", "tasks", "compile", "out", "balance", "prior"} < told.keys()
    for name in told.keys() - {"device", "workers"}:
        value = defaults[name]
        values = value if isinstance(value, tuple) else (value,)
        assert [str(words.get(v, v) if isinstance(v, bool) else v) for v in values] == (
            told[name].split()
        )
