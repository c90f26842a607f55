"""Lists of images as other systems and other hands write them."""

import os
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import write_image
from office.console import UserError
from office.data import datasets, lists

pytestmark = pytest.mark.filterwarnings("ignore:.*published")


@pytest.fixture
def root(tree: Callable[..., Path]) -> Path:
    return tree("image_list", images=2)


def read(root: Path, content: bytes | str) -> dict[int, list[Path]]:
    """What the list holds; anything left out is an error."""
    path = root / "image_list/amazon.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    found, left_out = lists.read_list(path, root)
    assert left_out == []
    return found


def original(root: Path) -> str:
    return (root / "image_list/amazon.txt").read_text()


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"]
)
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    "prefix", ["", ".\\", "C:\\Users\\me\\office\\", "D:office\\", "\\\\nas\\a\\"]
)
def test_what_windows_writes(root: Path, encoding: str, ends: str, prefix: str) -> None:
    image = root / "amazon/images/mug/0.jpg"
    image.rename(image.with_name("caf\u00e9 1.jpg"))
    expected = read(root, original(root).replace("mug/0", "mug/caf\u00e9 1"))
    text = original(root)
    if prefix:
        text = "".join(prefix + line.replace("/", "\\") + "\n" for line in text.splitlines())
    assert read(root, text.replace("\n", ends).encode(encoding)) == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda path, label: f'"{path}" {label}',
        lambda path, label: f"'{path}'\t{label}",
        lambda path, label: f"  {path} \t {label}  ",
        lambda path, label: f"{path} 0{label}\n",
        lambda path, label: f"/home/someone/data/{path} {label}",
    ],
)
def test_other_ways_to_write_a_line(root: Path, change: Callable[[str, str], str]) -> None:
    expected = read(root, original(root))
    lines = (line.rsplit(maxsplit=1) for line in original(root).splitlines())
    assert read(root, "\n".join(change(*line) for line in lines)) == expected


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_name_in_another_unicode_form_is_found(root: Path, forms: tuple[str, str]) -> None:
    there, listed = (unicodedata.normalize(form, "r\u00e9tro") for form in forms)
    (root / "amazon/images/mug").rename(root / "amazon/images" / there)
    found = read(root, original(root).replace("/mug/", f"/{listed}/"))
    assert found[2] == [root / "amazon/images" / there / f"{i}.jpg" for i in range(2)]
    with warnings.catch_warnings():  # that category 2 is mug in webcam
        warnings.simplefilter("ignore")
        task = datasets.load_task("office31", root, "A2W")
    assert task.categories[2] == unicodedata.normalize("NFC", "r\u00e9tro")


def test_another_case_finds_the_one_file_that_is_called_so(root: Path) -> None:
    text = original(root)
    expected = read(root, text)
    assert read(root, text.replace(".jpg", ".JPG").replace("amazon", "Amazon")) == expected
    other = root / "amazon/images/mug/0.JPG"
    write_image(other, 2, 9)
    assert read(root, f"{text}amazon/images/mug/0.JPG 2\n")[2] == [*expected[2], other]
    with pytest.raises(UserError, match=r"line 1: no such image .*0\.Jpg"):
        read(root, "amazon/images/mug/0.Jpg 2\n")


def test_bytes_that_are_not_utf8_are_those_of_the_name(root: Path) -> None:
    image = root / "amazon/images/mug/0.jpg"
    odd = image.rename(image.with_name(os.fsdecode(b"caf\xe9.jpg")))
    found = read(root, original(root).encode().replace(b"mug/0", b"mug/caf\xe9"))
    assert odd in found[2]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("amazon/images/bike/0.jpg -1", "line 7: expected 'path label', the label counted from 0"),
        ("amazon/images/bike/0.jpg 1.0", "line 7: expected"),
        ("amazon/images/bike/0.jpg 1_0", "line 7: expected"),
        ("amazon/images/bike/0.jpg \uff11", r"line 7: expected .*\\uff11"),
        ("amazon/images/bike/0.jpg " + "9" * 5000, "line 7: expected"),
        ("amazon/images/bike/0.jpg,0", "line 7: expected"),
        ("0", "line 7: expected"),
        (". 0", "line 7: no such image"),
        ("amazon/images/bike 0", "line 7: no such image"),
        ("a\0b 0", r"line 7: no such image .*a\\x00b"),
        ("caf\u200b\u00e9.jpg 0", r"line 7: no such image .*caf\\u200b"),
        ("x" * 5000 + " 0", "line 7: no such image"),
        ("amazon/images/bike/0.jpg 2", r"line 7: .*bike/0.jpg has label 0 above, in line 1"),
    ],
)
def test_what_is_wrong_with_a_line_is_visible(root: Path, line: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read(root, original(root) + line + "\n")
    assert "\0" not in str(caught.value)


def test_a_repeated_line_counts_once_and_is_told(root: Path) -> None:
    expected = read(root, original(root))
    with pytest.warns(UserWarning, match=r"amazon\.txt: 2 lines repeat an earlier one"):
        assert read(root, original(root) + "\n".join(original(root).splitlines()[:2])) == expected


def test_images_that_no_line_names_are_left_out_and_told(root: Path) -> None:
    write_image(root / "amazon/images/mug/9.jpg", 2, 9)
    write_image(root / "amazon/images/cup/0.jpg", 3, 9)
    (root / "amazon/images/bike/notes.txt").write_text("text")
    with pytest.warns(UserWarning, match=r"amazon: 3 skipped: .*9\.jpg, 0\.jpg .*not in amazon"):
        task = datasets.load_task("office31", root, "A2W")
    assert [(item.path.name, item.why) for item in task.source.left_out] == [
        ("notes.txt", "not an image that Pillow can open"),
        ("9.jpg", "not in amazon.txt"),
        ("0.jpg", "not in amazon.txt"),
    ]
    assert len(task.source.paths) == 6


def test_in_one_folder_lists_win_over_folders_however_few_they_name(root: Path) -> None:
    for domain in ("amazon", "webcam"):
        path = root / f"image_list/{domain}.txt"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:4]))
    with pytest.warns(UserWarning, match="not in"):
        assert len(datasets.load_task("office31", root, "A2W").source.paths) == 4
