import copy
import io
import math
import random
import re
import subprocess
import sys
import textwrap
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import symloss
from symloss import SymNetClassifier
from symloss._rows import Preprocessing
from symloss.prior import Shares

K, WIDTH = 3, 8


def domains(n_s=240, n_t=180, shift=1.5, seed=0):
    """Three clusters, and the same moved to where a classifier of the source mistakes them."""
    rng = np.random.default_rng(seed)
    centres = 3 * rng.normal(size=(K, WIDTH))
    y_s, y_t = np.arange(n_s) % K, np.arange(n_t) % K
    x_s = centres[y_s] + rng.normal(size=(n_s, WIDTH))
    x_t = centres[y_t] + rng.normal(size=(n_t, WIDTH)) + shift * rng.normal(size=WIDTH)
    return x_s.astype("float32"), y_s, x_t.astype("float32"), y_t


def quick(**params):
    defaults = {"epochs": 3, "batch_size": 60, "bottleneck": 32, "random_state": 0}
    return SymNetClassifier(**defaults | params)


@pytest.fixture(scope="module")
def fitted():
    x_s, y_s, x_t, _ = domains()
    return quick().fit(x_s, y_s, x_t)


def weights(model):
    return [*model.extractor_.state_dict().values(), *model.head_.state_dict().values()]


def assert_same(left, right):
    torch.testing.assert_close(weights(left), weights(right), rtol=0, atol=0)


# What it learns


def test_it_adapts():
    x_s, y_s, x_t, y_t = domains(shift=3.0)
    alone = quick(epochs=30).fit(x_s, y_s, x_s[1:])
    model = quick(epochs=30).fit(x_s, y_s, x_t)
    before, after = alone.score(x_t, y_t), model.score(x_t, y_t)
    assert before < 0.8
    assert after > 0.95


@pytest.mark.parametrize(
    ("params", "objective"),
    [
        ({"objective": "symnets", "balance": 3.0, "prior": None}, symloss.symnet_losses),
        ({"objective": "symnets-v2", "balance": 0.0}, symloss.symnet_v2_losses),
        ({"prior": [0.5, 0.3, 0.2], "balance": 1.0}, symloss.symnet_v2_losses),
        ({"prior": [0.9, 0.06, 0.04], "balance": 1.0}, symloss.symnet_v2_losses),
        ({"prior": "estimate", "balance": 2.0}, symloss.symnet_v2_losses),
        ({"prior": None, "balance": 1.0, "labelled": 7}, symloss.symnet_v2_losses),
        ({"objective": "symnets", "balance": 0.0, "labelled": 80}, symloss.symnet_losses),
    ],
)
def test_fit_is_the_loop_of_the_readme(params, objective):
    x_s, y_s, x_t, y_t = map(torch.from_numpy, domains())
    x_t, y_t = x_t[y_t < 2], y_t[y_t < 2]  # else the estimate would be equal shares throughout
    labelled = params.get("labelled", 0)
    params = {name: value for name, value in params.items() if name != "labelled"}
    model = quick(**params, preprocessing="l2", lr=0.02, weight_decay=1e-3)
    known = torch.where(torch.arange(len(y_t)) < labelled, y_t, -1).roll(30)
    y_t = y_t.roll(30)
    x_t = x_t.roll(30, 0)
    model.fit(x_s, y_s, x_t, target_labels=known if labelled else None)

    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    layers = [torch.nn.Linear(WIDTH, 32), torch.nn.BatchNorm1d(32), torch.nn.ReLU()]
    backbone, head = torch.nn.Sequential(*layers), symloss.SymmetricHead(32, K)
    sgd = partial(torch.optim.SGD, lr=0.02, momentum=0.9, nesterov=True, weight_decay=1e-3)
    optimizers = {"extractor": sgd(backbone.parameters()), "head": sgd(head.parameters())}
    step = symloss.TwoOptimizerStep(**optimizers)
    schedules = [symloss.AnnealedLR(optimizer, 12) for optimizer in optimizers.values()]
    unit = Preprocessing("l2", WIDTH)
    shares = Shares(unit, x_s, y_s, x_t, generator)
    prior, balance = params.get("prior"), params["balance"]
    if prior == "estimate":
        prior = shares.before().prior
    orders, history, weight = {"s": [], "t": [], "l": []}, [], None
    for i in range(12):  # three epochs of the source's 240 rows in batches of 60
        lam = symloss.progressive_lambda(i / 12)
        if params.get("prior") == "estimate" and i in (2, 4, 7, 9):
            prior = shares.seen_by(backbone, head).prior
        if prior is not None:
            weight = (5 * K * torch.tensor(list(prior))).clamp_max(1)
        batch = {}
        for domain, x in (("s", x_s), ("t", x_t)):
            if not orders[domain]:
                order = torch.randperm(len(x), generator=generator)
                orders[domain] = [index.sort().values for index in order.split(60)]
            batch[domain] = orders[domain].pop(0)
        if labelled:
            if not orders["l"]:
                order = torch.randperm(labelled, generator=generator)
                size = min(labelled, 60)
                orders["l"] = [i.sort().values for i in order.split(size) if len(i) == size]
            batch["l"] = 30 + orders["l"].pop(0)
            batch["t"] = torch.cat([batch["t"], batch["l"]])
        unit_s, unit_t = (
            x[index] / x[index].norm(dim=1, keepdim=True)
            for x, index in ((x_s, batch["s"]), (x_t, batch["t"]))
        )
        source, both = head.route(backbone(unit_s)), head.route(backbone(unit_t))
        target = symloss.RoutedLogits(both.head[:60], both.extractor[:60])
        losses = objective(source, y_s[batch["s"]], target, weight=weight)
        imbalance = symloss.functional.category_balance(target.extractor, prior)
        history.append({name: loss.item() for name, loss in losses._asdict().items()})
        history[-1]["category_balance"] = imbalance.item()
        loss = losses.total(lam=lam) + lam * balance * imbalance
        if labelled:
            y, v, u = y_t[batch["l"]], both.head[60:], both.extractor[60:].log_softmax(1)
            pair = -(u[:, :K].gather(1, y[:, None]) + u[:, K:].gather(1, y[:, None])) / 2
            tasks = sum(torch.nn.functional.cross_entropy(half, y) for half in v.chunk(2, 1))
            history[-1]["target_labels"] = (tasks + pair.mean()).item()
            loss = loss + tasks + pair.mean()
        step(loss)
        for schedule in schedules:
            schedule.step()

    ours = [*model.extractor_[1:].state_dict().values(), *model.head_.state_dict().values()]
    theirs = [*backbone.state_dict().values(), *head.state_dict().values()]
    torch.testing.assert_close(ours, theirs)
    assert len(model.history_) == 3
    for epoch, means in enumerate(model.history_):
        steps = history[4 * epoch : 4 * epoch + 4]
        expected = {name: sum(step[name] for step in steps) / 4 for name in steps[0]}
        assert means == pytest.approx(expected, rel=1e-4)


def overlapping(seed=0):
    """Three clusters that touch, the same in both domains."""
    rng, y = np.random.default_rng(seed), np.arange(300) % K
    x_s, x_t = (3 * np.eye(K)[y] + 1.2 * rng.normal(size=(300, K)) for _ in range(2))
    return x_s, y, x_t


def test_a_larger_balance_brings_predictions_nearer_to_the_prior():
    x_s, y_s, x_t = overlapping()
    skewed = x_t[(y_s == 0) | (np.arange(300) < 50)]
    fit = partial(quick, epochs=20, preprocessing=None)
    found = [
        fit(balance=balance, prior=None).fit(x_s, y_s, skewed).history_[-1]["category_balance"]
        for balance in (0.0, 3.0, 10.0)
    ]
    assert found == sorted(found, reverse=True)


def test_estimated_shares_leave_absent_categories_alone():
    rng, y = np.random.default_rng(0), np.arange(800) % 8
    x_s, x_t = (3 * np.eye(8)[y] + rng.normal(size=(800, 8)) for _ in range(2))
    present, labels = x_t[y < 3], y[y < 3]
    fit = partial(quick, epochs=40, preprocessing=None)
    models = [fit(prior=prior).fit(x_s, y, present) for prior in (None, "estimate")]
    wrong = [np.mean(model.predict(present) >= 3) for model in models]
    assert wrong[0] > 3 * wrong[1]
    assert models[1].score(present, labels) > 0.9
    assert (models[1].prior_[3:] < 0.02).all()
    assert models[1].trust_ > 0.9
    assert "5 of 8 categories seem absent" in str(models[1].diagnose(present))
    assert models[0].trust_ is None
    np.testing.assert_allclose(models[0].prior_, 1 / 8)


def test_training_uses_and_ends_with_the_latest_estimate(monkeypatch):
    x_s, y_s, x_t, _ = domains()
    told = [
        symloss.EstimatedPrior(torch.tensor([0.5 - i / 20, 0.3 + i / 20, 0.2]), trust=i / 10)
        for i in range(5)
    ]
    estimates, seen, balance = iter(told), [], symloss.functional.category_balance
    monkeypatch.setattr(Shares, "before", lambda _: next(estimates))
    monkeypatch.setattr(Shares, "seen_by", lambda *_: next(estimates))

    def spy(logits, prior):
        seen.append(round((0.5 - float(prior[0])) * 20))
        return balance(logits, prior)

    monkeypatch.setattr("symloss._adapt.category_balance", spy)
    model = quick().fit(x_s, y_s, x_t)
    assert seen == [0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 4, 4]  # of 12 steps, new ones at 2, 4, 7 and 9
    np.testing.assert_array_equal(model.prior_, told[-1].prior)
    assert model.trust_ == 0.4


def test_without_balance_no_shares_are_estimated_or_compared(monkeypatch):
    x_s, y_s, x_t, _ = domains()
    monkeypatch.setattr("symloss.prior.Shares.before", None)  # cannot be called
    monkeypatch.setattr("symloss.prior.Shares.seen_by", None)
    model = quick(balance=0).fit(x_s, y_s, x_t)
    assert (model.prior_, model.trust_) == (None, None)
    found = model.diagnose(x_t)
    assert found.expected is None
    assert found.rarely_predicted == []
    assert "No shares were assumed" in str(found)


