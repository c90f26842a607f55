"""predict.py: categories and probabilities of images and folders, as lines or as a table."""

import csv
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import predict
import pytest
import torch
from conftest import write_image
from made_results import made_result
from office import console
from office.results.outputs import write_result
from PIL import Image
from small_runs import features, tiny
from torch import nn

EXAMPLES = Path(predict.__file__).parent
PLACES = (EXAMPLES, EXAMPLES.parent, Path(__file__).parent)
CATEGORIES = ["bike", "mouse", "mug"]


def backbone() -> nn.Module:
    """A small network, its weights random."""
    torch.manual_seed(0)
    return tiny()[:-1].eval()


def save_model(path: Path, classifier: nn.Linear, categories: list[str] = CATEGORIES) -> Path:
    """The backbone and a classifier in the format of a run's model.pt."""
    model = {
        "backbone": "tiny",
        "bottleneck": None,
        "extractor": {f"backbone.{name}": v for name, v in backbone().state_dict().items()},
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
    return nn.Linear(16, 3)


def reference(image: Path) -> torch.Tensor:
    """The backbone's features of a square image, by hand."""
    pixels = np.asarray(Image.open(image).resize((256, 256), Image.Resampling.BILINEAR))
    pixels = pixels[16:240, 16:240] / 255
    pixels = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    with torch.no_grad():
        return backbone()(torch.from_numpy(pixels).float().permute(2, 0, 1)[None])


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
    cut.write_bytes(model.read_bytes()[: model.stat().st_size // 2])
    assert str(cut) in failure([cut, image], capsys)
    foreign = tmp_path / "foreign.pt"
    torch.save({"weights": torch.zeros(3)}, foreign)
    assert str(foreign) in failure([foreign, image], capsys)


def test_a_second_model_is_not_taken_for_an_image(
    photos: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = save_model(photos / "model.pt", nn.Linear(16, 3))  # as a glob gives it
    told = f"give one model, before the images; {second} is among the images"
    assert failure([model, second, photos], capsys).endswith(told)


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
    empty, skipped, broken = (line for line in err.splitlines() if "none.jpg" not in line)
    assert skipped == f"{photos}: 1 skipped: notes.txt (not an image file)"
    assert f"{photos / 'none.jpg'} does not exist" in err
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


def test_the_table_comes_with_shares_and_a_page(model, photos, tmp_path, capsys):
    page = tmp_path / "page.html"
    predict.main([str(model), str(photos), "--html", str(page)])
    out, err = capsys.readouterr()
    lines = [line.split("\t") for line in out.splitlines()]
    header, *rows = err[err.index("images ") :].splitlines()
    assert header.endswith("category (expected: equal shares)")
    counts = {name: int(images) for images, *_, name in map(str.split, rows[:3])}
    assert counts == {name: [row[1] for row in lines].count(name) for name in CATEGORIES}
    assert rows[-1] == f"The least confident predictions, with pictures: {page}"
    text = page.read_text(encoding="utf-8")
    for path, category, confidence in lines:
        assert f"<small>{path}</small>" in text
        assert f"<b>{category}</b> {100 * float(confidence):.3g}\N{NO-BREAK SPACE}%<br>or " in text
    assert text.count("data:image/jpeg") == 4


def test_what_training_expected_is_expected(model, photos, capsys):
    shares = dict(zip(CATEGORIES, (0.5, 0.3, 0.2), strict=True))
    recipe = {"prior": "estimate"}
    made = made_result(method="symnets-balanced", recipe=recipe, trust=0.9, expected=shares)
    write_result(model.parent, made)
    predict.main([str(model), str(photos), "--csv", "-"])
    err = capsys.readouterr().err
    assert "category (expected: as in training, estimated, trust 0.90)\n" in err
    lines = err[err.index("images  ") :].splitlines()
    told = {line.split()[-1]: line[19:27].strip() for line in lines[1:4]}
    assert told == {"bike": "50.0 %", "mouse": "30.0 %", "mug": "20.0 %"}


@pytest.mark.parametrize("beside", ["broken", "{}", None])
def test_another_result_beside_the_model_is_ignored(model, photos, capsys, beside):
    if beside is None:
        write_result(model.parent, made_result(expected={"cat": 1.0}))
    else:
        (model.parent / "result.json").write_text(beside)
    predict.main([str(model), str(photos), "--csv", "-"])
    assert "category (expected: equal shares)\n" in capsys.readouterr().err


def test_without_an_image_there_is_no_page(model, tmp_path, capsys):
    page = tmp_path / "page.html"
    failure([model, tmp_path / "none.jpg", "--html", page], capsys, code=1)
    assert not page.exists()


# Stopped, or in part unreadable


def test_prediction_goes_on_after_a_folder_that_cannot_be_opened(
    model, photos, capsys, monkeypatch
):
    """By monkeypatch, because root opens every folder."""
    iterdir = Path.iterdir

    def closed(folder: Path):
        if folder.name == "deeper":
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return iterdir(folder)

    monkeypatch.setattr(Path, "iterdir", closed)
    with pytest.raises(SystemExit) as stop:
        predict.main([str(model), str(photos)])
    assert stop.value.code == 1
    out, err = capsys.readouterr()
    names = [line.split("\t")[0] for line in out.splitlines()]
    assert names == [str(photos / "a.jpg"), str(photos / "b.png")]
    assert "deeper (a folder that cannot be opened: Permission denied)\n" in err


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_table_has_the_rows_so_far(model, photos, tmp_path, number) -> None:
    pipe, table = photos / "z", tmp_path / "table.csv"
    pipe.mkdir()
    write_image(pipe / "last.jpg", 0, 9)
    code = (
        "import signal, small_runs, time, predict\n"
        "from office import console\n"
        "from office.data import images\n"
        "read = images.load_image\n"
        "def slow(path, bits=None):\n"
        "    if path.name == 'last.jpg': print('last', flush=True); time.sleep(60)\n"
        "    return read(path, bits)\n"
        "images.load_image = slow\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "console.run(predict.main)"
    )
    given = [sys.executable, "-c", code, model, photos, "--csv", table, "--batch-size", "1"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, PLACES))}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*map(str, given)], env=environment, **pipes) as process:
        assert process.stdout.readline() == "last\n"
        process.send_signal(number)
        err = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert f"stopped: {table} has the first 3 images" in err
    assert "Traceback" not in err
    with open(table, newline="") as file:
        assert len([*csv.DictReader(file)]) == 3


