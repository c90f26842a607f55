"""extract_features.py on small images: what the features are of, stops, and mistakes."""

import json
import re
import shutil

import extract_features
import numpy as np
import pytest
import torch
import torchvision
from office import command_line
from office.data import images
from office.data.images import Preprocessing
from office.models import backbones
from office.options import Recipe
from office.training import extraction, features
from office.training.features import Store
from PIL import Image
from small_runs import PREPROCESSING, RUNTIME
from torch import nn

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*published"),
    pytest.mark.usefixtures("one_thread"),
]


@pytest.fixture
def call(root, tmp_path, monkeypatch):
    """extract_features.py on ``root`` with a small network and small images."""
    monkeypatch.setattr(backbones, "preprocessing", lambda backbone: PREPROCESSING)

    def run(*more, out="features", data=("--dataset", "office31", "--root", str(root))):
        small = ["--backbone", "shufflenet_v2_x0_5", "--weights", "none", "--device", "cpu"]
        extract_features.main([*data, *small, "--out", str(tmp_path / out), *more])
        return tmp_path / out / data[1]

    return run


def fails(call, *args, **kwargs):
    """What the script exits with."""
    with pytest.raises(SystemExit) as stop:
        call(*args, **kwargs)
    return str(stop.value.code)


# What the features are


def by_hand(path):
    """The network's input of a 40 x 32 image and its mirror image: 36 pixels, the middle 32."""
    image = Image.open(path).resize((45, 36), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)[2:34, 6:38] / 255
    pixels = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return torch.from_numpy(np.stack([pixels, pixels[:, ::-1]])).float().permute(0, 3, 1, 2)


def test_features_are_the_networks_of_crop_and_mirror_image(call, root, tmp_path, capsys):
    torch.manual_seed(3)
    network = torchvision.models.shufflenet_v2_x0_5(weights=None)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    network.fc = nn.Identity()
    network.eval()
    folder = call("--weights", str(tmp_path / "weights.pt"), "--views", "2", "--batch-size", "5")
    assert "amazon: 9 x 2 x 1,024 features in" in capsys.readouterr().out
    for domain in ("amazon", "webcam"):
        found, told = (
            np.load(folder / f"{domain}.npy"),
            json.loads((folder / f"{domain}.json").read_text()),
        )
        assert (found.dtype, found.shape) == (np.float16, (9, 2, 1024))
        paths = [root / domain / path for path in told["paths"]]
        assert sorted(paths) == sorted((root / domain).rglob("*.jpg"))
        for path, label, rows in zip(paths, told["labels"], found, strict=True):
            assert told["categories"][label] == path.parent.name
            with torch.no_grad():
                expected = network(by_hand(path)).numpy()
            np.testing.assert_allclose(rows, expected, atol=2e-3, rtol=2e-3)
        assert told["weights"] == "weights.pt"
        assert (told["backbone"], told["precision"]) == ("shufflenet_v2_x0_5", "fp32")


def windows(path):
    """Every window of 32 x 32 pixels of a resized image, as it is and mirrored."""
    image = images.resized(path, PREPROCESSING)
    every = image.unfold(1, 32, 1).unfold(2, 32, 1).permute(1, 2, 0, 3, 4).flatten(0, 1)
    return torch.cat([every, every.flip(-1)])