def test_wide_rows_are_trained_on_their_principal_components():
    x_s, y_s, x_t, y_t = domains()
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(500, 500)))[0][:WIDTH]
    narrow = quick(epochs=20, preprocessing="standardise").fit(x_s, y_s, x_t)
    wide = quick(epochs=20, preprocessing=None).fit(x_s @ turn, y_s, x_t @ turn)
    assert wide.extractor_[1].in_features == 384
    axes = wide.extractor_[0].axes
    torch.testing.assert_close(axes.T @ axes, torch.eye(384), atol=1e-5, rtol=0)
    kept = wide.extractor_[0](torch.from_numpy(x_t @ turn)).numpy()
    left = np.linalg.norm(kept, axis=1)
    centred = x_t - (x_s.mean(0) + x_t.mean(0)) / 2
    np.testing.assert_allclose(left, np.linalg.norm(centred, axis=1), rtol=1e-4)
    assert abs(wide.score(x_t @ turn, y_t) - narrow.score(x_t, y_t)) < 0.05


def test_standardising_is_by_both_domains_alike():
    x_s, y_s, x_t, _ = domains()
    x_s[:, 0] = x_t[:, 0] = 7.1  # constant
    first = quick(preprocessing="standardise").fit(x_s, y_s, x_t).extractor_[0]
    both = [x.astype("float64") for x in (x_s, x_t)]
    mean = np.mean([x.mean(0) for x in both], axis=0)
    variance = np.mean([((x - mean) ** 2).mean(0) for x in both], axis=0)
    x = torch.from_numpy(x_t)
    expected = (x_t - mean)[:, 1:] / np.sqrt(variance)[1:]
    np.testing.assert_allclose(first(x)[:, 1:], expected, rtol=1e-4, atol=1e-5)
    assert first(x)[:, 0].abs().max() < 1e-5


def test_no_preprocessing_leaves_features_as_they_are():
    x_s, y_s, x_t, _ = domains()
    first = quick(preprocessing=None).fit(x_s, y_s, x_t).extractor_[0]
    assert torch.equal(first(torch.from_numpy(x_s)), torch.from_numpy(x_s))


@pytest.mark.parametrize(
    ("rows", "params", "epochs"),
    [
        ((640, 64), {"batch_size": 64}, 100),  # 1,000 steps
        ((64, 640), {"batch_size": 64}, 100),
        ((3900, 64), {"batch_size": 64}, 20),
        ((640, 64), {"batch_size": 64, "epochs": 2}, 2),
    ],
)
def test_epochs(rows, params, epochs, monkeypatch):
    model, taken = SymNetClassifier(random_state=0, **params), []
    monkeypatch.setattr(SymNetClassifier, "_steps", lambda _, total: taken.append(total) or [0])
    x = torch.randn(sum(rows), 2, generator=torch.Generator().manual_seed(0))
    source, target = x.split(rows)
    model.fit(source, torch.arange(rows[0]) % 2, target)
    assert taken == [epochs * (max(rows) // 64)]


# What comes in, and what goes out


def test_arrays_give_arrays_and_tensors_give_tensors(fitted):
    _, _, x_t, _ = domains()
    for method in (fitted.predict, fitted.predict_proba, fitted.transform):
        array, tensor = method(x_t), method(torch.from_numpy(x_t))
        assert isinstance(array, np.ndarray)
        assert isinstance(tensor, torch.Tensor)
        np.testing.assert_array_equal(array, tensor.numpy())
        assert not tensor.requires_grad
    assert fitted.transform(x_t).shape == (180, 32)


def test_predictions_are_those_of_the_target_classifier(fitted):
    _, _, x_t, _ = domains()
    features = torch.from_numpy(fitted.transform(x_t))
    logits = fitted.head_.classifier("target")(features).detach()
    np.testing.assert_allclose(fitted.predict_proba(x_t), logits.softmax(1), rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(fitted.predict(x_t), logits.argmax(1))


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["pen", "bike", "mug"]),
        np.array(["pen", "bike", "mug"], dtype=object),
        ["pen", "bike", "mug"],
        np.array([7, -2, 40], dtype=np.int16),
        np.array([0.0, 5.0, 2.0], dtype=np.float32),
        torch.tensor([7, -2, 40]),
        torch.tensor([7, -2, 40], dtype=torch.uint8),
    ],
    ids=str,
)
def test_labels_of_any_kind(labels):
    x_s, y_s, _, _ = domains(shift=0.0)
    named = [labels[i] for i in y_s] if isinstance(labels, list) else labels[y_s]
    model = quick(epochs=8).fit(x_s, named, x_s[1:])
    assert [*model.classes_] == sorted(labels)
    for features in (x_s, torch.from_numpy(x_s)):
        found = model.predict(features)
        strings = isinstance(found, np.ndarray) and found.dtype.kind in "OU"
        assert isinstance(found, torch.Tensor) == (
            isinstance(features, torch.Tensor) and not strings
        )
        assert np.mean([a == b for a, b in zip(found, named, strict=True)]) > 0.95
        if not isinstance(labels, list):
            assert found.dtype == (
                labels.dtype
                if isinstance(found, type(labels))
                else (
                    torch.zeros(0, dtype=labels.dtype).numpy().dtype
                    if isinstance(labels, torch.Tensor)
                    else torch.from_numpy(labels).dtype
                )
            )


def test_booleans():
    x_s, y_s, _, _ = domains()
    model = quick(epochs=8).fit(x_s, y_s == 1, x_s[1:])
    assert model.predict(x_s).dtype == bool
    assert model.score(x_s, y_s == 1) > 0.95


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4", "int32", "uint8"])
def test_dtypes_and_layouts(dtype):
    x_s, y_s, x_t, _ = (x.copy() for x in domains())
    x_s, x_t = (np.clip(10 * x + 100, 0, 255).astype(dtype) for x in (x_s, x_t))
    expected = quick().fit(x_s.astype("float32"), y_s, x_t.astype("float32"))
    assert_same(quick().fit(x_s, y_s, x_t), expected)
    assert_same(quick().fit(x_s.tolist(), y_s.tolist(), np.asfortranarray(x_t)), expected)
    backwards = quick().fit(x_s[::-1][::-1], y_s, x_t[::-1].copy()[::-1])
    assert_same(backwards, expected)


class Largest(TorchDispatchMode):
    """Watch how many elements the largest tensor has whose memory is not one of the maps'."""

    def __init__(self, *maps):
        super().__init__()
        self.elements = 0
        self.maps = [(x.ctypes.data, x.ctypes.data + x.nbytes) for x in maps]

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                at = tensor.data_ptr()
                if not any(start <= at < end for start, end in self.maps):
                    self.elements = max(self.elements, tensor.numel())
        return result


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    """Memory maps of float16, 20,000 rows each, read-only."""
    folder, found = tmp_path_factory.mktemp("maps"), []
    x_s, y_s, x_t, _ = domains(20_000, 20_000)
    for name, x in (("source", x_s), ("target", x_t)):
        np.save(folder / f"{name}.npy", x.astype("float16"))
        found.append(np.load(folder / f"{name}.npy", mmap_mode="r"))
    return found[0], y_s, found[1]


def test_a_memory_map_gives_what_its_array_gives(maps, monkeypatch):
    source, labels, target = maps
    monkeypatch.setattr("symloss.prior._ROWS", 1000)
    fit = quick(epochs=1, batch_size=1000, bottleneck=4).fit
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = fit(source, labels, target)
        predicted = model.predict(target)
    arrays = [np.array(x) for x in (source, target)]
    same = fit(arrays[0], labels, arrays[1])
    assert_same(model, same)
    np.testing.assert_array_equal(predicted, same.predict(arrays[1]))


@pytest.mark.parametrize("preprocessing", ["l2", "standardise"])
def test_a_memory_map_is_never_copied_whole(maps, preprocessing, monkeypatch):
    source, labels, target = maps
    monkeypatch.setattr("symloss._rows._HELD", 0)  # else these few rows are
    monkeypatch.setattr("symloss.prior._ROWS", 1000)
    monkeypatch.setattr("symloss._novelty._LOOKED_AT", 200)
    model = quick(epochs=1, batch_size=1000, bottleneck=4, preprocessing=preprocessing)
    with Largest(source, target) as largest:
        model.fit(source, labels, target).predict(target)
        model.predict_proba(target)
    assert 20_000 <= largest.elements < source.size / 2  # labels and results have 20,000 rows


def test_random_batches_hold_every_row_once_and_in_order():
    from symloss._rows import shuffled

    batches = shuffled(10, 3, torch.Generator().manual_seed(0))
    epochs = [[next(batches) for _ in range(3)] for _ in range(20)]
    for epoch in epochs:
        assert all((index.diff() > 0).all() for index in epoch)
        assert torch.cat(epoch).unique().numel() == 9
    assert len({tuple(torch.cat(epoch).tolist()) for epoch in epochs}) == 20
    assert {i for epoch in epochs for i in torch.cat(epoch).tolist()} == {*range(10)}


def test_it_needs_torch_alone():
    code = """
        import sys
        sys.modules.update({"numpy": None, "sklearn": None, "tqdm": None})
        import torch, symloss
        x, labels = torch.randn(64, 4), torch.arange(64) % 2
        model = symloss.SymNetClassifier(epochs=2, batch_size=32, verbose=True)
        try:
            model.predict(x)
        except AttributeError as error:
            assert "not fitted" in str(error)
        model.fit(x, labels, x)
        assert model.predict(x).shape == (64,)
        print(model.diagnose(x), symloss.SymNetClassifier().load_state_dict(model.state_dict()))
    """
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)]
    subprocess.run(command, check=True, timeout=120)


# What cannot be right


