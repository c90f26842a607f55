"""A run from its first step to its last file."""

import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor
from tqdm import tqdm

import symloss
from office import distributed
from office.console import UserError
from office.data import shares
from office.models import saved
from office.options import Runtime
from office.results import evaluation, health, outputs
from office.training.methods import METHODS
from office.training.progress import Progress
from office.training.runs import Run, State
from office.training.trainer import Trainer

Predicted = tuple[Tensor, Tensor]  # features and logits


def perform(run: Run, runtime: Runtime, images: dict[Path, Tensor]) -> None:
    """Train, evaluate and write one run, from its checkpoint if any, unless it is finished.

    Args:
        run: What to train.
        runtime: Where to train it.
        images: Images already decoded, by path.

    Raises:
        UserError: With one clear line.
        KeyboardInterrupt: After printing which checkpoint is left.
    """
    first = distributed.rank() == 0
    state = distributed.in_first(lambda: run.state(runtime))
    if state is State.FINISHED:
        if first:
            print(f"{run.title}: already finished, see {run.folder(runtime.out)}")
        return
    try:
        experiment = Experiment(run, runtime, images)
        if state is State.RESUMABLE:
            experiment.resume(distributed.in_first(lambda: run.load_checkpoint(runtime.out)))
        experiment.train()
    except KeyboardInterrupt:
        if first:
            tqdm.write(f"{run.title}: stopped; {run.left(runtime.out)}")
        raise


