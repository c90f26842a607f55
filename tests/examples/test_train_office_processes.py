"""train_office.py in processes of its own: killed, and by torchrun."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import driver
import numpy as np
import pytest
import torch
from office import files
from office.data import images
from office.models import saved
from small_runs import assert_same_run, features, network, result

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*published")]

BACKBONE = "shufflenet_v2_x0_5"  # slow enough to be stopped
SMALL = f"--backbone {BACKBONE} --weights none --workers 0 --batch-size 4 --device cpu"


@pytest.fixture
def start():
    """Start a Python process in a session of its own; none outlives the test."""
    started = []

    def start(*command):
        folders = (driver.SCRIPT.parent, driver.SCRIPT.parents[1])
        paths = os.pathsep.join([*map(str, folders), os.environ.get("PYTHONPATH", "")])
        process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture
def command(root):
    """The driver's command for amazon -> webcam, without --out."""
    argv = f"--dataset office31 --root {root} --task A2W --seeds 0 {SMALL}"
    return [Path(driver.__file__), *argv.split()]


def finish(process):
    """Wait for a process; its stdout if all went well."""
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    return stdout


def stop_after_an_epoch(process, checkpoint, how, delay):
    """Send a signal ``delay`` seconds after a new checkpoint is there; return what was printed."""
    before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else None
    while process.poll() is None and not (
        checkpoint.exists() and checkpoint.stat().st_mtime_ns != before
    ):
        time.sleep(0.005)
    time.sleep(delay)
    # As a terminal or a scheduler does.
    os.killpg(process.pid, how)
    printed = process.communicate(timeout=300)
    assert not checkpoint.with_name("result.json").exists(), "the run ended before the signal"
    files.load(checkpoint)  # whole
    return printed


def test_killed_at_random_moments_it_ends_with_the_uninterrupted_weights(
    office, tmp_path, start, command
):
    folder = office(epochs=12, backbone=BACKBONE)
    other = tmp_path / "killed" / folder.relative_to(tmp_path / "runs")
    written = other / "checkpoint.pt"
    # One thread per domain and no cache: the numbers must not depend on it.
    more = f"--epochs 12 --out {tmp_path / 'killed'} --resume --workers 1 --cache off"
    delay = random.Random(3)
    for how in (signal.SIGKILL, signal.SIGTERM):
        process = start(*command, *more.split())
        stdout, stderr = stop_after_an_epoch(process, written, how, delay.random() / 5)
        assert process.returncode == (130 if how == signal.SIGTERM else -how)
        if how == signal.SIGTERM:
            assert f"{written} holds the finished epochs" in stdout
            assert "Traceback" not in stderr
    assert " done\n" in finish(start(*command, *more.split()))
    assert_same_run(folder, other)


def test_of_two_equal_jobs_one_trains_and_both_end_well(tmp_path, start, command):
    jobs = [start(*command, "--epochs", "3", "--out", tmp_path / "runs") for _ in range(2)]
    printed = [finish(job) for job in jobs]
    assert sorted("epoch 3/3" in text for text in printed) == [False, True]


@pytest.fixture(params=["symnets", "domain-confusion-em"])
def one_and_two(request, root, tmp_path, start, command):
    """The folders of the same run by one process and by two."""
    for name in ("webcam/bike/2.jpg", "webcam/mug/0.jpg"):
        (root / name).unlink()  # an odd number of images to share out
    command += ["--max-steps", 3, "--backbone", "plain", "--method", request.param]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    one, two = (tmp_path / name for name in ("one", "two"))
    started = [start(*command, "--out", one), start(*torchrun, *command, "--out", two)]
    for process in started:
        finish(process)
    return [out / "office31" / "A2W" / request.param / "seed0" for out in (one, two)]


def test_two_processes_take_the_single_processs_steps(one_and_two):
    one, two = one_and_two
    assert [result(folder).processes for folder in one_and_two] == [1, 2]
    # Momentum holds the sum of the gradients so far: both players' gradients are compared.
    steps = [files.load(folder / "checkpoint.pt")["step"] for folder in one_and_two]
    for player in ("extractor", "head"):
        left, right = (step[player]["state"] for step in steps)
        assert left.keys() == right.keys()
        for key in left:
            torch.testing.assert_close(left[key]["momentum_buffer"], right[key]["momentum_buffer"])
    torch.testing.assert_close(network(one), network(two))
    left, right = (features(folder) for folder in one_and_two)
    np.testing.assert_allclose(left.features, right.features, atol=2e-3)
    np.testing.assert_allclose(left.logits, right.logits, atol=1e-4)
    assert left.label.tolist() == right.label.tolist()
    left, right = (result(folder) for folder in one_and_two)
    assert left.confusion == right.confusion
    assert np.sum(right.confusion) == 7
    assert left.epochs[-1] == pytest.approx(right.epochs[-1], rel=1e-4)


def test_two_processes_estimate_the_shares_that_one_does(root, tmp_path, start, command):
    shutil.rmtree(root / "webcam/mouse")
    command += ["--max-steps", 1, "--backbone", "plain", "--partial"]
    command += ["--method", "symnets-v2-balanced"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    priors = []
    for name, program in (("one", []), ("two", torchrun)):
        finish(start(*program, *command, "--out", tmp_path / name))
        folder = tmp_path / name / "office31" / "A2W" / "symnets-v2-balanced" / "seed0"
        priors.append(files.load(folder / "checkpoint.pt")["prior"])
    torch.testing.assert_close(*priors)
    assert priors[0].min() < 0.2  # the shares were told: equal ones have a third each


def test_of_two_processes_the_first_ones_batch_norm_is_saved(root, tmp_path, start, command):
    command += ["--max-steps", 3, "--lr", 0.001, "--out", tmp_path]
    finish(start("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *command))
    folder = tmp_path / "office31" / "A2W" / "symnets" / "seed0"
    model = saved.read_model(folder / "model.pt")
    transform = images.eval_transform(model.preprocessing)
    paths = [path for side in ("amazon", "webcam") for path in sorted((root / side).rglob("*.jpg"))]
    with torch.inference_mode():
        made = model.extractor(torch.stack([transform(images.load_image(p)) for p in paths]))
    expected = torch.tensor(features(folder).features).float()
    torch.testing.assert_close(made, expected, atol=2e-3, rtol=2e-3)
