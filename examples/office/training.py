"""The loop: batches seeded by epoch, the network with its two optimizers, an epoch of steps."""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Sampler

import symloss
from office import data, distributed, models
from office.methods import Method, Network, losses
from office.progress import Progress

LOG_EVERY = 10  # steps; reading the losses waits for the device, so not at each step
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class RunError(Exception):
    """Why a run cannot start or go on, in one line."""


def stream(*key: int) -> int:
    """Return the seed of an independent random stream for each key."""
    entropy = (len(key), *key)  # numpy takes (1,) and (1, 0) for the same
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)


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
        cache: Images that are decoded already.

    Raises:
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
        cache: dict[Path, Tensor],
    ) -> None:
        self.device, self.method, self.seed = device, method, seed
        # Sorted by path: the order that a task has them in depends on the labels.
        domains = [source.paths, sorted(target)] if method.target else [source.paths]
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
        self.normalize = data.Normalize().to(device)
        self.batches = [
            EpochBatches(len(paths), args.batch_size, seed, i) for i, paths in enumerate(domains)
        ]
        self.loaders = [
            data.loader(data.Images(paths, cache), device, args.workers, batch_sampler=batches)
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

    def inputs(self, epoch: int, steps: int) -> Iterator[tuple[list[Tensor], Tensor]]:
        """Yield the images of each domain and the source labels of each step, on the device."""
        for batches in self.batches:
            batches.epoch, batches.steps = epoch, steps
        for domains in zip(*self.loaders, strict=True):
            crops, flips, indices = (
                [tensor.to(self.device, non_blocking=True) for tensor in tensors]
                for tensors in zip(*domains, strict=True)
            )
            images = [
                self.normalize(torch.where(flip[:, None, None, None], x.flip(-1), x), self.layout)
                for x, flip in zip(crops, flips, strict=True)
            ]
            yield images, self.labels[indices[0]]

    def epoch(self, epoch: int, progress: Progress) -> dict[str, float]:
        """Train for epoch ``epoch``, counted from 0; return the mean of each term over it."""
        done = epoch * self.per_epoch
        steps = min(self.per_epoch, self.total - done)
        # Dropout differs by process; crops and batches have seeds of their own.
        torch.manual_seed(stream(self.seed, epoch, 2, distributed.rank()))
        self.network.train()
        sums: list[Tensor] = []
        means = 0.0
        inputs = self.inputs(epoch, steps)
        images, labels = next(inputs)
        for i in range(1, steps + 1):
            lam = symloss.progressive_lambda((done + i - 1) / self.total)
            with self.autocast:
                loss, terms = losses(self.method, self.model(*images), labels, lam)
            images, labels = next(inputs, (None, None))  # while the device is at work
            rates = [schedule.get_last_lr()[0] for schedule in self.schedules]
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
