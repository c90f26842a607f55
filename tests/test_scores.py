import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.utils._python_dispatch import TorchDispatchMode

import symloss
from symloss import scores

SCORES = ["information_maximization", "nuclear_norm", "soft_neighborhood_density", "corr_c"]
BALANCED = ["information_maximization", "nuclear_norm", "corr_c"]  # best if certain and balanced
SHAPES = [(12, 3), (3, 5), (2, 31), (5, 1), (4, 3, 7), (2, 3, 3, 4)]
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def draw(shape, dtype=torch.float64, scale=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)


def rows(logits):
    """The logits, ``(n, K)``, in numpy and float64."""
    v = logits.double().numpy()
    return np.moveaxis(v, 1, -1).reshape(-1, v.shape[1])


# The equations, once more


def probabilities(v):
    e = np.exp(v - v.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def entropy(p):
    return -sum(x * math.log(x) for x in p if x > 0)


def information_maximization(v):
    p = probabilities(v)
    return entropy(p.mean(0)) - np.mean([entropy(row) for row in p])


def nuclear_norm(v):
    p = probabilities(v)
    return np.linalg.svd(p, compute_uv=False).sum() / math.sqrt(len(p) * min(p.shape))


def soft_neighborhood_density(v, temperature=0.05):
    p = probabilities(v)
    p /= np.linalg.norm(p, axis=1, keepdims=True)
    found = []
    for i in range(len(p)):
        near = np.exp([p[i] @ p[j] / temperature for j in range(len(p)) if j != i])
        found.append(entropy(near / near.sum()))
    return np.mean(found)


def corr_c(v):
    p = probabilities(v)
    correlation = sum(np.outer(row, row) for row in p) / len(p)
    identity = np.eye(len(correlation))
    norms = np.linalg.norm(correlation) * np.linalg.norm(identity)
    return (correlation * identity).sum() / norms


REFERENCES = [information_maximization, nuclear_norm, soft_neighborhood_density, corr_c]


@pytest.mark.parametrize("reference", REFERENCES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_the_equation(reference, shape, dtype):
    logits = draw(shape, dtype)
    want = reference(rows(logits))
    got = getattr(scores, reference.__name__)(logits)
    assert got.shape == ()
    assert got.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    close = 1e-9 if dtype == torch.float64 else 1e-5
    assert got.item() == pytest.approx(want, rel=close, abs=close)


@pytest.mark.parametrize("temperature", [0.01, 0.05, 1.0])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_the_temperature_of_the_neighbourhoods(temperature, dtype, close):
    logits = draw((20, 4), dtype)
    want = soft_neighborhood_density(rows(logits), temperature)
    got = scores.soft_neighborhood_density(logits, temperature)
    assert got.item() == pytest.approx(want, rel=close)


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1e4])
@pytest.mark.parametrize("reference", REFERENCES, ids=lambda f: f.__name__)
def test_flat_and_certain_predictions(reference, scale):
    logits = draw((40, 6), torch.float32, scale)
    got = getattr(scores, reference.__name__)(logits)
    assert got.item() == pytest.approx(reference(rows(logits)), rel=1e-5, abs=1e-6)


def test_the_nuclear_norm_of_a_rank_that_is_not_full():
    logits = draw((3, 7))[[0, 0, 0, 1, 1, 1, 2, 2, 2, 2]]
    for dtype, close in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        got = scores.nuclear_norm(logits.to(dtype))
        assert got.item() == pytest.approx(nuclear_norm(rows(logits)), rel=close)


# Properties


@st.composite
def samples(draw_from):
    n, k = draw_from(st.integers(2, 6)), draw_from(st.integers(1, 5))
    values = st.floats(-30, 30, width=32)
    return torch.from_numpy(draw_from(arrays(np.float64, (n, k), elements=values)))


def everything(logits):
    return torch.stack([getattr(scores, name)(logits) for name in SCORES])


@given(samples(), st.randoms())
def test_the_order_of_images_and_of_categories_does_not_matter(logits, random):
    n, k = logits.shape
    other = logits[random.sample(range(n), n)][:, random.sample(range(k), k)]
    torch.testing.assert_close(everything(other), everything(logits), rtol=1e-8, atol=1e-8)


