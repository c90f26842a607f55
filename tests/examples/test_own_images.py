"""Own images: one command on two folders, and the answer at its end."""

import json
import re
import shutil
from pathlib import Path

import predict
import pytest
import torch
import train_office
from conftest import write_tree
from made_results import read_predictions
from office import options
from office.console import UserError
from office.options import Recipe
from office.training import preparation
from small_runs import tiny


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "weights.pt"
    torch.save(tiny().state_dict(), path)
    return path


@pytest.fixture
def folders(tmp_path):
    """Labelled photos, and as many without labels in folders that are no categories."""
    root = write_tree(tmp_path / "photos", domains=("labelled", "new"), size=(48, 40))
    for number, folder in enumerate(sorted((root / "new").iterdir())):
        folder.rename(root / "new" / f"day{number}")
    return root


def run(folders, weights, tmp_path, *more):
    """The command as typed, on little images; returns what it wrote."""
    train_office.main(
        [
            "--dataset",
            "folders",
            "--source",
            str(folders / "labelled"),
            "--target",
            str(folders / "new"),
            "--weights",
            str(weights),
            "--backbone",
            "tiny",
            "--out",
            str(tmp_path / "runs"),
            "--batch-size",
            "4",
            "--device",
            "cpu",
            "--workers",
            "0",
            *more,
        ]
    )
    return tmp_path / "runs/folders/labelled2new"


def test_unlabelled_images_in_folders_need_a_word(folders, weights, tmp_path):
    with pytest.raises(UserError, match="add --unlabelled"):
        run(folders, weights, tmp_path)


def test_unlabelled_belongs_to_folders(capsys):
    with pytest.raises(SystemExit):
        train_office.main(["--dataset", "office31", "--unlabelled"])
    assert "--unlabelled needs --dataset folders" in capsys.readouterr().err


def test_quick_answers_without_labels(folders, weights, tmp_path, capsys):
    out = run(folders, weights, tmp_path, "--preset", "quick", "--unlabelled", "--epochs", "2")
    text = capsys.readouterr().out
    table = text[text.rindex("\nmethod ") + 1 :]
    assert [line.split()[0] for line in table.splitlines()[1:3]] == ["source-only", "symnets"]
    assert "C^s and C^t agree" in table
    assert table.splitlines()[1].split()[:4] == ["source-only", "0", "-", "-"]
    assert f"predictions.html are in:\n  {out}" in table
    assert text.count("category (expected: the source's shares)") == 2
    photos = sorted((folders / "new").rglob("*.jpg"))
    rows = read_predictions(out / "symnets/seed0/predictions.csv")
    assert sorted(row.path for row in rows) == photos

    # The model takes images, though features were trained on.
    predict.main([str(out / "symnets/seed0/model.pt"), *map(str, photos)])
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    told = {row.path: row for row in rows}
    for path, category, confidence in lines:
        assert category == told[Path(path)].category
        assert float(confidence) == pytest.approx(told[Path(path)].confidence, abs=2e-3)


def test_quick_on_a_random_network_saves_that_network(folders, tmp_path, capsys):
    quick = ("--preset", "quick", "--unlabelled", "--epochs", "2")
    out = run(folders, "none", tmp_path, *quick)
    rows = read_predictions(out / "symnets/seed0/predictions.csv")
    capsys.readouterr()
    predict.main([str(out / "symnets/seed0/model.pt"), *(str(row.path) for row in rows)])
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    for row, (path, category, confidence) in zip(rows, lines, strict=True):
        assert (path, category) == (str(row.path), row.category)
        assert float(confidence) == pytest.approx(row.confidence, abs=2e-3)


def test_quick_reports_a_skipped_file_once(folders, weights, tmp_path):
    (folders / "labelled" / "bike" / "notes.txt").write_text("not an image")
    with pytest.warns(UserWarning, match="labelled: 1 ") as warned:
        run(folders, weights, tmp_path, "--preset", "quick", "--unlabelled", "--epochs", "1")
    assert len([one for one in warned if "notes.txt" in str(one.message)]) == 1


