"""One run (task, method, seed and recipe): its folder, its identity and its saved state."""

import enum
import json
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from office import files
from office.console import UserError, visible
from office.data import hashes, shares
from office.data.tasks import Task
from office.options import BALANCE, PROG, Recipe, Runtime
from office.results import outputs
from office.training.methods import METHODS


class State(enum.Enum):
    """What a run has saved: nothing, a checkpoint, or a result."""

    NEW = "new"
    RESUMABLE = "resumable"
    FINISHED = "finished"


@dataclass(frozen=True)
class Run:
    """What is trained; this fixes every number.

    Args:
        recipe: The settings.
        task: Source and target.
        method: A key of :data:`METHODS`.
        seed: Seed of everything random.
        listing: Every file of the task, as :func:`hashes.listings` returns it.
    """

    recipe: Recipe
    task: Task
    method: str
    seed: int
    listing: str = field(default="", repr=False)

    @property
    def title(self) -> str:
        """The run's name on the console."""
        return f"{self.recipe.dataset} {self.task.name} {self.method} seed {self.seed}"

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
        """What must agree between a run and its files, as JSON values."""
        counts = [len(domain.paths) for domain in (self.task.source, self.task.target)]
        return self.settings | {
            "task": self.task.name,
            "method": self.method,
            "seed": self.seed,
            "categories": self.task.categories,
            "images": [*counts, hashes.checksum(self.listing)],
        }

    def state(self, runtime: Runtime) -> State:
        """Return what the run has saved, without reading a whole checkpoint.

        Raises:
            UserError: If it belongs to another run, or is a checkpoint and ``--resume`` is not set.
        """
        folder = self.folder(runtime.out)
        result = folder / "result.json"
        if result.exists():
            found = outputs.read_result(result)
            told = ("task", "method", "seed", "categories", "images")
            self._agree(result, found.recipe | {name: getattr(found, name) for name in told})
            return State.FINISHED
        checkpoint = folder / "checkpoint.pt"
        if not checkpoint.exists():
            return State.NEW
        epoch, identity = _note(checkpoint)
        self._agree(checkpoint, identity)
        if not runtime.resume:
            raise UserError(
                f"{checkpoint} holds epoch {epoch} of this run: continue it with --resume, or "
                "delete it"
            )
        return State.RESUMABLE

    def load_checkpoint(self, out: Path) -> dict[str, Any]:
        """Read what :func:`save_checkpoint` wrote.

        Raises:
            UserError: If it cannot be read or belongs to another run.
        """
        path = self.folder(out) / "checkpoint.pt"
        checkpoint = files.load(path)
        self._agree(path, checkpoint.get("identity"))
        return checkpoint

    def save_checkpoint(self, out: Path, content: dict[str, Any]) -> None:
        """Write checkpoint.pt, then checkpoint.json with its epoch and identity.

        The previous epoch's note is deleted first, so that a note always matches its checkpoint.
        """
        path = self.folder(out) / "checkpoint.pt"
        told = {"epoch": len(content["history"]), "identity": self.identity}
        note = path.with_suffix(".json")
        note.unlink(missing_ok=True)
        files.save(path, told | content)
        files.write(note, json.dumps(told, indent=1).encode())

    def save_listing(self, out: Path) -> None:
        """Write inputs.csv, from which another run can tell which images differ."""
        files.write(self.folder(out) / "inputs.csv", self.listing.encode())

    def left(self, out: Path) -> str:
        """Say which checkpoint a stopped run leaves."""
        path = self.folder(out) / "checkpoint.pt"
        if not path.exists():
            return "no epoch was finished, so there is no checkpoint"
        return f"{path} holds epoch {_note(path)[0]}; continue with --resume"

    def _agree(self, path: Path, found: Any) -> None:
        if not isinstance(found, dict):
            raise UserError(f"{path} was not written by {PROG}")
        # A setting missing from the file is newer than the file: it had its default.
        default = Recipe(self.recipe.dataset).settings()
        found = default | found
        if isinstance(found["preprocessing"], dict):
            found["preprocessing"] = default["preprocessing"] | found["preprocessing"]
        for name, value in self.identity.items():
            if found.get(name) != value:
                differ = f"{name} {found.get(name)} there, {value} here"
                if name == "images":
                    differ = self._differences(path.with_name("inputs.csv"), found[name])
                raise UserError(
                    f"{path} belongs to another run ({differ}); choose another --out or delete it"
                )

    def _differences(self, listing: Path, found: Any) -> str:
        """Say which images differ from those of the run that left this listing, if it exists."""
        try:
            before = listing.read_text(encoding="utf-8")
        except (OSError, ValueError):
            before = ""
        if isinstance(found, list) and found[-1:] == [hashes.checksum(before)]:
            return hashes.differences(before, self.listing)
        return f"it used other images, and {listing} does not say which"


def _note(checkpoint: Path) -> tuple[Any, Any]:
    """Return epoch and identity of a checkpoint, from the note beside it or else from itself."""
    try:
        note = json.loads(checkpoint.with_suffix(".json").read_text())
        return note["epoch"], note["identity"]
    except (OSError, ValueError, KeyError, TypeError):
        found = files.load(checkpoint)
        return found.get("epoch"), found.get("identity")


def open_runs(runs: Iterable[Run], runtime: Runtime) -> list[Run]:
    """Return the runs that are not finished; check all of them before the first is trained.

    Raises:
        UserError: With one clear line, if batches or files would stop a later run.
    """
    found = []
    for run in runs:
        domains = (run.task.source, run.task.target)[: 1 + METHODS[run.method].target]
        smallest = min(domains, key=lambda domain: len(domain.paths))
        if len(smallest.paths) < run.recipe.batch_size:
            raise UserError(
                f"{smallest.name} has {len(smallest.paths)} images, fewer than one batch of "
                f"--batch-size {run.recipe.batch_size}; use --batch-size {len(smallest.paths)} or "
                "less"
            )
        if METHODS[run.method].balanced:
            _check_prior(run)
            _check_batch(run)
        if run.state(runtime) is not State.FINISHED:
            found.append(run)
    return found


def _check_prior(run: Run) -> None:
    """Raise :class:`UserError` if the prior does not fit; warn if it cannot be right."""
    prior, task = run.recipe.prior, run.task
    shares.of_categories(prior, task.categories, task.source.labels or ())
    if isinstance(prior, str) and (run.recipe.partial or task.lacking):
        told = f"lacks {', '.join(task.lacking)}" if task.lacking else "may lack categories"
        warnings.warn(
            f"{visible(task.target.name)} {told}, but {run.method} pulls the predictions towards "
            f"all {len(task.categories)} categories, which does harm here; give the shares with "
            f"--prior FILE, or use {run.method.removesuffix('-balanced')}",
            stacklevel=3,
        )


def _check_batch(run: Run) -> None:
    """Warn about batches too small to tell whether categories are balanced."""
    size, k = run.recipe.batch_size, len(run.task.categories)
    if size < 2 * k:
        warnings.warn(
            f"{run.method} balances each batch, and --batch-size {size} is less than twice the "
            f"{k} categories: chance decides how often each appears. Use larger batches or a "
            f"--balance below {run.recipe.balance:g}",
            stacklevel=3,
        )
