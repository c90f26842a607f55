"""An accelerator without one: nothing mixes devices, and nothing waits for the device.

Tensors live on a private-use device under FakeTensorMode, which knows shapes, dtypes and devices
but no numbers: an operation on two devices raises, and so does whatever needs a number on the host
(``.item()``, ``if tensor:``, a shape that depends on values). Two things the mode cannot run:
``torch.tensor(number, device=...)``, with which batch norm makes its counter, and ``Module.to``, so
``put`` makes a module's tensors there. Autocast and GradScaler know no such device.
"""

import pytest
import torch
from private import put
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

import symloss
from symloss import diagnostics, scores
from symloss import functional as sf
from symloss._rows import Preprocessing

N, M, K = 6, 5, 3


def routed(device, rows, *trailing):
    shape = (rows, 2 * K, *trailing)
    return symloss.RoutedLogits(
        *(torch.randn(shape, device=device, requires_grad=True) for _ in range(2))
    )


def labels_on(device, *shape):
    return torch.zeros(shape, dtype=torch.long, device=device)


# Controls: what the mode must catch


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x + torch.ones(4),
        lambda x: torch.where(x > 0, x, torch.zeros(4)),
        lambda x: nn.functional.cross_entropy(x[None], torch.zeros(1, dtype=torch.long)),
    ],
    ids=["add", "where", "cross_entropy"],
)
def test_two_devices_in_one_operation_are_caught(device, mix):
    with pytest.raises(RuntimeError, match="device"):
        mix(torch.ones(4, device=device))


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.sum() > 0),
        lambda x: x[x > 0],
        lambda x: torch.nonzero(x),
        lambda x: x.bincount() if not x.is_floating_point() else x.unique(),
    ],
    ids=["item", "bool", "mask", "nonzero", "unique"],
)
def test_waiting_for_the_device_is_caught(device, wait):
    with pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
        wait(torch.ones(4, device=device))


# The library


