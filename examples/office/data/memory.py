"""How much memory is free, within the limits of a container or a job scheduler."""

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch

# For each cgroup version: where it is mounted, its limits, the memory used, and the part of that
# in file pages, which the kernel can reclaim.
V1 = ("memory", ("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file")
V2 = ("", ("memory.max", "memory.high"), "memory.current", "inactive_file")


def free_memory(device: torch.device, root: Path = Path("/")) -> float:
    """Return the free bytes on a GPU or in RAM; infinity if unknown.

    Args:
        device: Where the memory is.
        root: Folder that contains /proc and /sys.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return max(0, min([_machine(root), _address_space(root), *_cgroups(root)]))


def _machine(root: Path) -> float:
    with suppress(OSError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable"):
                return int(line.split()[1]) * 1024
    return math.inf  # not Linux


def _cgroups(root: Path) -> Iterator[float]:
    """Yield the free bytes under each limit of the process's groups, from its own to the root's."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, group = line.split(":", 2)
        if number != "0" and "memory" not in controllers.split(","):
            continue
        mount, limits, current, inactive = V2 if number == "0" else V1
        # In a container, the group may have its outside name: then only the root exists.
        folder = (root / "sys/fs/cgroup" / mount).joinpath(*Path(group).parts[1:])
        while folder != root / "sys/fs":
            used = max(0, _number(folder / current, 0) - _field(folder, inactive))
            for limit in limits:
                yield _number(folder / limit, math.inf) - used
            folder = folder.parent


def _number(path: Path, otherwise: float) -> float:
    with suppress(OSError, ValueError):  # missing, or "max"
        return int(path.read_text())
    return otherwise


def _field(folder: Path, name: str) -> int:
    with suppress(OSError):
        for line in (folder / "memory.stat").read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    return 0


def _address_space(root: Path) -> float:
    """Return what is left of ``ulimit -v``, which some job schedulers set."""
    try:
        import resource  # not on Windows

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit == resource.RLIM_INFINITY:
            return math.inf
        pages = int((root / "proc/self/statm").read_text().split()[0])
        return limit - pages * resource.getpagesize()
    except (ImportError, OSError, ValueError):
        return math.inf
