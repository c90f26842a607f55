"""One run (task, method, seed and recipe): its folder, its identity and its checkpoint."""

import enum
import itertools
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from office import distributed, files
from office.console import UserError, visible
from office.data import hashes
from office.data.tasks import Task, shares_of
from office.methods import METHODS
from office.options import BALANCE, PROG, Recipe, Runtime, Selection


class State(enum.Enum):
    """What a run has saved: nothing, a checkpoint, or a result."""

    NEW = "new"
    RESUMABLE = "resumable"
    FINISHED = "finished"


@dataclass(frozen=True)
class Run:
    """A training run; its fields fix every number.

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

    def state(self, runtime: Runtime) -> State:
        """Return what the run has saved, without reading a whole checkpoint.

        Raises:
            UserError: If it belongs to another run, or is a checkpoint and ``--resume`` is not set.
        """
        folder = self.folder(runtime.out)
        result = folder / "result.json"
        if result.exists():
            saved = files.load_json(result)
            self._compare(result, saved | saved.get("recipe", {}))
            return State.FINISHED
        checkpoint = folder / "checkpoint.pt"
        if not checkpoint.exists():
            return State.NEW
        epoch, identity = _read_note(checkpoint)
        self._compare(checkpoint, identity)
        if not runtime.resume:
            raise UserError(
                f"{checkpoint} holds epoch {epoch} of this run: continue it with --resume, or "
                "delete it"
            )
        return State.RESUMABLE

    def start(self, out: Path) -> None:
        """Make its folder, with inputs.csv, from which another run can tell what differs."""
        folder = self.folder(out)
        folder.mkdir(parents=True, exist_ok=True)
        files.write(folder / "inputs.csv", self.listing.encode())

    def load_checkpoint(self, runtime: Runtime) -> dict[str, Any] | None:
        """Read what :func:`save_checkpoint` wrote; None if this is a new run.

        Raises:
            UserError: As :meth:`state`, or if it cannot be read.
        """
        if self.state(runtime) is not State.RESUMABLE:
            return None
        path = self.folder(runtime.out) / "checkpoint.pt"
        checkpoint = files.load(path)
        self._compare(path, checkpoint.get("identity"))
        return checkpoint

    def save_checkpoint(self, out: Path, content: dict[str, Any]) -> None:
        """Write checkpoint.pt, then checkpoint.json with its epoch and identity.

        The previous epoch's note is deleted first, so that a note always matches its checkpoint.
        """
        path = self.folder(out) / "checkpoint.pt"
        about = {"epoch": len(content["history"]), "identity": self.identity}
        note = path.with_suffix(".json")
        note.unlink(missing_ok=True)
        files.save(path, about | content)
        files.write(note, json.dumps(about, indent=1).encode())

    def checkpoint_left(self, out: Path) -> str:
        """Say which checkpoint a stopped run leaves."""
        path = self.folder(out) / "checkpoint.pt"
        if not path.exists():
            return "no epoch was finished, so there is no checkpoint"
        return f"{path} holds epoch {_read_note(path)[0]}; continue with --resume"

    def _compare(self, path: Path, saved: object) -> None:
        """Raise :class:`UserError` if a file's identity is another run's."""
        if not isinstance(saved, dict):
            raise UserError(f"{path} was not written by {PROG}")
        # A setting missing from the file is newer than the file: it had its default.
        default = Recipe(self.recipe.dataset).settings()
        saved = default | saved
        if isinstance(saved["preprocessing"], dict):
            saved["preprocessing"] = default["preprocessing"] | saved["preprocessing"]
        for name, value in self.identity.items():
            if saved.get(name) != value:
                difference = f"{name} {saved.get(name)} there, {value} here"
                if name == "images":
                    difference = self._changed_images(path.with_name("inputs.csv"), saved[name])
                raise UserError(
                    f"{path} belongs to another run ({difference}); choose another --out or "
                    "delete it"
                )

    def _changed_images(self, listing: Path, images: object) -> str:
        """Say which images differ from those of the run that left this listing, if it exists."""
        try:
            before = listing.read_text(encoding="utf-8")
        except (OSError, ValueError):
            before = ""
        if isinstance(images, list) and images[-1:] == [hashes.checksum(before)]:
            return hashes.differences(before, self.listing)
        return f"it used other images, and {listing} does not say which"


def _read_note(checkpoint: Path) -> tuple[Any, Any]:
    """Return epoch and identity of a checkpoint, from the note beside it or else from itself."""
    try:
        note = json.loads(checkpoint.with_suffix(".json").read_text())
        return note["epoch"], note["identity"]
    except (OSError, ValueError, KeyError, TypeError):
        content = files.load(checkpoint)
        return content.get("epoch"), content.get("identity")


def plan(
    tasks: Sequence[Task],
    listings: Mapping[str, str],
    recipe: Recipe,
    runtime: Runtime,
    selection: Selection,
) -> tuple[list[Run], list[Run]]:
    """Return the selected runs, and those of them to train; check all before the first starts.

    Args:
        tasks: Tasks of the runs.
        listings: Listing of each task by name, from :func:`hashes.listings`.
        recipe: Settings of all runs.
        runtime: Where to run them.
        selection: Their methods and seeds.

    Raises:
        UserError: If settings, batches or files would stop one of them.
    """
    # Seeds outermost, so that a stopped sweep has complete tables.
    runs = [
        Run(recipe, task, method, seed, listings[task.name])
        for seed, task, method in itertools.product(selection.seeds, tasks, selection.methods)
    ]
    return runs, to_train(runs, runtime)


def to_train(runs: Sequence[Run], runtime: Runtime) -> list[Run]:
    """Return the runs that are not finished, after checking all of them; name the others.

    Raises:
        UserError: If batches, shares or files would stop one of them.
    """
    if str(runtime.out).encode("utf-8", "ignore").decode() != str(runtime.out):
        raise UserError(
            f"--out {runtime.out} is not UTF-8, which TensorBoard needs: choose another"
        )
    for run in runs:
        _check(run)
    finished = [run for run in runs if run.state(runtime) is State.FINISHED]
    for run in finished:
        print(f"{run.title}: already finished, see {run.folder(runtime.out)}")
    files.try_writing(runtime.out)
    return [run for run in runs if run not in finished]


def _check(run: Run) -> None:
    """Raise :class:`UserError` if a run's batches or shares do not fit; warn if they may not."""
    method, recipe, task = METHODS[run.method], run.recipe, run.task
    domains = (task.source, task.target)[: 1 + method.target]
    smallest = min(domains, key=lambda domain: len(domain.paths))
    if len(smallest.paths) < recipe.batch_size:
        raise UserError(
            f"{smallest.name} has {len(smallest.paths)} images, fewer than one batch of "
            f"--batch-size {recipe.batch_size}; use --batch-size {len(smallest.paths)} or less"
        )
    processes = distributed.launched()
    if recipe.batch_size == processes:
        each = f" for each of {processes} processes" if processes > 1 else ""
        raise UserError(
            f"--batch-size {recipe.batch_size} is one image per domain{each}, but batch norm needs "
            "at least two"
        )
    if method.balanced:
        _check_balance(run)


def _check_balance(run: Run) -> None:
    """Raise :class:`UserError` if the prior does not fit; warn if it, or the batch, may not."""
    recipe, task, k = run.recipe, run.task, len(run.task.categories)
    shares_of(recipe.prior, task.categories, task.source.labels or ())
    if isinstance(recipe.prior, str) and (recipe.partial or task.lacking):
        lacks = f"lacks {', '.join(task.lacking)}" if task.lacking else "may lack categories"
        warnings.warn(
            f"{visible(task.target.name)} {lacks}, but {run.method} pulls the predictions towards "
            f"all {k} categories, which lowers accuracy here; give the shares with --prior FILE, "
            f"or use {run.method.removesuffix('-balanced')}",
            stacklevel=4,
        )
    if recipe.batch_size < 2 * k:
        warnings.warn(
            f"{run.method} balances each batch, and --batch-size {recipe.batch_size} is less than "
            f"twice the {k} categories: chance decides how often each appears. Use larger batches "
            f"or a --balance below {recipe.balance:g}",
            stacklevel=4,
        )
