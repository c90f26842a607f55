"""A finished run is told by what it was trained on."""

import csv
import os
import re
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import train_office
from office.data import hashes
from office.data.tasks import load_task
from office.training.batches import ImageBatches
from small_runs import features, result, tiny

pytestmark = pytest.mark.filterwarnings("ignore:.*published")
QUICK = {"max_steps": 2, "seeds": (0,)}


def refusal(office: Callable[..., Path], **changes) -> str:
    with pytest.raises(SystemExit) as stop:
        office(**QUICK | changes)
    assert "\n" not in stop.value.code
    assert "belongs to another run" in stop.value.code
    return stop.value.code


def swap(left: Path, right: Path) -> None:
    """Exchange two folders or files, as ``mv`` does: sizes and times stay."""
    aside = left.with_name("aside")
    left.rename(aside)
    right.rename(left)
    aside.rename(right)


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def forbid() -> None:
        monkeypatch.setattr(ImageBatches, "__init__", lambda *_: pytest.fail("trained again"))

    return forbid


@pytest.mark.parametrize("domain", ["amazon", "webcam"])
def test_corrected_labels_are_another_run(office, root, domain):
    office(**QUICK)
    swap(root / domain / "bike", root / domain / "mug")
    assert "images [9, 9, " in refusal(office)


def test_another_image_under_an_old_name_is_another_run(office, root):
    office(**QUICK)
    shutil.copy(root / "amazon/mug/1.jpg", root / "amazon/mug/2.jpg")
    message = refusal(office)
    assert re.search(r"images \[9, 9, \d+\] there, as inputs.csv beside it lists them, ", message)


def interrupt(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("resume", [False, True])
def test_a_checkpoint_of_other_images_is_not_resumed(office, root, monkeypatch, resume):
    with monkeypatch.context() as patch:  # ends after the last checkpoint, before the result
        patch.setattr(train_office, "predict", interrupt)
        with pytest.raises(SystemExit):
            office(**QUICK)
    (root / "webcam/mug/0.jpg").rename(root / "webcam/mug/9.jpg")
    assert "checkpoint.pt belongs to another run (images" in refusal(office, resume=resume)


def test_a_copy_elsewhere_is_the_same_run(office, root, tmp_path, capsys, no_training):
    office(**QUICK)
    copy = tmp_path / "elsewhere" / "deeper"
    shutil.copytree(root, copy)
    archive = tmp_path / "as in the archive"
    for domain in ("amazon", "webcam"):
        shutil.copytree(root / domain, archive / domain / "images")
    no_training()
    for place in (copy, archive):
        office(**QUICK, root=place)
        assert "already finished" in capsys.readouterr().out


def test_a_copy_on_a_system_with_other_unicode_names_is_the_same_run(tree):
    names = [unicodedata.normalize(form, "café.jpg") for form in ("NFC", "NFD")]
    found = []
    for name in names:
        root = tree(images=1, name=f"data{len(name)}")
        (root / "amazon/bike/0.jpg").rename(root / "amazon/bike" / name)
        found.append(listing(root))
    assert names[0] != names[1]
    assert found[0] == found[1]


def listing(root: Path) -> str:
    return hashes.listings([load_task("office31", root, "A2W")], None)["A2W"]


def test_labels_and_order_of_a_list_are_seen(tree):
    root = tree("list")
    path = root / "list/amazonList.txt"
    before, lines = listing(root), path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0].replace(" 0", " 2"), *lines[1:]]))
    assert listing(root) != before
    path.write_text("".join([lines[1], lines[0], *lines[2:]]))
    assert listing(root) != before


def test_other_weights_under_an_old_name_are_another_run(office, tmp_path):
    path = tmp_path / "weights.pt"
    for seed in (0, 1):
        torch.manual_seed(seed)
        torch.save(tiny().state_dict(), path)
        if seed == 0:
            office(**QUICK, weights=str(path))
    assert "(images " in refusal(office, weights=str(path))


def test_inputs_csv_names_the_rows_of_the_features(office):
    folder = office(**QUICK)
    with open(folder / "inputs.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    saved, categories = features(folder), result(folder).categories
    assert [row["role"] for row in rows] == [["source", "target"][d] for d in saved.domain]
    assert [row["label"] for row in rows] == [categories[i] for i in saved.label]
    assert all(row["path"].startswith(f"{row['label']}/") for row in rows)


def test_equal_sizes_and_times_do_not_hide_a_change(tmp_path):
    path = tmp_path / "a"
    hashed = []
    for content in (b"a", b"b", b"a"):
        path.write_bytes(content)
        os.utime(path, (1e9, 1e9))
        hashed.append(hashes.hash_files([path, path])[path])
    assert hashed[0] == hashed[2] != hashed[1]
    assert hashed[0].bytes == 1
    assert hashes.hash_files([tmp_path / "none"]) == {tmp_path / "none": hashes.Content(0, "")}


def test_unreadable_images_are_named_together(office, root):
    (root / "amazon/bike/0.jpg").unlink()
    (root / "amazon/bike/0.jpg").symlink_to(root / "nowhere.jpg")
    (root / "webcam/mug/1.jpg").write_bytes(b"broken")
    with pytest.raises(SystemExit) as stop:
        office(**QUICK)
    assert np.all([name in stop.value.code for name in ("bike/0.jpg", "mug/1.jpg")])
