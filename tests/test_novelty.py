"""Novelty: the formula of the docstring, and what it must never do."""

import io

import numpy as np
import pytest
import torch

from symloss import SymNetClassifier, _novelty
from symloss._novelty import Novelty
from symloss._rows import Preprocessing
from symloss.prior import Shares

K, UNKNOWN, WIDTH = 6, 4, 16


def domains(unknown=UNKNOWN, shift=1.0, seed=0):
    """K clusters in both domains, and some that only the target has."""
    rng = np.random.default_rng(seed)
    centres = 2 * rng.normal(size=(K + UNKNOWN, WIDTH))
    y_s, y_t = np.arange(300) % K, np.arange(40 * (K + unknown)) % (K + unknown)
    x_s = centres[y_s] + 0.7 * rng.normal(size=(len(y_s), WIDTH))
    x_t = centres[y_t] + 0.7 * rng.normal(size=(len(y_t), WIDTH))
    return x_s, y_s, x_t + shift * rng.normal(size=WIDTH) / WIDTH**0.5, y_t >= K


def fit(x_s, y_s, x_t, **params):
    options = {"epochs": 2, "batch_size": 60, "random_state": 0, "preprocessing": None}
    return SymNetClassifier(**options | params).fit(x_s, y_s, x_t)


@pytest.fixture(scope="module")
def open_set():
    return domains()


@pytest.fixture(scope="module")
def model(open_set):
    return fit(*open_set[:3])


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def shares_of(x_s, y_s, x_t):
    prepared = Preprocessing(None, WIDTH)
    generator = torch.Generator().manual_seed(0)
    return Shares(prepared, *map(torch.from_numpy, (x_s, y_s, x_t)), generator)


def test_it_is_the_formula_of_the_docstring(model, open_set):
    x_s, y_s, x_t, _ = open_set
    prior = shares_of(x_s, y_s, x_t).on_features[0].numpy()
    means = np.stack([x_s[y_s == k].mean(0) for k in range(K)])
    origin = x_t.mean(0) + sum((1 / K - prior[k]) * means[k] for k in range(K))
    towards = unit(means - means.mean(0))
    nearest = np.array([max(unit(row - origin) @ d for d in towards) for row in x_t])

    clusters = model._novelty.prototypes.double().numpy()
    assert clusters.shape == (4 * K, WIDTH)
    z = unit(x_t - x_t.mean(0))
    cluster = (z @ clusters.T).argmax(1)
    values = np.array([nearest[cluster == j].mean() for j in range(len(clusters))])
    for j, direction in enumerate(clusters):  # k-means has converged
        np.testing.assert_allclose(unit(z[cluster == j].mean(0)), direction, atol=1e-5)

    expected = []
    for row in x_t:
        weight = np.exp(5 * clusters @ unit(row - x_t.mean(0)))
        expected.append(1 - weight @ values / weight.sum())
    np.testing.assert_allclose(model.novelty(x_t), expected, atol=1e-4)


def test_what_is_usual_comes_from_rows_that_were_held_out(open_set):
    x_s, y_s, _, _ = open_set
    found = _novelty._held_out(*map(torch.from_numpy, (x_s, y_s)), K)
    second = np.zeros(len(y_s), dtype=bool)
    turn = 0
    for k in range(K):
        for i in np.flatnonzero(y_s == k):
            second[i], turn = turn % 2, turn + 1
    expected = []
    for fitted in (second, ~second):
        means = np.stack([x_s[fitted & (y_s == k)].mean(0) for k in range(K)])
        rows = unit(x_s[~fitted] - means.mean(0))
        expected += (rows @ unit(means - means.mean(0)).T).max(1).tolist()
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("preprocessing", [None, "standardise"])
@pytest.mark.parametrize("seed", range(5))
def test_a_far_away_row_is_newer_than_every_source_row(preprocessing, seed):
    x_s, y_s, x_t, _ = domains(seed=seed)
    fitted = fit(x_s, y_s, x_t, epochs=1, preprocessing=preprocessing)
    far = 1e4 * np.random.default_rng(seed).normal(size=(20, WIDTH))
    towards = 1e4 * np.stack([x_s[y_s == k].mean(0) for k in range(K)])
    newest = fitted.novelty(x_s).max()
    assert (fitted.novelty(far) > newest).all()
    assert (fitted.novelty(towards) > newest).all()


