"""A trained model as a file: model.pt is read as written, programs give its probabilities."""

import dataclasses
import json
import sys

import pytest
import small_runs
import torch
from office import files
from office.console import UserError
from office.data.images import Preprocessing
from office.models import saved
from office.models.backbones import build_extractor
from torch import nn

GONE = object()
NAMES = ["bike", "=mouse", "mug"]
PREPROCESSING = Preprocessing(36, 32, (0.1, 0.2, 0.3), (1.0, 2.0, 3.0), "bicubic", True)


@pytest.fixture
def backbone() -> str:
    return small_runs.RECIPE.backbone


@pytest.fixture
def model(backbone: str) -> saved.Model:
    torch.manual_seed(0)
    extractor = build_extractor(backbone, "none", 8)
    parts = (extractor, nn.Linear(8, 3), NAMES, PREPROCESSING)
    return saved.Model(backbone, 8, *parts)


def probabilities(model: saved.Model, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model.classifier(model.extractor.eval()(images)).softmax(1)


# model.pt


def test_a_model_is_read_as_it_was_written_and_ready_to_predict(tmp_path, model):
    model.extractor(torch.randn(4, 3, 32, 32))  # moves the running statistics
    saved.write_model(tmp_path, model)
    read = saved.read_model(tmp_path / "model.pt")
    names = ("backbone", "bottleneck", "categories", "preprocessing", "frozen")
    assert [getattr(read, name) for name in names] == [getattr(model, name) for name in names]
    assert not any(m.training for part in (read.extractor, read.classifier) for m in part.modules())
    x = torch.randn(4, 3, 32, 32)
    assert torch.equal(probabilities(read, x), probabilities(model, x))


def test_a_model_of_frozen_features_has_no_backbone(tmp_path):
    extractor = build_extractor("resnet50", "none", 8, frozen=16)
    parts = (extractor, nn.Linear(8, 3), NAMES, PREPROCESSING)
    saved.write_model(tmp_path, saved.Model("resnet50", 8, *parts, frozen=16))
    read = saved.read_model(tmp_path / "model.pt")
    assert read.frozen == 16
    assert read.extractor(torch.randn(2, 16)).shape == (2, 8)


def test_the_file_has_only_tensors_and_plain_values_by_these_names(tmp_path, model):
    saved.write_model(tmp_path, model)
    content = files.load(tmp_path / "model.pt")
    assert content["preprocessing"] == dataclasses.asdict(PREPROCESSING)
    assert content["extractor"].keys() == model.extractor.state_dict().keys()
    assert content["classifier"].keys() == {"weight", "bias"}
    others = {"backbone": "tiny", "bottleneck": 8, "categories": NAMES}
    assert others | {"frozen": None} == {
        k: v for k, v in content.items() if k not in ("preprocessing", "extractor", "classifier")
    }


def test_a_file_from_before_frozen_features_is_read(tmp_path, model):
    saved.write_model(tmp_path, model)
    path = tmp_path / "model.pt"
    content = files.load(path)
    del content["frozen"]
    torch.save(content, path)
    assert saved.read_model(path).frozen is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, GONE) for name in ("backbone", "bottleneck", "extractor", "classifier")),
        *((name, GONE) for name in ("categories", "preprocessing")),
        ("bottleneck", 9),
        ("extractor", {}),
        ("classifier", {"weight": torch.zeros(3, 9), "bias": torch.zeros(3)}),
        ("classifier", torch.zeros(3, 8)),
        ("categories", ["bike", "mouse"]),
        ("categories", None),
        ("preprocessing", {"side": 3}),
    ],
)
def test_a_broken_model_is_refused(tmp_path, model, name, value):
    saved.write_model(tmp_path, model)
    path = tmp_path / "model.pt"
    content = torch.load(path, weights_only=True) | {name: value}
    torch.save({key: value for key, value in content.items() if value is not GONE}, path)
    with pytest.raises(UserError, match=f"{path} is not a model.pt that train_office.py"):
        saved.read_model(path)


# Programs


@pytest.mark.parametrize(
    "backbone", ["tiny", pytest.param("shufflenet_v2_x0_5", marks=pytest.mark.slow)]
)
@pytest.mark.filterwarnings("ignore")  # torch.export's own
def test_the_exported_program_gives_the_models_probabilities(tmp_path, model):
    path = tmp_path / "model.pt2"
    assert saved.export(model, path).startswith(f"{path}: 3 categories, within ")
    extra = {"about.json": ""}
    program = torch.export.load(path, extra_files=extra).module()
    about = json.loads(extra["about.json"])
    assert about["categories"] == NAMES
    assert about["preprocessing"] == json.loads(json.dumps(dataclasses.asdict(PREPROCESSING)))
    for n in (1, 2, 7):
        x = torch.randn(n, 3, 32, 32)
        expected = probabilities(model, x)
        torch.testing.assert_close(program(x), expected, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_onnx_gives_the_models_probabilities(tmp_path, model):
    onnx = pytest.importorskip("onnx", reason="onnx is not in the extras")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not in the extras")
    pytest.importorskip("onnxscript", reason="onnxscript is not in the extras")
    path = tmp_path / "model.onnx"
    saved.export(model, path)
    (about,) = [entry.value for entry in onnx.load(path).metadata_props if entry.key == "about"]
    assert json.loads(about)["categories"] == NAMES
    x = torch.randn(5, 3, 32, 32)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (exported,) = session.run(None, {"images": x.numpy()})
    expected = probabilities(model, x)
    torch.testing.assert_close(torch.from_numpy(exported), expected, rtol=0, atol=1e-5)


def test_without_onnx_the_missing_package_is_named(tmp_path, model, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match="--export to ONNX needs more packages: pip install onnx"):
        saved.export(model, tmp_path / "model.onnx")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("error", [0.5, torch.nan])
def test_a_program_with_other_probabilities_is_refused(tmp_path, model, monkeypatch, error):
    run = saved._run_pt2

    def wrong_for_several(path, images):
        return run(path, images) + (error if len(images) > 1 else 0)

    monkeypatch.setattr(saved, "_run_pt2", wrong_for_several)
    with pytest.raises(UserError, match=r"model\.pt2 is not written: its probabilities"):
        saved.export(model, tmp_path / "model.pt2")


@pytest.mark.filterwarnings("ignore")
def test_files_that_cannot_be_written_are_named(tmp_path, model):
    with pytest.raises(UserError, match=r"ends in \.pt2 or \.onnx, got .*model\.bin"):
        saved.export(model, tmp_path / "model.bin")
    with pytest.raises(UserError, match=r"cannot write .*none/model\.pt2"):
        saved.export(model, tmp_path / "none/model.pt2")