@pytest.mark.parametrize("trailing", [(), (4, 5)], ids=["rows", "dense"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "loss", ["source_task", "target_task", "category_confusion", "category_discrimination"]
)
def test_every_labelled_loss(device, loss, weighted, reduction, trailing):
    source, target = (routed(device, n, *trailing).head for n in (N, M))
    further = [target] if loss == "category_discrimination" else []
    weight = torch.ones(K, device=device) if weighted else None
    labels = labels_on(device, N, *trailing)
    out = getattr(sf, loss)(source, labels, *further, reduction=reduction, weight=weight)
    for value in out if isinstance(out, tuple) else (out,):
        assert value.device == device
        value.sum().backward(retain_graph=True)
    assert source.grad.device == device


@pytest.mark.parametrize("trailing", [(), (4, 5)], ids=["rows", "dense"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    "loss",
    [
        "domain_discrimination",
        "domain_confusion",
        "symmetric_entropy",
        "target_category_confusion",
    ],
)
def test_every_loss_without_labels(device, loss, reduction, trailing):
    source, target = (routed(device, n, *trailing).head for n in (N, M))
    arguments = [source, target] if loss == "domain_discrimination" else [target]
    out = getattr(sf, loss)(*arguments, reduction=reduction)
    for value in out if isinstance(out, tuple) else (out,):
        assert value.device == device
        value.sum().backward(retain_graph=True)
    assert arguments[0].grad.device == device


@pytest.mark.parametrize("trailing", [(), (4, 5)], ids=["rows", "dense"])
@pytest.mark.parametrize("prior", ["uniform", "numbers", "tensor"])
def test_category_balance(device, prior, trailing):
    target = routed(device, M, *trailing).extractor
    priors = {"numbers": [1 / K] * K, "tensor": torch.full((K,), 1 / K, device=device)}
    loss = sf.category_balance(target, priors.get(prior))
    loss.backward()
    assert loss.device == target.grad.device == device


def test_weights_and_priors_on_the_host_get_words(device):
    logits, labels = routed(device, N).head, labels_on(device, N)
    with pytest.raises(ValueError, match="weight must be on the logits' device, npu:0, got"):
        sf.source_task(logits, labels, weight=torch.ones(K))
    with pytest.raises(ValueError, match="prior must be on the logits' device, npu:0, got"):
        sf.category_balance(logits, torch.full((K,), 1 / K))


@pytest.mark.parametrize("trailing", [(), (4, 5)], ids=["rows", "dense"])
@pytest.mark.parametrize("lam", ["number", "tensor"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("objective", ["symnet_losses", "symnet_v2_losses"])
def test_the_objectives(device, objective, weighted, lam, trailing):
    source, target = routed(device, N, *trailing), routed(device, M, *trailing)
    weight = torch.ones(K, device=device) if weighted else None
    labels = labels_on(device, N, *trailing)
    losses = getattr(symloss, objective)(source, labels, target, weight=weight)
    losses.total(0.5 if lam == "number" else torch.full((), 0.5, device=device)).backward()
    assert {logits.grad.device for logits in (*source, *target)} == {device}


@pytest.mark.parametrize("trailing", [(), (4, 5)], ids=["rows", "dense"])
@pytest.mark.parametrize("name", [*scores.__all__, *diagnostics.__all__[:3]])
def test_every_score_and_diagnostic(device, name, trailing):
    logits = torch.randn(N, 2 * K, *trailing, device=device, requires_grad=True)
    arguments = {
        "ensemble_agreement": ([logits, logits.flip(0)],),
        "category_weights": (logits, torch.full((), 0.5, device=device)),
        "category_shares": (logits, torch.full((2 * K,), 1 / (2 * K), device=device)),
    }.get(name, (logits,))
    out = getattr(scores if name in scores.__all__ else diagnostics, name)(*arguments)
    for value in out if isinstance(out, tuple) else (out,):
        assert value.device == device


@pytest.mark.parametrize("router", ["head.route", "symloss.route"])
@pytest.mark.parametrize("dense", [False, True])
def test_both_heads(device, dense, router):
    make = symloss.SymmetricHead2d if dense else symloss.SymmetricHead
    head = make(4, K, device=device)
    features = torch.randn(N, 4, *([2, 3] if dense else []), device=device, requires_grad=True)
    out = head.route(features) if router == "head.route" else symloss.route(head, features)
    (out.head.sum() + out.extractor.sum()).backward()
    assert features.grad.device == head.weight.grad.device == device
    assert head.predict(features).device == device
    assert head.classifier("target")(features).device == device


@pytest.mark.parametrize("options", [{}, {"max_grad_norm": 1.0}, {"accumulate": 2}])
@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW])
def test_steps_and_schedules(device, make, options):
    extractor = put(nn.Sequential(nn.Linear(7, 4), nn.BatchNorm1d(4), nn.ReLU()), device)
    head = symloss.SymmetricHead(4, K, device=device)
    players = [make(module.parameters(), lr=0.1) for module in (extractor, head)]
    step = symloss.TwoOptimizerStep(*players, **options)
    schedules = [symloss.AnnealedLR(optimizer, total_steps=3) for optimizer in players]
    y = labels_on(device, N)
    for i in range(4):
        x_s, x_t = (torch.randn(n, 7, device=device) for n in (N, M))
        source, target = head.route(extractor(x_s)), head.route(extractor(x_t))
        lam = symloss.progressive_lambda(i / 4)
        if step(symloss.symnet_losses(source, y, target).total(lam)):
            for schedule in schedules:
                schedule.step()
    step.finish()
    assert {p.device for p in (*extractor.parameters(), *head.parameters())} == {device}


@pytest.mark.parametrize("rows_on", ["cpu", "device"])
def test_the_classifier_trains_there(device, rows_on):  # the estimate of shares reads values
    model = symloss.SymNetClassifier(epochs=2, batch_size=4, prior=None, device=device)
    layers = [Preprocessing("l2", 7), nn.Linear(7, 4), nn.BatchNorm1d(4), nn.ReLU()]
    model.classes_ = torch.arange(K)
    model.extractor_ = put(nn.Sequential(*layers), device)
    model.head_ = symloss.SymmetricHead(4, K, device=device)
    model.n_features_in_ = 7
    rows = [torch.randn(n, 7, device="cpu" if rows_on == "cpu" else device) for n in (9, 8)]
    y = torch.zeros(9, dtype=torch.long)
    y[:K] = torch.arange(K)
    generator, given = torch.Generator().manual_seed(0), torch.tensor([0.2, 0.3, 0.5])
    shares = None  # given ones are not estimated
    _, means = model._train(rows, (y, None), given, shares, (4, 2, 4), generator)
    assert means.device == device
    assert means.shape == (2, 6)
