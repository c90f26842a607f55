"""One run, a task, a method and a seed: what it resumes from, and the files that it leaves."""

import argparse
import itertools
import json
import platform
import subprocess
import sys
import time
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor
from tqdm import tqdm

import symloss
from office import data, distributed, evaluation, files
from office.methods import METHODS, Network
from office.progress import Progress
from office.training import RunError, Trainer

# A run may be resumed elsewhere, or with other values of these; other data is told by its files.
FREE = ("root", "source", "target", "workers", "device", "out", "resume", "check", "seeds", "cache")


def run(
    args: argparse.Namespace,
    device: torch.device,
    cache: dict[Path, Tensor],
    task: data.Task,
    method_name: str,
    seed: int,
) -> None:
    """Train, evaluate and write one run, unless it is finished; ``--resume`` goes on with it.

    ``cache`` holds images that are decoded already.

    Raises:
        DataError, FileError, ModelError, RunError: With one clear line.
        KeyboardInterrupt: After telling which checkpoint is left.
    """
    folder = _folder(args, task, method_name, seed)
    title = f"{args.dataset} {task.name} {method_name} seed {seed}"
    this = identity(args, task, method_name, seed)
    first = distributed.rank() == 0
    state = distributed.from_first(_found(folder, this, args.resume) if first else None)
    if state == "finished":
        if first:
            print(f"{title}: finished before, see {folder}")
        return
    try:
        _train(args, device, cache, task, this, folder, title, state)
    except KeyboardInterrupt:
        if first:
            tqdm.write(f"{title}: stopped; {_left(folder)}")
        raise


def _train(
    args: argparse.Namespace,
    device: torch.device,
    cache: dict[Path, Tensor],
    task: data.Task,
    this: dict[str, Any],
    folder: Path,
    title: str,
    state: dict[str, Any] | None,
) -> None:
    method_name, seed = this["method"], this["seed"]
    first = distributed.rank() == 0
    method, num_classes = METHODS[method_name], len(task.categories)
    folder.mkdir(parents=True, exist_ok=True)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    paths = task.target.paths
    trainer = Trainer(args, device, method, num_classes, task.source, paths, seed, cache)
    history, seconds = [], 0.0
    if state:
        trainer.load_state_dict(state["trainer"])
        history, seconds = state["history"], state["seconds"]
    started = time.perf_counter() - seconds
    done = min(len(history) * trainer.per_epoch, trainer.total)
    if first:
        sizes = " + ".join(str(len(domain.paths)) for domain in (task.source, task.target))
        at = f", {done} done" if done else ""
        print(f"{title}: {sizes} images, {trainer.total} steps{at}", flush=True)
    progress = Progress(
        folder, f"{task.name} {method_name} {seed}", trainer.total, done, trainer.images_per_step
    )
    infer = partial(
        evaluation.infer,
        trainer.network,
        device=device,
        batch_size=2 * args.batch_size,  # those of both domains fit, with their gradients
        workers=args.workers,
        autocast=trainer.autocast,
        cache=cache,
    )
    try:
        for epoch in range(len(history), trainer.epochs):
            terms = trainer.epoch(epoch, progress)
            last = epoch + 1 == trainer.epochs
            scores: dict[str, float | None] = {"source": None, "target": None}
            if task.target.labels and not last and not args.max_steps:
                _, logits = infer(task.target.paths)
                scores = evaluation.accuracies(logits, task.target.labels, num_classes)
            history.append({"epoch": epoch + 1, **scores, **terms})
            if first:
                state = {"run": this, "trainer": trainer.state_dict(), "history": history}
                state["seconds"] = time.perf_counter() - started
                files.save(folder / "checkpoint.pt", state)
            if not last:
                progress.epoch((epoch + 1) * trainer.per_epoch, trainer.epochs, history)
        features, logits = zip(*(infer(d.paths) for d in (task.source, task.target)), strict=True)
        facts = evaluation.summary(task, logits[1], method.reported)
        history[-1].update(facts["final"])
        progress.epoch(trainer.total, trainer.epochs, history)
        if first:
            evaluation.write_features(folder, [task.source, task.target], features)
            _write_model(folder, this, trainer.network, method.reported)
            if task.target.labels is None:
                evaluation.write_predictions(folder, task, logits[1], method.reported)
            seconds = time.perf_counter() - started
            # Last, for it marks the run as finished.
            _write_result(folder, args, this, device, method.reported, history, facts, seconds)
            progress.bar.write(f"{title}: done in {seconds:.0f} s, see {folder}")
    finally:
        progress.close()


