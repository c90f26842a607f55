"""The loop of train_office.py: what it minimises, at which rates, and where it stops."""

import copy
import dataclasses
from itertools import chain
from typing import NamedTuple

import numpy as np
import pytest
import torch
import train_office
from office import methods
from office.console import UserError
from office.data import images
from office.data.tasks import load_task
from office.methods import METHODS
from office.models import backbones
from office.training.batches import EpochSampler, ImageBatches
from office.training.runs import Progress
from small_runs import PREPROCESSING, RUNTIME, made_run, network, result

import symloss
from symloss import functional

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*published"),
    pytest.mark.filterwarnings("ignore:.*twice the 3 categories"),
    pytest.mark.usefixtures("one_thread"),
]


@pytest.fixture
def task(root):
    return load_task("office31", root, "A2W")


@pytest.fixture
def train(tmp_path):
    """A function that trains a run on images that are read, and returns its folder."""
    number = iter(range(100))

    def call(run):
        runtime = dataclasses.replace(RUNTIME, out=tmp_path / f"runs{next(number)}")
        train_office.train(run, runtime, ImageBatches(run, runtime, {}))
        return run.folder(runtime.out)

    return call


class Step(NamedTuple):
    terms: dict[str, torch.Tensor]
    lam: float
    rates: list[float]


@pytest.fixture
def steps(monkeypatch):
    """The list that each step's losses, λ and learning rates are added to."""
    seen, step = [], Progress.step

    def spy(progress, terms, lam, rates):
        seen.append(Step({k: v.detach().clone() for k, v in terms.items()}, lam, rates))
        step(progress, terms, lam, rates)

    monkeypatch.setattr(Progress, "step", spy)
    return seen


@pytest.fixture
def predictions(monkeypatch):
    """The list that each prediction's features and logits are added to."""
    seen, predict = [], train_office.predict

    def spy(*args):
        seen.append(predict(*args))
        return seen[-1]

    monkeypatch.setattr(train_office, "predict", spy)
    return seen


def pixels(paths):
    transform = images.eval_transform(PREPROCESSING)
    return torch.stack([transform(images.load_image(path)) for path in paths])


def untrained(run):
    """The network that a run starts from."""
    torch.manual_seed(train_office.seed_of(run.seed))
    extractor = backbones.build_extractor(run.recipe.backbone, "none", run.recipe.bottleneck)
    k = len(run.task.categories)
    head = METHODS[run.method].head(extractor.num_features, k)
    return train_office.Network(extractor, head)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_lowers_its_classification_loss_and_moves_every_parameter(name, tree, train):
    task = load_task("office31", tree(images=4), "A2W")
    run = made_run(task, name, batch_size=6, max_steps=12, lr=0.02)
    folder = train(run)
    epochs = result(folder).epochs
    classification = "source_task" if name.startswith("symnets") else "task"
    assert epochs[-1][classification] < epochs[0][classification]
    before, after = untrained(run), network(folder)
    frozen = [k for k, p in before.named_parameters() if torch.equal(p, after[k])]
    assert frozen == []


def test_the_call_written_in_the_loop_equals_the_one_for_all_methods(task, train, monkeypatch):
    """SymNets stand in the loop in words; under another name they go through methods.losses."""
    monkeypatch.setitem(METHODS, "the-same", METHODS["symnets"])
    for changes in ({}, {"partial": True}):
        written, called = (
            train(made_run(task, name, epochs=3, **changes)) for name in ("symnets", "the-same")
        )
        assert result(written).epochs == result(called).epochs
        left, right = network(written), network(called)
        assert [name for name in left if not torch.equal(left[name], right[name])] == []


@pytest.mark.parametrize(
    ("prior", "shares"), [("uniform", [1 / 3, 1 / 3, 1 / 3]), ("source", [3 / 8, 1 / 8, 4 / 8])]
)
def test_the_balance_is_to_the_recipes_prior(prior, shares, task, train, monkeypatch):
    seen, balance = [], functional.category_balance

    def spy(logits, prior):
        seen.append(prior)
        return balance(logits, prior)

    monkeypatch.setattr(functional, "category_balance", spy)
    source = dataclasses.replace(
        task.source, paths=task.source.paths[:8], labels=[0, 0, 0, 1, 2, 2, 2, 2]
    )
    uneven = dataclasses.replace(task, source=source)
    train(made_run(uneven, "symnets-balanced", max_steps=1, prior=prior))
    assert len(seen) == 1
    torch.testing.assert_close(seen[0], torch.tensor(shares))


