"""What people are shown of a target without labels: confidences, shares, the page."""

import base64
import io
import math
import re
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_image
from made_results import made_result
from office.results import tables, targets
from PIL import Image

from symloss.diagnostics import Diagnosis, diagnose


@pytest.mark.parametrize(
    ("p", "digits", "text"),
    [
        (0.41234, 3, "0.412"),
        (0.9996, 3, "0.9996"),
        (0.99961234, 3, "0.999612"),
        (0.73451234567891, 12, "0.734512345679"),
        (1 - 1e-13, 12, "0.9999999999999"),
        (1.0, 3, "0.999999999999999889"),
        (0.0, 3, "0"),
        (1.23456e-9, 3, "1.23e-09"),
    ],
)
def test_a_confidence_has_enough_digits(p, digits, text):
    assert targets.confidence(p, digits) == text


def test_no_confidence_is_rounded_to_1():
    for exponent in np.linspace(0.1, 15.9, 80):
        p = 1 - 10.0**-exponent
        distance = 1 - Fraction(targets.confidence(p, 3))
        assert float(distance) == pytest.approx(float(1 - Fraction(p)), rel=0.005)


def test_the_likeliest_categories_come_first_and_of_equal_ones_the_first():
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 3.0, 3.0]])
    one, two = targets.likeliest(logits[:1], ["a", "b", "c"], 2)[0]
    whole = np.exp([0.0, 2, 1]).sum()
    assert [one[0], two[0]] == ["b", "c"]
    assert [one[1], two[1]] == pytest.approx([np.exp(2) / whole, np.exp(1) / whole])
    equal = targets.likeliest(logits[1:], ["a", "b", "c"], 9)[0]
    assert [name for name, _ in equal] == ["a", "b", "c"]


def spread(predicted, expected, categories=None, samples=40):
    names = categories or [f"c{k}" for k in range(len(predicted))]
    return Diagnosis(tuple(names), tuple(predicted), tuple(expected), samples=samples)


def test_shares_are_in_columns_with_their_origin_and_the_rarest_first():
    made = spread([0.75, 0.25], [0.4, 0.6], ["自転車", "a very long name " * 9])
    assert targets.columns(made, "equal shares").split("\n") == [
        "images  predicted  expected  category (expected: equal shares)",
        f"    10     25.0 %    60.0 %  {'a very long name ' * 9}",
        "    30     75.0 %    40.0 %  自転車",
    ]


def test_of_many_categories_the_screen_has_the_ends_and_the_page_all():
    made = spread([k / 2080 for k in range(65)], [1 / 65] * 65, samples=2080)
    lines = targets.columns(made, "equal shares").split("\n")[1:]
    shown = [*range(10), None, *range(55, 65)]
    assert [line.split()[-1] for line in lines] == ["..." if k is None else f"c{k}" for k in shown]
    assert "... 45 more ..." in lines[10]
    text = targets.page("title", made, "equal shares", []).decode()
    assert re.findall(r"<td>(c\d+)</td><td>(\d+)</td>", text) == [
        (f"c{k}", f"{k}") for k in range(65)
    ]


def test_shares_stand_in_the_middle_of_the_diagnosis():
    made = spread([1.0, 0.0], [0.5, 0.5])
    first, *_, last = targets.describe(made, "equal shares", "more").split("\n")
    assert first.startswith("images ")
    assert last.startswith("1 of 2 categories is rarely or never predicted (c1)")
    assert last.endswith("try more.")


@pytest.mark.parametrize(
    ("method", "prior", "trust", "origin"),
    [
        ("symnets", None, None, "the source's shares"),
        ("a method of one's own", None, None, "the source's shares"),
        ("symnets-balanced", "source", None, "the source's shares"),
        ("symnets-balanced", None, None, "equal shares"),  # of an old run
        ("symnets-balanced", "uniform", None, "equal shares"),
        ("symnets-balanced", "estimate", 0.0, "equal shares"),
        ("symnets-v2-balanced", "estimate", 0.876, "estimated, trust 0.88"),
        ("symnets-balanced", [["mug", 1.0]], None, "given with --prior"),
    ],
)
def test_the_origin_of_the_expected_shares_is_said(method, prior, trust, origin):
    recipe = {} if prior is None else {"prior": prior}
    assert made_result(method=method, recipe=recipe, trust=trust).origin == origin


