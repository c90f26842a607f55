from collections.abc import Callable
from pathlib import Path

import numpy as np
import predict
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

import symloss

CATEGORIES = ["bike", "mouse", "mug"]


def save_model(path: Path, reported: str, head: nn.Module, bottleneck: int | None = None) -> Path:
    """A small network in the format of a run's model.pt, its backbone random."""
    torch.manual_seed(0)
    backbone = torchvision.models.resnet18(weights=None)
    backbone.fc = nn.Identity()
    weights = {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
    model = {
        "backbone_name": "resnet18",
        "num_classes": 3,
        "bottleneck": bottleneck,
        "extractor": weights,
        "head": head.state_dict(),
        "categories": CATEGORIES,
        "reported": reported,
        "preprocessing": {
            "resize": 256,
            "crop": 224,
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
        },
    }
    torch.save(model, path)
    return path


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


@pytest.mark.parametrize("reported", ["target", "source", "single"])
def test_the_reported_classifier_predicts(
    tree: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    reported: str,
) -> None:
    images = sorted(tree(images=1, size=(40, 40)).rglob("*.jpg"))[:2]
    torch.manual_seed(1)
    head = nn.Linear(512, 3) if reported == "single" else symloss.SymmetricHead(512, 3)
    path = save_model(tmp_path / "model.pt", reported, head)
    predict.main([str(path), *map(str, images)])
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == [str(image) for image in images]
    for image, (_, category, confidence) in zip(images, lines, strict=True):
        logits = head(reference(image)).detach()[0].double().numpy()
        logits = {"single": logits, "source": logits[:3], "target": logits[-3:]}[reported]
        shares = np.exp(logits) / np.exp(logits).sum()
        assert category == CATEGORIES[shares.argmax()]
        assert float(confidence) == pytest.approx(shares.max(), abs=0.001)


def failure(arguments: list[Path], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as exit_:
        predict.main([str(argument) for argument in arguments])
    assert exit_.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_bad_input_is_one_line(
    tree: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = next(tree(images=1).rglob("*.jpg"))
    model = save_model(tmp_path / "model.pt", "target", symloss.SymmetricHead(512, 3))
    assert str(tmp_path / "none.pt") in failure([tmp_path / "none.pt", image], capsys)
    assert f"{tmp_path}/none.jpg" in failure([model, tmp_path / "none.jpg"], capsys)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(image.read_bytes()[:300])
    assert f"cannot read the image {broken}" in failure([model, broken], capsys)
    cut = tmp_path / "cut.pt"
    cut.write_bytes(model.read_bytes()[:100_000])
    assert str(cut) in failure([cut, image], capsys)
    foreign = tmp_path / "foreign.pt"
    torch.save({"weights": torch.zeros(3)}, foreign)
    assert str(foreign) in failure([foreign, image], capsys)