def test_quick_goes_on_where_it_stopped(folders, weights, tmp_path, capsys):
    quick = ("--preset", "quick", "--unlabelled", "--epochs", "1")
    out = run(folders, weights, tmp_path, *quick)
    shutil.rmtree(out / "symnets")
    capsys.readouterr()
    run(folders, weights, tmp_path, *quick)
    text = capsys.readouterr().out
    assert text.count("already extracted") == 2
    assert "source-only seed 0: already finished" in text
    assert (out / "symnets/seed0/model.pt").exists()


def test_quick_looks_at_its_own_two_folders_alone(folders, weights, tmp_path, capsys):
    quick = ("--preset", "quick", "--unlabelled", "--epochs", "1")
    run(folders, weights, tmp_path, *quick)
    features = tmp_path / "runs/features/folders"
    shutil.copy(
        features / "labelled.json", features / "another.json"
    )  # whose features are not there
    write_tree(tmp_path, domains=("pets",), size=(48, 40))
    (tmp_path / "pets" / "mug").rename(tmp_path / "pets" / "cat")
    (folders / "labelled").rename(tmp_path / "kept")
    (tmp_path / "pets").rename(folders / "pets")
    run(folders, weights, tmp_path, *quick, "--source", str(folders / "pets"))
    assert (tmp_path / "runs/folders/pets2new").is_dir()


def test_quick_fits_batch_and_length_to_the_folders():
    recipe = Recipe("folders", epochs=None)
    with pytest.warns(UserWarning, match="batches of 128 exceed the smaller domain; using 60"):
        fitted = preparation.fitted(recipe, [80, 60])
    assert (fitted.batch_size, fitted.epochs) == (60, 1000)  # one step per epoch
    fitted = preparation.fitted(recipe, [12800, 9000])
    assert (fitted.batch_size, fitted.epochs) == (128, 20)  # 100 steps per epoch
    fitted = preparation.fitted(Recipe("folders", epochs=3), [128, 256])
    assert (fitted.batch_size, fitted.epochs) == (128, 3)


def test_labels_make_it_a_table_of_accuracies(tmp_path, weights, capsys):
    root = write_tree(tmp_path / "photos", domains=("labelled", "new"), size=(48, 40))
    run(root, weights, tmp_path, "--preset", "quick", "--epochs", "2")
    table = capsys.readouterr().out
    table = table[table.rindex("\nmethod ") + 1 :]
    assert table.splitlines()[0].split()[:5] == ["method", "seed", "accuracy", "worst", "category"]
    accuracies = re.findall(r"0 +(\d+\.\d) % +\w+ \d+ %", table)
    for method, accuracy in zip(("source-only", "symnets"), accuracies, strict=True):
        path = tmp_path / "runs/folders/labelled2new" / method / "seed0/result.json"
        assert float(accuracy) == pytest.approx(json.loads(path.read_text())["accuracy"], abs=0.05)


@pytest.mark.parametrize(
    ("more", "methods"),
    [((), ("source-only", "symnets")), (("--method", "symnets"), ("symnets",))],
)
def test_a_method_that_is_named_is_the_only_one(more, methods):
    _, _, selection = options.read(
        ["--dataset", "folders", "--source", "a", "--target", "b", "--device", "cpu", *more]
    )
    assert selection.methods == methods


def test_a_single_image_is_refused_before_its_features_are_made():
    with pytest.raises(UserError, match="each domain must have at least two images, got 1"):
        preparation.fitted(Recipe("folders", epochs=None), [80, 1])


def test_quick_is_for_folders(capsys):
    with pytest.raises(SystemExit):
        train_office.main(["--dataset", "office31", "--preset", "quick"])
    assert "--preset quick needs --dataset folders" in capsys.readouterr().err