def spoil(x, value, row=70):
    x = x.copy()
    x[row, 1] = value
    return x


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_s": lambda x: spoil(x, np.nan)}, "features must be finite .* in row 70"),
        ({"x_t": lambda x: spoil(x, np.inf)}, "target_features must be finite .* in row 70"),
        ({"x_t": lambda x: spoil(x.astype(float), 1e300)}, "target_features .* in row 70"),
        ({"x_t": lambda x: x[:, :5]}, "same width, got 8 and 5"),
        ({"x_t": lambda x: x[:1]}, "target_features must have at least 2 rows, got 1"),
        ({"x_t": lambda x: x[:0]}, "target_features must not be empty"),
        ({"x_s": lambda x: x[0]}, r"features must have shape \(N, F\), got \(8,\)"),
        ({"x_s": lambda x: x + 1j}, "features must be real"),
        ({"y": lambda y: y[:-1]}, "one entry for each of the 240 rows of features, got 239"),
        ({"y": lambda y: y[:, None]}, r"labels must have shape \(N,\), got \(240, 1\).*reshape"),
        ({"y": lambda y: 0 * y}, "at least 2 categories, got 1 class"),
        ({"y": lambda y: y + 0.5}, "continuous"),
        ({"y": lambda y: torch.from_numpy(y + 0.5)}, "continuous"),
        ({"y": lambda y: None}, "the target y is None"),
        ({"objective": "dann"}, "objective must be one of 'symnets', 'symnets-v2', got 'dann'"),
        ({"preprocessing": "pca"}, "preprocessing must be one of 'l2', 'standardise', None"),
        ({"balance": -1.0}, "balance must be finite and at least 0, got -1"),
        ({"balance": math.nan}, "balance must be finite"),
        ({"lr": 0.0}, "lr must be"),
        ({"weight_decay": -1.0}, "weight_decay must be"),
        ({"bottleneck": 0}, "bottleneck must be a whole number of at least 1, got 0"),
        ({"batch_size": 1}, "batch_size must be a whole number of at least 2, got 1"),
        ({"epochs": 0}, "epochs must be a whole number of at least 1, got 0"),
        ({"epochs": 1.5}, "epochs must be a whole number of at least 1, got 1.5"),
        ({"prior": [0.5, 0.5]}, r"prior must have shape \(3,\)"),
        ({"prior": [0.5, 0.5, 0.5]}, "prior must be positive and sum to 1"),
        ({"prior": [0.7, 0.5, -0.2]}, "prior must be positive and sum to 1"),
        ({"device": "gpu"}, "device must be one that torch can use .* 'cpu', got 'gpu'"),
        ({"device": "cuda:99"}, "device must be one that torch can use .* 'cpu', got 'cuda:99'"),
        ({"random_state": -1}, "random_state must be a whole number of at least 0, got -1"),
        ({"random_state": 2**64}, "random_state must be below"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_what_cannot_be_right_is_refused(change, message):
    x_s, y, x_t, _ = domains()
    given = {"x_s": x_s, "y": y, "x_t": x_t}
    params = {name: value for name, value in change.items() if name not in given}
    for name in change.keys() & given.keys():
        given[name] = change[name](given[name])
    with pytest.raises(ValueError, match=message):
        quick(**params).fit(*given.values())


def test_a_fit_that_is_refused_leaves_the_model_as_it_was():
    x_s, y, x_t, _ = domains()
    model = quick().fit(x_s, y, x_t)
    before, expected = {**vars(model)}, model.predict_proba(x_t)
    refused = {
        "target_features must be finite": (x_s, y, spoil(x_t, np.nan)),
        "same width": (x_s[:, :5], y, x_t),
        "at least 2 categories": (x_s, 0 * y, x_t),
    }
    for message, given in refused.items():
        with pytest.raises(ValueError, match=message):
            model.fit(*given)
    with pytest.raises(ValueError, match="prior"):
        model.set_params(prior=[1.0]).fit(Table(x_s, [*range(x_s.shape[1])]), y + 1, x_t)
    after = vars(model.set_params(prior="estimate"))
    assert after.keys() == before.keys()
    assert all(after[name] is before[name] for name in before)
    np.testing.assert_array_equal(model.predict_proba(x_t), expected)


def test_features_that_are_no_matrix_of_numbers(fitted):
    scipy_sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(TypeError, match=r"dense, got the sparse csr_matrix; call .toarray\(\)"):
        fitted.predict(scipy_sparse.csr_matrix(np.eye(WIDTH)))
    with pytest.raises(ValueError, match="could not convert string"):
        fitted.predict([["a"] * WIDTH])
    with pytest.raises(ValueError, match="X has 5 features, but SymNetClassifier is expecting 8"):
        fitted.transform(np.zeros((3, 5)))
    with pytest.raises(ValueError, match=r"features must be finite .* in row 1"):
        fitted.predict_proba(np.array([[0.0] * WIDTH, [np.nan] * WIDTH]))


def test_training_that_diverges_is_an_error():
    x_s, y_s, x_t, _ = domains()
    with pytest.raises(FloatingPointError, match="diverged at lr=1e\\+30"):
        quick(lr=1e30).fit(x_s, y_s, x_t)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (50, r"=60 exceeds the smaller domain \(50 rows\); its rows are drawn again"),
        (2, r"smaller domain \(2 rows\); its rows are drawn again within each batch"),
    ],
)
def test_a_small_domain_is_drawn_again_within_the_batch(rows, message, monkeypatch):
    x_s, y_s, x_t, _ = domains()
    steps, taken = SymNetClassifier._steps, []
    monkeypatch.setattr(
        SymNetClassifier, "_steps", lambda self, total: taken.append(total) or steps(self, total)
    )
    with pytest.warns(UserWarning, match=message) as caught:
        quick().fit(x_s, y_s, x_t[:rows])
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert taken == [12]  # 240 rows in batches of 60, three times


def test_a_batch_larger_than_both_domains_shrinks_to_the_larger():
    x_s, y_s, x_t, _ = domains()
    with pytest.warns(UserWarning, match=r"\(40 rows\); using 50; its rows are drawn again"):
        model = quick().fit(x_s[:50], y_s[:50], x_t[:40])
    with pytest.warns(UserWarning, match=r"\(40 rows\); its rows are drawn again"):
        assert_same(model, quick(batch_size=50).fit(x_s[:50], y_s[:50], x_t[:40]))


def test_rows_drawn_again_come_equally_often():
    from symloss._rows import shuffled

    batches = shuffled(3, 8, torch.Generator().manual_seed(0))
    for _ in range(20):
        counts = next(batches).bincount(minlength=3)
        assert counts.sum() == 8
        assert counts.min() >= 2
        assert counts.max() <= 3


# Labels with holes

NAMES = np.array(["bike", "mug", "pen"])


def with_holes(hole, labels=None):
    """Labels as objects, three of them missing."""
    labels = (domains()[1] if labels is None else labels).astype(object)
    labels[[3, 5, 90]] = hole
    return labels


class NoTruth:
    """What compares as pandas.NA does."""

    def __ne__(self, other):
        return self

    def __eq__(self, other):
        return self

    __hash__ = None

    def __bool__(self):
        raise TypeError("boolean value of NA is ambiguous")


def dates(y):
    return np.where(np.isin(np.arange(len(y)), [3, 5, 90]), np.datetime64("NaT"), y.astype("M8[D]"))


HOLES = {
    "NaN among objects": (lambda y: with_holes(np.nan), "nan"),
    "NaN among floats": (lambda y: with_holes(np.nan).astype(float), "nan"),
    "NaN in a tensor": (lambda y: torch.tensor(with_holes(np.nan).astype(float)), "nan"),
    "inf": (lambda y: with_holes(np.inf), "inf"),
    "None": (lambda y: with_holes(None), "None"),
    "None in a list": (lambda y: with_holes(None, NAMES[y]).tolist(), "None"),
    "NaN in a list of strings": (lambda y: with_holes(np.nan, NAMES[y]).tolist(), "nan"),
    "NaN as text": (lambda y: np.array(with_holes(np.nan, NAMES[y]).tolist()), "'nan'"),
    "no text": (lambda y: with_holes("", NAMES[y]).astype(str), "''"),
    "blanks": (lambda y: with_holes("  ", NAMES[y]), "'  '"),
    "bytes": (lambda y: with_holes("", NAMES[y]).astype("S"), "b''"),
    "NaN among booleans": (lambda y: with_holes(np.nan, y == 1), "nan"),
    "no truth value": (lambda y: with_holes(NoTruth(), NAMES[y]), ".*NoTruth.*"),
    "NaT": (dates, "NaT"),
    "masked": (
        lambda y: np.ma.array(y, mask=np.isin(np.arange(240), [3, 5, 90])),
        "a masked entry",
    ),
}


@pytest.mark.parametrize("kind", HOLES)
def test_missing_labels_are_refused_with_their_rows(kind, fitted):
    x_s, y, x_t, _ = domains()
    make, hole = HOLES[kind]
    told = rf"labels .* for every row, got {hole} in 3 of 240 rows \(the first: 3, 5, 90\); leave"
    with pytest.raises(ValueError, match=told):
        quick().fit(x_s, make(y), x_t)
    with pytest.raises(ValueError, match=told):
        fitted.score(x_s, make(y))


@pytest.mark.parametrize(
    ("mark", "make"),
    [
        ("-1", lambda y: y),
        ("-1", lambda y: y.astype(object)),
        (r"-1\.0", lambda y: torch.from_numpy(y).float()),
        ("'-1'", lambda y: y.astype(str)),
        ("-100", lambda y: np.where(y == -1, -100, y)),
        ("-2147483648", lambda y: np.where(y == -1, -(2**31), y).astype("int32")),
        ("-9223372036854775808", lambda y: np.where(y == -1, -(2**63), y)),
    ],
    ids=["numbers", "objects", "tensor", "text", "ignore_index", "NaN as int32", "NaN as int64"],
)
def test_marks_of_unlabelled_rows_are_refused(mark, make, fitted):
    x_s, y, x_t, _ = domains()
    y[[3, 5]] = -1
    told = rf"got {mark} in 2 of 240 rows \(the first: 3, 5\)"
    with pytest.raises(ValueError, match=rf"{told}, which usually .* keep = labels != {mark}"):
        quick().fit(x_s, make(y), x_t)
    if mark != "'-1'":
        with pytest.raises(ValueError, match=told):
            fitted.score(x_s, make(y))


@pytest.mark.parametrize("values", [[-1, 0, 1], [-2, -1, 0, 1, 2]])
def test_numbers_around_zero_are_categories_with_a_warning(values):
    x_s, _, x_t, _ = domains()
    labels = np.resize(values, 240)
    told = f"labels hold -1, taken for one of {len(values)} categories"
    with pytest.warns(UserWarning, match=told) as caught:
        model = quick().fit(x_s, labels, x_t)
    assert caught[0].filename == __file__
    assert model.classes_.tolist() == values
    assert quick().fit(x_s, np.resize([-1, 1], 240), x_t).classes_.tolist() == [-1, 1]


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (with_holes(7, NAMES[np.arange(240) % 3]), ValueError, "of one kind, got numbers and text"),
        ([7, *NAMES[np.arange(239) % 3].tolist()], ValueError, "of one kind, got numbers and text"),
        (np.eye(3)[np.arange(240) % 3], ValueError, r"got \(240, 3\); for one-hot labels"),
        ([[1], [1, 2]] * 120, ValueError, "got a ragged list"),
        (torch.eye(3)[0].to_sparse(), TypeError, "labels must be dense, got torch.sparse_coo"),
        ([{1: 2}] * 240, ValueError, "labels must be numbers or text, got dict"),
        (np.zeros(240, "i4,i4"), ValueError, "labels must be numbers or text, got tuple"),
        (with_holes(np.fromiter([[7]] * 3, object)), ValueError, "numbers or text, got list"),
    ],
    ids=["mixed", "mixed list", "one-hot", "ragged", "sparse", "dicts", "records", "lists"],
)
def test_labels_that_are_no_categories(labels, error, message):
    x_s, _, x_t, _ = domains()
    with pytest.raises(error, match=message):
        quick().fit(x_s, labels, x_t)


