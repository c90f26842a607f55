"""Batches, the loop and predictions, without files or a command line."""

import dataclasses
from itertools import chain

import numpy as np
import pytest
import torch
from office.console import UserError
from office.data import images, loading
from office.data.datasets import load_task
from office.training import trainer as training
from office.training.batches import EpochBatches
from office.training.methods import METHODS
from office.training.trainer import Trainer
from small_runs import PREPROCESSING, RUNTIME, made_run

import symloss
from symloss import functional

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*published"),
    pytest.mark.usefixtures("one_thread"),
]


@pytest.fixture
def task(root):
    return load_task("office31", root, "A2W")


def pixels(paths):
    transform = images.eval_transform(PREPROCESSING)
    return torch.stack([transform(images.load_image(path)) for path in paths])


def parameters(trainer):
    return {name: p.detach().clone() for name, p in trainer.network.named_parameters()}


def terms_of(name):
    """The names of a method's terms in the logs."""
    method = METHODS[name]
    names = {term.__name__ for term in (*method.head, *method.extractor, *method.weighted)}
    terms = symloss.SymNetV2Losses if "v2" in name else symloss.SymNetLosses
    return names.union(terms._fields if method.objective else ())


def source_error(trainer, batch, labels):
    """Cross-entropy of the classifier of the source on images of it."""
    logits = trainer.network(batch)[0]["task"].head
    if logits.shape[1] == 3:
        return torch.nn.functional.cross_entropy(logits, labels).item()
    return functional.source_task(logits, labels).item()


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains(name, tree):
    task = load_task("office31", tree(images=4), "A2W")
    run = made_run(task, name, backbone="resnet18", batch_size=12, max_steps=12)
    trainer = Trainer(run, RUNTIME, cache={})
    before, batch = parameters(trainer), pixels(task.source.paths)
    labels = torch.tensor(task.source.labels)
    first = source_error(trainer, batch, labels)
    terms = [trainer.epoch(epoch) for epoch in range(trainer.epochs)]
    assert source_error(trainer, batch, labels) < 0.95 * first
    assert len(terms) == 12
    assert all(values.keys() == terms_of(name) for values in terms)
    assert all(np.isfinite([*values.values()]).all() for values in terms)
    assert [k for k, p in parameters(trainer).items() if torch.equal(p, before[k])] == []


@pytest.mark.parametrize(
    ("prior", "shares"), [("uniform", [1 / 3, 1 / 3, 1 / 3]), ("source", [3 / 8, 1 / 8, 4 / 8])]
)
def test_the_prior_is_that_of_the_recipe(prior, shares, task, monkeypatch):
    seen, balance = [], functional.category_balance

    def spy(logits, prior):
        seen.append(prior)
        return balance(logits, prior)

    monkeypatch.setattr(functional, "category_balance", spy)
    source = dataclasses.replace(
        task.source, paths=task.source.paths[:8], labels=[0, 0, 0, 1, 2, 2, 2, 2]
    )
    task = dataclasses.replace(task, source=source)
    run = made_run(task, "symnets-balanced", max_steps=1, prior=prior)
    Trainer(run, RUNTIME, cache={}).epoch(0)
    assert len(seen) == 1
    torch.testing.assert_close(seen[0], torch.tensor(shares))


def softmax(z):
    z = np.exp(z - z.max(1, keepdims=True))
    return z / z.sum(1, keepdims=True)


# Of two classifiers the one that answers: the second half of the logits, or the first.
@pytest.mark.parametrize(
    ("name", "half"), [("symnets", 1), ("symnets-v2", 1), ("symnets-wo-target-task", 0)]
)
def test_partial_weighs_categories_by_their_predictions_before_each_epoch(
    name, half, task, monkeypatch
):
    losses, seen = training.losses, []

    def spy(*args):
        seen.append(args[6])
        return losses(*args)

    monkeypatch.setattr(training, "losses", spy)
    trainer = Trainer(made_run(task, name, epochs=3, partial=True), RUNTIME, cache={})
    trainer.network.heads["task"].bias.data += torch.arange(6) / 4
    told = []
    for epoch in range(3):  # of two steps
        _, logits = trainer.predict(task.target.paths)
        mean = softmax(logits.double().numpy()[:, 3 * half : 3 * half + 3]).mean(0)
        p = 2 * epoch / 6
        lam = 2 / (1 + np.exp(-10 * p)) - 1
        expected = lam * mean / mean.max() + 1 - lam
        values = trainer.epoch(epoch)
        told.append([values[f"weight/{category}"] for category in task.categories])
        np.testing.assert_allclose(told[-1], expected, rtol=1e-5)
        for weight in seen[-2:]:
            assert weight.tolist() == told[-1]
    assert len(seen) == 6
    assert told[0] == [1.0] * 3
    assert max(told[1]) == 1.0
    assert min(told[1]) < 0.9