@given(samples(), st.floats(-1e4, 1e4))
def test_a_constant_added_to_the_logits_changes_nothing(logits, constant):
    shifted = everything(logits + constant)
    torch.testing.assert_close(shifted, everything(logits), rtol=1e-7, atol=1e-7)


@given(samples())
def test_bounds(logits):
    n, k = logits.shape
    information, nuclear, density, correlation = everything(logits).tolist()
    assert -1e-12 <= information <= math.log(k) + 1e-12
    assert 1 / math.sqrt(k * min(n, k)) - 1e-9 <= nuclear <= 1 + 1e-9
    assert -1e-12 <= density <= math.log(n - 1) + 1e-12
    assert 1 / math.sqrt(k) - 1e-12 <= correlation <= 1 + 1e-12


@given(samples())
def test_certain_and_balanced_predictions_are_best(logits):
    k = logits.shape[1]
    best = 1e3 * torch.eye(k, dtype=torch.float64).repeat(3, 1)
    for name, value in zip(BALANCED, (math.log(k), 1.0, 1.0), strict=True):
        score = getattr(scores, name)
        assert score(best).item() == pytest.approx(value)
        assert score(best) >= score(logits) - 1e-9


def test_one_category_everywhere_is_worst_but_for_its_density():
    lost = torch.zeros(50, 4)
    lost[:, 1] = 1e3
    sound = draw((50, 4), torch.float32)
    for name in BALANCED:
        assert getattr(scores, name)(lost) < getattr(scores, name)(sound)
    assert scores.soft_neighborhood_density(lost).item() == pytest.approx(math.log(49))
    assert scores.soft_neighborhood_density(lost) > scores.soft_neighborhood_density(sound)


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("shape", [(4, 3, 7), (2, 3, 3, 4)])
def test_dense_equals_flattened(name, shape):
    logits, score = draw(shape), getattr(scores, name)
    flat = logits.movedim(1, -1).reshape(-1, shape[1])
    torch.testing.assert_close(score(logits), score(flat))
    other = logits.to(memory_format=torch.channels_last) if len(shape) == 4 else logits
    torch.testing.assert_close(score(other), score(logits))


# Candidates


def candidates():
    return [draw((9, 3), seed=seed) for seed in range(4)]


def test_ensemble_agreement_equals_the_equation():
    found = candidates()
    p = [probabilities(rows(logits)) for logits in found]
    common = np.mean(p, axis=0).argmax(1)
    want = [(one.argmax(1) == common).mean() for one in p]
    assert 0 < min(want) < max(want) < 1
    torch.testing.assert_close(
        scores.ensemble_agreement(found), torch.tensor(want, dtype=torch.float64)
    )


def test_candidates_are_averaged_in_probabilities():
    one, other = torch.tensor([[0.0, 100.0]]), torch.tensor([[3.0, 0.0]])  # 0.05 of the second
    assert scores.ensemble_agreement([one, other, other]).tolist() == [0, 1, 1]


def test_like_candidates_agree_and_the_order_follows():
    found = candidates()
    assert scores.ensemble_agreement([found[0]] * 3).tolist() == [1, 1, 1]
    assert scores.ensemble_agreement(found[:1]).tolist() == [1]
    there, back = scores.ensemble_agreement(found), scores.ensemble_agreement(found[::-1])
    assert torch.equal(there, back.flip(0))
    dense = [logits.T[None] for logits in found]
    assert torch.equal(scores.ensemble_agreement(dense), there)


# Numerics and memory

EVERY = {name: getattr(scores, name) for name in SCORES}
EVERY["ensemble_agreement"] = lambda v: scores.ensemble_agreement([v, v.flip(0)])


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_comes_back_has_a_wide_dtype_and_no_gradient(name, dtype):
    out = EVERY[name](draw((4, 3), dtype).requires_grad_())
    assert out.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert not out.requires_grad


