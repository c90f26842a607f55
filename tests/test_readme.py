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


def commands(name):
    """The lines of a file that may be commands."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [line.strip().removeprefix("- run: ") for line in lines]


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", ".ci/run", ".github/workflows/ci.yml"])
def test_ci_runs_the_command_that_the_readme_gives_and_the_slow_tests(name):
    fast, slow = 'pip install -e ".[dev]" && pytest', "pytest -m slow --cov-append"
    assert fast in commands("README.md")
    assert [line for line in commands(name) if line in (fast, slow)] == [fast, slow]


def test_a_release_waits_for_all_checks_of_its_commit():
    release = (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
    checks = re.search(
        r"^  (\w+):\n    uses: \$/\.github/workflows/ci\.yml$", release, re.MULTILINE
    )[1]
    publish = release[release.index("\n  publish:\n") :]
    assert f"    needs: [{checks}, build]\n" in publish
