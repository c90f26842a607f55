"""predict.py: categories and probabilities of images and folders, as lines or as a table."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import predict
import pytest
import torch
import torchvision
from conftest import write_image
from PIL import Image
from small_runs import features
from torch import nn

CATEGORIES = ["bike", "mouse", "mug"]


def save_model(path: Path, classifier: nn.Linear, categories: list[str] = CATEGORIES) -> Path:
    """A small network in the format of a run's model.pt, its backbone random."""
    torch.manual_seed(0)
    backbone = torchvision.models.resnet18(weights=None)
    backbone.fc = nn.Identity()
    model = {
        "backbone": "resnet18",
        "bottleneck": None,
        "extractor": {f"backbone.{name}": v for name, v in backbone.state_dict().items()},
        "classifier": classifier.state_dict(),
        "categories": categories,
        "preprocessing": {
            "resize": 256,
            "crop": 224,
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
        },
    }
    torch.save(model, path)
    return path


@pytest.fixture
def classifier() -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(512, 3)


def reference(image: Path) -> torch.Tensor:
    """The random backbone's features of a square image, by hand."""
    pixels = np.asarray(Image.open(image).resize((256, 256), Image.Resampling.BILINEAR))
    pixels = pixels[16:240, 16:240] / 255
    pixels = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    torch.manual_seed(0)
    backbone = torchvision.models.resnet18(weights=None).eval()
    backbone.fc = nn.Identity()
    with torch.no_grad():
        return backbone(torch.from_numpy(pixels).float().permute(2, 0, 1)[None])


def test_category_and_confidence_are_the_classifiers(
    tree: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    classifier: nn.Linear,
) -> None:
    images = sorted(tree(images=1, size=(40, 40)).rglob("*.jpg"))[:2]
    path = save_model(tmp_path / "model.pt", classifier)
    predict.main([str(path), *map(str, images)])
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == [str(image) for image in images]
    for image, (_, category, confidence) in zip(images, lines, strict=True):
        logits = classifier(reference(image)).detach()[0].double().numpy()
        shares = np.exp(logits) / np.exp(logits).sum()
        assert category == CATEGORIES[shares.argmax()]
        assert float(confidence) == pytest.approx(shares.max(), abs=0.001)