def test_shares_are_estimated_from_the_pretrained_features_then_from_the_networks(
    task, train, monkeypatch
):
    seen, estimate = [], symloss.estimate_prior

    def spy(source, labels, target, **options):
        seen.append((source, labels, target, options["random_state"]))
        return estimate(source, labels, target, **options)

    monkeypatch.setattr(symloss, "estimate_prior", spy)
    run = made_run(task, "symnets-v2-balanced", batch_size=6, bottleneck=8, max_steps=5, lr=0.1)
    folder = train(run)
    train(dataclasses.replace(run, seed=1))
    assert len({seed for *_, seed in seen}) == len(seen) == 10
    backbone = untrained(run).extractor.backbone.eval()
    source, labels, target, _ = seen[0]
    with torch.inference_mode():
        torch.testing.assert_close(source, backbone(pixels(task.source.paths)))
        torch.testing.assert_close(target, backbone(pixels(task.target.paths)))
    assert labels == task.source.labels
    assert [len(source[0]) for source, *_ in seen[1:5]] == [8] * 4
    assert not torch.equal(seen[1][0], seen[4][0])
    # Each step is in training mode, also those after an estimate: both domains update batch norm.
    tracked = [v for k, v in network(folder).items() if k.endswith("num_batches_tracked")]
    assert tracked == [torch.tensor(2 * 5)] * 2


def softmax(z):
    z = np.exp(z - z.max(1, keepdims=True))
    return z / z.sum(1, keepdims=True)


# The classifier whose predictions count: the second half of the logits, or the first.
@pytest.mark.parametrize(
    ("name", "half"), [("symnets", 1), ("symnets-v2", 1), ("symnets-wo-target-task", 0)]
)
def test_partial_weighs_categories_by_the_predictions_before_each_epoch(
    name, half, task, train, predictions
):
    folder = train(made_run(task, name, epochs=3, max_steps=6, lr=0.1, partial=True))
    rows = []
    for epoch, values in enumerate(result(folder).epochs):  # of two steps each
        logits = predictions[epoch][1].double().numpy()
        mean = softmax(logits[:, 3 * half : 3 * half + 3]).mean(0)
        lam = 2 / (1 + np.exp(-10 * 2 * epoch / 6)) - 1
        rows.append([values[f"weight/{category}"] for category in task.categories])
        np.testing.assert_allclose(rows[-1], lam * mean / mean.max() + 1 - lam, rtol=1e-5)
    assert rows[0] == [1.0] * 3
    assert max(rows[2]) == 1.0
    assert min(rows[2]) < 0.95


@pytest.mark.parametrize("name", ["source-only", "domain-confusion-em"])
def test_partial_changes_nothing_in_methods_of_one_classifier(name, task, train):
    plain, partial = (train(made_run(task, name, partial=partial)) for partial in (False, True))
    assert result(plain).epochs == result(partial).epochs


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"precision": "bf16"}, {"channels_last": False}])
def test_other_precisions_and_layouts_train_float32_parameters(changes, task, train, predictions):
    run = made_run(task, max_steps=2, **changes)
    folder = train(run)
    parameters = {name: network(folder)[name] for name, _ in untrained(run).named_parameters()}
    assert {p.dtype for p in parameters.values()} == {torch.float32}
    assert {tensor.dtype for pair in predictions for tensor in pair} == {torch.float32}
    x_s, _, _ = next(ImageBatches(run, RUNTIME, {}).epoch(0, 1))
    layout = torch.channels_last if run.recipe.channels_last else torch.contiguous_format
    assert x_s.is_contiguous(memory_format=layout)


def test_precision_is_that_of_the_forward_pass(task, train, monkeypatch):
    seen, build = [], backbones.build_extractor

    def spy(*args):
        extractor = build(*args)
        extractor.register_forward_hook(lambda *call: seen.append(call[2].dtype))
        return extractor

    monkeypatch.setattr(backbones, "build_extractor", spy)
    train(made_run(task, max_steps=1, precision="bf16"))
    assert set(seen) == {torch.bfloat16}


def test_the_backbone_learns_at_a_tenth_and_new_layers_at_the_whole_rate(task, train, monkeypatch):
    optimizers, step = [], symloss.TwoOptimizerStep

    def spy(extractor, head, **options):
        optimizers.extend(copy.deepcopy([extractor.param_groups, head.param_groups]))
        return step(extractor, head, **options)

    monkeypatch.setattr(symloss, "TwoOptimizerStep", spy)
    run = made_run(task, bottleneck=4, lr=0.5, weight_decay=0.25, max_steps=1)
    train(run)
    (pretrained, bottleneck), (head,) = optimizers
    assert (pretrained["lr"], bottleneck["lr"], head["lr"]) == (0.05, 0.5, 0.5)
    network = untrained(run)
    counts = [len(group["params"]) for group in (pretrained, bottleneck, head)]
    parts = network.extractor.backbone, network.extractor.bottleneck, network.head
    assert counts == [len([*part.parameters()]) for part in parts]
    for group in (pretrained, bottleneck, head):
        assert (group["momentum"], group["weight_decay"], group["nesterov"]) == (0.9, 0.25, True)


