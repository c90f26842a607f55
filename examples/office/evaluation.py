"""Evaluation: predictions for a whole domain, their accuracy, and what a finished run leaves."""

import csv
import io
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from office import data, distributed, files
from office.methods import Network


def infer(
    network: Network,
    paths: list[Path],
    device: torch.device,
    batch_size: int,
    workers: int,
    autocast: AbstractContextManager,
    cache: dict[Path, Tensor],
) -> tuple[Tensor, Tensor]:
    """Return features and task logits of images, in their order, on the CPU in every process.

    The processes share the images out without the padding that a DistributedSampler adds.

    Args:
        network: Its mode is left as it was.
        paths: N image files.
        device: Device of the network.
        batch_size: Images per forward pass, over all processes.
        workers: Processes that read images.
        autocast: Context of the forward pass.
        cache: Images that are decoded already.

    Returns:
        Features ``(N, F)``, float16, and logits ``(N, 2K)`` or ``(N, K)``, float32.
    """
    distributed.share_buffers(network)
    share = range(distributed.rank(), len(paths), distributed.processes())
    loader = data.loader(
        data.Images(paths, cache),
        device,
        workers,
        batch_size=batch_size // distributed.processes(),
        sampler=[(i, None) for i in share],
    )
    normalize = data.Normalize().to(device)
    was_training = network.training
    network.eval()
    parts: list[tuple[Tensor, ...]] = []
    with torch.inference_mode(), autocast:
        for images, _, index in loader:
            features = network.extractor(normalize(images.to(device, non_blocking=True)))
            logits = network.heads["task"](features)
            parts.append((index, features.half(), logits.float()))
    network.train(was_training)
    mine = [torch.cat(tensors).cpu() for tensors in zip(*parts, strict=True)] if parts else None
    shares = [share for share in distributed.gather(mine) if share is not None]
    index, features, logits = (torch.cat(tensors) for tensors in zip(*shares, strict=True))
    order = index.argsort()
    return features[order], logits[order]


def classifiers(logits: Tensor, num_classes: int) -> dict[str, Tensor | None]:
    """Split task logits into those of C^s and C^t; one classifier alone counts as C^t."""
    if logits.shape[1] == num_classes:
        return {"source": None, "target": logits}
    source, target = logits.chunk(2, dim=1)
    return {"source": source, "target": target}


def confusion_matrix(labels: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """Count images by label (row) and prediction (column), ``(K, K)``."""
    return torch.bincount(labels * num_classes + predicted, minlength=num_classes**2).view(
        num_classes, num_classes
    )


def accuracies(
    logits: Tensor, labels: list[int] | None, num_classes: int
) -> dict[str, float | None]:
    """Return the accuracy of C^s and C^t in %, ``None`` without that classifier or labels."""
    return {
        name: None
        if part is None or labels is None
        else 100 * (part.argmax(1) == torch.tensor(labels)).double().mean().item()
        for name, part in classifiers(logits, num_classes).items()
    }


def write_features(folder: Path, domains: list[data.Domain], features: list[Tensor]) -> None:
    """Write features.npz: float16 features, domain 0 or 1, label or -1, source images first."""
    buffer = io.BytesIO()
    sizes = [len(domain.paths) for domain in domains]
    np.savez(
        buffer,
        features=torch.cat(features).numpy(),
        domain=np.repeat(np.arange(2, dtype=np.uint8), sizes),
        label=np.concatenate([d.labels or [-1] * len(d.paths) for d in domains]).astype(np.int16),
    )
    files.write(folder / "features.npz", buffer.getvalue())


def write_predictions(folder: Path, task: data.Task, logits: Tensor, reported: str) -> None:
    """Write predictions.csv, for a target without labels: path, category, confidence."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["path", "category", "confidence"])
    chosen = classifiers(logits, len(task.categories))[reported]
    confidence, predicted = chosen.softmax(1).max(1)
    for path, k, p in zip(task.target.paths, predicted, confidence, strict=True):
        rows.writerow([path, task.categories[k], f"{p:.4f}"])
    files.write(folder / "predictions.csv", text.getvalue().encode())


def summary(task: data.Task, logits: Tensor, reported: str) -> dict[str, Any]:
    """Return the part of result.json that the target's labels give, ``None`` without labels."""
    num_classes = len(task.categories)
    final = accuracies(logits, task.target.labels, num_classes)
    facts: dict[str, Any] = dict(final=final, accuracy=final[reported], categories=task.categories)
    if task.target.labels is None:
        return facts | {"per_category": dict.fromkeys(task.categories), "confusion": None}
    predicted = classifiers(logits, num_classes)[reported].argmax(1)
    counts = confusion_matrix(torch.tensor(task.target.labels), predicted, num_classes)
    recall = 100 * counts.diagonal().double() / counts.sum(1)
    per_category = dict(zip(task.categories, recall.tolist(), strict=True))
    return facts | {"per_category": per_category, "confusion": counts.tolist()}
