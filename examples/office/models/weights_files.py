"""A backbone's weights from any common kind of file: found, unwrapped and checked."""

import functools
import itertools
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from office import distributed, files
from office.console import UserError

# What torch.compile, FSDP and checkpointing insert into keys.
WRAPPERS = re.compile(r"(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")


class Found(NamedTuple):
    """Weights found in a file, perhaps for this network.

    Attributes:
        state: Tensors by key, with the network's keys.
        inside: Keys of the dictionaries that contain them.
        prefix: The prefix removed from their keys.
        others: Keys beside them without the prefix.
    """

    state: dict[str, Tensor]
    inside: tuple[str, ...]
    prefix: str
    others: list[str]


def read(path: Path, network: nn.Module, backbone: str, ignore: str) -> dict[str, Tensor]:
    """Return the state_dict of a network, without the layer that is removed, as float32.

    It may be inside dictionaries, such as ``{"state_dict": ...}`` or ``{"model": ...}``, and its
    keys may have a prefix, such as ``module.`` or ``backbone.``; a line on the console says so.

    Args:
        path: A file written by torch.save.
        network: The network.
        backbone: Its name.
        ignore: Name of the layer that is removed.

    Raises:
        UserError: If the file contains no such weights, or several; says which keys it has.
    """
    content = files.load(path)
    wanted = {k: v for k, v in network.state_dict().items() if not _within(k, ignore)}
    found = [one for state, inside in _states(content) for one in _prefixes(state, inside, wanted)]
    faults = [_faults(one.state, wanted, ignore) for one in found]
    fitting = [one for one, fault in zip(found, faults, strict=True) if not fault]
    if not fitting:
        where = "none belong to this network"
        if found:
            closest = max(range(len(found)), key=lambda i: len(found[i].state.keys() & wanted))
            where = f"{faults[closest]}{_place(found[closest])}"
        raise UserError(f"the weights {path} do not fit {backbone}: {where}; {_keys(content)}")
    if len(fitting) > 1:
        places = " and ".join(f"those{_place(one)}" for one in fitting)
        raise UserError(f"{path} contains several weights for {backbone}: {places}; save only one")
    (taken,) = fitting
    if taken.inside or taken.prefix:
        left = f"; ignored: {_some(taken.others)}" if taken.others else ""
        say_once(f"weights {path}: loaded{_place(taken)}{left}")
    return {
        key: value.float() if value.is_floating_point() else value
        for key, value in taken.state.items()
        if key in wanted
    }


def _states(content: dict, inside: tuple[str, ...] = ()) -> Iterator[tuple[dict, tuple[str, ...]]]:
    """Yield each dictionary in a file that contains tensors by name, and where it is."""
    state = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if state:
        yield {WRAPPERS.sub("", key): value for key, value in state.items()}, inside
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _states(value, (*inside, str(key)))


def _prefixes(
    state: dict[str, Tensor], inside: tuple[str, ...], wanted: dict[str, Tensor]
) -> Iterator[Found]:
    """Yield a dictionary's weights for each prefix whose removal gives a wanted key."""
    dots = [(key, i) for key in state for i in (0, *(m.end() for m in re.finditer(r"\.", key)))]
    for prefix in dict.fromkeys(key[:i] for key, i in dots if key[i:] in wanted):
        mine = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        yield Found(mine, inside, prefix, [k for k in state if not k.startswith(prefix)])


def _faults(given: dict[str, Tensor], wanted: dict[str, Tensor], ignore: str) -> str:
    missing = [k for k in wanted if k not in given and not k.endswith("num_batches_tracked")]
    unknown = [k for k in given if k not in wanted and not _within(k, ignore)]
    faults = [
        f"{len(keys)} keys {what}, the first {keys[0]}"
        for what, keys in (("missing", missing), ("unknown", unknown))
        if keys
    ]
    shapes = [k for k in wanted if k in given and wanted[k].shape != given[k].shape]
    if shapes:
        key = shapes[0]
        faults.append(
            f"{len(shapes)} shapes differ, the first {key}: {tuple(given[key].shape)} in the "
            f"file, {tuple(wanted[key].shape)} in the network"
        )
    return "; ".join(faults)


def _within(key: str, layer: str) -> bool:
    return key.startswith(f"{layer}.")


def _place(found: Found) -> str:
    inside = "".join(f"[{key!r}]" for key in found.inside)
    prefix = f" without the prefix {found.prefix}" if found.prefix else ""
    return (f" from {inside}" if inside else "") + prefix


def _keys(content: dict[Any, Any]) -> str:
    """Say which keys a file has, including those of dictionaries in it."""
    if not content:
        return "it is empty"
    within = [f"in {k!r} {_some(v)}" for k, v in content.items() if isinstance(v, dict) and v]
    return f"it has the keys {'; '.join([_some(content), *within[:3]])}"


def _some(keys: Collection[Any]) -> str:
    """Join the first few keys, and say how many there are."""
    first = ", ".join(str(key) for key in itertools.islice(keys, 3))
    return f"{first}, ... ({len(keys)} in all)" if len(keys) > 3 else first


@functools.cache
def say_once(line: str) -> None:
    """Print a line once, in the first process only."""
    if distributed.rank() == 0:
        print(line, flush=True)
