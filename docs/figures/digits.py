"""Run the demo with its defaults and put its pictures beside this script, light and dark."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEMO = HERE.parents[1] / "examples" / "train_digits.py"
DARK = {"MATPLOTLIBRC": str(HERE / "dark.mplstyle")}

for ending, style in (("", {}), ("_dark", DARK)):
    with tempfile.TemporaryDirectory() as out:
        subprocess.run([sys.executable, DEMO, "--out", out], env=os.environ | style, check=True)
        for name in ("samples", "tsne"):
            shutil.copy(Path(out, f"{name}.png"), HERE / f"digits_{name}{ending}.png")
