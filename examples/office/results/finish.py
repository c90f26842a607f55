"""The end of a run: all its files."""

import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import symloss
from office import distributed
from office.data.tasks import Task, shares_of
from office.methods import METHODS
from office.models import saved
from office.models.backbones import Extractor
from office.options import Runtime
from office.results import outputs, scores
from office.results.outputs import Result
from office.training.runs import Run


def write_run(
    run: Run,
    runtime: Runtime,
    extractor: Extractor,
    classifier: nn.Linear,
    features: tuple[Tensor, Tensor],
    logits: Tensor,
    history: list[dict[str, Any]],
    seconds: float,
) -> Result:
    """Write the files of a trained run, result.json last, because it marks the run as finished.

    Args:
        run: The run.
        runtime: Where it was trained.
        extractor: From images to features.
        classifier: From features to K logits, with the predictions that count.
        features: Features of the source and of the target images, ``(N, F)`` and ``(M, F)``.
        logits: Logits of the target images, ``(M, 2K)``, or ``(M, K)`` for one classifier.
        history: For each epoch its number, its mean losses and the accuracies measured; the last
            entry has all those at the end of training.
        seconds: Duration of the run.

    Raises:
        UserError: If a file cannot be written.
    """
    recipe, task, method = run.recipe, run.task, METHODS[run.method]
    categories, labels, folder = task.categories, task.target.labels, run.folder(runtime.out)
    counting = scores.by_classifier(logits, len(categories))[method.classifier]
    outputs.write_features(folder, _features(task, torch.cat(features), logits))
    model = saved.Model(
        recipe.backbone,
        recipe.bottleneck,
        extractor,
        classifier,
        categories,
        recipe.preprocessing,
        recipe.width,
    )
    saved.write_model(folder, model)
    if labels is None:
        confidence, prediction = counting.double().softmax(1).max(1)
        rows = zip(task.target.paths, prediction.tolist(), confidence.tolist(), strict=True)
        outputs.write_predictions(
            folder, [outputs.Prediction(path, categories[k], p) for path, k, p in rows]
        )

    final = {name: value for name, value in history[-1].items() if "_accuracy/" in name}
    confusion = None if labels is None else scores.confusion_matrix(counting, labels)
    recalls = [None] * len(categories) if confusion is None else scores.recalls(confusion)
    prior = shares_of(
        recipe.prior if method.balanced else "source", categories, task.source.labels or ()
    )
    predicted, expected = symloss.diagnostics.category_shares(counting, prior)
    result = Result(
        dataset=recipe.dataset,
        task=task.name,
        method=run.method,
        seed=run.seed,
        classifier=method.classifier,
        accuracy=final[f"target_accuracy/{method.classifier}"],
        final=final,
        epochs=history,
        per_category=dict(zip(categories, recalls, strict=True)),
        confusion=confusion,
        categories=categories,
        recipe=run.settings,
        predicted=dict(zip(categories, predicted.tolist(), strict=True)),
        expected=dict(zip(categories, expected.tolist(), strict=True)),
        agreement=scores.agreement(logits, len(categories)),
        images=run.identity["images"],
        machine={"device": str(runtime.device), "workers": runtime.workers, "cache": runtime.cache},
        versions=_versions(),
        commit=_commit(),
        processes=distributed.processes(),
        seconds=seconds,
        peak_memory_bytes=_peak_memory(runtime.device),
    )
    outputs.write_result(folder, result)
    return result


def _features(task: Task, features: Tensor, logits: Tensor) -> outputs.Features:
    labels = [domain.labels or [-1] * len(domain.paths) for domain in (task.source, task.target)]
    half = features.half()
    return outputs.Features(
        (half if half.isfinite().all() else features).numpy(),
        np.repeat(np.arange(2, dtype=np.uint8), [*map(len, labels)]),
        np.concatenate(labels).astype(np.int16),
        logits.numpy(),
    )


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in ("torch", "torchvision", "symloss", "timm"):
        if name in sys.modules:
            versions[name] = sys.modules[name].__version__
    return versions


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
