"""SymNets on the Office benchmarks, or on two folders of your own: the whole loop.

    python examples/train_office.py --dataset office31 --root data/office31 --task A2W
    torchrun --nproc_per_node 4 examples/train_office.py ...

Each run (task, method, seed) writes OUT/DATASET/TASK/METHOD/seedN/ with result.json, log.jsonl,
checkpoint.pt, features.npz, model.pt and TensorBoard event files; report.py makes the tables.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from office import console, distributed, methods, options
from office.data import tasks
from office.methods import METHODS
from office.models import backbones
from office.options import Recipe, Runtime, Selection
from office.results import outputs, tables
from office.training import extraction, preparation
from office.training.batches import Batches, seed_of
from office.training.preparation import Plan
from office.training.runs import Progress, Run
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import symloss
from symloss import RoutedLogits

ESTIMATES = (0.0, 0.2, 0.4, 0.6, 0.8)  # of the steps, when --prior estimate looks at the target


class Network(nn.Module):
    """Backbone and head in one module, with one forward for both domains, as DDP needs."""

    def __init__(self, extractor: backbones.Extractor, head: nn.Module) -> None:
        super().__init__()
        self.extractor, self.head = extractor, head

    def forward(self, x_s: Tensor, x_t: Tensor | None) -> list[RoutedLogits | None]:
        """Return the routed logits of source and target images."""
        # A pass for each domain, so that batch norm does not mix their statistics. symloss.route
        # gives the logits twice: gradients of one copy reach the head alone (the features are
        # detached), those of the other the extractor alone (the head's weights are).
        features = [None if x is None else self.extractor(x) for x in (x_s, x_t)]
        return [None if f is None else symloss.route(self.head, f) for f in features]


def train(run: Run, runtime: Runtime, batches: Batches) -> None:
    """Train one run, from its checkpoint if there is one, evaluate it and write its files.

    Target labels are used only to report accuracies.
    """
    recipe, task, method, device = run.recipe, run.task, METHODS[run.method], runtime.device
    k, is_first = len(task.categories), distributed.rank() == 0
    started = time.perf_counter()
    if is_first:
        run.start(runtime)

    # A backbone without its last layer, an optional bottleneck, and the head: for SymNets
    # symloss.SymmetricHead(F, K), both classifiers in one linear layer.
    torch.manual_seed(seed_of(run.seed))
    extractor = backbones.build_extractor(
        recipe.backbone, recipe.weights, recipe.bottleneck, recipe.width
    )
    network = Network(extractor, method.head(extractor.num_features, k))
    network = network.to(device).to(memory_format=batches.layout)

    # Two players with an optimizer each; the pretrained backbone learns at a tenth of the rate.
    sgd = partial(
        torch.optim.SGD, lr=recipe.lr, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay
    )
    pretrained: dict[str, Any] = {"params": extractor.backbone.parameters(), "lr": recipe.lr / 10}
    bottleneck: dict[str, Any] = {"params": extractor.bottleneck.parameters()}
    optimizers = [sgd([pretrained, bottleneck]), sgd(network.head.parameters())]
    schedules = [symloss.AnnealedLR(optimizer, run.steps) for optimizer in optimizers]
    scaler = torch.amp.GradScaler() if recipe.precision == "fp16" else None
    step = symloss.TwoOptimizerStep(*optimizers, scaler=scaler)

    autocast = recipe.autocast(device)
    if recipe.compile:
        extractor.compile()
    model: nn.Module = network
    if distributed.processes() > 1:
        model = DistributedDataParallel(network)

    # The target's shares that balanced methods expect; how far to trust estimated ones is reported.
    prior: Tensor | None = None
    trust: float | None = None
    estimates: set[int] = set()
    if method.balanced and recipe.prior == "estimate":
        estimates = {int(part * run.steps) for part in ESTIMATES}
    elif method.balanced:
        prior = torch.tensor(
            tasks.shares_of(recipe.prior, task.categories, task.source.labels or ()), device=device
        )

    history: list[dict[str, Any]] = []
    # The first process reads the checkpoint, if there is one, and all get it.
    if checkpoint := distributed.in_first(lambda: run.load_checkpoint(runtime)):
        network.load_state_dict(checkpoint["network"])
        step.load_state_dict(checkpoint["step"])
        for schedule, state in zip(schedules, checkpoint["schedules"], strict=True):
            schedule.load_state_dict(state)
        history = checkpoint["history"]
        if estimates:
            prior, trust = checkpoint["prior"].to(device), checkpoint["trust"]
        started -= checkpoint["seconds"]

    done = min(len(history) * run.per_epoch, run.steps)
    settings = methods.Settings(k, recipe.balance, prior)
    images_per_step = recipe.batch_size * (1 + method.target)
    with Progress(run, run.folder(runtime.out), done, images_per_step) as progress:
        for epoch in range(len(history), run.epochs):
            weights = {}
            if recipe.partial and method.symmetric:  # the target may lack categories
                _, logits = predict(network, batches, task.target.paths, autocast)
                weight = methods.category_weights(method, logits, done / run.steps)
                settings = replace(settings, partial=weight.to(device))
                named = zip(task.categories, weight.tolist(), strict=True)
                weights = {f"weight/{category}": value for category, value in named}

            # Dropout differs by process; batches and crops have seeds of their own.
            torch.manual_seed(seed_of(run.seed, epoch, 2, distributed.rank()))
            network.train()
            progress.begin(min(run.per_epoch, run.steps - done))
            for x_s, y_s, x_t in batches.epoch(epoch, progress.steps):
                if done in estimates:
                    prior, trust = estimate_prior(run, network, batches, autocast, done)
                    settings = replace(settings, prior=prior)
                    network.train()
                lam = symloss.progressive_lambda(done / run.steps)
                with autocast:
                    source, target = model(x_s, x_t)
                    if run.method == "symnets":
                        # Eq. (11), as published. The head minimises both task losses and domain
                        # discrimination, (5) + (6) + (7); the extractor category confusion, and λ
                        # times domain confusion and entropy, (8) + λ ((9) + (10)).
                        losses = symloss.symnet_losses(source, y_s, target, weight=settings.weight)
                        loss, terms = losses.total(lam), losses._asdict()
                    else:  # an ablation or a later method, from methods.METHODS
                        loss, terms = methods.losses(method, source, y_s, target, lam, settings)
                rates = [float(schedule.get_last_lr()[0]) for schedule in schedules]
                if step(loss):  # one backward, then both optimizers, unless float16 overflowed
                    for schedule in schedules:
                        schedule.step()
                done += 1
                progress.step(terms, lam, rates)

            accuracies = {}
            last = epoch + 1 == run.epochs  # evaluated below, on both domains
            if task.target.labels and not last and not recipe.max_steps:
                _, logits = predict(network, batches, task.target.paths, autocast)
                accuracies = outputs.target_accuracies(logits, task.target.labels, k)
            history.append({"epoch": epoch + 1, **accuracies, **weights, **progress.means()})
            if is_first and not recipe.frozen:  # training on stored features takes seconds
                checkpoint = {
                    "network": network.state_dict(),
                    "step": step.state_dict(),
                    "schedules": [schedule.state_dict() for schedule in schedules],
                    "history": history,
                    "prior": prior,
                    "trust": trust,
                    "seconds": time.perf_counter() - started,
                }
                run.save_checkpoint(runtime.out, checkpoint)
            if not last and not recipe.frozen:
                progress.epoch(history)

        # The end of training: features and logits of both domains, accuracies, and the files, among
        # them model.pt with the extractor and the target classifier C^t.
        both = [predict(network, batches, d.paths, autocast) for d in (task.source, task.target)]
        features, (v_s, v_t) = zip(*both, strict=True)
        final = outputs.target_accuracies(v_t, task.target.labels, k)
        final |= outputs.source_accuracy(v_s, task.source.labels or [], k)
        history[-1] = {"epoch": run.epochs, **final, **history[-1]}
        progress.epoch(history)
        if is_first:
            classifier = methods.plain_classifier(network.head, method.classifier)
            outcome = (features, (v_s, v_t), history, time.perf_counter() - started)
            result = outputs.write_run(run, runtime, extractor, classifier, *outcome, prior, trust)
            progress.bar.write(tables.finished(result, run.folder(runtime.out)))


def predict(
    network: Network, batches: Batches, paths: list[Path], autocast: torch.autocast
) -> tuple[Tensor, Tensor]:
    """Return features ``(N, F)`` and the head's logits of images, in order, float32, on the CPU.

    The images are split among the processes, and every process gets all results.
    """
    distributed.share_buffers(network)
    network.eval()
    rows: list[tuple[Tensor, ...]] = []
    with torch.inference_mode(), autocast:
        for images, index in batches.once(paths):
            features = network.extractor(images)
            rows.append((index, features.float(), network.head(features).float()))
    features, logits = distributed.in_order(rows)
    return features, logits


def estimate_prior(
    run: Run, network: Network, batches: Batches, autocast: torch.autocast, done: int
) -> symloss.EstimatedPrior:
    """Estimate the target's shares from the pretrained backbone's features, later the network's.

    The first process estimates them for all.
    """
    pretrained = backbones.Extractor(network.extractor.backbone, network.extractor.num_features)
    seen = network if done else Network(pretrained, nn.Identity())
    domains = (run.task.source, run.task.target)
    features = [predict(seen, batches, domain.paths, autocast)[0] for domain in domains]
    seed, device = seed_of(run.seed, done), batches.runtime.device
    return tasks.estimate_shares(run.task, features, seed, device)


def train_all(plan: Plan, runtime: Runtime) -> None:
    """Train a plan's runs, one after the other, without those that another job has finished."""
    for run in plan.to_train:
        with preparation.interruptions(run, runtime), run.alone(runtime) as finished:
            if not finished:
                train(run, runtime, plan.batches(run))


def run_all(recipe: Recipe, runtime: Runtime, selection: Selection) -> None:
    """Train every selected run that is not finished; for your own images, print a summary."""
    prepare = preparation.quick if selection.preset == "quick" else preparation.from_images
    with distributed.process_group(runtime.device):
        plan = prepare(recipe, runtime, selection)
        train_all(plan, runtime)
        if distributed.rank() == 0 and selection.preset == "quick":
            for run in plan.runs:
                extraction.put_backbone(run.folder(runtime.out), run.recipe)
        if distributed.rank() == 0 and recipe.dataset == "folders":
            print(tables.summarise([run.folder(runtime.out) for run in plan.runs]))


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line, and train; or, with ``--check``, only look at the images."""
    recipe, runtime, selection = options.read(argv)
    preprocessing = backbones.preprocessing(recipe.backbone)
    run_all(replace(recipe, preprocessing=preprocessing), runtime, selection)


if __name__ == "__main__":
    console.run(main)