@pytest.mark.parametrize("views", [1, 2, 5])
def test_further_views_are_random_crops_of_the_same_image(root, views):
    paths = sorted(root.rglob("*.jpg"))
    plain = Preprocessing(36, 32, mean=(0.0,) * 3, std=(1 / 255,) * 3)  # pixels, exact in float16
    recipe = Recipe("office31", batch_size=7, preprocessing=plain)
    call = (nn.Flatten(), paths, views, recipe, RUNTIME, {})
    batches = [*extraction.extract(*call)]
    found = np.concatenate(batches)
    assert (found.dtype, found.shape) == (np.float16, (18, views, 3 * 32 * 32))
    assert len(batches[0]) == max(1, 7 // views)
    mirrored = []
    for path, rows in zip(paths, torch.from_numpy(found).unflatten(-1, (3, 32, 32)), strict=True):
        assert torch.equal(rows[0], images.resized(path, PREPROCESSING)[:, 2:34, 6:38].half())
        if views > 1:
            assert torch.equal(rows[1], rows[0].flip(-1))
        every = windows(path).half()
        for row in rows[2:]:
            (at,) = (every == row).flatten(1).all(1).nonzero()
            mirrored.append(at.item() >= len(every) // 2)
    if views > 2:
        assert len(found[:, 2:].reshape(-1, 3072)) == len(mirrored)
        assert 0.2 < np.mean(mirrored) < 0.8
    # The crops of an image follow from its number, wherever an extraction goes on.
    again = extraction.extract(nn.Flatten(), paths[11:], views, recipe, RUNTIME, {}, first=11)
    assert np.array_equal(np.concatenate([*again]), found[11:])


def test_vision_transformers_of_timm_are_extracted(call, monkeypatch):
    monkeypatch.undo()
    folder = call("--backbone", "timm:test_vit")
    (found, _) = features.read(folder).values()
    assert found.features.shape == (9, 1, 64)
    assert found.extraction.preprocessing == backbones.preprocessing("timm:test_vit")
    assert found.extraction.preprocessing.crop == 160


def test_folders_may_lack_labels_and_categories(call, root, tmp_path, tree):
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


# Stopped, and gone on with


def test_stopped_anywhere_the_same_command_goes_on(call, monkeypatch, capsys):
    whole = call("--views", "3", "--batch-size", "6", out="whole")
    add, calls = Store.add, []

    def stopping(store, rows):
        calls.append(len(rows))
        if len(calls) == 7:  # in webcam, the second domain
            raise KeyboardInterrupt
        add(store, rows)

    monkeypatch.setattr(Store, "add", stopping)
    assert fails(call, "--views", "3", "--batch-size", "6") == "130"
    assert "webcam: stopped after 2 of 9 images" in capsys.readouterr().out
    monkeypatch.setattr(Store, "add", add)
    folder = call("--views", "3", "--batch-size", "6")
    assert "amazon: already extracted" in capsys.readouterr().out
    for name in ("amazon.npy", "webcam.npy", "amazon.json", "webcam.json"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    assert len(np.unique(np.load(folder / "webcam.npy")[:, 2], axis=0)) == 9


def test_without_a_terminal_lines_show_the_time_left(call, monkeypatch, capsys):
    monkeypatch.setattr(extract_features, "EVERY", 0.0)
    call("--batch-size", "6")
    out = capsys.readouterr().out
    assert re.search(r"^webcam: 6 of 9 images, about \d+ s left$", out, re.M)
    monkeypatch.setattr(extract_features, "EVERY", 60.0)
    call("--batch-size", "6", out="other")
    assert "left" not in capsys.readouterr().out


def test_nothing_is_decoded_again_that_is_extracted(call, monkeypatch):
    call()
    monkeypatch.setattr(images, "resized", lambda *args: pytest.fail("an image was read"))
    call()


def test_another_extraction_is_told_before_anything_is_read(call, monkeypatch):
    call()
    monkeypatch.setattr(images, "resized", lambda *args: pytest.fail("an image was read"))
    told = fails(call, "--views", "2")
    assert told.startswith("extract_features.py: error: ")
    assert "amazon.json belongs to another extraction (views 1 there, 2 here)" in told
    assert "\n" not in told


def test_other_weights_in_a_file_of_the_same_name_are_another_extraction(call, tmp_path):
    for seed in range(2):
        torch.manual_seed(seed)
        network = torchvision.models.shufflenet_v2_x0_5(weights=None)
        torch.save(network.state_dict(), tmp_path / "weights.pt")
        if not seed:
            call("--weights", str(tmp_path / "weights.pt"))
    assert "weights_content" in fails(call, "--weights", str(tmp_path / "weights.pt"))


# Mistakes


def test_every_unreadable_image_is_named_before_the_network_sees_one(call, root, monkeypatch):
    broken = [root / "amazon/bike/1.jpg", root / "webcam/mug/0.jpg"]
    for path, size in zip(broken, (200, 300), strict=True):
        path.write_bytes(path.read_bytes()[:size])
    monkeypatch.setattr(Store, "add", lambda *args: pytest.fail("features were written"))
    told = fails(call)
    assert len(told.splitlines()) == 2
    for path in broken:
        assert f"cannot read the image {path}" in told


def test_copies_are_reported_once(call, root):
    shutil.copy(root / "amazon/mug/0.jpg", root / "webcam/mug/9.jpg")
    with pytest.warns(UserWarning, match="in both amazon and webcam") as caught:
        call("--task", "A2W")
    assert len([warning for warning in caught if "in both" in str(warning.message)]) == 1


def test_the_tasks_that_are_wanted_say_which_domains(call, tree):
    tree(domains=("amazon", "webcam", "dslr"), images=3)
    assert {path.stem for path in call("--task", "D2W", out="two").glob("*.npy")} == {
        "dslr",
        "webcam",
    }
    assert {path.stem for path in call(out="all").glob("*.npy")} == {"amazon", "dslr", "webcam"}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("--dataset office31-partial --root .", "extract that one, and pass --dataset office31-p"),
        ("--dataset office31 --views 0", "--views"),
        ("--dataset office31 --source a", "--source and --target belong to --dataset folders"),
        ("--dataset office31 --lr 1", "unrecognized arguments: --lr"),
    ],
)
def test_options_that_do_not_fit_are_refused(line, told, capsys):
    with pytest.raises(SystemExit):
        extract_features.main(line.split())
    assert told in capsys.readouterr().err


def test_the_help_shows_the_scripts_own_options(capsys):
    with pytest.raises(SystemExit, match="0"):
        extract_features.main(["--help"])
    shown = capsys.readouterr().out
    assert "usage: extract_features.py" in shown
    assert "--views N" in shown
    assert "--seeds" not in shown
    assert "--seeds" in command_line.build_parser().format_help()
