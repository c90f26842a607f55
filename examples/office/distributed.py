"""The loop's part of torch.distributed; without torchrun there is only one process."""

import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from office.console import UserError

T = TypeVar("T")


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join torchrun's processes for the block, with nccl on CUDA and gloo elsewhere."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not dist.is_torchelastic_launched():
        yield
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def launched() -> int:
    """Return the number of processes that torchrun started, even before they have joined."""
    return int(os.environ["WORLD_SIZE"]) if dist.is_torchelastic_launched() else 1


def rank() -> int:
    """Return this process's rank; rank 0 writes the files."""
    return dist.get_rank() if dist.is_initialized() else 0


def processes() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def in_first(make: Callable[[], T], *, of_machine: bool = False) -> T:
    """Call a function in the first process, and return its value in every process.

    With ``of_machine`` the first process of each machine calls it for the others there.

    Raises:
        UserError: In the first process of all, if the function raises it (an ``OSError`` too); the
            others exit silently.
    """
    local = int(os.environ["LOCAL_RANK"]) if dist.is_initialized() else 0
    first = rank() - local if of_machine else 0
    value, error = None, None
    if rank() == first:
        try:
            value = make()
        except (UserError, OSError) as raised:
            error = raised
    values, errors = zip(*gather((value, error)), strict=True)
    if any(errors) and rank():
        sys.exit(1)
    for error in filter(None, errors):
        raise error
    return cast(T, values[first])


def gather(value: T) -> list[T]:
    """Return every process's value in every process."""
    if processes() == 1:
        return [value]
    values: list[T] = [value] * processes()
    dist.all_gather_object(values, value)
    return values


def in_order(rows: list[tuple[Tensor, ...]]) -> list[Tensor]:
    """Return, in every process, what all processes computed for shares of the same images.

    Each batch of ``rows`` has the images' indices, then rows for them, one per tensor; the tensors
    for all images are ordered by index, on the CPU.
    """
    mine = [torch.cat(batches).cpu() for batches in zip(*rows, strict=True)] if rows else None
    shares = [share for share in gather(mine) if share is not None]
    index, *tensors = (torch.cat(parts) for parts in zip(*shares, strict=True))
    return [tensor[index.argsort()] for tensor in tensors]


def mean(values: Tensor) -> Tensor:
    """Return the mean over the processes."""
    if processes() > 1:
        dist.all_reduce(values)
    return values / processes()


def share_buffers(module: nn.Module) -> None:
    """Give every process the first one's buffers: batch-norm statistics differ after a step."""
    if processes() > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)


@functools.cache
def say_once(line: str) -> None:
    """Print a line once, in the first process only."""
    if rank() == 0:
        print(line, flush=True)
