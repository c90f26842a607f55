"""The README's code is run as it stands there."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FIRST_BLOCK = re.search(r"```python\n(.*?)```", README, re.DOTALL).group(1)


def test_the_wiring_example_trains_and_predicts():
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Linear(16, 2048), nn.Tanh())
    x, y = torch.randn(31, 16), torch.arange(31)
    total = 40
    names = {
        "backbone": backbone,
        "batches": [((x, y), x + 0.1)] * total,
        "total": total,
        "x": x,
        "y": y,
    }
    exec(FIRST_BLOCK, names)
    assert names["accuracy"] > 0.9
    assert not backbone.training


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", ".ci/run", ".github/workflows/ci.yml"]
)
def test_ci_runs_the_command_that_the_readme_gives(name):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    commands = [line.strip().removeprefix("- run: ") for line in lines]
    assert 'pip install -e ".[dev]" && pytest' in commands
