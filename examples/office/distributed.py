"""What the loop needs from torch.distributed; without torchrun there is only one process."""

import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

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


def from_first(value: T) -> T:
    """Return the first process's value in every process."""
    if processes() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def in_first(make: Callable[[], T]) -> T:
    """Call a function in the first process, and return its value in every process.

    Raises:
        UserError: In the first process, if the function raises it; the others exit silently.
    """
    value, failed = None, None
    if rank() == 0:
        try:
            value = make()
        except (UserError, OSError) as error:
            failed = error
    value, ended = from_first((value, failed is not None))
    if failed:
        raise failed
    if ended:
        sys.exit(1)
    return value


def gather(value: T) -> list[T]:
    """Return every process's value in every process."""
    if processes() == 1:
        return [value]
    values: list[T] = [value] * processes()
    dist.all_gather_object(values, value)
    return values


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


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Delay Ctrl-C and SIGTERM until the block ends."""
    came: list[int] = []
    held = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.signal(number, lambda number, _: came.append(number)) for number in held]
    try:
        yield
    finally:
        for number, handler in zip(held, handlers, strict=True):
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)


def leave_group(_: int) -> None:
    """Shield a worker from Ctrl-C and a group's SIGTERM: the training process ends it."""
    if hasattr(os, "setsid"):  # not on Windows
        os.setsid()


@functools.cache
def say_once(line: str) -> None:
    """Print a line once, in the first process only."""
    if rank() == 0:
        print(line, flush=True)
