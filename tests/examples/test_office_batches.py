"""Crops set by a seed, and their batches, read in this thread or in others."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from office.console import UserError
from office.data import images
from office.data.images import Preprocessing
from office.data.tasks import Domain, Task, load_task
from office.options import Recipe, Runtime
from office.training import batches
from office.training.batches import ImageBatches, Images
from office.training.runs import Run
from scipy.stats import chisquare
from torchvision.transforms import v2

pytestmark = pytest.mark.filterwarnings("ignore:.*published")
CPU = torch.device("cpu")
PAPER = Preprocessing()
SEEDS = torch.randint(2**62, (28,), generator=torch.Generator().manual_seed(0)).tolist()


# Crops


@pytest.fixture(scope="module", params=["random", "consecutive"])
def draws(request: pytest.FixtureRequest) -> np.ndarray:
    """(flip, top, left) of a crop for each of many seeds; the pixels of the image hold their place.

    There are 2 x 9 x 19 ways to see it.
    """
    y, x = np.mgrid[:40, :50]
    image = torch.from_numpy(np.stack([y, x, x * y % 256]).astype(np.uint8))
    crops = Images([Path("places")], Preprocessing(40, 32), {Path("places"): image})
    seeds = torch.randint(2**62, (20_000,), generator=torch.Generator().manual_seed(0))
    seen = []
    for seed in seeds.tolist() if request.param == "random" else range(20_000):
        crop, flip, _ = crops[0, seed]
        top, left, _ = crop[:, 0, 0].tolist()
        assert torch.equal(crop, image[:, top : top + 32, left : left + 32])
        seen.append((flip, top, left))
    return np.array(seen)


def counts(*values: np.ndarray, choices: tuple[int, ...]) -> np.ndarray:
    """How often each combination of values came; one out of range raises."""
    return np.bincount(np.ravel_multi_index(values, choices), minlength=np.prod(choices))


def test_crops_and_flips_are_uniform_and_independent(draws: np.ndarray) -> None:
    # Of all three together: each is uniform, and none tells anything about the others.
    assert chisquare(counts(*draws.T, choices=(2, 9, 19))).pvalue > 1e-3


def test_the_next_image_is_seen_independently_of_the_one_before(draws: np.ndarray) -> None:
    for values, n in zip(draws.T, (2, 9, 19), strict=True):
        assert chisquare(counts(values[::2], values[1::2], choices=(n, n))).pvalue > 1e-3


def test_the_seed_alone_fixes_crop_and_flip(odd_images: list[Path]) -> None:
    crops = Images(odd_images, PAPER, {})
    for seed in SEEDS[:5]:
        torch.manual_seed(seed % 3)
        (first, flip, _), (again, as_well, _) = crops[1, seed], crops[1, seed]
        assert flip == as_well
        assert torch.equal(first, again)


# Batches


@pytest.mark.parametrize(("height", "width"), [(32, 33), (35, 32), (37, 39), (32, 32)])
def test_the_centre_crop_is_torchvisions(height: int, width: int) -> None:
    image = torch.arange(3 * height * width).reshape(3, height, width) % 251
    crops = Images([Path("odd")], Preprocessing(32, 32), {Path("odd"): image})
    crop, flip, _ = crops[0, None]
    assert torch.equal(crop, v2.functional.center_crop(image, [32]))
    assert not flip


def test_images_come_with_their_index_and_no_label(tree: Callable[..., Path]) -> None:
    task = load_task("office31", tree(), "A2W")
    order = [7, 0, 11, 4, 2]
    keys = [[(i, None) for i in order]]
    runtime = Runtime(CPU, workers=0)
    ((batch, flips, index),) = Images(task.target.paths, PAPER, {}).batches(keys, runtime)
    assert index.tolist() == order
    assert not flips.any()
    transform = images.eval_transform(PAPER)
    for image, i in zip(images.Normalize(PAPER)(batch), order, strict=True):
        assert torch.equal(image, transform(images.load_image(task.target.paths[i])))


class FixedSampler(list):
    """These batches in any epoch."""


def batch_of(paths: list[Path], cache: dict[Path, torch.Tensor], seeds: Sequence[int]):
    """The source batch of the images 0, 1, ..., again and again, as the loop gets it."""
    domain = Domain("a", paths, [*range(len(paths))])
    task = Task("a2b", domain, domain, [*map(str, domain.labels)])
    recipe = Recipe("folders", batch_size=len(seeds))
    drawn = ImageBatches(Run(recipe, task, "source-only", 0), Runtime(CPU, workers=0), cache)
    keys = [(i % len(paths), seed) for i, seed in enumerate(seeds)]
    drawn.samplers = [FixedSampler([keys])]
    ((batch, labels, _),) = drawn.epoch(0, 1)
    assert labels.tolist() == [i for i, _ in keys]
    assert batch.is_contiguous(memory_format=torch.channels_last)
    return batch


def test_cached_batches_are_the_read_ones_bit_for_bit(
    odd_images: list[Path], tmp_path: Path
) -> None:
    cache = images.decode("ram", odd_images, PAPER, CPU, tmp_path)
    for path in odd_images:  # the cache alone is read from
        path.rename(path.with_suffix(".away"))
    cached = batch_of(odd_images, cache, SEEDS[:28])
    for path in odd_images:
        path.with_suffix(".away").rename(path)
    assert torch.equal(cached, batch_of(odd_images, {}, SEEDS[:28]))
    # One image twice in a batch, by other seeds, is seen twice in other ways.
    for i in range(7):
        assert len({image.numpy().tobytes() for image in cached[i::7]}) == 4


def test_batches_are_as_torchvisions_transforms_make_them(odd_images: list[Path]) -> None:
    transform = v2.Compose(
        [
            v2.Resize(256),
            v2.RandomCrop(224),
            v2.RandomHorizontalFlip(),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(PAPER.mean, PAPER.std),
        ]
    )
    for i, image in enumerate(batch_of(odd_images, {}, SEEDS[:28])):
        torch.manual_seed(SEEDS[i])
        expected = transform(images.load_image(odd_images[i % 7]))
        torch.testing.assert_close(image, expected, atol=1e-6, rtol=0)


# Threads


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_read_the_same_batches_in_the_same_order(
    odd_images: list[Path], workers: int
) -> None:
    keys = [[((n + i) % 7, SEEDS[4 * n + i]) for i in range(4)] for n in range(6)]
    crops = Images(odd_images, PAPER, {})
    alone, threads = ([*crops.batches(keys, Runtime(CPU, workers=n))] for n in (0, workers))
    for read in (alone, threads):
        assert [index.tolist() for _, _, index in read] == [[i for i, _ in batch] for batch in keys]
    for left, right in zip(alone, threads, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def test_images_are_read_a_few_batches_ahead(
    odd_images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def keys() -> Iterator[list[tuple[int, int]]]:
        for seed in range(9):
            drawn.append(seed)
            yield [(seed % 7, seed)]

    reading = Images(odd_images, PAPER, {}).batches(keys(), Runtime(CPU, workers=2))
    next(reading)
    assert drawn == [*range(1 + batches.AHEAD)]
    reading.close()  # as when an epoch is cut short
    assert len(drawn) == 1 + batches.AHEAD


def test_a_threads_error_reads_like_any_other(tree: Callable[..., Path]) -> None:
    root = tree()
    paths = load_task("office31", root, "A2W").source.paths
    paths[3].write_text("no image")
    with pytest.raises(UserError) as direct:
        Images(paths, PAPER, {})[3, None]
    assert str(paths[3]) in str(direct.value)
    with pytest.raises(UserError) as caught:
        list(Images(paths, PAPER, {}).batches([[(3, None)]], Runtime(CPU, workers=1)))
    assert str(caught.value) == str(direct.value)