def test_arguments_in_another_order():
    x_s, y, x_t, _ = domains()
    for given in ((x_s, x_t, y), (y, x_s, x_t)):
        with pytest.raises(ValueError, match=r"order is fit\(features, labels, target_features\)"):
            quick().fit(*given)


# Features that preprocessing erases


def accuracy(change, **params):
    x_s, y, x_t, _ = domains(shift=0.3)
    x_s, x_t = (change(x.astype("float64")) for x in (x_s, x_t))
    model = quick(epochs=20, **params).fit(x_s, y, x_t)
    return model.score(x_s, y)


@pytest.mark.parametrize(
    ("change", "preprocessing"),
    [
        (lambda x: (1e19 * x).astype("float32"), "l2"),
        (lambda x: (1e-30 * x).astype("float32"), "l2"),
        (lambda x: 1e-100 * x, "l2"),
        (lambda x: x + 1e8, "standardise"),
        (lambda x: (1000 * x).astype("int64") + 2**40, "standardise"),
        (lambda x: (1e9 * x).astype("int64") + 1_700_000_000 * 10**9, "standardise"),
        (lambda x: ((1e9 * x).astype("int64") + 10**18).astype("M8[ns]"), "standardise"),
        (lambda x: (x + 1e8).astype(">f8")[:, ::-1], "standardise"),
        (lambda x: (x + 1e8).astype(object), "standardise"),
        (lambda x: torch.from_numpy(x + 1e8), "standardise"),
    ],
    ids=[
        "1e19",
        "1e-30",
        "1e-100",
        "1e8",
        "2**40",
        "ns",
        "dates",
        "big endian",
        "objects",
        "tensor",
    ],
)
def test_neither_scale_nor_offset_is_rounded_away(change, preprocessing):
    assert accuracy(change, preprocessing=preprocessing) > 0.95


def test_a_large_offset_in_a_memory_map(tmp_path):
    x_s, y, x_t, _ = domains(shift=0.3)
    maps = []
    for name, x in (("source", x_s), ("target", x_t)):
        np.save(tmp_path / f"{name}.npy", x.astype("float64") + 1e8)
        maps.append(np.load(tmp_path / f"{name}.npy", mmap_mode="r"))
    model = quick(epochs=20, preprocessing="standardise").fit(maps[0], y, maps[1])
    assert model.score(maps[0], y) > 0.95


def one_long(x):
    x[:, 0] = 1e5 * np.random.default_rng(0).normal(size=len(x))
    return x


def one_far(x):
    x[:, 0] += 101_325
    return x


@pytest.mark.parametrize(
    ("change", "params", "message"),
    [
        (lambda x: np.abs(x[:, :1]), {}, "rows hardly differ after preprocessing='l2'"),
        (lambda x: x[:, :1], {}, "rows hardly differ after preprocessing='l2'"),
        (lambda x: np.abs(x[:, :1]) * [[1, 2, 5]], {}, "rows hardly differ after"),
        (one_far, {}, "rows hardly differ after .* use preprocessing='standardise'"),
        (lambda x: x + 1e8, {}, "rows hardly differ after"),
        (one_long, {}, r"column 0 holds 100.00 % of the variance, so the others hardly count"),
        (lambda x: 1e-6 * x, {"preprocessing": None}, "hardly differ after preprocessing=None"),
        (one_long, {"preprocessing": None}, "column 0 holds 100.00 % of the variance"),
        (lambda x: 1e18 * x, {"preprocessing": None}, "overflows in float32"),
        (lambda x: 0 * x + 3, {"preprocessing": "standardise"}, "every column .* constant"),
    ],
    ids=[
        "positive",
        "one column",
        "proportional",
        "pressure",
        "offset",
        "units",
        "tiny",
        "units, None",
        "huge",
        "constant",
    ],
)
def test_preprocessing_that_erases_is_told_before_training(change, params, message):
    x_s, y, x_t, _ = domains()
    x_s, x_t = (change(x.astype("float64")) for x in (x_s, x_t[1:]))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quick(epochs=1, **params).fit(x_s, y, x_t)
    assert [m for w in caught if re.search(message, m := str(w.message))]
    assert len([w for w in caught if w.filename == __file__]) == 1


def test_features_under_a_mask_are_refused(fitted):
    x_s, y, x_t, _ = domains()
    mask = np.zeros(x_t.shape, bool)
    mask[:7, 0] = True
    masked = np.ma.array(x_t, mask=mask)
    told = "must not be masked, got a mask over entries of 7 rows"
    with pytest.raises(ValueError, match=f"target_features {told}"):
        quick().fit(x_s, y, masked)
    with pytest.raises(ValueError, match=f"features {told}"):
        fitted.predict(masked)
    np.testing.assert_array_equal(fitted.predict(np.ma.array(x_t)), fitted.predict(x_t))
    with pytest.raises(ValueError, match="NaN or inf in row 1"):
        fitted.predict(np.array([[0] * WIDTH, ["NaT"] * WIDTH], dtype="M8[s]"))
    told = "features must hold numbers only, got 'bike' in row 0, column 0: could not convert"
    with pytest.raises(ValueError, match=told):
        fitted.predict(NAMES[:, None])


@pytest.mark.parametrize("again", ["same", "copy", "order", "precision"])
def test_one_table_for_both_domains_is_told(again):
    x_s, y, _, _ = domains()
    same = {"same": x_s, "copy": x_s.copy(), "order": x_s[::-1], "precision": x_s.astype(float)}
    with pytest.warns(UserWarning, match="features and target_features hold the same") as caught:
        quick(epochs=1).fit(x_s, y, same[again])
    assert caught[0].filename == __file__


def test_a_head_with_other_categories_is_refused(fitted):
    model = copy.copy(fitted)
    model.head_ = symloss.SymmetricHead(model.head_.in_features, K + 1)
    for call in (model.predict, model.predict_proba, model.diagnose):
        with pytest.raises(ValueError, match=f"head_ must have {K} categories.* got {K + 1}"):
            call(domains()[2])


# Accuracy


def test_score_is_the_share_of_rows_that_are_right(fitted):
    x_s, y, _, _ = domains()
    right = fitted.predict(x_s) == y
    weight = np.arange(240)
    for labels in (y, y.tolist(), torch.from_numpy(y), y.astype(float), y.astype(object)):
        assert fitted.score(x_s, labels) == pytest.approx(right.mean())
    assert fitted.score(x_s, y, sample_weight=weight) == pytest.approx(
        np.average(right, weights=weight)
    )
    assert fitted.score(x_s, np.where(y == 0, 7, y)) == pytest.approx((right & (y != 0)).mean())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y: y[:, None], r"labels must have shape \(N,\), got \(240, 1\)"),
        (lambda y: np.eye(3)[y], r"labels must have shape \(N,\), got \(240, 3\); for one-hot"),
        (lambda y: y[:5], "labels must have one entry for each of the 240 rows of features, got 5"),
        (
            lambda y: y.astype(str),
            "labels must be categories of classes_, 0, 1, 2, got .* '0', '1'",
        ),
        (lambda y: y.astype("S"), "got only others: b'0', b'1', b'2'"),
        (lambda y: y + 10, "got only others: 10, 11, 12"),
        (lambda y: None, "labels must be given"),
        (lambda y: 3, r"labels must have shape \(N,\), got \(\)"),
    ],
    ids=["column", "one-hot", "few", "text", "bytes", "codes", "none", "number"],
)
def test_labels_that_cannot_be_scored(change, message, fitted):
    x_s, y, _, _ = domains()
    with pytest.raises(ValueError, match=message):
        fitted.score(x_s, change(y))


@pytest.mark.parametrize(
    ("weight", "error", "message"),
    [
        (np.ones(24), ValueError, r"sample_weight must have shape \(240,\), .* got \(24,\)"),
        (-np.ones(240), ValueError, "sample_weight must be finite, at least 0"),
        (np.zeros(240), ValueError, "not 0 in every row"),
        (np.full(240, np.nan), ValueError, "sample_weight must be finite"),
        ("abc", TypeError, "sample_weight must be numbers, got 'abc'"),
    ],
    ids=["few", "negative", "zero", "nan", "text"],
)
def test_weights_that_cannot_be_used(weight, error, message, fitted):
    x_s, y, _, _ = domains()
    with pytest.raises(error, match=message):
        fitted.score(x_s, y, sample_weight=weight)


# Shares


def test_shares_go_by_name():
    x_s, y, x_t, _ = domains()
    labels = NAMES[y]
    expected = quick(prior=[0.2, 0.3, 0.5]).fit(x_s, labels, x_t)

    class Series:
        """What gives names and shares as pandas' Series does."""

        def items(self):
            return zip(NAMES[::-1], np.array([0.5, 0.3, 0.2]), strict=True)

        def tolist(self):
            return [0.5, 0.3, 0.2]

    for prior in ({"pen": 0.5, "bike": 0.2, "mug": 0.3}, Series()):
        model = quick(prior=prior).fit(x_s, labels, x_t)
        assert_same(model, expected)
        same = SymNetClassifier().load_state_dict(model.state_dict())
        assert same.prior == {"pen": 0.5, "mug": 0.3, "bike": 0.2}
        assert same.diagnose(x_s).expected == pytest.approx([0.2, 0.3, 0.5])
    assert_same(quick(prior={2: 0.5, 0: 0.2, 1: 0.3}).fit(x_s, y, x_t), expected)