@pytest.mark.parametrize("name", ["source-only", "domain-confusion-em"])
def test_partial_changes_nothing_in_methods_of_one_classifier(name, task):
    plain, partial = (
        Trainer(made_run(task, name, partial=partial), RUNTIME, cache={})
        for partial in (False, True)
    )
    assert [plain.epoch(epoch) for epoch in (0, 1)] == [partial.epoch(epoch) for epoch in (0, 1)]


@pytest.mark.parametrize("changes", [{"precision": "bf16"}, {"channels_last": False}])
def test_other_precisions_and_layouts_train(changes, task):
    run = made_run(task, max_steps=2, **changes)
    trainer = Trainer(run, RUNTIME, cache={})
    before = parameters(trainer)
    assert np.isfinite([*trainer.epoch(0).values()]).all()
    after = parameters(trainer)
    assert {p.dtype for p in after.values()} == {torch.float32}
    assert not torch.equal(before["heads.task.weight"], after["heads.task.weight"])
    batch, _ = next(trainer.inputs.epoch(0, 1))
    layout = torch.channels_last if run.recipe.channels_last else torch.contiguous_format
    assert batch[0].is_contiguous(memory_format=layout)
    _, logits = trainer.predict(task.target.paths)
    assert logits.dtype == torch.float32


def test_precision_is_that_of_the_forward_pass(task):
    seen = []
    trainer = Trainer(made_run(task, max_steps=1, precision="bf16"), RUNTIME, cache={})
    trainer.network.extractor.register_forward_hook(lambda *call: seen.append(call[2].dtype))
    trainer.epoch(0)
    trainer.predict(task.target.paths)
    assert set(seen) == {torch.bfloat16}


def test_the_backbone_learns_at_a_tenth_and_new_layers_at_the_whole_rate(task):
    trainer = Trainer(made_run(task, bottleneck=4, lr=0.5, weight_decay=0.25), RUNTIME, cache={})
    extractor, head = (schedule.optimizer for schedule in trainer.schedules)
    backbone, bottleneck = ([*part.parameters()] for part in trainer.network.extractor)
    rates = {id(p): g["lr"] for o in (extractor, head) for g in o.param_groups for p in g["params"]}
    assert {rates[id(p)] for p in backbone} == {0.05}
    new = [*bottleneck, *trainer.network.heads.parameters()]
    assert {rates[id(p)] for p in new} == {0.5}
    assert len(rates) == len(backbone) + len(new)
    for group in (*extractor.param_groups, *head.param_groups):
        assert (group["momentum"], group["weight_decay"], group["nesterov"]) == (0.9, 0.25, True)


def test_the_callback_gets_each_step_and_means_that_hold(task, monkeypatch):
    losses, each, calls = training.losses, [], []

    def spy(*args):
        total, terms = losses(*args)
        each.append([*terms.values()])
        return total, terms

    monkeypatch.setattr(training, "losses", spy)
    trainer = Trainer(made_run(task, epochs=14), RUNTIME, cache={})
    trainer.per_epoch = 14  # so that an epoch is read twice
    means = trainer.epoch(0, lambda step, scalars: calls.append((step, scalars)))
    values, read = np.array(each), {step: scalars for step, scalars in calls if scalars}
    assert [step for step, _ in calls] == [*range(1, 15)]
    assert [*read] == [10, 14]
    for i, name in enumerate(symloss.SymNetLosses._fields):
        assert means[name] == pytest.approx(values[:, i].mean(), rel=1e-5)
        assert read[10][f"loss/{name}"] == pytest.approx(values[:10, i].mean(), rel=1e-5)
        assert read[14][f"loss/{name}"] == pytest.approx(values[10:, i].mean(), rel=1e-5)


