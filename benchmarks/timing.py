"""Shared by the benchmarks: arguments, interleaved timing, files of runs, tables, the machine."""

import argparse
import csv
import dataclasses
import math
import platform
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

from office import console as console  # the other scripts import it from here


def new_file(text: str) -> Path:
    """Read the path of a file to write, in an existing folder."""
    path = Path(text)
    if not path.parent.is_dir() or path.is_dir():
        raise argparse.ArgumentTypeError(f"must be a file in a folder that exists, got {text!r}")
    return path


def start(path: Path, run: type[Any], key: Sequence[str]) -> set[tuple[str, ...]]:
    """Return the keys of the runs in a CSV file; start the file if there is none.

    Args:
        path: The file.
        run: A dataclass, whose fields are the columns.
        key: The fields that tell runs apart.
    """
    if path.exists():
        return {tuple(line[name] for name in key) for line in read(path)}
    columns = [field.name for field in dataclasses.fields(run)]
    path.write_text(",".join(columns) + "\n", encoding="utf-8")
    return set()


def append(path: Path, *runs: Any) -> None:
    """Append dataclasses to a CSV file, one line each."""
    with open(path, "a", encoding="utf-8", newline="") as file:
        for run in runs:
            csv.writer(file, lineterminator="\n").writerow(
                f"{value:.5g}" if isinstance(value, float) else value
                for value in dataclasses.astuple(run)
            )


def read(path: Path) -> list[dict[str, str]]:
    """Return the lines of a CSV file."""
    with open(path, encoding="utf-8", newline="") as file:
        return [*csv.DictReader(file)]


def parser(doc: str, repeat: int) -> argparse.ArgumentParser:
    """Return a parser with the script's docstring as help and the arguments all scripts share."""
    form = argparse.RawDescriptionHelpFormatter
    result = argparse.ArgumentParser(description=doc, formatter_class=form)
    add = result.add_argument
    add("--device", type=console.device, default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    help_ = f"measured rounds, after a warm-up (default: {repeat})"
    add("--repeat", type=console.positive, default=repeat, metavar="N", help=help_)
    add("--quick", action="store_true", help="tiny sizes, to check that the script runs")
    add("--out", type=new_file, metavar="FILE", help="also write the table to FILE")
    return result


def interleave(
    calls: Mapping[str, Callable[[], object]],
    repeat: int,
    device: torch.device,
    at_least: float = 0.0,
) -> dict[str, list[float]]:
    """Measure each call ``repeat`` times in turn, A B A B ..., after warm-up calls of each.

    Args:
        calls: What to measure, by name.
        repeat: Measured rounds.
        device: Device to wait for before reading the clock.
        at_least: Minimum seconds per sample; a faster call is repeated within it.

    Returns:
        Seconds per call, one number per round.
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


def waiter(device: torch.device) -> Callable[[], None]:
    """Return a function that waits until a device has finished its work."""
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    # Of mps, xpu and the CPU, which has no queue.
    wait: Callable[[], None] = getattr(torch, device.type).synchronize
    return wait


def _seconds(call: Callable[[], object], inner: int, device: torch.device) -> float:
    wait = waiter(device)
    if inner > 1:
        call()  # a short call is affected by what others left in the caches
    wait()
    start = time.perf_counter()
    for _ in range(inner):
        call()
    wait()
    return (time.perf_counter() - start) / inner


def median(values: Sequence[float]) -> float:
    """Return the median, or the mean of the middle two of an even number of values."""
    return torch.tensor(values, dtype=torch.float64).quantile(0.5).item()


def spread(values: Iterable[float]) -> str:
    """Format the median, with the first and third quartiles in brackets."""
    samples = torch.tensor([*values], dtype=torch.float64)
    low, middle, high = samples.quantile(samples.new_tensor([0.25, 0.5, 0.75])).tolist()
    return f"{three_digits(middle)} ({three_digits(low)} to {three_digits(high)})"


def time_and_ratio(times: Sequence[float], base: Sequence[float]) -> list[str]:
    """Format milliseconds, and their ratio to ``base`` in the same round."""
    ratios = [a / b for a, b in zip(times, base, strict=True)]
    return [spread(1000 * t for t in times), spread(ratios)]


def three_digits(value: float) -> str:
    """Format a positive number with three significant digits, without an exponent."""
    value = float(f"{value:.2e}")  # 0.9999 has as many decimals as 1
    return f"{value:,.{max(0, 2 - math.floor(math.log10(value)))}f}"


def report(
    title: str, rows: list[list[str]], notes: list[str], device: torch.device, out: Path | None
) -> None:
    """Print title, Markdown table (first row: header), notes and machine; write them to ``out``."""
    text = "\n\n".join([title, markdown(rows), *notes, machine(device)]) + "\n"
    print(text, end="")
    if out:
        out.write_text(text, encoding="utf-8")


def markdown(rows: list[list[str]]) -> str:
    """Return a Markdown table; the first row is its header."""
    header, *body = rows
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def machine(device: torch.device) -> str:
    """Return one line: processor, GPU if it is used, threads, torch, date."""
    cpuinfo = Path("/proc/cpuinfo")
    found = cpuinfo.exists() and re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text())
    parts = [found[1] if found else platform.processor() or platform.machine()]
    if device.type == "cuda":
        parts.append(torch.cuda.get_device_name(device))
    threads = f"{torch.get_num_threads()} thread(s)"
    return "Machine: " + ", ".join([*parts, threads, f"torch {torch.__version__}, {date.today()}"])