@pytest.mark.parametrize("prior", ["estimate", None])
def test_it_changes_no_prediction_bit(prior, open_set, monkeypatch):
    x_s, y_s, x_t, _ = open_set
    told = fit(x_s, y_s, x_t, prior=prior)
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    told.novelty(x_t)
    assert torch.equal(torch.random.get_rng_state(), state)
    monkeypatch.setattr(Novelty, "of", lambda rows: None)
    silent = fit(x_s, y_s, x_t, prior=prior)
    np.testing.assert_array_equal(told.predict_proba(x_t), silent.predict_proba(x_t))


def test_unknown_objects_are_told_from_known_ones(model, open_set):
    _, _, x_t, unknown = open_set
    novelty = model.novelty(x_t)
    pairs = novelty[unknown][:, None] > novelty[~unknown]
    assert pairs.mean() > 0.95
    assert novelty.dtype == np.float32
    assert novelty.shape == (len(x_t),)


def test_diagnose_warns_of_unknown_objects_alone(model, open_set):
    x_s, y_s, x_t, unknown = open_set
    with pytest.warns(UserWarning, match="of the target resembles no category"):
        found = model.diagnose(x_t)
    assert found.novel == pytest.approx(unknown.mean(), abs=0.15)
    assert not found.healthy
    closed = x_t[~unknown]
    assert fit(x_s, y_s, closed).diagnose(closed).novel == 0


def test_missing_categories_and_other_shares_are_not_unknown_objects(open_set):
    x_s, y_s, x_t, unknown = open_set
    y_t = np.arange(len(x_t)) % (K + UNKNOWN)
    for kept in (y_t < K // 2, (y_t == 0) | (~unknown & (np.arange(len(x_t)) < 100))):
        few = x_t[kept]
        assert fit(x_s, y_s, few).diagnose(few).novel == 0


def test_of_few_categories_nothing_is_said(open_set):
    x_s, y_s, x_t, _ = open_set
    few = fit(x_s[y_s < 4], y_s[y_s < 4], x_t)
    assert few._novelty.unusual(torch.from_numpy(x_t).float()).float().mean() > 0.25
    assert few.diagnose(x_t).novel == 0


def test_beside_a_source_of_few_objects_nothing_is_said(open_set):
    x_s, y_s, x_t, _ = open_set
    means = np.stack([x_s[y_s == k].mean(0) for k in range(K)])
    alike = means[y_s] + 0.1 * (x_s - means[y_s])
    fitted = fit(alike, y_s, x_t)
    assert fitted._novelty.unusual(torch.from_numpy(x_t).float()).float().mean() > 0.25
    assert fitted._novelty.diversity > 2
    assert fitted.diagnose(x_t).novel == 0


def test_rows_do_not_depend_on_others_and_clusters_on_the_seed_alone(model, open_set):
    x_s, y_s, x_t, _ = open_set
    whole = model.novelty(torch.from_numpy(x_t))
    parts = torch.cat([model.novelty(torch.from_numpy(x_t[i : i + 7])) for i in range(0, 70, 7)])
    torch.testing.assert_close(whole[:70], parts)
    torch.manual_seed(99)
    again = fit(x_s, y_s, x_t)
    assert torch.equal(again._novelty.prototypes, model._novelty.prototypes)


def test_clusters_are_at_most_256_and_no_more_than_rows(monkeypatch):
    z = torch.nn.functional.normalize(torch.randn(300, 5), dim=1)
    generator = torch.Generator().manual_seed(0)
    assert len(_novelty._clusters(z[:9], 20, generator)) == 9
    monkeypatch.setattr(_novelty, "_MOST", 7)
    x_s, y_s, x_t, _ = domains()
    assert Novelty.of(shares_of(x_s, y_s, x_t)).prototypes.shape == (7, WIDTH)


def test_rows_that_do_not_vary():
    labels = torch.arange(60) % 3
    features = torch.eye(3)[labels]
    fitted = fit(features, labels, torch.ones(60, 3) / 3)
    assert fitted.novelty(torch.cat([features, torch.ones(1, 3) / 3])).isfinite().all()


def test_it_is_saved_and_loaded(model, open_set):
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    state = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    loaded = SymNetClassifier().load_state_dict(state)
    np.testing.assert_array_equal(loaded.novelty(open_set[2]), model.novelty(open_set[2]))


def test_a_state_without_it_says_so(model, open_set):
    state = model.state_dict()
    del state["novelty"]
    loaded = SymNetClassifier().load_state_dict(state)
    np.testing.assert_array_equal(loaded.predict(open_set[2]), model.predict(open_set[2]))
    with pytest.raises(RuntimeError, match="saved without novelty"):
        loaded.novelty(open_set[2])
    assert loaded.diagnose(open_set[2]).novel is None
    assert loaded.state_dict()["novelty"] is None
