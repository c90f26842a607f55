"""What would stop a run is said before the first image is decoded, and an end is never lost."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from office import files
from office.console import UserError
from office.data import datasets, images
from office.data.images import Preprocessing
from office.options import Recipe, Runtime
from office.training import preflight
from office.training import trainer as training
from office.training.runs import Run
from office.training.trainer import Trainer
from small_runs import assert_same_run, result

pytestmark = pytest.mark.filterwarnings("ignore:.*published")
DRIVER = Path(__file__).with_name("driver.py")


@pytest.fixture
def refused(office, monkeypatch) -> Callable[..., str]:
    """A function that returns the one line with which a run ends before an image is decoded."""

    def call(**changes) -> str:
        with monkeypatch.context() as patch:
            patch.setattr(images, "decode", lambda *_: pytest.fail("images were decoded first"))
            with pytest.raises(SystemExit) as stop:
                office(**{"max_steps": 2} | changes)
        assert isinstance(stop.value.code, str)
        assert "\n" not in stop.value.code
        return stop.value.code

    return call


def test_batch_norm_of_one_image(refused, office):
    message = refused(bottleneck=16, batch_size=1)
    assert "--batch-size 1 is one image" in message
    assert "--bottleneck needs at least two" in message
    # Images of 32 pixels leave resnet18 one value of each channel, those of 64 leave four.
    assert "--backbone resnet18 needs at least two" in refused(backbone="resnet18", batch_size=1)
    larger = Preprocessing(resize=68, crop=64)
    office(backbone="resnet18", batch_size=1, max_steps=1, preprocessing=larger)


def test_batch_norm_of_one_image_in_each_process(root, tmp_path):
    argv = f"--dataset office31 --root {root} --task A2W --seeds 0 --out {tmp_path / 'runs'} "
    argv += "--backbone shufflenet_v2_x0_5 --weights none --device cpu --max-steps 1 "
    argv += "--batch-size 2 --bottleneck 8"
    torchrun = ["torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29517"]
    done = subprocess.run(
        [sys.executable, "-m", *torchrun, str(DRIVER), *argv.split()],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(DRIVER.parents[2] / "examples")},
        check=False,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("train_office.py: error")]
    assert len(lines) == 1
    assert "--batch-size 2 is one image per domain for each of 2 processes" in lines[0]
    assert "driver.py" not in done.stderr.partition("ChildFailedError")[0].partition(lines[0])[0]
    assert "[rank1]" not in done.stderr


def test_compile_without_a_compiler(root, tmp_path):
    argv = f"--dataset office31 --root {root} --task A2W --seeds 0 --out {tmp_path / 'runs'} "
    argv += "--backbone plain --weights none --device cpu --max-steps 1 --batch-size 2 --compile"
    paths = os.pathsep.join([str(DRIVER.parents[2] / "examples"), str(DRIVER.parents[2])])
    nowhere = {"CXX": str(tmp_path / "none"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, str(DRIVER), *argv.split()],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, **nowhere},
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "images in memory" not in done.stdout
    last = done.stderr.splitlines()[-1]
    assert last.startswith("train_office.py: error: --compile does not work here")
    assert "C++ compiler" in last


@pytest.mark.parametrize("blocked", ["", "office31", "office31/A2W/symnets/seed0"])
def test_a_file_where_a_folder_must_be(refused, tmp_path, blocked):
    path = tmp_path / "runs" / blocked
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    assert f"cannot write to {path}: File exists" in refused()


def test_a_name_that_is_too_long(root, tmp_path):
    for name, domain in (("s" * 200, "amazon"), ("t" * 200, "webcam")):
        (root / domain).rename(tmp_path / name)
    task = datasets.load_folders(tmp_path / ("s" * 200), tmp_path / ("t" * 200))
    runs = [Run(Recipe("folders", "shufflenet_v2_x0_5", "none"), task, "symnets", 0)]
    with pytest.raises(UserError, match=r"cannot write to .*2t*.*: File name too long"):
        preflight.check(runs, Runtime(torch.device("cpu"), out=tmp_path / "runs"))


def test_a_look_ahead_leaves_no_folder(root, tmp_path):
    task = datasets.load_task("office31", root, "A2W")
    runs = [Run(Recipe("office31", "shufflenet_v2_x0_5", "none"), task, "symnets", 0)]
    preflight.check(runs, Runtime(torch.device("cpu"), out=tmp_path / "runs"))
    assert [*(tmp_path / "runs").iterdir()] == []


@pytest.mark.parametrize("name", ["model.pt", "result.json", "features.npz", "log.jsonl"])
def test_a_folder_where_a_file_must_be(refused, tmp_path, name):
    path = tmp_path / "runs/office31/A2W/symnets/seed0" / name
    path.mkdir(parents=True)
    assert str(path) in refused()


def test_a_folder_that_takes_no_files(refused, monkeypatch):
    def full(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "replace", full)
    assert "Read-only file system" in refused()


def test_too_little_space_for_all_runs(refused, office, monkeypatch):
    folder = office(max_steps=2, out="measured")
    sizes = [path.stat().st_size for path in folder.iterdir()]
    one = sum(sizes) + max(sizes)  # a file is written beside the old one
    usage = shutil.disk_usage

    def leave(free: float) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda p: usage(p)._replace(free=int(free)))

    leave(0.8 * one)
    assert "free, but the run may write up to" in refused()
    leave(1.5 * one)
    assert "free, but 3 runs may write up to" in refused(seeds=(0, 1, 2))
    office(max_steps=2)
    leave(0.5 * one)
    assert "2 runs may write up to" in refused(seeds=(0, 1, 2))
    # What takes the place of an old file needs no more than that beside it.
    monkeypatch.setattr("office.experiment.Experiment._finish", lambda *_: None)
    leave(1.1 * one)
    office(max_steps=2, out="resumed")
    leave(0.6 * one)
    office(max_steps=2, out="resumed", resume=True)


def test_an_unknown_backbone_and_weights_that_do_not_fit(refused, tmp_path):
    assert "unknown backbone resnet51" in refused(backbone="resnet51")
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pt")
    assert "do not fit" in refused(weights=str(tmp_path / "a.pt"))


def test_a_look_ahead_changes_no_number(office, monkeypatch):
    first = office(max_steps=3, out="a")
    monkeypatch.setattr("office.preflight.check", lambda *_: None)
    assert_same_run(first, office(max_steps=3, out="b"))


@pytest.mark.parametrize("name", ["features.npz", "model.pt", "result.json"])
def test_a_failure_at_the_end_loses_nothing(office, monkeypatch, name):
    whole, write = office(max_steps=3, out="whole"), files.write

    def full(path: Path, content: bytes) -> None:
        if path.name == name:
            raise files.UserError(f"cannot write {path}: No space left on device")
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write", full)
        with pytest.raises(SystemExit, match=f"{name}: No space left.*; continue with --resume"):
            office(max_steps=3)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "epoch", lambda *_: pytest.fail("trained again"))
        assert_same_run(office(max_steps=3, resume=True), whole)


def test_absurd_losses_are_warned_of_once(office, monkeypatch):
    with (
        pytest.warns(UserWarning, match="losses above 10,000 at step .*lower --lr than 100"),
        pytest.raises(SystemExit, match=r"not finite; .* try a lower --lr than 100"),
    ):
        office(method="source-only", lr=100.0, max_steps=4)
    monkeypatch.setattr(training, "ABSURD", 0.01)
    with pytest.warns(UserWarning, match="losses above") as caught:
        folder = office(method="source-only", max_steps=8, out="low bound")
    assert len(result(folder).epochs) == 4
    assert len([w for w in caught if "losses above" in str(w.message)]) == 1


def test_high_but_sane_losses_are_not():
    values = {"task": 0.9 * training.ABSURD, "entropy": -0.9 * training.ABSURD}
    trainer = SimpleNamespace(warned=False)
    Trainer._warn_once(trainer, 10, values)
    assert not trainer.warned
