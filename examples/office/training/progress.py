"""What a run shows while it trains: a bar, TensorBoard scalars, one JSON line per epoch."""

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from office import distributed, files

FIRST, EVERY = 10, 60.0  # when to print the time left: after 10 steps, then every 60 seconds


class Progress:
    """Bar, event files and log.jsonl of one run; silent in all processes except the first.

    Args:
        folder: The run's folder.
        title: Shown before the bar.
        steps: Steps of the whole run.
        done: Steps already done, when a run is resumed.
        images: Images per step, of both domains and all processes.
    """

    def __init__(self, folder: Path, title: str, steps: int, done: int, images: int) -> None:
        self.first = distributed.rank() == 0
        self.folder, self.images = folder, images
        self.steps, self.done = steps, done
        self.started = time.monotonic()
        self.told: float | None = None  # when the time left was last printed
        self.accuracies: dict[str, str] = {}  # before the terms, which narrow terminals cut off
        self.terms: dict[str, str] = {}
        self.writer = SummaryWriter(folder, purge_step=done + 1) if self.first else None
        self.bar = tqdm(
            desc=title,
            total=steps * images,
            initial=done * images,
            unit=" images",
            unit_scale=True,
            # Without a terminal there is no bar: the epochs' lines are enough.
            disable=None if self.first else True,
        )

    def step(self, step: int, scalars: dict[str, float]) -> None:
        """Count a step; write its ``scalars``, if any, and show those under "loss/"."""
        if self.first and scalars:
            for tag, value in scalars.items():
                self.writer.add_scalar(tag, value, step)
                if tag.startswith("loss/"):
                    self.terms[tag[5:]] = f"{value:.3g}"
            self.bar.set_postfix(self.accuracies | self.terms, refresh=False)
        self.bar.update(self.images)
        if self.first:
            self._tell_time_left(step)

    def _tell_time_left(self, step: int) -> None:
        """Print the time left after ten steps and, without a bar, once a minute."""
        now, new = time.monotonic(), step - self.done
        if new == FIRST or (self.told and self.bar.disable and now - self.told >= EVERY):
            left = (self.steps - step) * (now - self.started) / new
            self.told = now
            if left >= EVERY / 10:
                self.bar.write(f"step {step:,} of {self.steps:,}, about {in_time(left)} left")

    def epoch(self, step: int, epochs: int, history: list[dict[str, Any]]) -> None:
        """Print, write and log the newest line of ``history``, one entry per epoch."""
        if not self.first:
            return
        newest = history[-1]
        accuracies = {tag: v for tag, v in newest.items() if "_accuracy/" in tag and v is not None}
        for tag, value in accuracies.items():
            self.writer.add_scalar(tag, value, step)
            self.accuracies[tag.replace("_accuracy/", " ")] = f"{value:.1f}%"
        terms = [
            f"{name} {value:.3g}"
            for name, value in newest.items()
            if isinstance(value, float)
            and name not in accuracies
            and not name.startswith("weight/")
        ]
        self.bar.set_postfix(self.accuracies | self.terms)
        self.bar.write(
            "  ".join([f"epoch {newest['epoch']}/{epochs}", *in_words(accuracies), *terms])
        )
        lines = "".join(json.dumps(line) + "\n" for line in history)
        files.write(self.folder / "log.jsonl", lines.encode())

    def close(self) -> None:
        """Close the bar and flush the event file."""
        self.bar.close()
        if self.writer is not None:
            with suppress(OSError):  # a full disk is reported by other writes
                self.writer.close()


def in_time(seconds: float) -> str:
    """Return "40 s", "12 min" or "3.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def in_words(accuracies: dict[str, float]) -> list[str]:
    """Return "target C_t 86.5 %", "C_s 85.9 %", "source C_s 99.2 %", naming each domain once."""
    words, before = [], None
    for tag, value in accuracies.items():
        domain, classifier = tag.split("_accuracy/")
        words.append(f"{'' if domain == before else f'{domain} '}{classifier} {value:.1f} %")
        before = domain
    return words
