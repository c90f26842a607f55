"""Run the demo with its defaults and put its pictures beside this script, as digits_*.png."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEMO = HERE.parents[1] / "examples" / "train_digits.py"

with tempfile.TemporaryDirectory() as out:
    subprocess.run([sys.executable, DEMO, "--out", out], check=True)
    for name in ("samples", "convergence", "tsne"):
        shutil.copy(Path(out, f"{name}.png"), HERE / f"digits_{name}.png")
