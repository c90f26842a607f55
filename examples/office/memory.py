"""How much memory there is, within the limits of a container or a job scheduler."""

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch

# Of each cgroup version: where its tree is mounted, its limits, what is used, and what of that
# are files' pages that the kernel gives back when it needs them.
V1 = ("memory", ("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file")
V2 = ("", ("memory.max", "memory.high"), "memory.current", "inactive_file")


def free_memory(device: torch.device, root: Path = Path("/")) -> float:
    """Return the bytes that are free on a GPU, or of RAM; infinity where nothing tells.

    Args:
        device: Where the memory is.
        root: Folder that /proc and /sys are in.
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
    """Yield what is free under each limit of the process's groups, from its own to the root's."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, group = line.split(":", 2)
        if number != "0" and "memory" not in controllers.split(","):
            continue
        mount, limits, current, inactive = V2 if number == "0" else V1
        # Within a container, the group may be named as outside: then only the root is there.
        folder = (root / "sys/fs/cgroup" / mount).joinpath(*Path(group).parts[1:])
        while folder != root / "sys/fs":
            used = max(0, _number(folder / current, 0) - _field(folder, inactive))
            for limit in limits:
                yield _number(folder / limit, math.inf) - used
            folder = folder.parent


def _number(path: Path, otherwise: float) -> float:
    with suppress(OSError, ValueError):  # not there, or "max"
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
    """Return what is left of ``ulimit -v``, by which some job schedulers limit memory."""
    try:
        import resource  # not on Windows

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit == resource.RLIM_INFINITY:
            return math.inf
        pages = int((root / "proc/self/statm").read_text().split()[0])
        return limit - pages * resource.getpagesize()
    except (ImportError, OSError, ValueError):
        return math.inf
