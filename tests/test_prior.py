import copy
import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import symloss
from symloss import prior as module
from symloss._rows import Preprocessing

K, WIDTH = 5, 12


def domains(shares, rows=400, shift=1.0, spread=0.6, seed=0):
    """K clusters in both domains, the target's with other shares and moved."""
    rng = np.random.default_rng(seed)
    centres = 2 * rng.normal(size=(K, WIDTH))
    y_s = np.arange(500) % K
    y_t = np.repeat(np.arange(K), np.round(np.array(shares) * rows).astype(int))
    x_s = centres[y_s] + spread * rng.normal(size=(len(y_s), WIDTH))
    x_t = (
        centres[y_t] + spread * rng.normal(size=(len(y_t), WIDTH)) + shift * rng.normal(size=WIDTH)
    )
    return x_s, y_s, x_t, np.bincount(y_t, minlength=K) / len(y_t)


def estimate(x_s, y_s, x_t, **options):
    return symloss.estimate_prior(
        x_s, y_s, x_t, **{"preprocessing": "standardise", "random_state": 0} | options
    )


def prepared(x_s, y_s, x_t, preprocessing="standardise", seed=0):
    """The rows as estimates see them."""
    generator = torch.Generator().manual_seed(seed)
    source, y, target = map(torch.from_numpy, (x_s, y_s, x_t))
    ready = Preprocessing(preprocessing, WIDTH)
    ready.fit(source, target, generator)
    return module.Shares(ready, source, y, target, generator)


@pytest.fixture
def short(monkeypatch):
    """Let the network train briefly, where its predictions are not what is tested."""
    monkeypatch.setattr(module, "_STEPS", 60)


@pytest.mark.parametrize(
    "shares", [[0.2] * 5, [0.6, 0.1, 0.1, 0.1, 0.1], [0.5, 0.5, 0, 0, 0], [0.01, 0.29, 0.4, 0, 0.3]]
)
def test_shares_of_clusters_that_are_told_apart_are_found(shares):
    x_s, y_s, x_t, true = domains(shares)
    prior, trust = estimate(x_s, y_s, x_t)
    assert np.abs(prior.numpy() - true).sum() < 0.1
    if shares != [0.2] * 5:
        assert trust > 0.8
    assert prior.dtype == torch.float32
    assert (prior > 0).all()
    assert float(prior.sum()) == pytest.approx(1)


def test_shares_that_cannot_be_told_are_equal():
    rng = np.random.default_rng(0)
    x_s, x_t = rng.normal(size=(500, WIDTH)), rng.normal(size=(300, WIDTH))
    prior, trust = estimate(x_s, np.arange(500) % K, x_t)
    assert trust < 0.2
    assert np.abs(prior.numpy() - 1 / K).sum() < 0.1


def shrunk(estimates):
    """The formula of the docstring, in numpy."""
    m = estimates.mean(0)
    e = max(0.2, np.mean([np.abs(one - m).sum() for one in estimates]))
    u = np.full(len(m), 1 / len(m))
    trust = max(0.0, 1 - 25 * (e / np.abs(m - u).sum()) ** 4)
    prior = np.maximum(u + trust * (m - u), 0.02 / len(m))
    return prior / prior.sum(), trust


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.06, 0.5])
def test_the_mean_is_shrunk_by_disagreement(noise):
    rng = np.random.default_rng(1)
    estimates = np.array([0.7, 0.2, 0.06, 0.04, 0.0]) + noise * rng.random((4, 5))
    estimates /= estimates.sum(1, keepdims=True)
    prior, trust = module._shrunk(torch.from_numpy(estimates))
    expected, how_far = shrunk(estimates)
    np.testing.assert_allclose(prior, expected, rtol=1e-6)
    assert trust == pytest.approx(how_far)


def test_no_share_is_below_a_fiftieth_of_an_equal_one():
    estimates = np.zeros((4, 40))
    estimates[:, 3] = 1  # 39 shares would end at a four-hundredth of an equal one
    prior, _ = module._shrunk(torch.from_numpy(estimates))
    np.testing.assert_allclose(prior, shrunk(estimates)[0], rtol=1e-6)
    assert float(prior.min()) == pytest.approx(0.02 / 40, rel=0.02)


def test_estimates_of_equal_shares_need_no_trust():
    prior, trust = module._shrunk(torch.full((4, 5), 0.2, dtype=torch.float64))
    assert trust == 0
    np.testing.assert_allclose(prior, 0.2)


