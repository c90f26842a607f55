"""What the benchmarks share: arguments, interleaved timing, a Markdown table, the machine."""

import argparse
import math
import platform
import re
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from pathlib import Path

import torch


def parser(doc: str, repeat: int) -> argparse.ArgumentParser:
    """Return a parser whose help is the script's docstring, with the arguments all scripts take."""
    result = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("--device", type=_device, default="cpu", help="cpu or cuda (default: cpu)")
    result.add_argument(
        "--repeat",
        type=positive,
        default=repeat,
        metavar="N",
        help=f"measured rounds, after unmeasured ones (default: {repeat})",
    )
    result.add_argument(
        "--quick", action="store_true", help="tiny sizes, to prove that the script runs"
    )
    result.add_argument("--out", type=new_file, metavar="FILE", help="write the table here too")
    return result


def positive(text: str) -> int:
    """Read a whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, got {text!r}")
    return int(text)


def new_file(text: str) -> Path:
    """Read the path of a file to write, in a folder that is there."""
    path = Path(text)
    if not path.parent.is_dir() or path.is_dir():
        raise argparse.ArgumentTypeError(f"must be a file in a folder that exists, got {text!r}")
    return path


def _device(text: str) -> torch.device:
    if not re.fullmatch(r"cpu|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"must be cpu, cuda or cuda:N, got {text!r}")
    device = torch.device(text)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise argparse.ArgumentTypeError(f"torch sees no such device here: {text!r}")
    return device


def interleave(
    calls: dict[str, Callable[[], object]],
    repeat: int,
    device: torch.device,
    at_least: float = 0.0,
) -> dict[str, list[float]]:
    """Measure each call ``repeat`` times in turn, A B A B ..., after two unmeasured rounds.

    Args:
        calls: What to measure, by name.
        repeat: Measured rounds.
        device: Device that is waited for before the clock is read.
        at_least: Seconds that one sample takes at least: a faster call is repeated inside it.

    Returns:
        Seconds per call, one number for each round.
    """
    inner = {}
    for name, call in calls.items():
        _seconds(call, 2, device)  # the first call compiles, allocates, fills caches
        inner[name] = math.ceil(at_least / _seconds(call, 1, device)) or 1
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeat):
        for name, call in calls.items():
            times[name].append(_seconds(call, inner[name], device))
    return times


def _seconds(call: Callable[[], object], inner: int, device: torch.device) -> float:
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda _: None
    wait(device)
    start = time.perf_counter()
    for _ in range(inner):
        call()
    wait(device)
    return (time.perf_counter() - start) / inner


def median_and_quartiles(values: Iterable[float]) -> list[str]:
    """Format the median and the first and third quartile as two cells."""
    samples = torch.tensor([*values], dtype=torch.float64)
    low, median, high = samples.quantile(samples.new_tensor([0.25, 0.5, 0.75])).tolist()
    return [three_digits(median), f"{three_digits(low)} to {three_digits(high)}"]


def three_digits(value: float) -> str:
    """Format a positive number with three significant digits, without an exponent."""
    value = float(f"{value:.2e}")  # 0.9999 has as many decimals as 1
    return f"{value:,.{max(0, 2 - math.floor(math.log10(value)))}f}"


def report(
    title: str,
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    notes: Iterable[str],
    device: torch.device,
    out: Path | None,
) -> None:
    """Print a Markdown table with its title, its notes and the machine, and write it to a file."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    text = "\n\n".join([title, table, *notes, machine(device)]) + "\n"
    print(text, end="")
    if out:
        out.write_text(text, encoding="utf-8")


def machine(device: torch.device) -> str:
    """Return one line: processor, GPU if it is used, threads, torch, date."""
    cpuinfo = Path("/proc/cpuinfo")
    found = cpuinfo.exists() and re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text())
    parts = [found[1] if found else platform.processor() or platform.machine()]
    if device.type == "cuda":
        parts.append(torch.cuda.get_device_name(device))
    threads = torch.get_num_threads()
    parts.append(f"{threads} thread{'s' if threads > 1 else ''}")
    return ", ".join([*parts, f"torch {torch.__version__}", str(date.today())])
