"""How much memory there is."""

import math
from pathlib import Path

import torch


def free_memory(device: torch.device) -> float:
    """Return the bytes that are free on a GPU, or of RAM; infinity where nothing tells."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # not Linux
        return math.inf
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    try:
        return min(free, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # in no container, or one without a limit: "max"
        return free