@pytest.mark.parametrize(
    ("prior", "error", "message"),
    [
        ({"pen": 0.5, "mug": 0.5}, ValueError, r"none for 'bike' \(0 if the target lacks it\)"),
        ({"pen": 0.5, "mug": 0.3, "bike": 0.1, "cup": 0.1}, ValueError, "shares of 'cup', which"),
        ({0: 0.2, 1: 0.3, 2: 0.5}, ValueError, "none for 'bike', 'mug', 'pen'"),
        ({0.2, 0.3, 0.5}, TypeError, "by position or by name, got {0"),
        (
            "estimated",
            ValueError,
            "prior must be 'estimate', shares or None, got 'estimated'",
        ),
    ],
    ids=["absent", "unknown", "positions", "set", "text"],
)
def test_shares_without_their_categories(prior, error, message):
    x_s, y, x_t, _ = domains()
    with pytest.raises(error, match=message):
        quick(prior=prior).fit(x_s, NAMES[y], x_t)


@pytest.mark.parametrize("prior", [[0.5, 0.5, 0.0], {"bike": 0.5, "mug": 0.5, "pen": 0}])
def test_a_share_of_0_is_trained(prior):
    x_s, y, _, _ = domains(shift=0.0)
    target = x_s[y < 2]
    model = quick(epochs=20, prior=prior).fit(x_s, NAMES[y], target)
    assert model.score(target, NAMES[y][y < 2]) > 0.95
    thousandth = 1e-3 / 3  # of an equal share
    np.testing.assert_allclose(model.prior_, [(1 - thousandth) / 2] * 2 + [thousandth], rtol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.diagnose(np.tile(target, (200, 1))).healthy


# Its state


def test_the_seed_decides_and_the_global_generator_is_left_alone():
    x_s, y_s, x_t, _ = domains()
    state = torch.get_rng_state()
    first = quick().fit(x_s, y_s, x_t)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert_same(quick().fit(x_s, y_s, x_t), first)
    initial = [weights(quick(random_state=seed, lr=1e-12).fit(x_s, y_s, x_t))[2] for seed in (0, 1)]
    assert (initial[0] - initial[1]).abs().mean() > 0.1
    drawn = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        drawn.append(weights(quick(random_state=None).fit(x_s, y_s, x_t))[2])
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_fits_in_threads_equal_a_single_one():
    x_s, y, x_t, _ = domains()
    fit = quick(epochs=1, bottleneck=8).fit
    expected, state = fit(x_s, y, x_t), torch.get_rng_state()
    with ThreadPoolExecutor(8) as pool:
        models = [*pool.map(lambda _: fit(x_s, y, x_t), range(64))]
    for model in models:
        assert_same(model, expected)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.random.default_rng(5),
        lambda: np.random.RandomState(5),
        lambda: torch.Generator().manual_seed(5),
        lambda: random.Random(5),
    ],
    ids=["Generator", "RandomState", "torch", "Python"],
)
def test_a_generator_gives_a_seed(make):
    x_s, y, x_t, _ = domains()
    fit = partial(quick, epochs=1)
    generator = make()
    first, second = (fit(random_state=generator).fit(x_s, y, x_t) for _ in range(2))
    assert_same(first, fit(random_state=make()).fit(x_s, y, x_t))
    assert not torch.equal(weights(first)[2], weights(second)[2])
    assert SymNetClassifier().load_state_dict(first.state_dict()).random_state is None


@pytest.mark.parametrize(
    "params",
    [
        *(
            {"random_state": kind(3)}
            for kind in (np.int64, np.uint8, float, np.array, torch.tensor)
        ),
        {"random_state": 3, "epochs": 1.0},
        {"random_state": 3, "batch_size": np.float64(60), "bottleneck": 32.0},
        {"random_state": 3, "lr": np.float64(0.01), "balance": torch.tensor(1.0)},
        {"random_state": 3, "verbose": np.False_, "objective": np.str_("symnets-v2")},
    ],
    ids=str,
)
def test_numbers_of_any_type(params):
    x_s, y, x_t, _ = domains()
    model = quick(**{"epochs": 1} | params).fit(x_s, y, x_t)
    assert_same(model, quick(epochs=1, random_state=3).fit(x_s, y, x_t))
    assert model.get_params().items() >= params.items()  # as scikit-learn wants them
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    torch.load(io.BytesIO(file.getvalue()), weights_only=True)


@pytest.mark.parametrize(
    "params",
    [
        {"lr": "0.01"},
        {"balance": "1"},
        {"weight_decay": None},
        {"epochs": "2"},
        {"random_state": "3"},
    ],
    ids=str,
)
def test_what_is_no_number_is_named(params):
    x_s, y, x_t, _ = domains()
    [(name, value)] = params.items()
    with pytest.raises(TypeError, match=f"{name} must be a number, got {value!r}"):
        quick(**params).fit(x_s, y, x_t)
    for name in ("verbose",):
        with pytest.raises(TypeError, match=f"{name} must be True or False, got 'False'"):
            quick(**{name: "False"}).fit(x_s, y, x_t)


@pytest.mark.parametrize(
    "layout", ["to_sparse", "to_sparse_csr", "to_sparse_csc", "to_mkldnn"], ids=str
)
@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
def test_tensors_that_are_not_dense_are_refused(layout, fitted):
    features = getattr(torch.ones(3, WIDTH), layout)()
    with pytest.raises(
        TypeError, match=r"features must be dense, got torch\._?\w+; call .to_dense"
    ):
        fitted.predict(features)


MODES = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": partial(torch.autocast, "cpu", torch.bfloat16),
    "default device": partial(torch.device, "meta"),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_callers_mode_changes_nothing(mode, fitted):
    x_s, y, x_t, _ = domains()
    with MODES[mode]():
        model = quick().fit(x_s, y, x_t)
        same = quick().load_state_dict(model.state_dict())
        found = model.predict_proba(torch.tensor(x_t, device="cpu"))
    assert_same(model, fitted)
    assert not found.is_inference()
    np.testing.assert_array_equal(found, fitted.predict_proba(x_t))
    assert_same(same.fit(x_s, y, x_t), fitted)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_torchs_default_dtype_changes_nothing(dtype, fitted):
    x_s, y, x_t, _ = domains()
    torch.set_default_dtype(dtype)
    try:
        model = quick().fit(x_s, y, x_t)
        same = SymNetClassifier().load_state_dict(model.state_dict())
        quick(prior=[0.2, 0.3, 0.5], epochs=1).fit(x_s, y, x_t)
        assert model.diagnose(x_t).healthy
    finally:
        torch.set_default_dtype(torch.float32)
    assert_same(model, fitted)
    assert_same(same, fitted)


class Stop(TorchDispatchMode):
    """Interrupt the computation at the given backward pass."""

    def __init__(self, error, at):
        super().__init__()
        self.error, self.left = error, at

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.left -= function is torch.ops.aten.native_batch_norm_backward.default
        if self.left < 0:
            raise self.error
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_fit_leaves_the_model_as_it_was(error):
    x_s, y, x_t, _ = domains()
    model, new = quick().fit(x_s, y, x_t), quick()
    expected = model.predict_proba(x_t)
    for one in (model, new):
        with pytest.raises(error), Stop(error, at=3):
            one.fit(x_t, y[:180], x_s)
    np.testing.assert_array_equal(model.predict_proba(x_t), expected)
    with pytest.raises((AttributeError, ValueError), match="is not fitted"):
        new.predict(x_t)


@pytest.mark.parametrize("params", [{"lr": 1e30}, {"lr": 3e38, "epochs": 1, "batch_size": 180}])
def test_a_diverged_fit_leaves_the_model_as_it_was(params):
    x_s, y, x_t, _ = domains()
    model, new = quick().fit(x_s, y, x_t), quick()
    expected = model.predict_proba(x_t)
    for one in (model, new):
        with pytest.raises(FloatingPointError):
            one.set_params(**params).fit(x_s[:180], y[:180], x_t)
    np.testing.assert_array_equal(model.predict_proba(x_t), expected)
    with pytest.raises((AttributeError, ValueError), match="is not fitted"):
        new.predict(x_t)


def test_a_state_that_does_not_fit_leaves_the_model_as_it_was(fitted):
    _, _, x_t, _ = domains()
    model = SymNetClassifier().load_state_dict(fitted.state_dict())
    before, expected = repr(model), model.predict_proba(x_t)
    state = fitted.state_dict() | {"head": {}}
    state["params"] = state["params"] | {"lr": 7.0}
    with pytest.raises(RuntimeError, match="Missing key"):
        model.load_state_dict(state)
    with pytest.raises(ValueError, match="Invalid parameter"):
        model.set_params(lr=7.0, unknown=1)
    with pytest.raises(ValueError, match=r"device must be one that torch can use .*'cuda:99'"):
        SymNetClassifier(device="cuda:99").load_state_dict(fitted.state_dict())
    assert repr(model) == before
    np.testing.assert_array_equal(model.predict_proba(x_t), expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda y: y.astype("int8"),
        lambda y: y.astype("float32"),
        lambda y: NAMES[y].astype("S"),
        lambda y: np.array([np.str_(name) for name in NAMES[y]], dtype=object),
        lambda y: np.datetime64("2020-01-01") + y,
    ],
    ids=["int8", "float32", "bytes", "objects", "dates"],
)
def test_categories_are_loaded_with_their_type(make):
    x_s, y, x_t, _ = domains()
    prior = [np.float64(0.2), np.float32(0.3), torch.tensor(0.5)]
    model = quick(epochs=1, prior=prior, device=torch.device("cpu")).fit(x_s, make(y), x_t)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    same = SymNetClassifier().load_state_dict(torch.load(file, weights_only=True))
    found, expected = same.predict(x_t), model.predict(x_t)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_categories_that_cannot_be_saved_are_refused():
    x_s, y, x_t, _ = domains()
    labels = (np.datetime64("2020-01-01") + y).astype(object)
    with pytest.raises(TypeError, match="labels of type date cannot be saved; use text or numbers"):
        quick(epochs=1).fit(x_s, labels, x_t).state_dict()


def test_before_fit(fitted):
    _, _, x_t, _ = domains()
    for name in ("predict", "predict_proba", "transform", "diagnose"):
        with pytest.raises((AttributeError, ValueError), match="SymNetClassifier is not fitted"):
            getattr(SymNetClassifier(), name)(x_t)
    with pytest.raises((AttributeError, ValueError), match="is not fitted"):
        SymNetClassifier().state_dict()


