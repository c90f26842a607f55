"""extract_features.py on small images: what the features are of, stops, and mistakes."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import extract_features
import numpy as np
import pytest
import torch
import torchvision
from office import options
from office.console import UserError
from office.data import features, images
from office.data.features import Extraction
from office.data.images import Preprocessing
from office.data.tasks import Domain, Task
from office.models import backbones, saved
from office.options import Recipe
from office.training import extraction
from PIL import Image
from small_runs import PREPROCESSING, RECIPE, RUNTIME
from torch import Tensor, nn

Call = Callable[..., Path]

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*published"),
    pytest.mark.usefixtures("one_thread"),
]


@pytest.fixture
def call(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """extract_features.py on ``root`` with a small network and small images."""
    monkeypatch.setattr(backbones, "preprocessing", lambda backbone: PREPROCESSING)

    office31 = ("--dataset", "office31", "--root", str(root))

    def run(*more: str, out: str = "features", data: tuple[str, ...] = office31) -> Path:
        small = ["--backbone", "shufflenet_v2_x0_5", "--weights", "none", "--device", "cpu"]
        extract_features.main([*data, *small, "--out", str(tmp_path / out), *more])
        return tmp_path / out / data[1]

    return run


def fails(call: Call, *args: str) -> str:
    """The error that ends the script."""
    with pytest.raises(UserError) as stop:
        call(*args)
    return str(stop.value)


# What the features are


def by_hand(path: Path) -> Tensor:
    """The network's input of a 40 x 32 image and its mirror image: 36 pixels, the middle 32."""
    with Image.open(path) as image:
        resized = image.resize((45, 36), Image.Resampling.BILINEAR)
    pixels = np.asarray(resized)[2:34, 6:38] / 255
    pixels = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return torch.from_numpy(np.stack([pixels, pixels[:, ::-1]])).float().permute(0, 3, 1, 2)


