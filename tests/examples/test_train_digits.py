import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "examples" / "train_digits.py"
QUICK = ["--epochs", "1", "--batch-size", "64"]


@pytest.fixture
def digits(monkeypatch):
    spec = importlib.util.spec_from_file_location("train_digits", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "SOURCE_SIZE", 320)
    monkeypatch.setattr(module, "TSNE_POINTS", 60)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield module
    torch.set_num_threads(threads)


def results(folder):
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))["results"]


def epochs(folder):
    return {
        (method, seed): run["epochs"]
        for method, seeds in results(folder).items()
        for seed, run in seeds.items()
    }


def test_all_files_and_the_table(digits, tmp_path, capsys):
    digits.main([*QUICK, "--epochs", "2", "--seeds", "3", "4", "--out", str(tmp_path)])
    assert {path.name for path in tmp_path.iterdir()} == {
        "results.json",
        "samples.png",
        "convergence.png",
        "tsne.png",
    }
    for path in tmp_path.glob("*.png"):
        with Image.open(path) as image:
            image.load()
            assert min(image.size) > 300
            assert np.asarray(image.convert("L")).std() > 5
    saved = epochs(tmp_path)
    assert set(saved) == {(m, s) for m in ("source-only", "symnets") for s in ("3", "4")}
    assert all(len(history) == 2 for history in saved.values())
    assert all(0 <= e[k] <= 100 for h in saved.values() for e in h for k in e if k != "loss")

    table = capsys.readouterr().out
    final = {key: history[-1]["target"] for key, history in saved.items()}
    gains = [final["symnets", s] - final["source-only", s] for s in ("3", "4")]
    error = abs(gains[0] - gains[1]) / 2  # the standard error of two numbers
    assert f"{sum(gains) / 2:.1f} ± {error:.1f}" in table.splitlines()[-3]
    for accuracy in final.values():
        assert f" {accuracy:.1f} " in table


