"""One run: a task, a method and a seed, from the backbone's weights to the files it leaves."""

import argparse
import json
import math
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, Sampler

import symloss
from office import data, distributed, evaluation, files, models
from office.methods import METHODS, Method, Network, losses
from office.progress import Progress

LOG_EVERY = 10  # steps; reading the losses waits for the device, so not at each step
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# A run may be resumed elsewhere, or with other values of these.
FREE = ("root", "source", "target", "workers", "device", "out", "resume", "check", "seeds")


class RunError(Exception):
    """Why a run cannot start or go on, in one line."""


def stream(*key: int) -> int:
    """Return the seed of an independent random stream for each key."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)


class Augmented(Dataset):
    """Images by (index, seed): the seed alone fixes the crop and the flip, in any worker."""

    def __init__(self, paths: list[Path]) -> None:
        self.images = data.Images(paths, data.train_transform())

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        """Return ``(image, index)``."""
        index, seed = key
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self.images[index]


class EpochBatches(Sampler):
    """This process's part of each batch of an epoch, as (index, seed) pairs.

    Batches are those of one permutation after the other, drawn from (seed, epoch, domain) and
    without an incomplete one; they are the same for any number of processes.
    """

    def __init__(self, images: int, batch_size: int, seed: int, domain: int) -> None:
        self.images, self.batch_size, self.seed, self.domain = images, batch_size, seed, domain
        self.epoch, self.steps = 0, 0

    def __len__(self) -> int:
        """Return the number of batches in this epoch."""
        return self.steps

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Yield the batches of ``epoch``."""
        generator = torch.Generator().manual_seed(stream(self.seed, self.epoch, self.domain))
        share = slice(distributed.rank(), None, distributed.processes())
        batches: list[Tensor] = []
        for _ in range(self.steps):
            if not batches:
                order = torch.randperm(self.images, generator=generator)
                batches = [b for b in order.split(self.batch_size) if len(b) == self.batch_size]
            batch = batches.pop(0)
            seeds = torch.randint(2**62, batch.shape, generator=generator)
            yield [*zip(batch[share].tolist(), seeds[share].tolist(), strict=True)]


def identity(args: argparse.Namespace, task: data.Task, method: str, seed: int) -> dict[str, Any]:
    """Return what must agree between a run and its checkpoint, in plain values."""
    fixed = {k: v for k, v in vars(args).items() if k not in FREE}
    weights = args.weights if args.weights in ("imagenet", "none") else Path(args.weights).name
    epochs = None if args.max_steps else args.epochs
    this = {"task": task.name, "method": method, "seed": seed, "weights": weights, "epochs": epochs}
    sizes = [len(task.source.paths), len(task.target.paths)]
    return fixed | this | {"categories": task.categories, "images": sizes}


