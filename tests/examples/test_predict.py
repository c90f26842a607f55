from collections.abc import Callable
from pathlib import Path

import numpy as np
import predict
import pytest
import torch
import torchvision
from PIL import Image
from small_runs import features
from torch import nn

CATEGORIES = ["bike", "mouse", "mug"]


def save_model(path: Path, classifier: nn.Linear) -> Path:
    """A small network in the format of a run's model.pt, its backbone random."""
    torch.manual_seed(0)
    backbone = torchvision.models.resnet18(weights=None)
    backbone.fc = nn.Identity()
    model = {
        "backbone": "resnet18",
        "bottleneck": None,
        "extractor": {f"backbone.{name}": v for name, v in backbone.state_dict().items()},
        "classifier": classifier.state_dict(),
        "categories": CATEGORIES,
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


def failure(arguments: list[Path], capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
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