class Experiment:
    """A run in progress: its trainer, its history and the seconds it has taken so far."""

    def __init__(self, run: Run, runtime: Runtime, images: dict[Path, Tensor]) -> None:
        self.run, self.runtime, self.task = run, runtime, run.task
        self.folder = run.folder(runtime.out)
        self.first = distributed.rank() == 0
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.first:
            run.save_listing(runtime.out)
        if runtime.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(runtime.device)
        self.trainer = Trainer(run, runtime, images)
        self.history: list[dict[str, Any]] = []
        self.started = time.perf_counter()

    def resume(self, checkpoint: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.trainer.load_state_dict(checkpoint["trainer"])
        self.history = checkpoint["history"]
        self.started -= checkpoint["seconds"]

    def train(self) -> None:
        """Train the remaining epochs, with a checkpoint after each; evaluate, write the files."""
        trainer, run = self.trainer, self.run
        done = min(len(self.history) * trainer.per_epoch, trainer.total)
        if self.first:
            sizes = " + ".join(str(len(d.paths)) for d in (self.task.source, self.task.target))
            at = f", {done} done" if done else ""
            print(f"{run.title}: {sizes} images, {trainer.total} steps{at}", flush=True)
        title = f"{self.task.name} {run.method} {run.seed}"
        progress = Progress(self.folder, title, trainer.total, done, trainer.images_per_step)
        try:
            for epoch in range(len(self.history), trainer.epochs):
                self._epoch(epoch, progress)
            predictions = [
                self.trainer.predict(d.paths) for d in (self.task.source, self.task.target)
            ]
            if not all(tensor.isfinite().all() for pair in predictions for tensor in pair):
                raise UserError(
                    f"{run.title}: the trained network's features or logits are not finite; the "
                    f"run has diverged, try a lower --lr than {run.recipe.lr:g}"
                )
            try:
                self._finish(progress, *predictions)
            except (UserError, OSError) as error:
                if not self.first:
                    raise
                raise UserError(f"{error}; {run.left(self.runtime.out)}") from None
        finally:
            progress.close()

    def _epoch(self, epoch: int, progress: Progress) -> None:
        """Train an epoch, evaluate it unless it is the last, and write the checkpoint."""
        trainer, target = self.trainer, self.task.target
        terms = trainer.epoch(epoch, progress.step)
        last = epoch + 1 == trainer.epochs
        scores = {}
        if target.labels and not last and not self.run.recipe.max_steps:
            _, logits = trainer.predict(target.paths)
            scores = evaluation.target_accuracies(logits, target.labels, len(self.task.categories))
        self.history.append({"epoch": epoch + 1, **scores, **terms})
        if self.first and not self.run.recipe.frozen:  # such a run takes seconds
            content = {
                "trainer": trainer.state_dict(),
                "history": self.history,
                "seconds": time.perf_counter() - self.started,
            }
            self.run.save_checkpoint(self.runtime.out, content)
        if not last and not self.run.recipe.frozen:
            progress.epoch((epoch + 1) * trainer.per_epoch, trainer.epochs, self.history)

    def _finish(self, progress: Progress, of_source: Predicted, of_target: Predicted) -> None:
        """Evaluate the predictions and write the run's files, result.json last."""
        source, target, k = self.task.source, self.task.target, len(self.task.categories)
        (source_features, source_logits), (target_features, logits) = of_source, of_target
        final = evaluation.target_accuracies(logits, target.labels, k)
        final |= evaluation.source_accuracy(source_logits, source.labels, k)
        newest = self.history[-1]
        self.history[-1] = {"epoch": newest["epoch"], **final, **newest}
        progress.epoch(self.trainer.total, self.trainer.epochs, self.history)
        if not self.first:
            return
        answers = evaluation.classifiers(logits, k)[METHODS[self.run.method].classifier]
        self._write_features(torch.cat([source_features, target_features]), logits)
        self._write_model()
        if target.labels is None:
            self._write_predictions(answers)
        # Last, because it marks the run as finished.
        result = self._write_result(final, logits, answers)
        bar, run = progress.bar, self.run
        bar.write(f"{run.title}: done in {result.seconds:.0f} s, see {self.folder}")
        bar.write(health.diagnosis(result).describe(health.remedy(run.method, run.settings)))

    def _write_features(self, features: Tensor, logits: Tensor) -> None:
        domains = [self.task.source, self.task.target]
        labels = [domain.labels or [-1] * len(domain.paths) for domain in domains]
        half = features.half()
        saved = outputs.Features(
            (half if half.isfinite().all() else features).numpy(),
            np.repeat(np.arange(2, dtype=np.uint8), [*map(len, labels)]),
            np.concatenate(labels).astype(np.int16),
            logits.numpy(),
        )
        outputs.write_features(self.folder, saved)

    def _write_model(self) -> None:
        recipe, network = self.run.recipe, self.trainer.network
        head, names = network.heads["task"], {"C_t": "target", "C_s": "source"}
        if isinstance(head, symloss.SymmetricHead):
            head = head.classifier(names[METHODS[self.run.method].classifier])
        model = saved.Model(
            recipe.backbone,
            recipe.bottleneck,
            network.extractor,
            head,
            self.task.categories,
            recipe.preprocessing,
            recipe.width,
        )
        saved.write_model(self.folder, model)

    def _write_predictions(self, logits: Tensor) -> None:
        confidence, predicted = logits.softmax(1).max(1)
        rows = zip(self.task.target.paths, predicted, confidence, strict=True)
        outputs.write_predictions(
            self.folder,
            [outputs.Prediction(path, self.task.categories[k], float(p)) for path, k, p in rows],
        )

    def _write_result(
        self, final: dict[str, float | None], logits: Tensor, answers: Tensor
    ) -> outputs.Result:
        """Write result.json and return its content."""
        run, runtime, seconds = self.run, self.runtime, time.perf_counter() - self.started
        classifier, labels = METHODS[run.method].classifier, self.task.target.labels
        expected = run.recipe.prior if METHODS[run.method].balanced else "source"
        prior = shares.of_task(expected, self.task)
        result = outputs.Result(
            dataset=run.recipe.dataset,
            task=self.task.name,
            method=run.method,
            seed=run.seed,
            classifier=classifier,
            accuracy=final[f"target_accuracy/{classifier}"],
            final=final,
            epochs=self.history,
            **evaluation.by_category(answers, labels, self.task.categories),
            categories=self.task.categories,
            recipe=run.settings,
            **health.label_free(logits, answers, self.task.categories, prior),
            images=run.identity["images"],
            machine={
                "device": str(runtime.device),
                "workers": runtime.workers,
                "cache": runtime.cache,
            },
            versions=_versions(),
            commit=_commit(),
            processes=distributed.processes(),
            seconds=seconds,
            peak_memory_bytes=_peak_memory(runtime.device),
        )
        outputs.write_result(self.folder, result)
        return result


def _versions() -> dict[str, str]:
    modules = [torch, torchvision, symloss, *filter(None, [sys.modules.get("timm")])]
    return {
        "python": platform.python_version(),
        **{module.__name__: module.__version__ for module in modules},
    }


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _peak_memory(device: torch.device) -> int | None:
    """Bytes on this process's GPU for this run, or of the process if it has no GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
