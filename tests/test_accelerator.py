"""The checks of tests/accelerator/, which need a process of their own.

A device cannot join once autograd has started, and torch takes it for this machine's accelerator.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

CHECKS = Path(__file__).with_name("accelerator")
EXAMPLES = ["PIL", "matplotlib", "numpy", "sklearn", "tensorboard", "torchvision", "tqdm"]


@pytest.mark.slow
@pytest.mark.parametrize("checks", ["check_library.py", "check_office.py"])
def test_an_accelerator_without_one(checks):
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 9):
        pytest.skip("private-use devices in Python came with torch 2.9")
    if checks == "check_office.py":
        missing = [name for name in EXAMPLES if importlib.util.find_spec(name) is None]
        if missing:
            pytest.skip(f"needs the examples' packages: {', '.join(missing)}")
    root = CHECKS.parents[1]
    paths = [CHECKS, root, root / "examples", os.environ.get("PYTHONPATH", "")]
    options = "-q -o addopts= -p no:cacheprovider --noconftest -p private"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options.split(), str(CHECKS / checks)],
        cwd=root,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-10_000:]
    assert " passed" in done.stdout
