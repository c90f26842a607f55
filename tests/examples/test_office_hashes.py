"""A finished run is told by what it was trained on."""

import csv
import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
import train_office
from office.data import hashes
from office.data.tasks import load_task
from office.training.batches import ImageBatches
from small_runs import features, result

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


@pytest.mark.parametrize(("domain", "role"), [("amazon", "source"), ("webcam", "target")])
def test_corrected_labels_are_another_run(office, root, domain, role):
    office(**QUICK)
    swap(root / domain / "bike", root / domain / "mug")
    assert f"6 of 9 {role} images differ, the first bike/0.jpg" in refusal(office)


def test_another_image_under_an_old_name_is_another_run(office, root):
    office(**QUICK)
    shutil.copy(root / "amazon/mug/1.jpg", root / "amazon/mug/2.jpg")
    message = refusal(office)
    assert "1 of 9 source images differs, the first mug/2.jpg" in message
    assert "target" not in message


def interrupt(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("resume", [False, True])
def test_a_checkpoint_of_other_images_is_not_resumed(office, root, monkeypatch, resume):
    with monkeypatch.context() as patch:  # ends after the last checkpoint, before the result
        patch.setattr(train_office, "predict", interrupt)
        with pytest.raises(SystemExit):
            office(**QUICK)
    (root / "webcam/mug/0.jpg").rename(root / "webcam/mug/9.jpg")
    message = refusal(office, resume=resume)
    assert "checkpoint.pt belongs to another run" in message
    assert "1 target image is new, the first mug/9.jpg" in message
    assert "1 target image is gone, the first mug/0.jpg" in message


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


def test_a_copy_on_a_system_with_other_unicode_names_is_the_same_run(tree, tmp_path):
    names = [unicodedata.normalize(form, "café.jpg") for form in ("NFC", "NFD")]
    found = []
    for name in names:
        root = tree(images=1, name=f"data{len(name)}")
        (root / "amazon/bike/0.jpg").rename(root / "amazon/bike" / name)
        found.append(listing(root, tmp_path))
    assert names[0] != names[1]
    assert found[0] == found[1]


def listing(root: Path, out: Path) -> str:
    return hashes.listings([load_task("office31", root, "A2W")], None, out)["A2W"]


def test_labels_and_order_of_a_list_are_seen(tree, tmp_path):
    root = tree("list")
    path = root / "list/amazonList.txt"
    before, lines = listing(root, tmp_path), path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0].replace(" 0", " 2"), *lines[1:]]))
    relabelled = hashes.differences(before, listing(root, tmp_path))
    assert relabelled == "1 of 12 source images has another label, the first 0_0.jpg"
    path.write_text("".join([lines[1], lines[0], *lines[2:]]))
    assert listing(root, tmp_path) != before
    assert "order" in hashes.differences(before, listing(root, tmp_path))


def test_thousands_are_counted_in_words():
    rows = [f"source,mug/{i:04}.jpg,mug,9,{i:x}" for i in range(2817)]
    head = "role,path,label,bytes,hash"
    other = [row + "x" if i < 12 else row for i, row in enumerate(rows, start=1)]
    found = hashes.differences("\n".join([head, *rows]), "\n".join([head, *other]))
    assert found == "11 of 2,817 source images differ, the first mug/0000.jpg"


def test_other_weights_under_an_old_name_are_another_run(office, tmp_path):
    path = tmp_path / "weights.pt"
    for seed in (0, 1):
        torch.manual_seed(seed)
        torch.save(torchvision.models.shufflenet_v2_x0_5().state_dict(), path)
        if seed == 0:
            office(**QUICK, weights=str(path))
    message = refusal(office, weights=str(path))
    assert "the weights file weights.pt has changed" in message


def test_without_its_list_a_result_of_other_images_is_refused_too(office, root):
    folder = office(**QUICK)
    (folder / "inputs.csv").write_text("role,path,label,bytes,hash\n")
    swap(root / "amazon/bike", root / "amazon/mug")
    assert "inputs.csv does not say" in refusal(office)


def test_inputs_csv_names_the_rows_of_the_features(office):
    folder = office(**QUICK)
    with open(folder / "inputs.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    saved, categories = features(folder), result(folder).categories
    assert [row["role"] for row in rows] == [["source", "target"][d] for d in saved.domain]
    assert [row["label"] for row in rows] == [categories[i] for i in saved.label]
    assert all(row["path"].startswith(f"{row['label']}/") for row in rows)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are read to be hashed; none is too young to be kept."""
    read, seen = Path.read_bytes, []

    def read_bytes(path: Path) -> bytes:
        seen.append(path)
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    monkeypatch.setattr(hashes, "SETTLED", -60)
    return seen


def test_a_file_is_hashed_once(tmp_path, hashed):
    paths = [tmp_path / name for name in "ab"]
    for path in paths:
        path.write_bytes(path.name.encode())
    first = hashes.hash_files(paths, tmp_path / "hashes.json")
    assert hashes.hash_files(paths, tmp_path / "hashes.json") == first
    assert sorted(hashed) == paths
    assert first[paths[0]] != first[paths[1]]
    paths[0].write_bytes(b"longer")
    hashes.hash_files(paths, tmp_path / "hashes.json")
    assert sorted(hashed) == [paths[0], *paths]


def test_equal_sizes_and_times_do_not_hide_a_change(tmp_path, hashed):
    paths, cache = [tmp_path / name for name in "abc"], tmp_path / "hashes.json"
    for path in paths:
        path.write_bytes(path.name.encode())
        os.utime(path, (1e9, 1e9))
    before = hashes.hash_files(paths, cache)
    swap(paths[0], paths[1])
    paths[2].write_bytes(b"d")
    os.utime(paths[2], (1e9, 1e9))
    after = hashes.hash_files(paths, cache)
    assert (after[paths[0]], after[paths[1]]) == (before[paths[1]], before[paths[0]])
    assert after[paths[2]] != before[paths[2]]


def test_a_young_file_is_hashed_again_for_clocks_are_coarse(tmp_path, hashed, monkeypatch):
    monkeypatch.setattr(hashes, "SETTLED", 60)
    path, cache = tmp_path / "a", tmp_path / "hashes.json"
    path.write_bytes(b"a")
    for _ in range(2):
        hashes.hash_files([path], cache)
    assert hashed == [path, path]


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", '{"PATH": 3}', '{"PATH": []}', '{"PATH": [1]}']
)
def test_a_broken_cache_is_harmless(tmp_path, content):
    path, cache = tmp_path / "a", tmp_path / "hashes.json"
    path.write_bytes(b"a")
    whole = hashes.hash_files([path], tmp_path / "none" / "hashes.json")
    cache.write_text(content.replace("PATH", str(path)))
    assert hashes.hash_files([path], cache) == whole
    cache.unlink()
    cache.mkdir()
    assert hashes.hash_files([path], cache) == whole


def test_unreadable_images_are_named_together(office, root):
    (root / "amazon/bike/0.jpg").unlink()
    (root / "amazon/bike/0.jpg").symlink_to(root / "nowhere.jpg")
    (root / "webcam/mug/1.jpg").write_bytes(b"broken")
    with pytest.raises(SystemExit) as stop:
        office(**QUICK)
    assert np.all([name in stop.value.code for name in ("bike/0.jpg", "mug/1.jpg")])