def open_tasks(
    args: argparse.Namespace, tasks: list[data.Task], methods: list[str]
) -> list[data.Task]:
    """Return the tasks with a run to do; look at all runs before the first.

    Raises:
        FileError, RunError: With one clear line, if batches or files would stop a later run.
    """
    found = {}
    for seed, task, method in itertools.product(args.seeds, tasks, methods):
        for domain in (task.source, task.target)[: 1 + METHODS[method].target]:
            if len(domain.paths) < args.batch_size:
                raise RunError(
                    f"{domain.name} has {len(domain.paths)} images, fewer than one batch of "
                    f"--batch-size {args.batch_size}"
                )
        folder = _folder(args, task, method, seed)
        if _found(folder, identity(args, task, method, seed), args.resume) != "finished":
            found[task.name] = task
    return [*found.values()]


def _folder(args: argparse.Namespace, task: data.Task, method: str, seed: int) -> Path:
    return Path(args.out, args.dataset, task.name, method, f"seed{seed}")


def identity(args: argparse.Namespace, task: data.Task, method: str, seed: int) -> dict[str, Any]:
    """Return what must agree between a run and its checkpoint, in plain values."""
    fixed = {k: v for k, v in vars(args).items() if k not in FREE}
    weights = args.weights if args.weights in ("imagenet", "none") else Path(args.weights).name
    epochs = None if args.max_steps else args.epochs
    this = {"task": task.name, "method": method, "seed": seed, "weights": weights, "epochs": epochs}
    paths = [task.source.paths, task.target.paths]
    names = "/".join(path.name for domain in paths for path in sorted(domain))
    images = [*map(len, paths), zlib.crc32(names.encode())]
    return fixed | this | {"categories": task.categories, "images": images}


def _found(folder: Path, this: dict[str, Any], resume: bool) -> dict[str, Any] | str | None:
    """What is left of a run with these arguments: "finished", a checkpoint, or nothing."""
    checkpoint, result = folder / "checkpoint.pt", folder / "result.json"
    if result.exists():
        try:
            found = json.loads(result.read_text())["arguments"]
        except (ValueError, KeyError, TypeError):
            found = None
        _agree(result, found, this)
        return "finished"
    if not checkpoint.exists():
        return None
    state = files.load(checkpoint)
    _agree(checkpoint, state.get("run"), this)
    if not resume:
        raise RunError(
            f"{checkpoint} holds epoch {len(state['history'])} of this run: go on with it by "
            "--resume, or delete it"
        )
    return state


def _agree(path: Path, found: Any, wanted: dict[str, Any]) -> None:
    if not isinstance(found, dict):
        raise RunError(f"{path} was not written by train_office.py")
    for name, value in wanted.items():
        if found.get(name) != value:
            raise RunError(
                f"{path} is of another run: {name} {found.get(name)} there, {value} here; "
                "choose another --out or delete it"
            )


def _left(folder: Path) -> str:
    """Tell which checkpoint a stopped run leaves."""
    path = folder / "checkpoint.pt"
    if not path.exists():
        return "no epoch was finished, so there is no checkpoint"
    return f"{path} holds epoch {len(files.load(path)['history'])}; go on with --resume"


def _write_model(folder: Path, this: dict[str, Any], network: Network, reported: str) -> None:
    """Write model.pt: weights, categories and preprocessing, all that a prediction needs."""
    head = network.heads["task"]
    model = {
        "backbone_name": this["backbone"],
        "num_classes": len(this["categories"]),
        "bottleneck": this["bottleneck"],
        "extractor": network.extractor.state_dict(),
        "head": head.state_dict(),
        "categories": this["categories"],
        "reported": reported if isinstance(head, symloss.SymmetricHead) else "single",
        "preprocessing": {
            "resize": data.RESIZE,
            "crop": data.CROP,
            "mean": [*data.MEAN],
            "std": [*data.STD],
        },
    }
    files.save(folder / "model.pt", model)


def _write_result(
    folder: Path,
    args: argparse.Namespace,
    this: dict[str, Any],
    device: torch.device,
    reported: str,
    history: list[dict[str, Any]],
    facts: dict[str, Any],
    seconds: float,
) -> None:
    result = {
        **{name: this[name] for name in ("dataset", "task", "method", "seed")},
        "reported": reported,
        "arguments": {**vars(args), **this},
        "versions": {
            "python": platform.python_version(),
            **{m.__name__: m.__version__ for m in (torch, torchvision, symloss)},
        },
        "commit": _commit(),
        "processes": distributed.processes(),
        "epochs": history,
        **facts,
        "seconds": seconds,
        "peak_memory_bytes": _peak_memory(device),
    }
    # Paths become strings.
    files.write(folder / "result.json", json.dumps(result, indent=1, default=str).encode())


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _peak_memory(device: torch.device) -> int | None:
    """Bytes: of this process's GPU for this run, or of the process where there is none."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