@pytest.mark.parametrize("kind", ["numbers", "strings", "tensor"])
def test_save_and_load(kind):
    x_s, y_s, x_t, _ = domains()
    labels = {
        "numbers": y_s,
        "strings": np.array(["pen", "bike", "mug"])[y_s],
        "tensor": torch.from_numpy(y_s).int(),
    }[kind]
    prior = np.array([0.2, 0.3, 0.5])
    model = quick(preprocessing="standardise", prior=prior).fit(x_s, labels, x_t)
    model.set_params(bottleneck=7, preprocessing=None)  # for the next fit
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    same = SymNetClassifier().load_state_dict(torch.load(file, weights_only=True))
    assert repr(same).replace("[", "").replace("]", "") == repr(model).replace(
        "array([", ""
    ).replace("])", "")
    assert same.n_features_in_ == WIDTH
    assert same.history_ == model.history_
    found, expected = same.predict(x_t), model.predict(x_t)
    assert type(found) is type(expected)
    assert (found == expected).all()
    np.testing.assert_array_equal(same.predict_proba(x_t), model.predict_proba(x_t))
    assert_same(
        same.set_params(epochs=1).fit(x_s, labels, x_t),
        model.set_params(epochs=1).fit(x_s, labels, x_t),
    )


def test_diagnose_names_what_is_rarely_predicted(fitted):
    x_s, y_s, _, _ = domains()
    model = quick(epochs=20).fit(x_s, np.array(["pen", "bike", "mug"])[y_s], x_s[1:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = model.diagnose(x_s)
    assert found.rarely_predicted == []
    assert found.categories == ("bike", "mug", "pen")
    assert "agree on" in str(found)
    assert found.expected == pytest.approx([1 / 3] * 3, abs=0.02)
    with pytest.warns(
        UserWarning, match=r"1 of 3 categories is rarely or never predicted \(mug\)"
    ) as caught:
        assert model.diagnose(x_s[y_s != 2]).rarely_predicted == ["mug"]
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert "a larger balance" in str(caught[0].message)


def test_diagnose_compares_with_the_shares_of_training():
    x_s, y_s, x_t, _ = domains()
    model = quick(prior=[0.2, 0.3, 0.5]).fit(x_s, y_s, x_t).set_params(prior=None)  # for later
    assert model.diagnose(x_t).expected == pytest.approx((0.2, 0.3, 0.5))


def test_a_state_of_0_2_is_loaded():
    """It had no format, no shares and no components, and partial=True for a balance of 0."""
    x_s, y_s, x_t, _ = domains()
    model = quick(prior=None).fit(x_s, y_s, x_t)
    state = model.state_dict()
    for name in ("format", "prior", "trust"):
        del state[name]
    for on, prior in ((False, [1 / 3] * 3), (True, None)):
        old = state | {"params": state["params"] | {"partial": on}}
        same = SymNetClassifier().load_state_dict(old)
        np.testing.assert_array_equal(same.predict(x_t), model.predict(x_t))
        assert same.balance == (0.0 if on else 1.0)
        assert (same.prior_ is None) if on else (same.prior_ == pytest.approx(prior))
    with pytest.raises(ValueError, match=r"that of a SymNetClassifier, got one with \['weight'\]"):
        SymNetClassifier().load_state_dict({"weight": torch.zeros(2)})
    with pytest.raises(ValueError, match="format 2 or lower, got 3"):
        SymNetClassifier().load_state_dict(state | {"format": 3})


def test_estimated_shares_are_kept_with_the_state(monkeypatch):
    x_s, y_s, x_t, _ = domains()
    told = symloss.EstimatedPrior(torch.tensor([0.5, 0.3, 0.2]), trust=0.4)
    monkeypatch.setattr(Shares, "seen_by", lambda *_: told)
    model = quick(epochs=20).fit(x_s, y_s, x_t)
    same = SymNetClassifier().load_state_dict(model.state_dict())
    assert (same.prior_.tolist(), same.trust_) == (told.prior.tolist(), 0.4)
    assert "trust 0.40" in str(same.diagnose(x_t))


def test_diagnose_warns_first_of_classifiers_that_disagree():
    x_s, y_s, _, _ = domains()
    model = quick(epochs=20).fit(x_s, y_s, x_s[1:])
    with torch.no_grad():
        model.head_.weight[:K] = model.head_.weight[:K].roll(1, 0)
    with pytest.warns(UserWarning, match=r"agree on only 0\.0 % of the target"):
        assert model.diagnose(x_s).classifiers_disagree


def test_few_rows_do_not_make_diagnose_warn():
    x_s, y_s, _, _ = domains()
    model = quick(epochs=20).fit(x_s, y_s, x_s[1:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = model.diagnose(x_s[:1])
    assert len(found.rarely_predicted) == 2
    assert "with so few samples (1), chance alone explains 2" in str(found)


class Table:
    """What has names for its columns, as pandas has."""

    def __init__(self, x, columns):
        self.x, self.columns = x, columns

    def __array__(self, dtype=None, copy=None):
        return self.x


def test_the_columns_of_tables_must_agree():
    x_s, y_s, x_t, _ = domains()
    names = [f"column {i}" for i in range(x_s.shape[1])]
    told = (
        "must have the columns of the source's features, in their order, got a table with another"
    )
    with pytest.raises(ValueError, match=f"target_features {told}"):
        quick().fit(Table(x_s, names), y_s, Table(x_t, names[::-1]))
    model = quick().fit(Table(x_s, names), y_s, Table(x_t, names))
    with pytest.raises(ValueError, match=f"features {told}"):
        model.predict(Table(x_t, names[::-1]))
    np.testing.assert_array_equal(model.predict(Table(x_t, names)), model.predict(x_t))


def test_columns_are_kept_with_the_state():
    x_s, y_s, x_t, _ = domains()
    names = [f"column {i}" for i in range(WIDTH)]
    model = quick().fit(Table(x_s, names), y_s, Table(x_t, names))
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    same = SymNetClassifier().load_state_dict(torch.load(file, weights_only=True))
    for one in (model, same):
        assert one.feature_names_in_.tolist() == names
        assert one.feature_names_in_.dtype == object
        with pytest.raises(ValueError, match="features must have the columns"):
            one.predict(Table(x_t, names[::-1]))
        with pytest.raises(ValueError, match=r"without \['column 0'\] and with \['other'\]"):
            one.predict(Table(x_t, ["other", *names[1:]]))
    assert not hasattr(model.fit(x_s, y_s, x_t), "feature_names_in_")
    numbered = [*range(WIDTH)]
    assert not hasattr(
        model.fit(Table(x_s, numbered), y_s, Table(x_t, numbered)), "feature_names_in_"
    )


# Tables of pandas


@pytest.fixture
def pd():
    return pytest.importorskip("pandas")


@pytest.fixture
def tables(pd):
    """The domains as tables, with the source's labels."""
    x_s, y, x_t, _ = domains()
    names = [f"column {i}" for i in range(WIDTH)]
    return pd.DataFrame(x_s, columns=names), y, pd.DataFrame(x_t, columns=names)


@pytest.mark.parametrize(
    "make",
    [
        lambda pd, y: pd.Series(y, dtype="Int64"),
        lambda pd, y: pd.Series(y == 1, dtype="boolean"),
        lambda pd, y: pd.Series(NAMES[y], dtype="string"),
        lambda pd, y: pd.Series(NAMES[y], dtype="category"),
        lambda pd, y: pd.Series(pd.Categorical(NAMES[y], ["pen", "cup", "bike", "mug"])),
        lambda pd, y: pd.Series(pd.Categorical(y)),
        lambda pd, y: pd.Index(NAMES[y]),
        lambda pd, y: pd.array(y, dtype="Int64"),
    ],
    ids=["Int64", "boolean", "string", "category", "unused", "codes", "Index", "array"],
)
def test_labels_of_pandas(make, pd, tables):
    source, y, target = tables
    labels = make(pd, y)
    plain = np.array(labels.tolist())
    expected = quick().fit(source.to_numpy(), plain, target.to_numpy())
    model = quick().fit(source.astype("Float64"), labels, target)
    assert_same(model, expected)
    assert model.classes_.tolist() == np.unique(plain).tolist()
    assert model.score(source, labels) == expected.score(source.to_numpy(), plain)
    if not isinstance(labels, pd.Series):
        labels = pd.Series(labels)
    labels[[3, 5, 90]] = pd.NA
    told = r"got (nan|<NA>) in 3 of 240 rows \(the first: 3, 5, 90\)"
    with pytest.raises(ValueError, match=told):
        quick().fit(source, labels, target)
    with pytest.raises(ValueError, match=told):
        model.score(source, labels)
    few = labels[:180].mask(np.arange(180) >= 9)
    few[[3, 5]] = labels[4]  # known where it was made missing
    model = quick(epochs=1).fit(source, plain, target, target_labels=few)
    known = [plain[4] if i in (3, 5) else plain[i] if i < 9 else None for i in range(180)]
    assert_same(model, quick(epochs=1).fit(source, plain, target, target_labels=known))
    assert "target_labels" in model.history_[0]


def test_shares_of_pandas_go_by_name(pd, tables):
    source, y, target = tables
    y = np.sort(y)
    y[:60] = 2  # the largest share comes last, but first among the counts
    for labels in (pd.Series(NAMES[y], dtype="category"), pd.Series(y, dtype="Int64")):
        counts = labels.value_counts(normalize=True)
        expected = quick(prior=np.bincount(y) / 240).fit(source, labels, target)
        assert_same(quick(prior=counts).fit(source, labels, target), expected)
    with pytest.raises(ValueError, match=r"none for 0, 1, 2 .* shares of \(2,\), \(1,\), \(0,\)"):
        quick(prior=pd.DataFrame(y).value_counts(normalize=True)).fit(source, y, target)


def test_weights_of_pandas_go_by_position(pd, tables, fitted):
    source, y, _ = tables
    weight = pd.Series(np.arange(240), index=np.arange(240)[::-1])
    for given in (weight, weight.astype("Int64"), weight.tolist()):
        assert fitted.score(source, y, given) == fitted.score(source, y, np.arange(240))
    with pytest.raises(TypeError, match="sample_weight must be numbers"):
        fitted.score(source, y, weight.astype("Int64").where(weight > 3))


def test_columns_of_pandas(pd, tables):
    source, y, target = tables
    model = quick().fit(source, y, target)
    assert model.feature_names_in_.tolist() == source.columns.tolist()
    reordered = target[target.columns[::-1]]
    with pytest.raises(ValueError, match=r"target_features .* got a table with another order"):
        quick().fit(source, y, reordered)
    with pytest.raises(ValueError, match=r"^features .* got a table with another order"):
        model.predict(reordered)
    np.testing.assert_array_equal(
        model.predict(reordered[model.feature_names_in_]), model.predict(target.to_numpy())
    )


def test_entries_of_tables_that_are_no_numbers_are_named(pd, tables, fitted):
    source, _, _ = tables
    missing = source.astype("Float64")
    missing.iloc[3, 1] = pd.NA
    with pytest.raises(TypeError, match="numbers only, got <NA> in row 3, column 1: float"):
        fitted.predict(missing)
    with pytest.raises(ValueError, match="numbers only, got 'x' in row 0, column 8: could not"):
        fitted.predict(source.assign(text="x"))


def test_labels_in_a_table_get_its_own_remedy(pd, tables):
    source, y, target = tables
    with pytest.raises(ValueError, match=r"got \(240, 1\); take the column: \.iloc\[:, 0\]"):
        quick().fit(source, pd.DataFrame(y), target)
    with pytest.raises(ValueError, match=r"got \(240, 3\); .* call \.idxmax\(axis=1\)"):
        quick().fit(source, pd.get_dummies(pd.Series(NAMES[y])), target)


def test_labels_whose_index_has_another_order_are_told(pd, tables):
    source, y, target = tables
    labels = pd.Series(y)
    shuffled = source.sample(frac=1, random_state=0)
    told = r"have the same index in different orders.* labels.loc\[features.index\]"
    with pytest.warns(UserWarning, match=told) as caught:
        model = quick().fit(shuffled, labels, target)
    assert [warning.filename for warning in caught] == [__file__]
    with pytest.warns(UserWarning, match=told):
        model.score(shuffled, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        together = quick().fit(shuffled, labels.loc[shuffled.index], target)
        together.score(shuffled.set_index(shuffled.index + 1000), labels)  # other rows
        together.score(shuffled, y.tolist())  # a list's index is a method
    few = pd.Series(-1, index=target.index[::-1])
    with pytest.warns(
        UserWarning, match=r"target_features and target_labels have the same index .*"
    ):
        quick().fit(source, y, target, target_labels=few)


@pytest.mark.parametrize("text", ["nan", "None", "<NA>", "NaT"])
def test_text_that_may_be_a_category_is_told_what_to_do(text, fitted):
    x_s, y, x_t, _ = domains()
    with pytest.raises(ValueError, match=r"leave these rows out .* A real category needs another"):
        quick().fit(x_s, with_holes(text, NAMES[y]), x_t)


def test_a_bar_if_tqdm_is_there(monkeypatch, capsys):
    pytest.importorskip("tqdm")
    x_s, y_s, x_t, _ = domains()
    quick(verbose=True).fit(x_s, y_s, x_t)
    printed = capsys.readouterr().err
    assert "12/12" in printed
    assert "estimated shares, trust " in printed
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    quick(verbose=True).fit(x_s, y_s, x_t)
    assert capsys.readouterr().err == ""


# A few target labels


def moved_far():
    """Three clusters that lie somewhere else in the target."""
    rng, y = np.random.default_rng(3), np.arange(240) % K
    centres = 3 * rng.normal(size=(2, K, WIDTH))
    x_s, x_t = (c[y] + rng.normal(size=(240, WIDTH)) for c in centres)
    return x_s, y, x_t


def test_a_few_target_labels_tell_what_no_shift_shows():
    x_s, y, x_t = moved_far()
    labels = np.where(np.arange(240) < 9, y, -1)  # three of each
    without, with_labels = (
        quick(epochs=20).fit(x_s, y, x_t, target_labels=given) for given in (None, labels)
    )
    assert without.score(x_t[9:], y[9:]) < 0.5
    assert with_labels.score(x_t[9:], y[9:]) > 0.95
    assert {*with_labels.history_[0]} - {*without.history_[0]} == {"target_labels"}
    assert with_labels.history_[-1]["target_labels"] < with_labels.history_[0]["target_labels"]


NOTHING = {
    "numbers": np.full(180, -1),
    "list": [-1] * 180,
    "tensor": torch.full((180,), -1),
    "NaN": np.full(180, np.nan),
    "NaN in a tensor": torch.full((180,), math.nan),
    "None": [None] * 180,
    "-1 as an object": np.full(180, -1, dtype=object),
    "masked": np.ma.masked_all(180, dtype=int),
}


@pytest.mark.parametrize("kind", NOTHING)
def test_target_labels_that_are_all_missing_change_nothing(kind, fitted):
    x_s, y_s, x_t, _ = domains()
    model = quick().fit(x_s, y_s, x_t, target_labels=NOTHING[kind])
    assert_same(model, fitted)
    assert model.history_ == fitted.history_
    states = []
    for labels in (None, NOTHING[kind]):
        torch.manual_seed(3)
        quick(random_state=None).fit(x_s, y_s, x_t, target_labels=labels)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


def marked(kind):
    """Labels of three kinds of the same 180 rows: known for the first ten."""
    y, known = np.arange(180) % K, np.arange(180) < 10
    names = np.array(["bike", "mug", "pen"], dtype=object)
    text = names[y]
    as_strings = {
        "strings and None": np.where(known, text, None),
        "strings and NaN": [
            name if k else math.nan for name, k in zip(names[y], known, strict=True)
        ],
        "strings and -1": np.where(known, text, -1),
        "masked strings": np.ma.masked_array(text.astype(str), ~known),
    }
    if kind in as_strings:
        return names, as_strings[kind]
    return np.arange(K), {
        "numbers": np.where(known, y, -1),
        "float": np.where(known, y, np.nan),
        "tensor": torch.from_numpy(np.where(known, y, -1)),
        "masked": np.ma.masked_array(y, ~known),
    }[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "float",
        "tensor",
        "masked",
        "strings and None",
        "strings and NaN",
        "strings and -1",
        "masked strings",
    ],
)
def test_missing_target_labels_may_be_marked_in_many_ways(kind):
    x_s, y_s, x_t, _ = domains()
    numbers = quick().fit(x_s, y_s, x_t, target_labels=marked("numbers")[1])
    names, labels = marked(kind)
    model = quick().fit(x_s, names[y_s], x_t, target_labels=labels)
    assert_same(model, numbers)
    assert "target_labels" in model.history_[0]


@pytest.mark.filterwarnings("ignore:labels hold -1")
def test_minus_one_may_be_a_category_of_target_labels():
    x_s, y, x_t = moved_far()
    y = y - 1
    few = np.where(np.arange(240) < 9, y, np.nan)
    fit = partial(quick(epochs=20).fit, x_s, y, x_t)
    assert fit(target_labels=few).score(x_t[9:], y[9:]) > 0.95
    nothing, one = quick(), quick()
    nothing.fit(x_s, y, x_t, target_labels=np.full(240, np.nan))
    one.fit(x_s, y, x_t, target_labels=np.full(240, -1))
    assert "target_labels" not in nothing.history_[0]
    assert (one.predict(x_t) == -1).mean() > (nothing.predict(x_t) == -1).mean()
    with pytest.raises(ValueError, match="label with None or NaN, got 5 in 240 of 240 rows"):
        one.fit(x_s, y, x_t, target_labels=np.full(240, 5))


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (np.full(179, -1), ValueError, "one entry for each of the 180 rows of target_f.* got 179"),
        (
            np.full((180, 1), -1),
            ValueError,
            r"target_labels must have shape \(N,\), got \(180, 1\)",
        ),
        (
            np.full(180, 7),
            ValueError,
            "categories of labels, 0, 1, 2, .* -1, None or NaN, got 7 in",
        ),
        (np.full(180, 0.5), ValueError, r"got 0.5 in 180 of 180 rows \(the first: 0, 1"),
        (np.full(180, -2), ValueError, "target_labels must be categories .* got -2"),
        (np.full(180, np.inf), ValueError, "target_labels must be categories .* got inf"),
        (torch.full((180,), math.inf), ValueError, "target_labels must be categories .* got inf"),
        (["mug"] * 180, ValueError, "target_labels must be categories .* got 'mug'"),
        ([-1, [2]] * 90, ValueError, "target_labels must have shape .* got a ragged list"),
        (torch.full((180,), 1).to_sparse(), TypeError, "target_labels must be dense, got torch.sp"),
        (3, ValueError, r"target_labels must have shape \(N,\), got \(\)"),
        ("mug", ValueError, r"target_labels must have shape \(N,\), got \(\)"),
    ],
)
def test_target_labels_that_cannot_be_used(labels, error, message, fitted):
    x_s, y_s, x_t, _ = domains()
    with pytest.raises(error, match=message):
        quick().fit(x_s, y_s, x_t, target_labels=labels)


def test_one_target_label_is_enough_and_other_domains_names_are_refused():
    x_s, y_s, x_t, _ = domains()
    labels = [None] * 179 + ["bike"]
    names = np.array(["bike", "mug", "pen"])[y_s]
    model = quick(epochs=1).fit(x_s, names, x_t, target_labels=labels)
    assert "target_labels" in model.history_[0]
    with pytest.raises(ValueError, match=r"'bike', 'mug', 'pen', .* got 'Bike' in 1 of 180 rows"):
        quick().fit(x_s, names, x_t, target_labels=[*labels[:-1], "Bike"])


# Domains of another scale


def standard(x):
    """A function that does what StandardScaler, fitted on x, does."""
    mean, std = x.mean(0), x.std(0)
    return lambda rows: (rows - mean) / np.where(std > 0, std, 1)


def embeddings(width=384, seed=0, shift=0.3):
    """Features of one network: skewed, at least 0, columns of several scales; 31 categories."""
    rng = np.random.default_rng(seed)
    scale, y = np.exp(rng.normal(size=width)), np.arange(620) % 31
    centres = rng.normal(size=(31, width))
    x_s, x_t = (
        scale * np.maximum(0, centres[y] + rng.normal(size=(620, width)) + moved)
        for moved in (0.0, shift * rng.normal(size=width))
    )
    return x_s, x_t


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def apart():
    """Source and target, one of which skipped a transformer."""
    x_s, x_t = embeddings()
    units = 10.0 ** np.random.default_rng(1).integers(-4, 5, size=384)
    u_s, u_t = x_s * units, x_t * units
    return {
        "unit length": (standard(unit(x_s))(unit(x_s)), unit(x_t)),
        "units": (standard(u_s)(u_s), u_t),
        "units, and the source skipped it": (u_s, standard(u_s)(u_t)),
        "offset": (standard(x_s + 50)(x_s + 50), x_t + 50),
        "a range of 0 to 1": (x_s / x_s.max(0), 255 * x_t / x_s.max(0)),
    }


def shifted():
    """Source and target that only differ as domains do."""
    x_s, x_t = embeddings()
    rng = np.random.default_rng(1)
    units, often = np.exp(3 * rng.normal(size=384)), rng.beta(0.2, 5, size=384)
    rates = often, np.clip(often * rng.lognormal(0, 2, size=384), 0, 1)
    pixels = np.clip(rng.normal(0.1, 0.3, size=(620, 384)), 0, 1)
    return {
        "units": (x_s * units + 100, x_t * units + 100),
        "unit length": (unit(x_s), unit(x_t)),
        "transformed alike": tuple(standard(unit(x_s))(unit(x)) for x in (x_s, x_t)),
        "a strong shift": embeddings(shift=3.0),
        "sparse": tuple((rng.random((620, 384)) < rate).astype(float) for rate in rates),
        "one-hot": tuple(np.eye(384)[rng.integers(0, most, 620)] for most in (384, 20)),
        "inverted": (pixels, 1 - pixels[::-1]),
        "one category": (x_s, x_t[::31]),
        "constant columns": tuple(
            np.pad(x, [(0, 0), (0, 900)], constant_values=value)
            for x, value in ((x_s, 0), (x_t, 1000))
        ),
        "few rows": (x_s, 1e-3 * x_t[:9]),
    }


def warned(source, target):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        symloss._rows.warn_about_scale(torch.from_numpy(source), torch.from_numpy(target))
    return [str(warning.message) for warning in caught]


MORE = "features and target_features differ by more than a factor of 10"


def test_a_domain_that_skipped_a_transformer_is_told():
    told = {case: MORE in "".join(warned(*both)) for case, both in apart().items()}
    assert [case for case in told if not told[case]] == []


def test_a_shift_is_not_taken_for_a_transformer_that_was_skipped():
    told = {case: warned(*both) for case, both in shifted().items()}
    assert [case for case in told if told[case]] == []


# scikit-learn's conventions


def test_parameters():
    model = SymNetClassifier(balance=3.0)
    assert repr(model) == "SymNetClassifier(balance=3.0)"
    assert model.set_params(epochs=7) is model
    assert model.get_params()["epochs"] == 7
    with pytest.raises(ValueError, match="Invalid parameter 'balanced': must be one of objective"):
        model.set_params(balanced=1)


@pytest.fixture
def routing():
    sklearn = pytest.importorskip("sklearn", minversion="1.6")
    with sklearn.config_context(enable_metadata_routing=True):
        yield


def pipeline(model, **options):
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), model, **options)