def test_an_error_keeps_the_rows_so_far(tmp_path):
    def rows():
        yield Path("a.jpg"), [("mug", 0.5)]
        raise MemoryError

    for table in (tmp_path / "a.csv", tmp_path / "b.csv"):
        with pytest.raises(MemoryError):
            predict.write_table(table, rows() if table.stem == "a" else iter_of_nothing(), 1)
    assert (tmp_path / "a.csv").read_text() == "path,category,confidence\na.jpg,mug,0.5\n"
    assert not (tmp_path / "b.csv").exists()  # an earlier one stays


def iter_of_nothing():
    raise MemoryError
    yield


@pytest.mark.parametrize("option", ["--csv", "--html", "--export"])
def test_a_missing_folder_fails_before_predicting(model, photos, tmp_path, capsys, option):
    out = tmp_path / "none" / "model.pt2"
    fault = f"cannot write {out}: it must be a file in a folder that exists"
    assert fault in failure([model, photos, option, out], capsys)
    assert capsys.readouterr().out == ""


def test_a_table_may_go_to_standard_output(model, photos, capsys):
    predict.main([str(model), str(photos / "a.jpg"), "--csv", "-"])
    (row,) = csv.DictReader(capsys.readouterr().out.splitlines())
    assert row["path"] == str(photos / "a.jpg")


def test_certain_predictions_can_be_ranked(tmp_path, capsys):
    """In float32, all of them are 1."""
    classifier = nn.Linear(16, 3)
    nn.init.zeros_(classifier.weight)
    classifier.bias.data = torch.tensor([22.0, 0, 0])
    model = save_model(tmp_path / "model.pt", classifier)
    write_image(tmp_path / "a.jpg", 0, 0)
    predict.main([str(model), str(tmp_path / "a.jpg")])
    confidence = float(capsys.readouterr().out.split("\t")[2])
    assert 1 - confidence == pytest.approx(2 * np.exp(-22), rel=1e-2)


def test_progress_goes_to_stderr_once_a_minute(model, photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(console, "EVERY", 0.0)
    predict.main([str(model), str(photos), "--csv", str(tmp_path / "t.csv")])
    out, err = capsys.readouterr()
    assert out == ""
    assert "predicting:  75%" in err
    predict.main([str(model), str(photos)])
    assert "predicting" not in capsys.readouterr().err


def test_grey_has_one_depth_for_all_images(model, tmp_path, capsys):
    for name, value in (("dark", 200), ("bright", 4000)):
        noise = np.random.default_rng(0).integers(0, value, (40, 40), dtype=np.uint16)
        noise[0, 0] = value
        Image.fromarray(noise).save(tmp_path / f"{name}.png")
    both = [str(model), str(tmp_path / "dark.png"), str(tmp_path / "bright.png")]
    predict.main(both)
    out, err = capsys.readouterr()
    assert err == "images: 2 images read as 12-bit grey (largest value 4,000)\n"
    dark = confidence(out)
    predict.main(both[:2])
    out, err = capsys.readouterr()
    assert err == "images: 1 image read as 8-bit grey (largest value 200)\n"
    assert confidence(out) != pytest.approx(dark, rel=1e-5)
    predict.main([*both[:2], "--grey-bits", "12"])
    assert confidence(capsys.readouterr().out) == pytest.approx(dark, rel=1e-5)


def confidence(out: str) -> float:
    """The first image's."""
    return float(out.splitlines()[0].split("\t")[2])