def test_runs_as_a_script_from_another_folder(tmp_path):
    command = [sys.executable, "-W", "error", str(SCRIPT), *QUICK, "--methods", "source-only"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "source-only" in result.stdout
    assert "gain" not in result.stdout
    assert "Warning" not in result.stderr
    assert (tmp_path / "runs" / "digits" / "tsne.png").is_file()


def test_same_seed_same_numbers_other_seed_other_numbers(digits, tmp_path):
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        out = str(tmp_path / folder)
        digits.main([*QUICK, "--seeds", str(seed), "--out", out, "--no-plots"])
    assert epochs(tmp_path / "a") == epochs(tmp_path / "b")
    first, other = (epochs(tmp_path / folder) for folder in ("a", "c"))
    assert first["symnets", "0"][-1]["loss"] != other["symnets", "1"][-1]["loss"]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["results.json"]


def test_a_seed_gives_the_same_numbers_alone_and_after_others(digits, tmp_path):
    for folder, options in (("a", ["--seeds", "5", "6"]), ("b", ["--seeds", "6"])):
        digits.main([*QUICK, *options, "--out", str(tmp_path / folder), "--no-plots"])
    together, alone = epochs(tmp_path / "a"), epochs(tmp_path / "b")
    assert all(together[key] == alone[key] for key in alone)


def test_target_labels_do_not_reach_training(digits, tmp_path, monkeypatch):
    trained, load, train = [], digits.load_handwritten, digits.train
    monkeypatch.setattr(
        digits,
        "train",
        lambda *args, **kwargs: trained.append(train(*args, **kwargs)) or trained[-1],
    )
    arguments = [*QUICK, "--epochs", "2", "--no-plots", "--out", str(tmp_path)]
    digits.main(arguments)
    handwritten = load()
    shuffled = handwritten.labels[torch.randperm(len(handwritten.labels))]
    monkeypatch.setattr(digits, "load_handwritten", lambda: handwritten._replace(labels=shuffled))
    digits.main(arguments)

    for honest, blind in zip(trained[:2], trained[2:], strict=True):
        for name in ("extractor", "head"):
            expected, got = (getattr(run, name).state_dict() for run in (honest, blind))
            for key, tensor in expected.items():
                assert torch.equal(tensor, got[key]), (name, key)
        assert [e["loss"] for e in honest.history] == [e["loss"] for e in blind.history]
        assert honest.history[-1]["target"] != blind.history[-1]["target"]


def test_source_only_uses_no_target_image(digits):
    source = digits.render_digits(200, seed=0)
    images = digits.load_handwritten().images
    options = {"seed": 0, "epochs": 1, "batch_size": 50, "lr": 0.05}
    first, second = (
        digits.train(
            "source-only", source, target, lambda *_: {"target": 0.0, "source": 0.0}, **options
        )
        for target in (images, torch.rand_like(images))
    )
    for key, tensor in first.extractor.state_dict().items():
        assert torch.equal(tensor, second.extractor.state_dict()[key]), key


def test_rendered_digits(digits):
    first, same, other = (digits.render_digits(300, seed) for seed in (7, 7, 8))
    assert first.images.shape == (300, 1, 8, 8)
    assert first.images.dtype == torch.float32
    assert torch.bincount(first.labels).tolist() == [30] * 10
    counts = first.images * 16
    assert torch.equal(counts, counts.round())
    assert counts.min() == 0
    assert counts.max() == 16
    assert (first.images.flatten(1).mean(1) > 0.08).all()  # no digit is lost
    assert torch.equal(first.images, same.images)
    assert torch.equal(first.labels, same.labels)
    assert not torch.equal(first.images, other.images)


def test_rendered_digits_can_be_told_apart(digits):
    train, test = (digits.render_digits(n, seed) for n, seed in ((2000, 0), (300, 1)))
    nearest = torch.cdist(test.images.flatten(1), train.images.flatten(1)).argmin(1)
    assert (train.labels[nearest] == test.labels).double().mean() > 0.9


def test_handwritten_digits_are_the_1797_of_scikit_learn(digits):
    handwritten = digits.load_handwritten()
    assert handwritten.images.shape == (1797, 1, 8, 8)
    assert handwritten.images.max() == 1
    assert len(handwritten.labels[digits.SCORED]) == 898


def test_batches_drop_the_incomplete_one(digits):
    stream = digits.batches(10, 4, seed=0)
    for _ in range(3):
        epoch = torch.cat([next(stream), next(stream)])
        assert len(set(epoch.tolist())) == 8


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("--methods", ["dann"]),
        ("--methods", ["symnets", "symnets"]),
        ("--seeds", ["-1"]),
        ("--seeds", ["one"]),
        ("--seeds", ["0", "0"]),
        ("--seeds", [str(2**32)]),
        ("--epochs", ["0"]),
        ("--epochs", ["1.5"]),
        ("--batch-size", ["1"]),
        ("--batch-size", ["1798"]),
        ("--lr", ["-0.1"]),
        ("--lr", ["0"]),
        ("--lr", ["nan"]),
        ("--lr", ["inf"]),
        ("--lr", ["fast"]),
        ("--device", ["abacus"]),
        ("--device", ["meta"]),
        ("--device", ["cuda:99"]),
        ("--out", [str(SCRIPT)]),
        ("--out", [str(SCRIPT / "below")]),
        ("--out", ["/proc/nothing"]),
    ],
)
def test_a_wrong_value_gets_one_line(digits, capsys, tmp_path, monkeypatch, option, values):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as error:
        digits.main([option, *values])
    assert error.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    message = [line for line in lines if "error:" in line]
    assert len(message) == 1
    assert lines[-1] == message[0]
    assert option in message[0]
    assert values[-1] in message[0]
    assert not list(tmp_path.iterdir())


def test_divergence_gets_one_line(digits, tmp_path):
    with pytest.raises(SystemExit, match="smaller --lr"):
        digits.main([*QUICK, "--lr", "1e30", "--out", str(tmp_path)])


def test_help_shows_every_default(digits, capsys):
    with pytest.raises(SystemExit) as error:
        digits.main(["--help"])
    assert error.value.code == 0
    text = capsys.readouterr().out
    for default in ("0.05", "64", "runs/digits", "cpu"):
        assert default in text
