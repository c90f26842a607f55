"""The loop: the network with its two optimizers, an epoch of steps, and predictions."""

import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import symloss
from office import distributed
from office.console import UserError
from office.data import shares
from office.models import backbones
from office.options import Runtime
from office.results import evaluation
from office.training.batches import FeatureInputs, Inputs, stream
from office.training.methods import METHODS, Network, losses
from office.training.runs import Run

LOG_EVERY = 10  # steps; reading the losses waits for the device, so not at every step
ABSURD = 1e4  # a term starts at about log K; in runs that recover it stays below some hundreds
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# Called after each step with its number, from 1, and, when losses are read, scalars by name.
Callback = Callable[[int, dict[str, float]], object]


class Trainer:
    """Network, optimizers, schedules and batches of a run; it never reads target labels.

    Args:
        run: What to train.
        runtime: Where to train it.
        cache: Images that are decoded already (others are read); or, for frozen features, each
            image's features ``(views, F)`` by path.

    Raises:
        UserError: If the backbone or its weights do not fit.
    """

    def __init__(self, run: Run, runtime: Runtime, cache: dict[Path, Tensor]) -> None:
        recipe = run.recipe
        self.run = run
        self.method, self.device = METHODS[run.method], runtime.device
        # Every method takes the same number of steps, even if it uses no target images.
        larger = max(len(run.task.source.paths), len(run.task.target.paths))
        self.per_epoch = larger // recipe.batch_size
        self.total = recipe.max_steps or recipe.epochs * self.per_epoch
        self.epochs = math.ceil(self.total / self.per_epoch)

        torch.manual_seed(stream(run.seed))
        extractor = backbones.build_extractor(
            recipe.backbone, recipe.weights, recipe.bottleneck, recipe.width
        )
        self.network = Network(extractor, self.method, len(run.task.categories))
        self.inputs = (FeatureInputs if recipe.frozen else Inputs)(run, runtime, cache)
        self.prior = torch.tensor(shares.of_task(recipe.prior, run.task), device=self.device)
        self.weight: Tensor | None = None  # of each category, in partial adaptation
        self.images_per_step = recipe.batch_size * len(self.inputs.batches)
        self.network.to(self.device, memory_format=self.inputs.layout)
        optimizers = self._optimizers()
        scaler = torch.amp.GradScaler() if recipe.precision == "fp16" else None
        self.step = symloss.TwoOptimizerStep(*optimizers, scaler=scaler)
        self.schedules = [symloss.AnnealedLR(optimizer, self.total) for optimizer in optimizers]
        if recipe.compile:
            extractor.compile()
        self.warned = False
        self.model: nn.Module = self.network
        if distributed.processes() > 1:
            ids = [self.device.index] if self.device.type == "cuda" else None
            self.model = DistributedDataParallel(self.network, device_ids=ids)
        self.autocast = torch.autocast(
            self.device.type, DTYPES[recipe.precision], enabled=recipe.precision != "fp32"
        )

    def _optimizers(self) -> list[torch.optim.SGD]:
        """Return the extractor's and the head's optimizer."""
        recipe, extractor = self.run.recipe, self.network.extractor
        groups = [{"params": [*extractor.backbone.parameters()], "lr": recipe.lr / 10}]
        if recipe.bottleneck:  # new layers, like the heads
            groups.append({"params": [*extractor.bottleneck.parameters()]})
        decay = recipe.weight_decay
        return [
            torch.optim.SGD(players, recipe.lr, momentum=0.9, weight_decay=decay, nesterov=True)
            for players in (groups, self.network.heads.parameters())
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return the state at an epoch's end; later randomness depends only on the epoch."""
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

    def epoch(self, number: int, callback: Callback | None = None) -> dict[str, float]:
        """Train for an epoch, counted from 0; return the mean of each term.

        In partial adaptation the category weights are included, as ``weight/NAME``.
        """
        done = number * self.per_epoch
        steps = min(self.per_epoch, self.total - done)
        weights = self._weigh(done) if self.run.recipe.partial and self.method.symmetric else {}
        # Dropout differs by process; crops and batches have their own seeds.
        torch.manual_seed(stream(self.run.seed, number, 2, distributed.rank()))
        return weights | self.train(self.inputs.epoch(number, steps), done, steps, callback)

    def _weigh(self, done: int) -> dict[str, float]:
        """Estimate the category weights from target predictions; return them by name.

        They depend only on the network and λ, so a resumed run gets the same ones.
        """
        task = self.run.task
        _, logits = self.predict(sorted(task.target.paths))
        answers = evaluation.classifiers(logits, len(task.categories))[self.method.classifier]
        lam = symloss.progressive_lambda(done / self.total)
        weight = symloss.scores.category_weights(answers, lam, joint=False)
        self.weight = weight.to(self.device)
        names = (f"weight/{name}" for name in task.categories)
        return dict(zip(names, weight.tolist(), strict=True))

    def train(
        self,
        batches: Iterator[tuple[list[Tensor], Tensor]],
        done: int,
        steps: int,
        callback: Callback | None = None,
    ) -> dict[str, float]:
        """Train on any batches; return the mean of each term.

        Args:
            batches: For each step the images by domain and the source labels, on the device.
            done: Steps of the run already done.
            steps: Steps to take.
            callback: Called after each step.

        Raises:
            UserError: If a loss is not finite.
        """
        self.network.train()
        sums: list[Tensor] = []
        means = 0.0
        inputs, labels = next(batches)
        for i in range(1, steps + 1):
            lam = symloss.progressive_lambda((done + i - 1) / self.total)
            with self.autocast:
                outputs = self.model(*inputs)
                loss, terms = losses(
                    self.method, outputs, labels, lam, self.run.recipe, self.prior, self.weight
                )
            inputs, labels = next(batches, (None, None))  # while the device is busy
            rates = [schedule.get_last_lr()[0] for schedule in self.schedules]
            if self.step(loss):
                for schedule in self.schedules:
                    schedule.step()
            sums.append(torch.stack([*terms.values()]))
            scalars = {}
            if i % LOG_EVERY == 0 or i == steps:
                values = _read(done + i, [*terms], sums)
                self._warn_once(done + i, values)
                means = means + np.array([*values.values()]) * len(sums) / steps
                scalars = {f"loss/{name}": value for name, value in values.items()}
                scalars |= {"lr/backbone": rates[0], "lr/head": rates[1], "lambda": lam}
                sums = []
            if callback:
                callback(done + i, scalars)
        return dict(zip(terms, means.tolist(), strict=True))

    def _warn_once(self, step: int, values: dict[str, float]) -> None:
        """Warn about losses that are finite but larger than in any healthy run."""
        large = {name: value for name, value in values.items() if abs(value) > ABSURD}
        if not large or self.warned:
            return
        self.warned = True
        if distributed.rank() == 0:
            told = ", ".join(f"{name} {value:.3g}" for name, value in large.items())
            warnings.warn(
                f"losses above {ABSURD:,.0f} at step {step}: {told}; the run has diverged, try a "
                f"lower --lr than {self.run.recipe.lr:g}",
                stacklevel=2,
            )

    def predict(self, paths: list[Path]) -> tuple[Tensor, Tensor]:
        """Return features and task logits of images, in order, on the CPU.

        The images are split among the processes, and every process gets all results.

        Returns:
            Features ``(N, F)`` and logits ``(N, 2K)`` or ``(N, K)``, float32.
        """
        distributed.share_buffers(self.network)
        network = self.network
        was_training = network.training
        network.eval()
        parts: list[tuple[Tensor, ...]] = []
        with torch.inference_mode(), self.autocast:
            for batch, index in self.inputs.once(paths):
                features = network.extractor(batch)
                logits = network.heads["task"](features)
                parts.append((index, features.float(), logits.float()))
        network.train(was_training)
        mine = [torch.cat(tensors).cpu() for tensors in zip(*parts, strict=True)] if parts else None
        shares = [share for share in distributed.gather(mine) if share is not None]
        index, features, logits = (torch.cat(tensors) for tensors in zip(*shares, strict=True))
        order = index.argsort()
        return features[order], logits[order]


def _read(step: int, names: list[str], sums: list[Tensor]) -> dict[str, float]:
    """Return the mean of each term over steps and processes; this waits for the device."""
    read = distributed.mean(torch.stack(sums).mean(0)).tolist()
    values = dict(zip(names, read, strict=True))
    if not all(map(math.isfinite, read)):
        raise UserError(f"a loss is not finite at step {step}: {values}")
    return values