@pytest.mark.filterwarnings("ignore:.*published")
def test_the_model_of_a_run_predicts_what_the_run_says(
    office: Callable[..., Path], root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = office(method="symnets-wo-target-task")  # whose source classifier answers
    images = sorted((root / "webcam").rglob("*.jpg"))
    capsys.readouterr()
    predict.main([str(folder / "model.pt"), *map(str, images)])
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    shares = torch.tensor(features(folder).logits[:, :3]).softmax(1)
    assert [line[1] for line in lines] == [CATEGORIES[k] for k in shares.argmax(1)]
    told = [float(line[2]) for line in lines]
    assert told == pytest.approx(shares.amax(1).tolist(), abs=0.001)


def failure(arguments: list[object], capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    with pytest.raises(SystemExit) as exit_:
        predict.main([str(argument) for argument in arguments])
    assert exit_.value.code == code
    return capsys.readouterr().err.splitlines()[-1]


def test_bad_input_is_one_line(
    tree: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    classifier: nn.Linear,
) -> None:
    image = next(tree(images=1).rglob("*.jpg"))
    model = save_model(tmp_path / "model.pt", classifier)
    assert str(tmp_path / "none.pt") in failure([tmp_path / "none.pt", image], capsys)
    assert f"{tmp_path}/none.jpg" in failure([model, tmp_path / "none.jpg"], capsys, code=1)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(image.read_bytes()[:300])
    assert f"cannot read the image {broken}" in failure([model, broken], capsys, code=1)
    cut = tmp_path / "cut.pt"
    cut.write_bytes(model.read_bytes()[:100_000])
    assert str(cut) in failure([cut, image], capsys)
    foreign = tmp_path / "foreign.pt"
    torch.save({"weights": torch.zeros(3)}, foreign)
    assert str(foreign) in failure([foreign, image], capsys)


# Folders


@pytest.fixture
def model(tmp_path: Path, classifier: nn.Linear) -> Path:
    return save_model(tmp_path / "model.pt", classifier)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for i, name in enumerate(("a.jpg", "b.png", "deeper/c.jpg", "deeper/still/d.jpg")):
        write_image(tmp_path / "photos" / name, 0, i)
    (tmp_path / "photos/notes.txt").write_text("no image")
    return tmp_path / "photos"


def predicted(capsys: pytest.CaptureFixture[str], *arguments: Path) -> list[str]:
    """The paths that are predicted."""
    predict.main([str(argument) for argument in arguments])
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert all(len(line) == 3 and 1 / 3 <= float(line[2]) <= 1 for line in lines)
    return [line[0] for line in lines]


def test_a_folder_is_all_its_images(model, photos, capsys):
    names = ("a.jpg", "b.png", "deeper/c.jpg", "deeper/still/d.jpg")
    assert predicted(capsys, model, photos) == [str(photos / name) for name in names]
    one, folder = photos / "b.png", photos / "deeper/still"
    assert predicted(capsys, model, one, folder) == [str(one), str(folder / "d.jpg")]


def test_a_folder_that_contains_itself_is_read_once(model, photos, capsys):
    (photos / "deeper/round").symlink_to(photos)
    assert len(predicted(capsys, model, photos)) == 4


def test_unreadable_images_and_empty_folders_are_named_and_the_rest_predicted(
    model, photos, capsys
):
    (photos / "b.png").write_bytes(b"broken")
    (photos / "empty").mkdir()
    arguments = [model, photos / "none.jpg", photos / "empty", photos]
    with pytest.raises(SystemExit) as stop:
        predict.main([*map(str, arguments)])
    assert stop.value.code == 1
    out, err = capsys.readouterr()
    assert [line.split("\t")[0] for line in out.splitlines()] == [
        str(photos / name) for name in ("a.jpg", "deeper/c.jpg", "deeper/still/d.jpg")
    ]
    none, empty, broken = err.splitlines()
    assert str(photos / "none.jpg") in none
    assert f"no images in the folder {photos / 'empty'}" in empty
    assert f"cannot read the image {photos / 'b.png'}" in broken


@pytest.mark.parametrize("fault", ["broken.jpg", "none.jpg", "empty"])
def test_one_unreadable_image_is_enough_for_exit_code_1(model, photos, fault):
    (photos / "broken.jpg").write_bytes(b"broken")
    (photos / "empty").mkdir()
    with pytest.raises(SystemExit) as stop:
        predict.main([str(model), str(photos / "a.jpg"), str(photos / fault)])
    assert stop.value.code == 1


# Options


def test_top_and_csv(tmp_path, capsys, classifier):
    model = save_model(tmp_path / "model.pt", classifier, ["bike", "=mouse", "mug"])
    paths = [tmp_path / f"{i}.jpg" for i in range(5)]
    for i, path in enumerate(paths):
        write_image(path, i, i, size=(80, 80))
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(paths[0].read_bytes()[:200])
    table = tmp_path / "table.csv"
    given = [*map(str, [paths[0], broken, *paths[1:]])]
    with pytest.raises(SystemExit) as stopped:
        predict.main([str(model), *given, "--top", "3", "--csv", str(table), "--batch-size", "2"])
    assert stopped.value.code == 1
    assert f"cannot read the image {broken}" in capsys.readouterr().err
    with open(table, newline="") as file:
        rows = [*csv.DictReader(file)]
    assert [row["path"] for row in rows] == [str(path) for path in paths]
    for row in rows:
        confidences = [float(row[f"confidence_{n}"]) for n in (1, 2, 3)]
        assert confidences == sorted(confidences, reverse=True)
        assert sum(confidences) == pytest.approx(1, abs=3e-4)
        assert {row[f"category_{n}"] for n in (1, 2, 3)} == {"bike", "'=mouse", "mug"}


def test_two_models_are_one_too_many(model, capsys):
    assert "name one model, got" in failure([model, model, "photo.jpg"], capsys)


def test_without_images_or_export_there_is_nothing_to_do(model, capsys):
    assert "give images, or --export FILE" in failure([model], capsys)


@pytest.mark.filterwarnings("ignore")  # torch.export's own
def test_a_model_is_exported_without_images(model, tmp_path, capsys):
    path = tmp_path / "model.pt2"
    predict.main([str(model), "--export", str(path)])
    assert capsys.readouterr().out.startswith(f"{path}: 3 categories")
    assert path.is_file()
    bad = tmp_path / "model.bin"
    assert "ends in .pt2 or .onnx" in failure([model, "--export", bad], capsys)
