"""The files of a run at its end."""

import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

import symloss
from office import distributed
from office.data import shares
from office.options import Runtime
from office.results import evaluation, health, outputs
from office.training.methods import METHODS
from office.training.runs import Run


@dataclass(frozen=True)
class End:
    extractor: nn.Module
    classifier: nn.Linear
    f_s: Tensor
    f_t: Tensor
    v_t: Tensor
    final: dict[str, float | None]
    history: list[dict[str, Any]]


def write(run: Run, runtime: Runtime, end: End, seconds: float) -> outputs.Result:
    task, recipe, method = run.task, run.recipe, METHODS[run.method]
    folder, k = run.folder(runtime.out), len(task.categories)
    answers = evaluation.classifiers(end.v_t, k)[method.classifier]
    features = torch.cat([end.f_s, end.f_t])
    labels = [domain.labels or [-1] * len(domain.paths) for domain in (task.source, task.target)]
    half = features.half()
    outputs.write_features(
        folder,
        outputs.Features(
            (half if half.isfinite().all() else features).numpy(),
            np.repeat(np.arange(2, dtype=np.uint8), [*map(len, labels)]),
            np.concatenate(labels).astype(np.int16),
            end.v_t.numpy(),
        ),
    )
    outputs.write_model(
        folder,
        outputs.Model(
            recipe.backbone,
            recipe.bottleneck,
            end.extractor,
            end.classifier,
            task.categories,
            recipe.preprocessing,
            recipe.width,
        ),
    )
    if task.target.labels is None:
        confidence, predicted = answers.softmax(1).max(1)
        rows = zip(task.target.paths, predicted, confidence, strict=True)
        outputs.write_predictions(
            folder, [outputs.Prediction(path, task.categories[k], float(p)) for path, k, p in rows]
        )
    expected = recipe.prior if method.balanced else "source"
    prior = shares.of_categories(expected, task.categories, task.source.labels or ())
    result = outputs.Result(
        dataset=recipe.dataset,
        task=task.name,
        method=run.method,
        seed=run.seed,
        classifier=method.classifier,
        accuracy=end.final[f"target_accuracy/{method.classifier}"],
        final=end.final,
        epochs=end.history,
        **evaluation.by_category(answers, task.target.labels, task.categories),
        categories=task.categories,
        recipe=run.settings,
        **health.label_free(end.v_t, answers, task.categories, prior),
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
