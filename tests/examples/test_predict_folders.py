"""predict.py takes folders and goes on after an image that it cannot read."""

from pathlib import Path

import predict
import pytest
import torch
from conftest import write_image
from office.data.images import Preprocessing
from office.models import backbones
from office.results import outputs
from torch import nn


@pytest.fixture
def model(tmp_path) -> Path:
    torch.manual_seed(0)
    extractor = backbones.build_extractor("shufflenet_v2_x0_5", "none")
    classifier = nn.Linear(extractor.num_features, 2)
    parts = (extractor, classifier, ["bike", "café"], Preprocessing(36, 32))
    outputs.write_model(tmp_path, outputs.Model("shufflenet_v2_x0_5", None, *parts))
    return tmp_path / "model.pt"


@pytest.fixture
def photos(tmp_path) -> Path:
    for i, name in enumerate(("a.jpg", "b.png", "deeper/c.jpg", "deeper/still/d.jpg")):
        write_image(tmp_path / "photos" / name, 0, i)
    (tmp_path / "photos/notes.txt").write_text("no image")
    return tmp_path / "photos"


def predicted(capsys: pytest.CaptureFixture[str], *arguments: Path) -> list[str]:
    """The paths that are predicted, relative to the last argument."""
    predict.main([str(argument) for argument in arguments])
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert all(len(line) == 3 and 0.5 <= float(line[2]) <= 1 for line in lines)
    return [line[0] for line in lines]


def test_a_folder_is_all_its_images(model, photos, capsys):
    names = ("a.jpg", "b.png", "deeper/c.jpg", "deeper/still/d.jpg")
    assert predicted(capsys, model, photos) == [str(photos / name) for name in names]
    one, folder = photos / "b.png", photos / "deeper/still"
    assert predicted(capsys, model, one, folder) == [str(one), str(folder / "d.jpg")]


def test_a_folder_that_holds_itself_is_read_once(model, photos, capsys):
    (photos / "deeper/round").symlink_to(photos)
    assert len(predicted(capsys, model, photos)) == 4


def test_the_rest_is_predicted_and_the_end_is_1(model, photos, capsys):
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
def test_one_fault_is_enough_for_1(model, photos, fault):
    (photos / "broken.jpg").write_bytes(b"broken")
    (photos / "empty").mkdir()
    with pytest.raises(SystemExit) as stop:
        predict.main([str(model), str(photos / "a.jpg"), str(photos / fault)])
    assert stop.value.code == 1