@pytest.mark.parametrize("told", ["numbers only, got 'a' in row 0", "same width", "finite", "with"])
def test_a_target_that_skipped_an_encoder_is_told_of_transform_input(told, request):
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    pipelines = pytest.importorskip("sklearn.pipeline")
    text, y = np.array([["a"], ["b"]] * 20), np.arange(40) % 2
    encoder, target = preprocessing.OneHotEncoder(sparse_output=False), text
    if told == "same width":
        target = y[:, None]
    if told == "finite":
        target = np.full((40, 2), np.nan)
    if told == "with":
        table = request.getfixturevalue("pd").DataFrame
        encoder.set_output(transform="pandas")
        text = target = table(text, columns=["colour"])
    model = pipelines.make_pipeline(encoder, quick())
    with pytest.raises(ValueError, match=rf"{told}.* transform_input=\['target_features'\]"):
        model.fit(text, y, symnetclassifier__target_features=target)


def test_what_no_pipeline_calls_does_not_name_it(fitted):
    x_s, y, x_t, _ = domains()
    words = np.full(x_t.shape, "a", dtype=object)
    for call in (fitted.diagnose, partial(symloss.estimate_prior, x_s, y)):
        for wrong in (spoil(x_t, np.nan), words, x_t[:, 1:]):
            with pytest.raises(ValueError, match="features") as refused:
                call(wrong)
            assert "Pipeline" not in str(refused.value)
    with pytest.raises(ValueError, match="labels must") as refused:  # not the target's fault
        quick().fit(x_s, np.eye(4)[y], x_t)
    assert "Pipeline" not in str(refused.value)