def test_features_are_the_networks_of_crop_and_mirror_image(
    call: Call, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(3)
    network = torchvision.models.shufflenet_v2_x0_5(weights=None)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    network.fc = nn.Identity()
    network.eval()
    folder = call("--weights", str(tmp_path / "weights.pt"), "--views", "2", "--batch-size", "5")
    assert "amazon: 9 x 2 x 1,024 features in" in capsys.readouterr().out
    for domain in ("amazon", "webcam"):
        values = np.load(folder / f"{domain}.npy")
        description = json.loads((folder / f"{domain}.json").read_text())
        assert (values.dtype, values.shape) == (np.float16, (9, 2, 1024))
        paths = [root / domain / path for path in description["paths"]]
        assert sorted(paths) == sorted((root / domain).rglob("*.jpg"))
        for path, label, rows in zip(paths, description["labels"], values, strict=True):
            assert description["categories"][label] == path.parent.name
            with torch.no_grad():
                expected = network(by_hand(path)).numpy()
            np.testing.assert_allclose(rows, expected, atol=2e-3, rtol=2e-3)
        assert description["weights"] == "weights.pt"
        assert description["backbone"] == "shufflenet_v2_x0_5"
        assert description["precision"] == "fp32"


def windows(path: Path) -> Tensor:
    """Every window of 32 x 32 pixels of a resized image, as it is and mirrored."""
    image = images.resized(path, PREPROCESSING)
    every = image.unfold(1, 32, 1).unfold(2, 32, 1).permute(1, 2, 0, 3, 4).flatten(0, 1)
    return torch.cat([every, every.flip(-1)])


def unlabelled(root: Path) -> Task:
    """amazon and webcam, nine images each, without labels."""
    amazon, webcam = (
        Domain(name, sorted((root / name).rglob("*.jpg")), None) for name in ("amazon", "webcam")
    )
    return Task("A2W", amazon, webcam, [])


@pytest.mark.parametrize("views", [1, 2, 5])
def test_further_views_are_random_crops_of_the_same_image(
    root: Path, tmp_path: Path, views: int
) -> None:
    task = unlabelled(root)
    plain = Preprocessing(36, 32, mean=(0.0,) * 3, std=(1 / 255,) * 3)  # pixels, exact in float16
    recipe = Recipe("office31", weights="none", batch_size=7, preprocessing=plain)
    extracted, _ = extraction.describe([task], recipe, views)
    batches = [*extraction.batches(extracted, nn.Flatten(), recipe, RUNTIME, {})]
    values = np.concatenate(batches)
    assert values.dtype == np.float16
    assert values.shape == (9, views, 3 * 32 * 32)
    assert len(batches[0]) == max(1, 7 // views)
    mirrored = []
    crops = torch.from_numpy(values).view(-1, views, 3, 32, 32)
    for path, rows in zip(task.source.paths, crops, strict=True):
        assert torch.equal(rows[0], images.resized(path, PREPROCESSING)[:, 2:34, 6:38].half())
        if views > 1:
            assert torch.equal(rows[1], rows[0].flip(-1))
        every = windows(path).half()
        for row in rows[2:]:
            (at,) = (every == row).flatten(1).all(1).nonzero()
            mirrored.append(at.item() >= len(every) // 2)
    if views > 2:
        assert len(mirrored) == 9 * (views - 2)
        assert 0.2 < np.mean(mirrored) < 0.8


def test_vision_transformers_of_timm_are_extracted(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    folder = call("--backbone", "timm:test_vit")
    (stored, _) = features.read(folder).values()
    assert stored.features.shape == (9, 1, 64)
    assert stored.extraction.preprocessing == backbones.preprocessing("timm:test_vit")
    assert stored.extraction.preprocessing.crop == 160


def test_folders_may_lack_labels_and_categories(
    call: Call, root: Path, tmp_path: Path, tree: Callable[..., Path]
) -> None:
    loose = tmp_path / "loose"
    loose.mkdir()
    for i, path in enumerate(sorted((root / "webcam").rglob("*.jpg"))):
        path.rename(loose / f"{i}.jpg")
    data = ("--dataset", "folders", "--source", str(root / "amazon"), "--target", str(loose))
    stored = features.read(call(data=data))
    assert stored["loose"].extraction.labels is None
    assert stored["loose"].extraction.categories == []  # they are the source's
    assert len(stored["loose"].features) == 9
    domains = ("amazon", "webcam", "phone")
    small = tree(domains=domains, categories=("mug",), name="small") / "phone"
    data = ("--dataset", "folders", "--source", str(root / "amazon"), "--target", str(small))
    assert features.read(call(data=data, out="p"))["phone"].extraction.labels == [2] * 4


def test_the_network_before_the_features_is_put_into_model_pt(root: Path, tmp_path: Path) -> None:
    """Random weights too are those that the features came from."""
    task = unlabelled(root)
    recipe = dataclasses.replace(RECIPE, backbone="resnet18", bottleneck=8)
    runtime = dataclasses.replace(RUNTIME, out=tmp_path)
    extraction.extract([task], recipe, runtime, 1)
    stored = features.read(tmp_path / "office31")
    frozen = extraction.frozen(stored)
    torch.manual_seed(3)
    trained = backbones.build_extractor("resnet18", "none", 8, frozen.width).eval()
    classifier = nn.Linear(8, 3)
    parts = (trained, classifier, ["bike", "mouse", "mug"], PREPROCESSING, frozen.width)
    saved.write_model(tmp_path, saved.Model("resnet18", 8, *parts))
    extraction.put_backbone(tmp_path, dataclasses.replace(recipe, frozen=frozen))
    model = saved.read_model(tmp_path / "model.pt")
    assert model.frozen is None
    values = torch.from_numpy(stored["amazon"].features).flatten(0, 1).float()
    assert values.std() > 0.1
    with torch.no_grad():
        answers = model.classifier(
            model.extractor(torch.cat([by_hand(p)[:1] for p in task.source.paths]))
        )
        torch.testing.assert_close(answers, classifier(trained(values)), atol=5e-3, rtol=5e-3)


# Stopped and begun again


def test_stopped_the_same_command_keeps_finished_domains(
    call: Call, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = call("--views", "3", "--batch-size", "6", out="whole")
    write = features.write

    def stopping(folder: Path, extraction: Extraction, values: np.ndarray) -> None:
        if extraction.domain == "webcam":  # the second domain
            raise KeyboardInterrupt
        write(folder, extraction, values)

    with monkeypatch.context() as patch:
        patch.setattr(features, "write", stopping)
        with pytest.raises(KeyboardInterrupt):
            call("--views", "3", "--batch-size", "6")
    capsys.readouterr()
    folder = call("--views", "3", "--batch-size", "6")
    assert "amazon: already extracted" in capsys.readouterr().out
    for name in ("amazon.npy", "webcam.npy", "amazon.json", "webcam.json"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    assert len(np.unique(np.load(folder / "webcam.npy")[:, 2], axis=0)) == 9


def test_extracted_images_are_not_decoded_again(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    call()
    monkeypatch.setattr(images, "load_image", lambda *_: pytest.fail("an image was read"))
    call()
    message = fails(call, "--views", "2")
    assert "amazon.json belongs to another extraction (views 1 there, 2 here)" in message
    assert "\n" not in message


def test_other_weights_in_a_file_of_the_same_name_are_another_extraction(
    call: Call, tmp_path: Path
) -> None:
    for seed in range(2):
        torch.manual_seed(seed)
        network = torchvision.models.shufflenet_v2_x0_5(weights=None)
        torch.save(network.state_dict(), tmp_path / "weights.pt")
        if not seed:
            call("--weights", str(tmp_path / "weights.pt"))
    assert "weights_content" in fails(call, "--weights", str(tmp_path / "weights.pt"))


# Mistakes


def test_every_unreadable_image_is_named_before_the_network_sees_one(
    call: Call, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [root / "amazon/bike/1.jpg", root / "webcam/mug/0.jpg"]
    for path, size in zip(broken, (200, 300), strict=True):
        path.write_bytes(path.read_bytes()[:size])
    monkeypatch.setattr(extraction, "batches", lambda *_: pytest.fail("features were made"))
    message = fails(call)
    assert len(message.splitlines()) == 2
    for path in broken:
        assert f"cannot read the image {path}" in message


def test_copies_are_reported_once(call: Call, root: Path) -> None:
    shutil.copy(root / "amazon/mug/0.jpg", root / "webcam/mug/9.jpg")
    with pytest.warns(UserWarning, match="in both amazon and webcam") as caught:
        call("--task", "A2W")
    assert len([warning for warning in caught if "in both" in str(warning.message)]) == 1


def test_domains_are_those_of_the_selected_or_available_tasks(
    call: Call, tree: Callable[..., Path]
) -> None:
    tree(domains=("amazon", "webcam", "dslr"), images=3)
    for folder, names in (
        (call("--task", "D2W", out="two"), ["dslr", "webcam"]),
        (call(out="all"), ["amazon", "dslr", "webcam"]),
    ):
        assert sorted(path.stem for path in folder.glob("*.npy")) == names


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "--dataset office31-partial --root .",
            "extract the features of that benchmark, and pass --dataset office31-p",
        ),
        ("--dataset office31 --views 0", "--views"),
        ("--dataset office31 --source a", "--source needs --dataset folders"),
        ("--dataset office31 --lr 1", "unrecognized arguments: --lr"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    line: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        extract_features.main(line.split())
    assert message in capsys.readouterr().err


def test_the_help_shows_the_scripts_own_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        extract_features.main(["--help"])
    shown = capsys.readouterr().out
    assert "usage: extract_features.py" in shown
    assert "--views N" in shown
    assert "--seeds" not in shown
    assert "--seeds" in options.build_parser().format_help()
