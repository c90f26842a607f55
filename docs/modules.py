"""Write the list of modules in CONTRIBUTING.md, from the first line of each module's docstring.

python docs/modules.py
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
START, END = "<!-- written by docs/modules.py -->\n\n", "\n<!-- end -->"
LEFT_OUT = {"recipes"}  # the documentation shows each of them


def summary(module: Path) -> str:
    """Return the first line of a module's docstring, without Sphinx roles."""
    doc = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8")))
    if not doc:
        raise SystemExit(f"{module.relative_to(ROOT)} must have a docstring")
    return re.sub(r":\w+:`", "`", doc.splitlines()[0])


def lines(folder: Path, indent: str = "") -> Iterator[str]:
    """Yield the line of a folder, then those of its modules and of the folders below it."""
    package = folder / "__init__.py"
    yield f"{indent}- `{folder.name}/`" + (f": {summary(package)}" if package.exists() else "")
    for path in sorted(folder.glob("*.py")):
        if path != package:
            yield f"{indent}  - `{path.name}`: {summary(path)}"
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name not in LEFT_OUT and any(path.rglob("*.py")):
            yield from lines(path, f"{indent}  ")


def with_list(text: str) -> str:
    """Return the text of CONTRIBUTING.md with the list as it should be."""
    before, rest = text.split(START)
    listed = [line for name in ("symloss", "examples") for line in lines(ROOT / name)]
    return "".join([before, START, "\n".join(listed), "\n", END, rest.split(END)[1]])


if __name__ == "__main__":
    CONTRIBUTING.write_text(with_list(CONTRIBUTING.read_text(encoding="utf-8")), encoding="utf-8")
