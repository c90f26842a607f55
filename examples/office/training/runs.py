"""One run (task, method, seed and recipe): its folder, identity, checkpoint and progress."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from office import console, distributed, files
from office.console import UserError
from office.data import hashes
from office.data.tasks import Task
from office.methods import METHODS
from office.options import BALANCE, PROG, Recipe, Runtime

LOG_EVERY = 10  # steps; reading the losses waits for the device, so not at every step


@dataclass(frozen=True)
class Run:
    """A training run; its fields determine every number."""

    recipe: Recipe
    task: Task
    method: str  # a key of METHODS
    seed: int  # of everything random
    listing: str = field(default="", repr=False)  # every file of the task, as hashes.listings

    @property
    def title(self) -> str:
        """The run's name on the console."""
        return f"{self.recipe.dataset} {self.task.name} {self.method} seed {self.seed}"

    @property
    def per_epoch(self) -> int:
        """Steps per epoch, one pass over the larger domain, whichever domains the method uses."""
        larger = max(len(self.task.source.paths), len(self.task.target.paths))
        return larger // self.recipe.batch_size

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        recipe = self.recipe
        return recipe.max_steps or (recipe.epochs or 0) * self.per_epoch

    @property
    def epochs(self) -> int:
        """Epochs, the last one perhaps incomplete."""
        return -(-self.steps // self.per_epoch)

    def folder(self, out: Path) -> Path:
        """Return the folder of its files."""
        return out / self.recipe.dataset / self.task.name / self.method / f"seed{self.seed}"

    @property
    def settings(self) -> dict[str, Any]:
        """The recipe's settings that change this method's numbers, as JSON values."""
        method = METHODS[self.method]
        unused = (*BALANCE * (not method.balanced), *("partial",) * (not method.symmetric))
        return {k: value for k, value in self.recipe.settings().items() if k not in unused}

    @property
    def identity(self) -> dict[str, Any]:
        """The values that must agree between a run and its files, as JSON."""
        counts = [len(domain.paths) for domain in (self.task.source, self.task.target)]
        return self.settings | {
            "task": self.task.name,
            "method": self.method,
            "seed": self.seed,
            "categories": self.task.categories,
            "images": [*counts, hashes.checksum(self.listing)],
        }

    def is_finished(self, runtime: Runtime) -> bool:
        """Whether it has a result; :class:`UserError` if its folder holds another run's files.

        A checkpoint needs ``--resume``, unless a job is training the run.
        """
        folder = self.folder(runtime.out)
        result, checkpoint = folder / "result.json", folder / "checkpoint.pt"
        if result.exists():
            saved = files.load_json(result)
            self._compare(result, saved | saved.get("recipe", {}))
            return True
        if checkpoint.exists():
            self._compare(checkpoint, files.load(checkpoint, mmap=True).get("identity"))
            if not runtime.resume and not files.is_locked(folder):
                raise UserError(
                    f"{checkpoint} holds finished epochs of this run: continue it with --resume, "
                    "or delete it"
                )
        return False

    @contextmanager
    def alone(self, runtime: Runtime) -> Iterator[bool]:
        """Lock its folder, after another job that trains it; yield whether that has finished it."""
        folder = self.folder(runtime.out)

        def finished() -> bool:
            files.try_writing(folder)
            # Other processes of this job would not wait for hours.
            held.enter_context(files.locked(folder, wait=distributed.processes() == 1))
            return self.is_finished(runtime)

        with ExitStack() as held:
            yield distributed.in_first(finished)

    def start(self, runtime: Runtime) -> None:
        """Make its folder, with inputs.csv, and start measuring the memory of a GPU."""
        folder = self.folder(runtime.out)
        folder.mkdir(parents=True, exist_ok=True)
        files.write(folder / "inputs.csv", self.listing.encode())
        if runtime.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(runtime.device)

    def load_checkpoint(self, runtime: Runtime) -> dict[str, Any] | None:
        """Read what :func:`save_checkpoint` wrote; None if this is a new run."""
        path = self.folder(runtime.out) / "checkpoint.pt"
        return None if self.is_finished(runtime) or not path.exists() else files.load(path)

    def save_checkpoint(self, out: Path, content: dict[str, Any]) -> None:
        """Write checkpoint.pt."""
        files.save(self.folder(out) / "checkpoint.pt", {"identity": self.identity, **content})

    def checkpoint_left(self, out: Path) -> str:
        """Say which checkpoint a stopped run leaves."""
        path = self.folder(out) / "checkpoint.pt"
        if not path.exists():
            return "no epoch was finished, so there is no checkpoint"
        return f"{path} holds the finished epochs; continue with --resume"

    def _compare(self, path: Path, saved: object) -> None:
        """Raise :class:`UserError` if a file's identity is another run's."""
        if not isinstance(saved, dict):
            raise UserError(f"{path} was not written by {PROG}")
        # A setting missing from the file is newer than the file: it had its default, or its first.
        default = Recipe(self.recipe.dataset, prior="uniform").settings()
        saved = default | saved
        if isinstance(saved["preprocessing"], dict):
            saved["preprocessing"] = default["preprocessing"] | saved["preprocessing"]
        for name, value in self.identity.items():
            if saved.get(name) != value:
                listed = ", as inputs.csv beside it lists them" * (name == "images")
                raise UserError(
                    f"{path} belongs to another run ({name} {saved.get(name)} there{listed}, "
                    f"{value} here); choose another --out or delete it"
                )


class Progress(AbstractContextManager["Progress"]):
    """The losses of a run, read every few steps, on the console and in the run's folder.

    Only the first process shows and writes them: a bar, TensorBoard's event files, log.jsonl.
    ``done`` is the number of steps before, ``images`` that of images per step, over all processes.
    """

    def __init__(self, run: Run, folder: Path, done: int, images: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.run, self.folder, self.done, self.images = run, folder, done, images
        first = distributed.rank() == 0
        self.accuracies: dict[str, str] = {}  # before the terms, which narrow terminals cut off
        self.writer = SummaryWriter(folder, purge_step=done + 1) if first else None
        if first:
            source, target = len(run.task.source.paths), len(run.task.target.paths)
            at = f", {done} done" if done else ""
            print(f"{run.title}: {source} + {target} images, {run.steps} steps{at}", flush=True)
        name = f"{run.task.name} {run.method} {run.seed}"
        self.bar = console.bar(name, run.steps * images, done * images, disable=not first)

    def begin(self, steps: int) -> None:
        """Begin an epoch of ``steps`` steps."""
        self.steps, self.in_epoch = steps, 0
        self.unread: list[Tensor] = []
        self.sums: Any = 0.0

    def step(self, terms: Mapping[str, Tensor], lam: float, rates: Sequence[float]) -> None:
        """Count a step with its losses by name, λ, and the rates of backbone and head."""
        self.done += 1
        self.in_epoch += 1
        self.unread.append(torch.stack([*terms.values()]).detach())
        if self.in_epoch % LOG_EVERY == 0 or self.in_epoch == self.steps:
            self._read([*terms], {"lr/backbone": rates[0], "lr/head": rates[1], "lambda": lam})
        self.bar.update(self.images)

    def means(self) -> dict[str, float]:
        """Return the mean of each loss over the epoch."""
        return dict(zip(self.names, self.sums.tolist(), strict=True))

    def _read(self, names: list[str], scalars: dict[str, float]) -> None:
        """Read the losses of the last steps; this waits for the device."""
        values = distributed.mean(torch.stack(self.unread).mean(0)).tolist()
        losses = dict(zip(names, values, strict=True))
        if not all(map(math.isfinite, values)):
            raise UserError(f"a loss is not finite at step {self.done}: {losses}")
        self.names = names
        self.sums = self.sums + np.array(values) * len(self.unread) / self.steps
        self.unread = []
        if self.writer:
            for tag, value in ({f"loss/{name}": v for name, v in losses.items()} | scalars).items():
                self.writer.add_scalar(tag, value, self.done)
            terms = {name: f"{value:.3g}" for name, value in losses.items()}
            self.bar.set_postfix(self.accuracies | terms, refresh=False)

    def epoch(self, history: list[dict[str, Any]]) -> None:
        """Print, write and log the newest line of ``history``, one entry per epoch."""
        if not self.writer:
            return
        newest = {name: value for name, value in history[-1].items() if value is not None}
        number, line = newest.pop("epoch"), []
        for name, value in newest.items():
            if "_accuracy/" in name:
                self.writer.add_scalar(name, value, self.done)
                self.accuracies[name.replace("_accuracy/", " ")] = f"{value:.1f} %"
            elif not name.startswith("weight/"):
                line.append(f"{name} {value:.3g}")
        accuracies = [" ".join(pair) for pair in self.accuracies.items()]
        self.bar.write("  ".join([f"epoch {number}/{self.run.epochs}", *accuracies, *line]))
        lines = "".join(json.dumps(line) + "\n" for line in history)
        files.write(self.folder / "log.jsonl", lines.encode())

    def __exit__(self, *_: object) -> None:
        """Close the bar and flush the event file."""
        self.bar.close()
        if self.writer is not None:
            with suppress(OSError):  # a full disk is reported by other writes
                self.writer.close()