def test_a_run_without_labels_ends_with_its_shares_and_the_page(tmp_path):
    predicted = {"bike": 0.75, "mouse": 0.25, "mug": 0.0}
    made = {"accuracy": None, "predicted": predicted, "agreement": 0.9, "seconds": 61.6}
    assert tables.finished(made_result(**made), tmp_path).split("\n") == [
        f"office31 A2W symnets seed 0: done in 62 s, see {tmp_path}",
        "The source and target classifiers agree on 90.0 % of the target.",
        "images  predicted  expected  category (expected: the source's shares)",
        "     0      0.0 %    33.3 %  mug",
        "     3     25.0 %    33.3 %  mouse",
        "     9     75.0 %    33.3 %  bike",
        "1 of 3 categories is rarely or never predicted (mug): if the target contains it, try "
        "--method symnets-balanced.",
        f"The least confident predictions, with pictures: {tmp_path}/predictions.html",
    ]


# The page


class Reader(HTMLParser):
    """What a browser would show: text of each element, sources of images, names of tags."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags, self.sources, self.text = [], [], []
        self.feed(page.decode())

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        if data.strip() and self.tags[-1] != "style":
            self.text.append(data.strip())


def pixels(source: str) -> Image.Image:
    assert source.startswith("data:image/jpeg;base64,")
    return Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))


def test_the_page_has_the_ten_least_confident_images_in_order(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(12)]
    for i, path in enumerate(paths):
        Image.new("RGB", (800, 400), (20 * i, 0, 0)).save(path)
    rank = [5, 3, 8, 0, 11, 1, 7, 2, 10, 4, 6, 9]  # of each image, by confidence
    rows = [
        (path, [("mug", 0.5 + r / 100), ("pen", 0.4)]) for path, r in zip(paths, rank, strict=True)
    ]
    page = Reader(targets.page("title", spread([1, 0], [0.5, 0.5]), "equal shares", rows))
    pictures = [pixels(source) for source in page.sources]
    assert {picture.size for picture in pictures} == {(320, 160)}
    order = [rank.index(r) for r in range(10)]
    reds = [picture.getpixel((9, 9))[0] for picture in pictures]
    assert reds == pytest.approx([20 * i for i in order], abs=3)
    assert [text for text in page.text if text.endswith(".png")] == [str(paths[i]) for i in order]
    assert "57\N{NO-BREAK SPACE}%" in page.text
    assert "60\N{NO-BREAK SPACE}%" not in page.text
    assert "1 of 2 categories is rarely or never predicted (c1)." in page.text


def test_names_on_the_page_are_text(tmp_path):
    odd = "<b>'a' & \"b\"</b>自転車"
    path = tmp_path / "<img src=x onerror='y'>&\"\n\udce9.jpg"
    write_image(tmp_path / "plain.jpg", 0, 0)
    (tmp_path / "plain.jpg").rename(path)
    rows = [(path, [(odd, 0.9996), ("\n&lt;", 1e-9)])]
    page = Reader(targets.page(odd, spread([1, 0], [0.5, 0.5], [odd, "d"]), odd, rows))
    assert [page.tags.count(tag) for tag in ("img", "b")] == [1, 1]
    assert page.text.count(odd) == 4  # title twice, picture, table
    assert f"Expected: {odd}." in page.text
    assert f"{tmp_path}/<img src=x onerror='y'>&\"\\n\\udce9.jpg" in page.text
    assert {"99.96\N{NO-BREAK SPACE}%", "or \\n&lt; 0.0000001\N{NO-BREAK SPACE}%"} <= {*page.text}
    assert pixels(page.sources[0]).size == (40, 32)


def test_an_image_that_is_gone_has_no_picture(tmp_path):
    rows = [(tmp_path / "none.jpg", [("mug", 0.6), ("pen", 0.4)])]
    page = Reader(targets.page("title", spread([1, 0], [0.5, 0.5]), "equal shares", rows))
    assert page.sources == []
    assert {"The image cannot be read.", str(tmp_path / "none.jpg"), "mug"} <= {*page.text}


def test_no_number_is_a_confidence_too():
    assert targets.confidence(math.nan) == "nan"


def test_pictures_are_read_with_the_depth_of_grey_that_the_network_saw(monkeypatch):
    seen = []

    def load_image(path, bits):
        seen.append((path, bits))
        return Image.new("RGB", (4, 4))

    monkeypatch.setattr(targets.images, "load_image", load_image)
    rows = [(Path("a.png"), [("bike", 0.6), ("mug", 0.4)])]
    spread = diagnose(torch.eye(2), ["bike", "mug"])
    targets.page("title", spread, "equal shares", rows, 12)
    assert seen == [(Path("a.png"), 12)]
