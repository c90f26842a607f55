"""The version and its date are the same in the package, CHANGELOG.md and CITATION.cff."""

import re
from pathlib import Path

import symloss

ROOT = Path(__file__).parents[2]


def test_the_newest_version_of_the_changelog_is_the_packages_and_the_cited_one():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    version, date = re.search(r"^## \[(.+)\] - (.+)$", changelog, re.MULTILINE).groups()
    assert version == symloss.__version__
    assert f'\nversion: "{version}"\ndate-released: "{date}"\n' in citation