def test_lambda_and_both_rates_follow_the_share_of_the_run(task, train, steps):
    train(made_run(task, epochs=3, max_steps=6))
    assert len(steps) == 6
    for i, (_, lam, rates) in enumerate(steps):
        rate = 0.01 / (1 + 10 * i / 6) ** 0.75
        assert lam == pytest.approx(2 / (1 + np.exp(-10 * i / 6)) - 1)
        assert rates == pytest.approx([rate / 10, rate])


def test_an_epochs_losses_are_the_means_of_its_steps(task, monkeypatch, tmp_path):
    run, values = made_run(task, max_steps=28), np.random.default_rng(0).normal(size=(28, 2))
    scalars = {}
    with Progress(run, tmp_path, 0, 8) as shown:
        monkeypatch.setattr(
            shown.writer,
            "add_scalar",
            lambda tag, value, step: scalars.update({(tag, step): value}),
        )
        for epoch in range(2):
            shown.begin(14)
            for a, b in values[14 * epoch : 14 * epoch + 14]:
                terms = {"a": torch.tensor(a), "b": torch.tensor(b)}
                shown.step(terms, lam=0.5, rates=[0.1, 1.0])
            expected = values[14 * epoch : 14 * epoch + 14].mean(0)
            np.testing.assert_allclose([*shown.means().values()], expected)
    assert {step for _, step in scalars} == {10, 14, 24, 28}
    assert scalars["loss/a", 10] == pytest.approx(values[:10, 0].mean())
    assert scalars["loss/b", 14] == pytest.approx(values[10:14, 1].mean())
    assert (scalars["lambda", 28], scalars["lr/backbone", 28]) == (0.5, 0.1)


def test_a_loss_that_is_not_finite_ends_the_run(task, train):
    with pytest.raises(UserError, match=r"a loss is not finite at step 2: .*source_task"):
        train(made_run(task, lr=1e30))


@pytest.mark.parametrize("bottleneck", [None, 8])
def test_predictions_are_those_of_the_network_in_evaluation(task, bottleneck):
    run = made_run(task, bottleneck=bottleneck)
    network = untrained(run)
    paths = task.target.paths[::-1]  # 9, so the last batch of 8 holds one
    autocast = torch.autocast("cpu", enabled=False)
    features, logits = train_office.predict(
        network, ImageBatches(run, RUNTIME, {}), paths, autocast
    )
    assert (features.dtype, logits.dtype) == (torch.float32, torch.float32)
    with torch.inference_mode():
        expected = network.eval().extractor(pixels(paths))
        torch.testing.assert_close(features, expected)
        torch.testing.assert_close(logits, network.head(expected))


def test_a_discriminator_serves_training_alone():
    head = methods.ClassifierAndDiscriminator(5, 3)
    features = torch.randn(4, 5)
    assert head(features).shape == (4, 5)
    assert torch.equal(head.eval()(features), head.task(features))


def test_source_only_draws_no_target_image(task):
    batches = ImageBatches(made_run(task, "source-only"), RUNTIME, {})
    assert [x_t for _, _, x_t in batches.epoch(0, 2)] == [None, None]
    batches = ImageBatches(made_run(task, "source-only-em"), RUNTIME, {})
    assert all(x_t is not None for _, _, x_t in batches.epoch(0, 2))


def test_steps_come_from_the_larger_domain(task):
    few = dataclasses.replace(task.source, paths=task.source.paths[:4], labels=[0, 1, 2, 0])
    uneven = dataclasses.replace(task, source=few)
    for name in ("symnets", "source-only"):  # also where no target image is seen
        run = made_run(uneven, name, epochs=3)
        assert (run.per_epoch, run.epochs, run.steps) == (2, 3, 6)
    run = made_run(uneven, max_steps=5)
    assert (run.per_epoch, run.epochs, run.steps) == (2, 3, 5)


def test_the_last_epoch_may_be_incomplete(task, train, steps):
    assert len(result(train(made_run(task, max_steps=5))).epochs) == 3
    assert len(steps) == 5


def test_an_epoch_is_one_pass_over_the_larger_domain():
    large, small = (EpochSampler(n, 4, seed=0, domain=i) for i, n in enumerate((22, 9)))
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
