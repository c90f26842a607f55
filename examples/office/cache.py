"""Images that are decoded once, for all runs: the benchmarks are small enough for the memory."""

import math
import os
import warnings
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from office import data, distributed


def fill(choice: str, tasks: Iterable[data.Task], device: torch.device) -> dict[Path, Tensor]:
    """Decode every image of the tasks, which also finds the unreadable ones.

    Args:
        choice: Where to keep the images: "ram", "device", or "off", not at all.
        tasks: Tasks that are going to be trained.
        device: Device that they are trained on.

    Returns:
        What :func:`data.resized` gives, by path. Empty if off, or, with a warning, if the images
        would take more than half of the memory that is free.

    Raises:
        DataError: In the first process, with one line per unreadable image.
    """
    domains = (domain for task in tasks for domain in (task.source, task.target))
    paths = [*dict.fromkeys(path for domain in domains for path in domain.paths)]
    place = device if choice == "device" else torch.device("cpu")
    keep = choice != "off" and distributed.from_first(_fits(paths, place))
    if distributed.rank() and not keep:
        return {}
    read = (lambda path: data.resized(path).to(place)) if keep else data.mode
    found = data.read_all(paths, read, "decoding")
    faults = [str(image) for image in found if isinstance(image, data.DataError)]
    if faults and not distributed.rank():
        raise data.DataError("\n".join(faults))
    images = zip(paths, found, strict=True)
    return {path: image for path, image in images if isinstance(image, Tensor)}


def _fits(paths: list[Path], place: torch.device) -> bool:
    """Whether every process can keep the images; the first one says what they take."""
    if distributed.rank() or not paths:
        return False
    # A GPU belongs to one process; the processes of one machine share its RAM.
    copies = 1 if place.type == "cuda" else int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    needed = copies * sum(data.read_all(paths, data.resized_bytes, "measuring"))
    free = free_memory(place)
    size = tqdm.format_sizeof(needed, "B") + (f" in {copies} processes" if copies > 1 else "")
    where = place if place.type == "cuda" else "memory"
    if needed > free / 2:
        warnings.warn(
            f"images in {where} would take {size}, more than half of the "
            f"{tqdm.format_sizeof(free, 'B')} that are free: going on as with --cache off",
            stacklevel=3,
        )
        return False
    print(f"images in {where}: {size}", flush=True)
    return True


def free_memory(place: torch.device) -> float:
    """Return the bytes that are free on a GPU, or of RAM; infinity where nothing tells."""
    if place.type == "cuda":
        return torch.cuda.mem_get_info(place)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # not Linux
        return math.inf
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    try:
        return min(free, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # in no container, or one without a limit: "max"
        return free
