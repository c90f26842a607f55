"""What a run tells while it trains: a bar, TensorBoard scalars, one JSON line per epoch."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from office import distributed, files


class Progress:
    """Bar, event files and log.jsonl of one run; silent in all processes but the first.

    Args:
        folder: The run's folder.
        title: Shown before the bar.
        steps: Steps of the whole run.
        done: Steps done before, when a run is resumed.
        images: Images per step, of both domains and all processes.
    """

    def __init__(self, folder: Path, title: str, steps: int, done: int, images: int) -> None:
        self.first = distributed.rank() == 0
        self.folder, self.images = folder, images
        self.accuracy: dict[str, str] = {}  # before the terms, which a narrow terminal cuts
        self.terms: dict[str, str] = {}
        self.writer = SummaryWriter(folder, purge_step=done + 1) if self.first else None
        self.bar = tqdm(
            desc=title,
            total=steps * images,
            initial=done * images,
            unit=" images",
            unit_scale=True,
            # Without a terminal there is no bar: the lines of the epochs are enough.
            disable=None if self.first else True,
        )

    def step(self) -> None:
        """Count one step."""
        self.bar.update(self.images)

    def losses(self, step: int, scalars: dict[str, float]) -> None:
        """Show terms and write ``scalars`` at a step; those outside "loss/" are not shown."""
        if not self.first:
            return
        for tag, value in scalars.items():
            self.writer.add_scalar(tag, value, step)
            if tag.startswith("loss/"):
                self.terms[tag[5:]] = f"{value:.3g}"
        self.bar.set_postfix(self.accuracy | self.terms, refresh=False)

    def epoch(self, step: int, epochs: int, history: list[dict[str, Any]]) -> None:
        """Print, write and log the newest line of ``history``, one entry per epoch."""
        if not self.first:
            return
        newest = history[-1]
        words = []
        for name, value in newest.items():
            if name in ("source", "target") and value is not None:
                words.append(f"C^{name[0]} {value:.1f} %")
                self.writer.add_scalar(f"accuracy/{name}", value, step)
                self.accuracy[f"C^{name[0]}"] = f"{value:.1f}%"
            elif isinstance(value, float) and name not in ("source", "target"):
                words.append(f"{name} {value:.3g}")
        self.bar.set_postfix(self.accuracy | self.terms)
        self.bar.write(f"epoch {newest['epoch']}/{epochs}  {'  '.join(words)}")
        lines = "".join(json.dumps(line) + "\n" for line in history)
        files.write(self.folder / "log.jsonl", lines.encode())

    def close(self) -> None:
        """Leave the bar and flush the event file."""
        self.bar.close()
        if self.writer is not None:
            with suppress(OSError):  # a full disk is reported by what else could not be written
                self.writer.close()
