"""What a run shows while it trains: a bar, TensorBoard scalars, one JSON line per epoch."""

import json
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from office import distributed, files
from office.console import UserError
from office.training.runs import Run

LOG_EVERY = 10  # steps; reading the losses waits for the device, so not at every step
ABSURD = 1e4  # a term starts at about log K; in runs that recover it stays below some hundreds
FIRST, EVERY = 10, 60.0  # when to print the time left: after 10 steps, then every 60 seconds


class Progress:
    """The losses of a run's steps, read now and then, on the console and in the run's folder.

    Only the first process shows and writes them: a bar, TensorBoard's event files, log.jsonl.

    Args:
        run: The run.
        folder: Its folder.
        done: Steps already done, when a run is resumed.
        images: Images per step, of both domains and all processes.
    """

    def __init__(self, run: Run, folder: Path, done: int, images: int) -> None:
        self.first = distributed.rank() == 0
        self.run, self.folder, self.images = run, folder, images
        self.start, self.done = done, done
        self.started = time.monotonic()
        self.printed: float | None = None  # when the time left was last printed
        self.warned = False
        self.accuracies: dict[str, str] = {}  # before the terms, which narrow terminals cut off
        self.terms: dict[str, str] = {}
        self.writer = SummaryWriter(folder, purge_step=done + 1) if self.first else None
        if self.first:
            images_of = (str(len(d.paths)) for d in (run.task.source, run.task.target))
            at = f", {done} done" if done else ""
            sizes = " + ".join(images_of)
            print(f"{run.title}: {sizes} images, {run.steps} steps{at}", flush=True)
        self.bar = tqdm(
            desc=f"{run.task.name} {run.method} {run.seed}",
            total=run.steps * images,
            initial=done * images,
            unit=" images",
            unit_scale=True,
            # Without a terminal there is no bar: the epochs' lines are enough.
            disable=None if self.first else True,
        )

    def begin(self, steps: int) -> None:
        """Begin an epoch of so many steps."""
        self.steps, self.in_epoch = steps, 0
        self.unread: list[Tensor] = []
        self.sums: Any = 0.0

    def step(self, terms: Mapping[str, Tensor], lam: float, rates: Sequence[float]) -> None:
        """Count a step with its losses by name, λ, and the rates of backbone and head.

        Raises:
            UserError: If a loss is not finite.
        """
        self.done += 1
        self.in_epoch += 1
        self.unread.append(torch.stack([*terms.values()]).detach())
        if self.in_epoch % LOG_EVERY == 0 or self.in_epoch == self.steps:
            scalars = {"lr/backbone": rates[0], "lr/head": rates[1], "lambda": lam}
            self._read([*terms], scalars)
        self.bar.update(self.images)
        if self.first:
            self._print_time_left()

    def means(self) -> dict[str, float]:
        """Return the mean of each loss over the epoch."""
        return dict(zip(self.names, self.sums.tolist(), strict=True))

    def _read(self, names: list[str], scalars: Mapping[str, float]) -> None:
        """Read the losses of the last steps; this waits for the device."""
        values = distributed.mean(torch.stack(self.unread).mean(0)).tolist()
        losses = dict(zip(names, values, strict=True))
        if not all(map(math.isfinite, values)):
            raise UserError(f"a loss is not finite at step {self.done}: {losses}")
        self._warn_once(losses)
        self.names = names
        self.sums = self.sums + np.array(values) * len(self.unread) / self.steps
        self.unread = []
        if self.writer:
            for name, value in losses.items():
                self.writer.add_scalar(f"loss/{name}", value, self.done)
                self.terms[name] = f"{value:.3g}"
            for tag, value in scalars.items():
                self.writer.add_scalar(tag, value, self.done)
            self.bar.set_postfix(self.accuracies | self.terms, refresh=False)

    def _warn_once(self, losses: Mapping[str, float]) -> None:
        """Warn about losses that are finite but larger than in any healthy run."""
        large = [f"{name} {value:.3g}" for name, value in losses.items() if abs(value) > ABSURD]
        if large and not self.warned and self.first:
            self.warned = True
            warnings.warn(
                f"losses above {ABSURD:,.0f} at step {self.done}: {', '.join(large)}; the run has "
                f"diverged, try a lower --lr than {self.run.recipe.lr:g}",
                stacklevel=2,
            )

    def _print_time_left(self) -> None:
        """Print the time left after ten steps and, without a bar, once a minute."""
        now, new = time.monotonic(), self.done - self.start
        minute = self.printed is not None and self.bar.disable and now - self.printed >= EVERY
        if new == FIRST or minute:
            left = (self.run.steps - self.done) * (now - self.started) / new
            self.printed = now
            if left >= EVERY / 10:
                of = f"step {self.done:,} of {self.run.steps:,}"
                self.bar.write(f"{of}, about {in_time(left)} left")

    def epoch(self, history: list[dict[str, Any]]) -> None:
        """Print, write and log the newest line of ``history``, one entry per epoch."""
        if not self.writer:
            return
        newest = history[-1]
        accuracies = {tag: v for tag, v in newest.items() if "_accuracy/" in tag and v is not None}
        for tag, value in accuracies.items():
            self.writer.add_scalar(tag, value, self.done)
            self.accuracies[tag.replace("_accuracy/", " ")] = f"{value:.1f}%"
        terms = [
            f"{name} {value:.3g}"
            for name, value in newest.items()
            if isinstance(value, float)
            and name not in accuracies
            and not name.startswith("weight/")
        ]
        self.bar.set_postfix(self.accuracies | self.terms)
        title = f"epoch {newest['epoch']}/{self.run.epochs}"
        self.bar.write("  ".join([title, *in_words(accuracies), *terms]))
        lines = "".join(json.dumps(line) + "\n" for line in history)
        files.write(self.folder / "log.jsonl", lines.encode())

    def __enter__(self) -> "Progress":
        """Return itself, for a with statement."""
        return self

    def __exit__(self, *_: object) -> None:
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


def in_words(accuracies: Mapping[str, float]) -> list[str]:
    """Return "target C_t 86.5 %", "C_s 85.9 %", "source C_s 99.2 %", naming each domain once."""
    words, before = [], None
    for tag, value in accuracies.items():
        domain, classifier = tag.split("_accuracy/")
        words.append(f"{'' if domain == before else f'{domain} '}{classifier} {value:.1f} %")
        before = domain
    return words