@pytest.mark.parametrize("name", EVERY)
def test_autocast_changes_nothing(name):
    logits = draw((30, 6), torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = EVERY[name](logits)
    assert torch.equal(inside, EVERY[name](logits))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_candidate_with_nan_does_not_spoil_the_others(bad):
    sound = [draw((9, 4)) for _ in range(3)]
    broken = sound[0].clone()
    broken[2, 1] = bad
    nowhere = torch.full((9, 4), -math.inf)
    scores = symloss.scores.ensemble_agreement([sound[0], broken, *sound[1:], nowhere])
    assert scores[[1, 4]].isnan().all()
    assert torch.equal(scores[[0, 2, 3]], symloss.scores.ensemble_agreement(sound))


@pytest.mark.parametrize("name", EVERY)
def test_nan_is_not_hidden(name):
    logits = draw((4, 3))
    logits[2, 1] = math.nan
    assert EVERY[name](logits).isnan().all()


@pytest.mark.parametrize("reference", REFERENCES, ids=lambda f: f.__name__)
def test_a_masked_category_has_probability_0(reference):
    logits = draw((8, 3))
    logits[:, 1] = -math.inf
    got = getattr(scores, reference.__name__)(logits)
    assert got.item() == pytest.approx(reference(rows(logits)), rel=1e-9)


class Largest(TorchDispatchMode):
    """Remembers the most elements of a tensor that an operation made."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


@pytest.mark.parametrize("elements", [1, 700, 1600, 2**24])
def test_a_large_matrix_of_similarities_is_never_whole(monkeypatch, elements):
    logits = draw((300, 5))
    whole = scores.soft_neighborhood_density(logits)
    monkeypatch.setattr(scores, "_ELEMENTS", elements)
    with Largest() as largest:
        parts = scores.soft_neighborhood_density(logits)
    torch.testing.assert_close(parts, whole)
    assert largest.elements <= (max(elements, 300 * 5) if elements < 300**2 else 300**2)


@pytest.mark.parametrize("name", EVERY)
def test_compiles_without_a_graph_break(name):
    torch._dynamo.reset()
    logits = draw((12, 3))
    compiled = torch.compile(EVERY[name], fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(logits), EVERY[name](logits))


# Bad input


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("shape", [(4, 0), (4,), (), (0, 6), (2, 6, 0)])
def test_bad_shapes_of_logits(name, shape):
    with pytest.raises(ValueError, match=r"target_logits.*" + re.escape(str(shape))):
        getattr(scores, name)(torch.zeros(shape))


@pytest.mark.parametrize("name", SCORES)
def test_bad_kinds_of_logits(name):
    with pytest.raises(TypeError, match=r"must be floating point, got torch\.int64"):
        getattr(scores, name)(torch.zeros(2, 6, dtype=torch.int64))
    with pytest.raises(TypeError, match="target_logits must be a tensor, got list"):
        getattr(scores, name)([[0.0, 1.0]])


def test_neighbours_need_two_positions():
    with pytest.raises(ValueError, match=r"at least 2 positions, got shape \(1, 6\)"):
        scores.soft_neighborhood_density(torch.zeros(1, 6))


@pytest.mark.parametrize("temperature", [0, -1.0, math.nan, math.inf])
def test_the_temperature_must_be_above_0(temperature):
    with pytest.raises(
        ValueError, match=f"temperature must be finite and above 0, got {temperature}"
    ):
        scores.soft_neighborhood_density(torch.zeros(3, 6), temperature)


def test_bad_candidates():
    good = torch.zeros(3, 6)
    with pytest.raises(ValueError, match=r"candidates must contain .* got none"):
        scores.ensemble_agreement([])
    with pytest.raises(
        ValueError, match=r"same shape, got \(3, 6\) and \(2, 6\) \(candidates\[1\]\)"
    ):
        scores.ensemble_agreement([good, good[:2]])
    with pytest.raises(ValueError, match=r"same shape, got \(3, 6\) and \(3, 8\)"):
        scores.ensemble_agreement([good, torch.zeros(3, 8)])
    with pytest.raises(ValueError, match=r"candidates\[1\] must have shape .* got \(3,\)"):
        scores.ensemble_agreement([good, torch.zeros(3)])
    with pytest.raises(TypeError, match=r"candidates\[1\] must be a tensor, got NoneType"):
        scores.ensemble_agreement([good, None])


def test_the_module_is_a_public_name():
    assert symloss.scores is scores
    assert "scores" in symloss.__all__
    for name in scores.__all__:
        assert hasattr(scores, name)