def mixture(x_s, y, x_t, anchor, shifted):
    """The docstring's expectation maximisation, with loops, in numpy and float64."""
    means = np.stack([x_s[y == k].mean(0) for k in range(K)])
    within = x_s - means[y]
    cov = within.T @ within / len(x_s)
    cov = 0.7 * cov + 0.3 * np.trace(cov) / len(cov) * np.eye(len(cov))
    whiten = np.linalg.inv(np.linalg.cholesky(cov)).T
    mu, z = means @ whiten, x_t @ whiten
    tau, shares = anchor * len(z) / K, np.full(K, 1 / K)
    shift = z.mean(0) - mu.mean(0) if shifted else 0 * z[0]
    centres = mu + shift
    for _ in range(50):
        distance = np.array([[np.sum((row - c) ** 2) for c in centres] for row in z])
        spread = distance.min(1).mean() / z.shape[1]
        r = shares * np.exp(-(distance - distance.min(1, keepdims=True)) / (2 * spread))
        r /= r.sum(1, keepdims=True)
        shares = r.mean(0)
        if shifted:
            shift = np.mean([row - r_i @ mu for row, r_i in zip(z, r, strict=True)], axis=0)
        centres = np.stack(
            [(r[:, k] @ z + tau * (mu[k] + shift)) / (r[:, k].sum() + tau) for k in range(K)]
        )
    return shares


@pytest.mark.parametrize(("anchor", "shifted"), [(1.0, True), (3.0, True), (1.0, False)])
def test_the_mixture_is_that_of_the_docstring(anchor, shifted):
    x_s, y_s, x_t, _ = domains([0.5, 0.2, 0.1, 0.2, 0.0], rows=60, spread=1.5)
    expected = mixture(x_s, y_s, x_t, anchor, shifted)
    found = module._mixture(
        *map(torch.from_numpy, (x_s, y_s, x_t)), K, anchor=anchor, shifted=shifted
    )
    np.testing.assert_allclose(found, expected, atol=1e-4)


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([1e-3, 1.0, 50.0]),
    spread=st.floats(0.3, 2.0),
    options=st.sampled_from([(1.0, True), (3.0, True), (1.0, False)]),
)
def test_a_mixture_knows_no_order_units_axes_or_number_of_rows(seed, scale, spread, options):
    rng = np.random.default_rng(seed)
    x_s, y_s, x_t, _ = domains(rng.dirichlet(np.ones(K)), rows=80, spread=spread, seed=seed)

    def shares(x_s, y_s, x_t):
        anchor, shifted = options
        rows = map(torch.from_numpy, (x_s, y_s, x_t))
        return module._mixture(*rows, K, anchor=anchor, shifted=shifted).numpy()

    expected = shares(x_s, y_s, x_t)
    close = partial(np.testing.assert_allclose, desired=expected, atol=1e-5)
    order, renamed = rng.permutation(len(x_s)), rng.permutation(K)
    close(shares(x_s[order], y_s[order], rng.permutation(x_t)))
    close(shares(x_s, renamed[y_s], x_t)[renamed])
    close(shares(x_s, y_s, np.repeat(x_t, 3, axis=0)))
    turned, _ = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))
    origin = rng.normal(size=WIDTH)
    moved = [scale * (x @ turned + origin) for x in (x_s, x_t)]
    close(shares(moved[0], y_s, moved[1]))
    if options[1]:  # the target may have moved
        close(shares(x_s, y_s, x_t + 10 * origin))


@pytest.mark.usefixtures("short")
def test_arrays_tensors_and_memory_maps_give_the_same(tmp_path):
    x_s, y_s, x_t, _ = domains([0.6, 0.1, 0.1, 0.1, 0.1], spread=1.5)
    np.save(tmp_path / "rows.npy", x_t)
    prior, trust = estimate(x_s, y_s, x_t)
    for rows in (
        (x_s.tolist(), y_s.tolist(), x_t.tolist()),
        map(torch.from_numpy, (x_s, y_s, x_t)),
        (x_s, y_s, np.load(tmp_path / "rows.npy", mmap_mode="r")),
    ):
        other = estimate(*rows)
        assert torch.equal(other.prior, prior)
        assert other.trust == trust


def test_the_estimates_are_the_four_of_the_docstring(monkeypatch):
    x_s, y_s, x_t, _ = domains([0.5, 0.2, 0.1, 0.2, 0.0], rows=60, spread=2.5)
    own = np.random.default_rng(1).normal(size=(K, WIDTH))  # a shift of each category
    x_t += 2 * own.repeat([30, 12, 6, 12, 0], axis=0)
    shares = prepared(x_s, y_s, x_t, None)
    layers = [torch.nn.Linear(WIDTH, 10), torch.nn.BatchNorm1d(10), torch.nn.ReLU()]
    extractor, head = torch.nn.Sequential(*layers), symloss.SymmetricHead(10, K)
    extractor(shares.source[::7])  # means and variances that are not those of all rows
    linear, norm = copy.deepcopy(layers[:2])
    monkeypatch.setattr(module, "_shrunk", lambda estimates: estimates)
    found = shares.seen_by(extractor, head)
    assert extractor.training

    mean, deviation = norm.running_mean, (norm.running_var + norm.eps).sqrt()
    z_s, z_t = (
        ((x @ linear.weight.T + linear.bias - mean) / deviation).clamp_min(0).detach().numpy()
        for x in (shares.source, shares.target)
    )
    scores = z_t @ head.weight[K:].detach().numpy().T + head.bias[K:].detach().numpy()
    expected = [
        mixture(x_s, y_s, x_t, anchor=1, shifted=True),
        mixture(x_s, y_s, x_t, anchor=3, shifted=True),
        np.bincount(scores.argmax(1), minlength=K) / len(z_t),
        mixture(z_s, y_s, z_t, anchor=1, shifted=False),
    ]
    apart = np.abs(expected[0] - expected[1:]).sum(1)
    assert (apart > 0.02).all()  # else one could stand for another
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.usefixtures("short")
def test_rows_that_do_not_vary_within_categories():
    labels = torch.arange(60) % 3
    features = torch.eye(3)[labels]
    prior, _ = symloss.estimate_prior(features, labels, features[labels != 1], random_state=0)
    torch.testing.assert_close(prior, torch.tensor([0.5, 0.0, 0.5]), atol=0.08, rtol=0)