class Trainer:
    """Network, optimizers, schedules and batches of one run; it never sees a target label.

    Args:
        args: The command line.
        device: Where to train.
        method: What the players minimise.
        num_classes: Number K of categories.
        source: The labelled domain.
        target: Images of the target domain.
        seed: With the epoch, it fixes all that is random.

    Raises:
        RunError: If a domain that the method uses has fewer images than a batch.
        ModelError, FileError: If the backbone or its weights do not fit.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        device: torch.device,
        method: Method,
        num_classes: int,
        source: data.Domain,
        target: list[Path],
        seed: int,
    ) -> None:
        self.device, self.method, self.seed = device, method, seed
        domains = [source.paths, target] if method.target else [source.paths]
        for name, paths in zip(("source", "target"), domains, strict=False):
            if len(paths) < args.batch_size:
                raise RunError(
                    f"the {name} domain has {len(paths)} images, fewer than one batch of "
                    f"--batch-size {args.batch_size}"
                )
        # Every method takes the same number of steps, also the one that uses no target image.
        self.per_epoch = max(len(source.paths), len(target)) // args.batch_size
        self.total = args.max_steps or args.epochs * self.per_epoch
        self.epochs = math.ceil(self.total / self.per_epoch)
        self.images_per_step = args.batch_size * len(domains)

        torch.manual_seed(stream(seed))
        extractor = models.build_extractor(args.backbone, args.weights, args.bottleneck)
        self.network = Network(extractor, method, num_classes)
        self.layout = torch.channels_last if args.channels_last else torch.contiguous_format
        self.network.to(device, memory_format=self.layout)
        groups = [{"params": [*extractor.backbone.parameters()], "lr": args.lr / 10}]
        if args.bottleneck:  # new layers, like the heads
            groups.append({"params": [*extractor.bottleneck.parameters()]})
        optimizers = [
            torch.optim.SGD(
                parameters, args.lr, momentum=0.9, weight_decay=args.weight_decay, nesterov=True
            )
            for parameters in (groups, self.network.heads.parameters())
        ]
        scaler = torch.amp.GradScaler() if args.precision == "fp16" else None
        self.step = symloss.TwoOptimizerStep(*optimizers, scaler=scaler)
        self.schedules = [symloss.AnnealedLR(optimizer, self.total) for optimizer in optimizers]
        if args.compile:
            extractor.compile()
        self.model: nn.Module = self.network
        if distributed.processes() > 1:
            ids = [device.index] if device.type == "cuda" else None
            self.model = DistributedDataParallel(self.network, device_ids=ids)
        self.autocast = torch.autocast(
            device.type, DTYPES[args.precision], enabled=args.precision != "fp32"
        )
        self.labels = torch.tensor(source.labels, device=device)
        self.batches = [
            EpochBatches(len(paths), args.batch_size, seed, i) for i, paths in enumerate(domains)
        ]
        self.loaders = [
            DataLoader(
                Augmented(paths),
                batch_sampler=batches,
                num_workers=args.workers,
                persistent_workers=args.workers > 0,
                pin_memory=device.type == "cuda",
                generator=torch.Generator(),
            )
            for paths, batches in zip(domains, self.batches, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return the state at an epoch's end: all that is random later follows from the epoch."""
        return {
            "network": self.network.state_dict(),
            "step": self.step.state_dict(),
            "schedules": [schedule.state_dict() for schedule in self.schedules],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` returned."""
        self.network.load_state_dict(state["network"])
        self.step.load_state_dict(state["step"])
        for schedule, values in zip(self.schedules, state["schedules"], strict=True):
            schedule.load_state_dict(values)

    def epoch(self, epoch: int, progress: Progress) -> dict[str, float]:
        """Train for epoch ``epoch``, counted from 0; return the mean of each term over it."""
        done = epoch * self.per_epoch
        steps = min(self.per_epoch, self.total - done)
        for batches in self.batches:
            batches.epoch, batches.steps = epoch, steps
        # Dropout differs by process; crops and batches have seeds of their own.
        torch.manual_seed(stream(self.seed, epoch, 2, distributed.rank()))
        self.network.train()
        sums: list[Tensor] = []
        means = 0.0
        for i, domains in enumerate(zip(*self.loaders, strict=True), start=1):
            lam = symloss.progressive_lambda((done + i - 1) / self.total)
            images = [
                x.to(self.device, non_blocking=True, memory_format=self.layout) for x, _ in domains
            ]
            labels = self.labels[domains[0][1].to(self.device, non_blocking=True)]
            with self.autocast:
                loss, terms = losses(self.method, self.model(*images), labels, lam)
            rates = [schedule.get_last_lr()[-1] for schedule in self.schedules]
            if self.step(loss):
                for schedule in self.schedules:
                    schedule.step()
            sums.append(torch.stack([*terms.values()]))
            if i % LOG_EVERY == 0 or i == steps:
                read = distributed.mean(torch.stack(sums).mean(0)).tolist()
                values = dict(zip(terms, read, strict=True))
                if not all(map(math.isfinite, read)):
                    raise RunError(f"a loss is not finite at step {done + i}: {values}")
                means = means + np.array(read) * len(sums) / steps
                scalars = {f"loss/{name}": value for name, value in values.items()}
                scalars |= {"lr/backbone": rates[0], "lr/head": rates[1], "lambda": lam}
                progress.losses(done + i, scalars)
                sums = []
            progress.step()
        return dict(zip(terms, means.tolist(), strict=True))


def train(
    args: argparse.Namespace, device: torch.device, task: data.Task, method_name: str, seed: int
) -> None:
    """Train, evaluate and write one run, unless it is finished; ``--resume`` goes on with it.

    Raises:
        DataError, FileError, ModelError, RunError: With one clear line.
        KeyboardInterrupt: After telling which checkpoint is left.
    """
    folder = Path(args.out, args.dataset, task.name, method_name, f"seed{seed}")
    title = f"{args.dataset} {task.name} {method_name} seed {seed}"
    run = identity(args, task, method_name, seed)
    first = distributed.rank() == 0
    state = distributed.from_first(_found(folder, run, args.resume) if first else None)
    if state == "finished":
        if first:
            print(f"{title}: finished before, see {folder / 'result.json'}")
        return

    method, num_classes = METHODS[method_name], len(task.categories)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    trainer = Trainer(args, device, method, num_classes, task.source, task.target.paths, seed)
    history, seconds = [], 0.0
    if state:
        trainer.load_state_dict(state["trainer"])
        history, seconds = state["history"], state["seconds"]
    started = time.perf_counter() - seconds
    infer = partial(
        evaluation.infer,
        trainer.network,
        device=device,
        batch_size=args.batch_size,
        workers=args.workers,
        autocast=trainer.autocast,
    )
    done = min(len(history) * trainer.per_epoch, trainer.total)
    if first:
        sizes = " + ".join(str(len(domain.paths)) for domain in (task.source, task.target))
        at = f", from epoch {len(history)}" if history else ""
        print(f"{title}: {sizes} images, {trainer.total} steps in {trainer.epochs} epochs{at}")
    progress = Progress(folder, title, trainer.total, done, trainer.images_per_step)
    try:
        for epoch in range(len(history), trainer.epochs):
            terms = trainer.epoch(epoch, progress)
            last = epoch + 1 == trainer.epochs
            scores: dict[str, float | None] = {"source": None, "target": None}
            if task.target.labels and not last and not args.max_steps:
                _, logits = infer(task.target.paths)
                scores = evaluation.accuracies(logits, task.target.labels, num_classes)
            seconds = time.perf_counter() - started
            history.append({"epoch": epoch + 1, **scores, **terms})
            if first:
                saved = {"run": run, "trainer": trainer.state_dict(), "history": history}
                files.save(folder / "checkpoint.pt", saved | {"seconds": seconds})
            if not last:
                progress.epoch((epoch + 1) * trainer.per_epoch, trainer.epochs, history)
        features, logits = zip(*(infer(d.paths) for d in (task.source, task.target)), strict=True)
        facts = evaluation.summary(task, logits[1], method.reported)
        history[-1].update(facts["final"])
        progress.epoch(trainer.total, trainer.epochs, history)
        if first:
            evaluation.write_features(folder, [task.source, task.target], features)
            _write_model(folder / "model.pt", args, task, method, trainer.network)
            if task.target.labels is None:
                parts = evaluation.classifiers(logits[1], num_classes)
                evaluation.write_predictions(folder, task, parts[method.reported])
            result = {
                **{k: run[k] for k in ("dataset", "task", "method", "seed")},
                "reported": method.reported,
                "arguments": {**vars(args), **run},
                "versions": _versions(),
                "commit": _commit(),
                "processes": distributed.processes(),
                "epochs": history,
                **facts,
                "seconds": time.perf_counter() - started,
                "peak_memory_bytes": _peak_memory(device),
            }
            # Last, for it marks the run as finished.
            evaluation.write_json(folder / "result.json", result)
            progress.bar.write(f"{title}: done in {result['seconds']:.0f} s, see {folder}")
    except KeyboardInterrupt:
        if first:
            path = folder / "checkpoint.pt"
            left = (
                f"{path} holds epoch {len(files.load(path)['history'])}"
                if path.exists()
                else ("there is no checkpoint yet")
            )
            progress.bar.write(f"{title}: stopped; {left} of {trainer.epochs}; go on with --resume")
        raise
    finally:
        progress.close()


def _found(folder: Path, run: dict[str, Any], resume: bool) -> dict[str, Any] | str | None:
    """What is left of a run with these arguments: "finished", a checkpoint, or nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, result = folder / "checkpoint.pt", folder / "result.json"
    if result.exists():
        _agree(result, json.loads(result.read_text()).get("arguments"), run)
        return "finished"
    if not checkpoint.exists():
        return None
    state = files.load(checkpoint)
    _agree(checkpoint, state.get("run"), run)
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


def _write_model(
    path: Path, args: argparse.Namespace, task: data.Task, method: Method, network: Network
) -> None:
    symmetric = isinstance(network.heads["task"], symloss.SymmetricHead)
    model = {
        "backbone_name": args.backbone,
        "num_classes": len(task.categories),
        "bottleneck": args.bottleneck,
        "extractor": network.extractor.state_dict(),
        "head": network.heads["task"].state_dict(),
        "categories": task.categories,
        "reported": method.reported if symmetric else "single",
        "preprocessing": {
            "resize": data.RESIZE,
            "crop": data.CROP,
            "mean": [*data.MEAN],
            "std": [*data.STD],
        },
    }
    files.save(path, model)


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        **{m.__name__: m.__version__ for m in (torch, torchvision, symloss)},
    }


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
