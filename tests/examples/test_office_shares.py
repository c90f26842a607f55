"""Expected shares of the categories: the file of them, and their order in a task."""

from pathlib import Path

import pytest
import torch
from office import distributed
from office.console import UserError
from office.data.tasks import estimate_shares, read_shares, shares_of
from small_runs import made_task

import symloss


def written(tmp_path: Path, text: str, encoding: str = "utf-8") -> Path:
    path = tmp_path / "shares.csv"
    path.write_text(text, encoding=encoding)
    return path


def test_a_line_is_a_category_and_its_share(tmp_path: Path) -> None:
    path = written(tmp_path, 'mug, 0.5\n\n"cups, small",0.25\ncafe\u0301,2.5e-1\n')
    assert read_shares(path) == (("mug", 0.5), ("cups, small", 0.25), ("caf\u00e9", 0.25))


def test_a_file_that_windows_wrote_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, "mug,0.5\r\nbike,0.5\r\n", encoding="utf-8-sig")
    assert read_shares(path) == (("mug", 0.5), ("bike", 0.5))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("mug,0.5\nbike,0.4\n", r"the shares must be above 0 and sum to 1, got \[0\.5, 0\.4\]"),
        ("", "above 0 and sum to 1"),
        ("mug,0.5\nmug,0.5\n", "mug is listed twice"),
        ("mug,1\nbike,0\n", r"above 0 and sum to 1, got \[1\.0, 0\.0\]; for a category that"),
        ("mug,1.5\nbike,-0.5\n", "above 0 and sum to 1"),
        ("mug,nan\n", "above 0 and sum to 1"),
        ("category,share\nmug,1\n", r"could not convert .*'share'; each line must be like mug,0"),
        ("mug\n", r"not enough values .*; each line must be like mug,0\.05"),
        ("mug,0,5\n", "too many values"),
        ("mug;1\n", "not enough values"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, text: str, why: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UserError, match=f"{path}.*{why}"):
        read_shares(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"cannot read {tmp_path}"):
        read_shares(tmp_path)
    path = tmp_path / "latin"
    path.write_bytes(b"caf\xe9,1\n")
    with pytest.raises(UserError, match=f"cannot read {path}"):
        read_shares(path)


CATEGORIES = ["bike", "mouse", "mug"]


def test_shares_come_in_the_order_of_the_categories() -> None:
    labels = [0, 2, 2, 1, 2, 2, 2, 2]
    assert shares_of("uniform", CATEGORIES, labels) == [1 / 3] * 3
    assert shares_of("source", CATEGORIES, labels) == [1 / 8, 1 / 8, 6 / 8]
    given = (("mug", 0.5), ("bike", 0.3), ("mouse", 0.2))
    assert shares_of(given, CATEGORIES, labels) == [0.3, 0.2, 0.5]


def test_categories_that_differ_are_named() -> None:
    with pytest.raises(UserError, match="--prior has no share for mouse, mug"):
        shares_of((("bike", 1.0),), CATEGORIES, [])
    given = (("mug", 0.5), ("bike", 0.3), ("mouse", 0.1), ("Pen", 0.1))
    with pytest.raises(UserError, match="--prior names categories that the source lacks: Pen"):
        shares_of(given, CATEGORIES, [])


def test_another_process_gets_the_shares_that_the_first_estimated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = symloss.EstimatedPrior(torch.tensor([0.7, 0.2, 0.1]), trust=0.5)
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    monkeypatch.setattr(distributed, "gather", lambda mine: [(first, None), mine])
    features = torch.randn(2, 9, 4, generator=torch.Generator().manual_seed(0)).unbind()
    found = estimate_shares(made_task(), features, seed=0, device=torch.device("cpu"))
    assert (found.prior.tolist(), found.trust) == (first.prior.tolist(), 0.5)
