"""Puts examples/ on the import path, writes tiny image trees, and runs train_office.py on them."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))


def write_image(path: Path, category: int, seed: int, size: tuple[int, int] = (40, 32)) -> None:
    """One noisy JPEG (width, height = size) whose colour tells the category."""
    rng = np.random.default_rng([category, seed])
    colour = np.random.default_rng(category).integers(40, 216, 3)
    pixels = colour + rng.normal(0, 20, (size[1], size[0], 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


def write_tree(
    root: Path,
    layout: str = "folders",
    domains: Sequence[str] = ("amazon", "webcam"),
    categories: Sequence[str] = ("bike", "mouse", "mug"),
    images: int = 4,
    size: tuple[int, int] = (40, 32),
) -> Path:
    """Write a benchmark's tree and return its root.

    Layouts: "folders" <domain>/<category>/, "archive" <domain>/images/<category>/, "image_list"
    (the archive, with image_list/<domain>.txt), "list" (<domain>/<file> without category folders,
    with list/<domain>List.txt). Such a tree is smaller than the published one, which load_task
    warns of: mark tests with ``pytest.mark.filterwarnings("ignore:.*published")``.
    """
    for seed, domain in enumerate(domains):
        lines = []
        for number, category in enumerate(categories):
            for i in range(images):
                relative = {
                    "folders": f"{domain}/{category}/{i}.jpg",
                    "archive": f"{domain}/images/{category}/{i}.jpg",
                    "image_list": f"{domain}/images/{category}/{i}.jpg",
                    "list": f"{domain}/{number}_{i}.jpg",
                }[layout]
                write_image(root / relative, number, 1000 * seed + i, size)
                lines.append(f"{relative} {number}\n")
        lists = {"image_list": f"image_list/{domain}.txt", "list": f"list/{domain}List.txt"}
        if layout in lists:
            path = root / lists[layout]
            path.parent.mkdir(exist_ok=True)
            path.write_text("".join(lines))
    return root


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., Path]:
    """:func:`write_tree` to a folder of ``tmp_path`` that is called ``name``."""

    def write(
        layout: str = "folders",
        domains: Sequence[str] = ("amazon", "webcam"),
        *,
        name: str = "data",
        **tree: Any,
    ) -> Path:
        return write_tree(tmp_path / name, layout, domains, **tree)

    return write


@pytest.fixture
def root(tree: Callable[..., Path]) -> Path:
    """amazon and webcam, nine images each."""
    return tree(images=3)


@pytest.fixture
def odd_images(tmp_path: Path) -> list[Path]:
    """Images of many sizes and modes, the last of which EXIF turns."""
    rng = np.random.default_rng(0)
    sizes = [(300, 280), (280, 431), (100, 90), (256, 256), (640, 257), (33, 64), (400, 300)]
    modes = ["RGB", "L", "P", "RGBA", "CMYK", "I;16", "RGB"]
    exif = Image.Exif()
    exif[0x0112] = 6
    paths = []
    for i, ((width, height), mode) in enumerate(zip(sizes, modes, strict=True)):
        noise = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        image = Image.fromarray(noise).resize((width, height))
        if mode == "I;16":
            image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
        elif mode == "P":
            image = image.quantize(32)
        else:
            image = image.convert(mode)
        paths.append(tmp_path / f"{i}.{'jpg' if mode in ('RGB', 'CMYK') else 'png'}")
        image.save(paths[-1], **({"exif": exif} if i == len(sizes) - 1 else {}))
    return paths


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Two threads add in another order, so runs that are compared have one each."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def office(root: Path, tmp_path: Path, one_thread: None) -> Callable[..., Path]:
    """:func:`small_runs.carry_out` in this process, on ``root``, to a folder of ``tmp_path``."""
    from small_runs import carry_out

    def call(out: str = "runs", **changes: Any) -> Path:
        return carry_out(**{"root": root, **changes, "out": tmp_path / out})

    return call


@pytest.fixture(autouse=True, scope="module")
def _short_estimates() -> Iterator[None]:
    """Estimate the target's shares from few rows, and let the network for it train briefly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("symloss.prior._STEPS", 20)
        patch.setattr("symloss.prior._ROWS", 500)
        yield