def test_lambda_and_both_rates_follow_the_share_of_the_run(task):
    calls = []
    trainer = Trainer(made_run(task, epochs=3), RUNTIME, cache={})
    for epoch in range(3):  # of two steps
        trainer.epoch(epoch, lambda step, scalars: calls.append((step, scalars)))
    read = {step: scalars for step, scalars in calls if scalars}
    assert sorted(read) == [2, 4, 6]
    for step, scalars in read.items():
        p = (step - 1) / 6
        rate = 0.01 / (1 + 10 * p) ** 0.75
        assert scalars["lambda"] == pytest.approx(2 / (1 + np.exp(-10 * p)) - 1)
        assert scalars["lr/head"] == pytest.approx(rate)
        assert scalars["lr/backbone"] == pytest.approx(rate / 10)


def test_a_loss_that_is_not_finite_ends_the_run(task):
    trainer = Trainer(made_run(task, lr=1e30), RUNTIME, cache={})
    with pytest.raises(UserError, match=r"a loss is not finite at step 2: .*source_task"):
        trainer.epoch(0)


@pytest.mark.parametrize("bottleneck", [None, 8])
def test_predictions_are_those_of_the_network_in_evaluation(task, bottleneck):
    trainer = Trainer(made_run(task, bottleneck=bottleneck), RUNTIME, cache={})
    trainer.epoch(0)
    paths = task.target.paths[::-1]  # 9, so the last batch of 8 holds one
    features, logits = trainer.predict(paths)
    assert trainer.network.training
    assert (features.dtype, logits.dtype) == (torch.float32, torch.float32)
    network = trainer.network.eval()
    with torch.inference_mode():
        expected = network.extractor(pixels(paths))
        torch.testing.assert_close(features, expected)
        torch.testing.assert_close(logits, network.heads["task"](expected))


def test_a_trainer_goes_on_from_a_state(task):
    run = made_run(task, epochs=3, backbone="mobilenet_v3_small")  # with dropout
    whole, stopped, resumed = (Trainer(run, RUNTIME, cache={}) for _ in range(3))
    expected = [whole.epoch(number) for number in range(3)]
    assert [stopped.epoch(number) for number in range(2)] == expected[:2]
    resumed.load_state_dict(stopped.state_dict())
    assert resumed.epoch(2) == expected[2]
    left, right = parameters(whole), parameters(resumed)
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


def test_source_only_never_forwards_a_target_image_in_training(task, monkeypatch):
    seen = []
    read = loading.Images.__getitem__

    def spy(dataset, key):
        seen.append(dataset.paths[key[0]])
        return read(dataset, key)

    monkeypatch.setattr(loading.Images, "__getitem__", spy)
    Trainer(made_run(task, "source-only"), RUNTIME, cache={}).epoch(0)
    assert seen
    assert {path.parts[-3] for path in seen} == {"amazon"}
    Trainer(made_run(task, "source-only-em"), RUNTIME, cache={}).epoch(0)
    assert {path.parts[-3] for path in seen} == {"amazon", "webcam"}


def test_steps_come_from_the_larger_domain(task):
    few = dataclasses.replace(task.source, paths=task.source.paths[:4], labels=[0, 1, 2, 0])
    uneven = dataclasses.replace(task, source=few)
    for name in ("symnets", "source-only"):  # also where no target image is seen
        trainer = Trainer(made_run(uneven, name, epochs=3), RUNTIME, cache={})
        assert (trainer.per_epoch, trainer.epochs, trainer.total) == (2, 3, 6)
    trainer = Trainer(made_run(uneven, max_steps=5), RUNTIME, cache={})
    assert (trainer.per_epoch, trainer.epochs, trainer.total) == (2, 3, 5)
    steps = []
    for epoch in range(3):
        trainer.epoch(epoch, lambda step, _: steps.append(step))
    assert steps == [1, 2, 3, 4, 5]


def test_an_epoch_is_one_pass_over_the_larger_domain():
    large, small = (EpochBatches(n, 4, seed=0, domain=i) for i, n in enumerate((22, 9)))
    large.steps = small.steps = 5
    epochs = []
    for epoch in (0, 1):
        large.epoch = small.epoch = epoch
        epochs.append([[*large], [*small]])
        a, b = ([[index for index, _ in batch] for batch in side] for side in epochs[-1])
        assert len(a) == len(b) == 5
        assert len(set(chain(*a))) == 20  # nothing twice; the incomplete batch is dropped
        assert len(set(chain(*b[:2]))) == len(set(chain(*b[2:4]))) == 8
        assert b[:2] != b[2:4]
        seeds = [seed for side in epochs[-1] for batch in side for _, seed in batch]
        assert len(set(seeds)) == len(seeds)
    assert epochs[0] != epochs[1]
    assert [[*large], [*small]] == epochs[1]
