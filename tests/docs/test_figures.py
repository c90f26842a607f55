"""The pictures of Office-31: the script draws them from made-up runs; the committed ones fit."""

import re
import runpy
from itertools import product
from pathlib import Path

import pytest
from made_results import made_features, made_result
from office.results import outputs
from PIL import Image

ROOT = Path(__file__).parents[2]
FIGURES = ROOT / "docs" / "figures"
PICTURES = ("tsne", "convergence", "recall")
BACKGROUNDS = {"": (255, 255, 255), "_dark": (0x13, 0x14, 0x16)}


def size_and_background(path):
    with Image.open(path) as image:
        return image.width, image.convert("RGB").getpixel((2, 2))


@pytest.mark.slow
def test_the_script_draws_every_picture_light_and_dark(tmp_path):
    for task, method in product(("A2W", "D2W"), ("source-only", "symnets", "symnets-balanced")):
        folder = tmp_path / "runs" / task / method
        folder.mkdir(parents=True)
        outputs.write_result(folder, made_result(task, method))
        if task == "A2W":
            outputs.write_features(folder, made_features())
    out = tmp_path / "out"
    out.mkdir()
    main = runpy.run_path(str(FIGURES / "office31.py"))["main"]
    main([str(tmp_path / "runs"), "--out", str(out)])
    drawn = {path.name: size_and_background(path) for path in out.iterdir()}
    assert set(drawn) == {f"office31_{name}{end}.png" for name in PICTURES for end in BACKGROUNDS}
    for name, (width, background) in drawn.items():
        assert width == 1200
        assert background == BACKGROUNDS["_dark" if "dark" in name else ""]


@pytest.mark.parametrize("ending", BACKGROUNDS)
@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_of_the_page_is_small_and_fits_its_theme(name, ending):
    path = FIGURES / f"office31_{name}{ending}.png"
    assert size_and_background(path) == (1200, BACKGROUNDS[ending])
    assert path.stat().st_size < 250_000


def test_the_page_shows_every_picture_in_its_theme():
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    for name in PICTURES:
        texts = []
        for ending, theme in (("", "light"), ("_dark", "dark")):
            fence = (
                rf"```{{image}} figures/office31_{name}{ending}\.png\n:alt: (.+)\n:class: (.+)\n"
            )
            ((text, found),) = re.findall(fence, page)
            assert found == f"only-{theme}"
            texts.append(text)
        assert texts[0] == texts[1]
