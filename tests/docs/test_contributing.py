"""CONTRIBUTING.md lists every module of the library and the examples, with what it is for."""

import re
from pathlib import Path

import modules

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def listed():
    """The paths in the list, made from its indented names."""
    folders, paths = [], []
    for indent, name in re.findall(
        r"^( *)- `([\w./]+)`", TEXT.split(modules.START)[1], re.MULTILINE
    ):
        del folders[len(indent) // 2 :]
        if name.endswith("/"):
            folders.append(name)
        else:
            paths.append("".join([*folders, name]))
    return paths


def test_every_module_is_listed_once_and_every_listed_one_exists():
    paths = [path for folder in ("symloss", "examples") for path in (ROOT / folder).rglob("*.py")]
    names = [path.relative_to(ROOT).as_posix() for path in paths]
    own = [name for name in names if "/recipes/" not in name and not name.endswith("__init__.py")]
    assert sorted(listed()) == sorted(own)


def test_each_line_of_the_list_is_the_first_of_a_docstring():
    assert modules.with_list(TEXT) == TEXT, "run python docs/modules.py"


def test_every_script_that_draws_is_named():
    assert all(f"`{path.name}" in TEXT for path in (ROOT / "docs" / "figures").glob("*.py"))