def in_units():
    """Domains whose columns have different units, in which adaptation needs a scaler."""
    x_s, y_s, x_t, y_t = domains(n_t=240)
    units = np.array([1e3, 1e-3, 1, 1, 1, 1, 1, 1])
    return 100 + x_s * units, y_s, 100 + x_t * units, y_t


@pytest.mark.usefixtures("routing")
@pytest.mark.parametrize("name", ["target_features", "x_t"])
def test_a_pipeline_transforms_the_target(name):
    from sklearn.base import clone

    x_s, y_s, x_t, y_t = in_units()
    few = np.where(np.arange(240) < 9, y_t, -1)
    scaler = standard(x_s)
    expected = quick().fit(scaler(x_s), y_s, scaler(x_t), target_labels=few)
    model = quick()
    if name != "target_features":
        assert model.set_fit_request(target_features=name) is model
    # It is the name of fit's argument that counts for transform_input.
    pipe = clone(pipeline(model, transform_input=["target_features"]))
    pipe.fit(x_s, y_s, **{name: x_t}, target_labels=few)
    assert_same(pipe[-1], expected)
    np.testing.assert_array_equal(pipe.predict(x_t), expected.predict(scaler(x_t)))
    assert pipe.score(x_t, y_t) == expected.score(scaler(x_t), y_t)
    weight = np.arange(240)
    weighted = expected.score(scaler(x_t), y_t, sample_weight=weight)
    assert pipe.score(x_t, y_t, sample_weight=weight) == weighted
    assert isinstance(pipe._repr_html_(), str)


@pytest.mark.usefixtures("routing")
def test_what_is_not_requested_is_refused():
    x_s, y_s, x_t, y_t = domains()
    pipe = pipeline(quick().set_fit_request(target_labels=False))
    with pytest.raises(TypeError, match="target_labels"):
        pipe.fit(x_s, y_s, target_features=x_t, target_labels=y_t)
    with pytest.raises(TypeError, match="takes target_features and target_labels, got 'labels'"):
        quick().set_fit_request(labels=True)


def test_without_routing_a_target_that_skips_the_scaler_is_told():
    pytest.importorskip("sklearn")
    x_s, y_s, x_t, _ = in_units()
    with pytest.warns(UserWarning, match=rf"{MORE} .* transform_input=\['target_features'\]"):
        pipeline(quick()).fit(x_s, y_s, symnetclassifier__target_features=x_t)


@pytest.mark.usefixtures("routing")
def test_a_search_tests_on_the_source_and_splits_a_target_of_as_many_rows(monkeypatch):
    from sklearn.model_selection import GridSearchCV

    sizes, tested = [], []
    fit, score = SymNetClassifier.fit, SymNetClassifier.score

    def counting(self, features, labels, target_features, **options):
        sizes.append((len(features), len(target_features)))
        return fit(self, features, labels, target_features, **options)

    def noting(self, features, labels):
        tested.append(features)
        return score(self, features, labels)

    monkeypatch.setattr(SymNetClassifier, "fit", counting)
    monkeypatch.setattr(SymNetClassifier, "score", noting)
    x_s, y_s, x_t, _ = domains(n_t=240)
    search = partial(GridSearchCV, quick(epochs=1), {"balance": [0.0]}, refit=False)
    for target, rows in ((x_t, 120), (x_t[:200], 200)):
        search(cv=2).fit(x_s, y_s, target_features=target)
        assert sizes == [(120, rows)] * 2
        np.testing.assert_array_equal(np.sort(np.concatenate(tested), 0), np.sort(x_s, 0))
        sizes.clear()
        tested.clear()

    def label_free(model, features, labels):
        logits = np.log(model.predict_proba(x_t))
        return symloss.scores.information_maximization(torch.from_numpy(logits)).item()

    everything = np.arange(240)
    found = search(cv=[(everything, everything)], scoring=label_free)
    found.fit(x_s, y_s, target_features=x_t)
    assert sizes == [(240, 240)]
    expected = label_free(quick(epochs=1, balance=0.0).fit(x_s, y_s, x_t), None, None)
    assert found.best_score_ == pytest.approx(expected)


def test_clones_and_a_search_without_labels():
    base = pytest.importorskip("sklearn.base")
    from sklearn.model_selection import ParameterGrid

    x_s, y_s, x_t, _ = domains()
    scores = {}
    for params in ParameterGrid({"balance": [0.0, 1.0], "preprocessing": ["l2", None]}):
        model = base.clone(quick()).set_params(**params).fit(x_s, y_s, x_t)
        logits = model.head_.classifier("target")(torch.from_numpy(model.transform(x_t)))
        scores[tuple(params.values())] = symloss.scores.information_maximization(logits).item()
    assert len(set(scores.values())) == 4
    assert base.is_classifier(SymNetClassifier())


REFUSED = {"check_supervised_y_2d": "a column of labels is an error here, not a warning"}


class OneDomain(SymNetClassifier):
    """What scikit-learn can call: its own argument names, and X as the target too."""

    def fit(self, X, y):  # noqa: N803
        return super().fit(X, y, X)

    def score(self, X, y):  # noqa: N803
        return super().score(X, y)


@pytest.mark.filterwarnings("ignore::UserWarning")  # small data shrink the batch
def test_scikit_learns_own_checks(monkeypatch):
    pytest.importorskip("sklearn", minversion="1.6")
    from sklearn.base import TransformerMixin
    from sklearn.utils.estimator_checks import check_estimator

    class WithTransform(OneDomain, TransformerMixin):
        """What scikit-learn takes for a transformer has fit_transform."""

    WithTransform.__qualname__ = "WithTransform"  # for pickle
    monkeypatch.setitem(globals(), "WithTransform", WithTransform)
    results = check_estimator(
        WithTransform(epochs=10, batch_size=32, bottleneck=32),
        expected_failed_checks=REFUSED,
        on_skip=None,
    )
    statuses = {result["check_name"]: result["status"] for result in results}
    assert len(statuses) > 45
    assert {name for name, status in statuses.items() if status == "xfail"} == {*REFUSED}
    skipped = {name for name, status in statuses.items() if status == "skipped"}
    assert skipped <= {  # they need a setting or a package: SCIPY_ARRAY_API, pandas
        "check_array_api_input",
        "check_classifier_data_not_an_array",
        "check_dataframe_column_names_consistency",
    }
