"""Crops set by a seed, their batches, and signals that come while workers start."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import driver
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


def test_images_come_with_their_index_and_no_label(tree: Callable[..., Path]) -> None:
    task = load_task("office31", tree(), "A2W")
    order = [7, 0, 11, 4, 2]
    loader = batches.crop_loader(
        Images(task.target.paths, PAPER, {}),
        CPU,
        0,
        [[(i, None) for i in order]],
    )
    ((batch, flips, index),) = loader
    assert index.tolist() == order
    assert not flips.any()
    transform = images.eval_transform(PAPER)
    for image, i in zip(images.Normalize(PAPER)(batch), order, strict=True):
        assert torch.equal(image, transform(images.load_image(task.target.paths[i])))


def batch_of(paths: list[Path], cache: dict[Path, torch.Tensor], seeds: Sequence[int]):
    """The source batch of the images 0, 1, ..., again and again, as the loop gets it."""
    domain = Domain("a", paths, [*range(len(paths))])
    task = Task("a2b", domain, domain, [*map(str, domain.labels)])
    recipe = Recipe("folders", batch_size=len(seeds))
    drawn = ImageBatches(Run(recipe, task, "source-only", 0), Runtime(CPU, workers=0), cache)
    keys = [(i % len(paths), seed) for i, seed in enumerate(seeds)]
    drawn.loaders = [batches.crop_loader(Images(paths, PAPER, cache), CPU, 0, [keys])]
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


def test_cached_images_need_no_worker_processes(odd_images: list[Path], tmp_path: Path) -> None:
    cache = images.decode("ram", odd_images, PAPER, CPU, tmp_path)
    for cached, workers in (({}, 2), (cache, 0)):
        loader = batches.crop_loader(Images(odd_images, PAPER, cached), CPU, 2, [])
        assert loader.num_workers == workers


# Workers


@pytest.mark.filterwarnings("ignore:.*multi-threaded")
def test_a_workers_error_reads_like_any_other(tree: Callable[..., Path]) -> None:
    root = tree()
    paths = load_task("office31", root, "A2W").source.paths
    paths[3].write_text("no image")
    with pytest.raises(UserError) as direct:
        Images(paths, PAPER, {})[3, None]
    assert str(paths[3]) in str(direct.value)
    with pytest.raises(UserError) as caught:
        list(batches.crop_loader(Images(paths, PAPER, {}), CPU, 1, [[(3, None)]]))
    assert str(caught.value) == str(direct.value)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_waits_until_the_loader_is_made(number: int) -> None:
    steps = []

    class Stopping:
        def __iter__(self) -> Iterator[list[int]]:
            signal.raise_signal(number)
            steps.append("made")
            return iter([])

    loader = batches.crop_loader(Images([], PAPER, {}), CPU, 0, Stopping())
    handler = signal.signal(number, signal.default_int_handler)  # for SIGTERM as the script does
    try:
        with pytest.raises(KeyboardInterrupt):
            next(iter(loader))
        assert steps == ["made"]
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, handler)


LOAD = """
import signal, sys, time
from pathlib import Path
import torch
from office import console
from office.data import images
from office.training import batches

started, image = map(Path, sys.argv[1:])

def slowly(threads):  # a worker calls this after torch has set its signal handlers
    started.touch()
    time.sleep(1)

def main():
    torch.set_num_threads = slowly
    data = batches.Images([image], images.Preprocessing(), {})
    try:
        next(iter(batches.crop_loader(data, torch.device("cpu"), 1, [[(0, None)]])))
    except KeyboardInterrupt:
        time.sleep(2)  # as long as a run takes to say what it leaves
        raise

signal.signal(signal.SIGINT, signal.default_int_handler)  # which the shell's background jobs ignore
console.run(main)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="groups of processes get no signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_while_workers_start_is_silent(
    odd_images: list[Path], tmp_path: Path, number: int
) -> None:
    places = [str(driver.SCRIPT.parent), os.environ.get("PYTHONPATH", "")]
    started = tmp_path / "started"
    process = subprocess.Popen(
        [sys.executable, "-c", LOAD, started, odd_images[0]],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(places)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while process.poll() is None and not started.exists():
        time.sleep(0.01)
    os.killpg(process.pid, number)
    _, stderr = process.communicate(timeout=120)
    assert (process.returncode, stderr) == (130, "")