@pytest.mark.usefixtures("short")
def test_the_same_seed_gives_the_same_and_the_global_generator_rests():
    x_s, y_s, x_t, _ = domains([0.6, 0.1, 0.1, 0.1, 0.1], spread=2.0)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, same, other = (estimate(x_s, y_s, x_t, random_state=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.prior, same.prior)
    assert one.trust == same.trust
    assert not torch.equal(one.prior, other.prior)


@pytest.mark.usefixtures("short")
def test_many_rows_are_sampled(tmp_path, monkeypatch):
    x_s, y_s, x_t, true = domains([0.6, 0.1, 0.1, 0.1, 0.1], rows=3000)
    np.save(tmp_path / "rows.npy", x_t.astype("float16"))
    monkeypatch.setattr(module, "_ROWS", 800)
    rows = np.load(tmp_path / "rows.npy", mmap_mode="r")
    shares = prepared(x_s, y_s, np.array(rows))
    assert (len(shares.source), len(shares.target)) == (500, 800)
    prior, _ = estimate(x_s, y_s, rows)
    assert np.abs(prior.numpy() - true).sum() < 4 / math.sqrt(800)


def test_a_category_that_a_sample_would_miss_is_seen(monkeypatch):
    x_s, y_s, x_t, _ = domains([0.25, 0.25, 0.25, 0.25, 0])
    few = (y_s < 4) | (np.arange(500) < 10)  # two rows of the last
    monkeypatch.setattr(module, "_ROWS", 20)
    for seed in range(8):
        shares = prepared(x_s[few], y_s[few], x_t, None, seed)
        assert shares.y.unique().tolist() == [0, 1, 2, 3, 4]
        last = torch.from_numpy(x_s[few & (y_s == 4)]).float()
        assert all((last == row).all(1).any() for row in shares.source[shares.y == 4])


@pytest.mark.usefixtures("short")
def test_shares_are_in_the_order_of_sorted_labels():
    x_s, y_s, x_t, _ = domains([0.6, 0.4, 0, 0, 0])
    by_number, _ = estimate(x_s, y_s, x_t)
    by_name, _ = estimate(x_s, np.array(["e", "d", "c", "b", "a"])[y_s], x_t)
    np.testing.assert_allclose(by_name.flip(0), by_number, atol=0.02)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(
    ("preprocessing", "kept"), [("l2", "rows"), ("standardise", "columns"), (None, "neither")]
)
def test_units_that_preprocessing_takes_away_change_nothing(preprocessing, kept):
    x_s, y_s, x_t, _ = domains([0.6, 0.1, 0.1, 0.1, 0.1], spread=1.5)
    rng = np.random.default_rng(0)
    longer = [2.0 ** rng.integers(-3, 4, size=(len(x), 1)) for x in (x_s, x_t)]
    units = 2.0 ** rng.integers(-3, 4, size=WIDTH)
    prior = estimate(x_s, y_s, x_t, preprocessing=preprocessing).prior
    for changed, by in (("rows", longer), ("columns", [units, units])):
        other = estimate(x_s * by[0], y_s, x_t * by[1], preprocessing=preprocessing).prior
        assert torch.equal(other, prior) == (changed == kept)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x_s, y, x_t: (x_s, y[1:], x_t), "labels must have one entry"),
        (lambda x_s, y, x_t: (x_s, y - 1, x_t), "-1"),
        (lambda x_s, y, x_t: (x_s, y, x_t[:, 1:]), "same width"),
        (lambda x_s, y, x_t: (x_s, y, x_t * np.nan), "target_features must be finite"),
        (lambda x_s, y, x_t: (x_s, 0 * y, x_t), "at least 2 categories"),
    ],
)
def test_what_cannot_be_right_is_refused(change, message):
    x_s, y_s, x_t, _ = domains([0.2] * 5)
    with pytest.raises(ValueError, match=message):
        estimate(*change(x_s, y_s, x_t))


def test_a_device_that_torch_cannot_use_is_refused():
    x_s, y_s, x_t, _ = domains([0.2] * 5)
    with pytest.raises(ValueError, match=r"device must be one that torch can use .*'cuda:99'"):
        estimate(x_s, y_s, x_t, device="cuda:99")
