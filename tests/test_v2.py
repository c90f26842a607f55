"""Category discrimination (37), identities of (36), and the balance of the categories."""

import math
import re

import numpy as np
import pytest
import reference
import torch
from drawn import DTYPES, EXTREMES, draw, relative, unflatten
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from symloss import functional as sf

# Eq. (37)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shapes", [((5, 6), (3, 6)), ((2, 6, 3, 4), (3, 6, 5, 2))])
@pytest.mark.parametrize("weight", [None, [2.0, 0.0, 0.5]])
def test_category_discrimination_equals_the_equation(shapes, dtype, weight):
    (source, labels), (target, _) = draw(shapes[0], dtype), draw(shapes[1], dtype, seed=1)
    y = labels.numpy().ravel()
    value_s, gradient_s = reference.discrimination_of_category(
        reference.flatten(source.double()), y
    )
    value_t, gradient_t = reference.discrimination_of_target(reference.flatten(target.double()))
    of_label = np.ones(len(y)) if weight is None else np.array(weight)[y]
    value_s = value_s * of_label
    gradient_s = gradient_s * of_label[:, None]
    options = {} if weight is None else {"weight": torch.tensor(weight)}
    rtol = 1e-12 if dtype == torch.float64 else 1e-5
    close = {"rtol": rtol, "atol": rtol, "check_dtype": False}
    pair = sf.category_discrimination(source, labels, target, "none", **options)
    assert pair[0].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    for loss, value, shape in zip(pair, (value_s, value_t), shapes, strict=True):
        torch.testing.assert_close(
            loss, torch.as_tensor(value).reshape(shape[:1] + shape[2:]), **close
        )
    for reduction, reduced in (
        ("sum", value_s.sum() + value_t.sum()),
        ("mean", value_s.sum() / of_label.sum() + value_t.mean()),
    ):
        loss = sf.category_discrimination(source, labels, target, reduction, **options)
        torch.testing.assert_close(loss, torch.tensor(reduced), **close)
    source.requires_grad_(), target.requires_grad_()
    sf.category_discrimination(source, labels, target, "sum", **options).backward()
    close["atol"] = close["rtol"] = max(rtol, torch.finfo(dtype).eps)
    torch.testing.assert_close(source.grad, unflatten(gradient_s, shapes[0]), **close)
    torch.testing.assert_close(target.grad, unflatten(gradient_t, shapes[1]), **close)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradients_of_category_discrimination_once_and_twice(reduction):
    source, labels = draw((3, 6))
    target, _ = draw((2, 6, 2), seed=1)
    labels[1] = -100
    weight = torch.tensor([2.0, 0.25, 0.5])

    def loss(s, t):
        return sf.category_discrimination(s, labels, t, reduction, weight=weight)

    logits = source.requires_grad_(), target.requires_grad_()
    assert gradcheck(loss, logits)
    assert gradgradcheck(loss, logits)


def test_ignored_positions_of_category_discrimination_are_of_the_source_alone():
    source, labels = draw((6, 6, 3))
    target, _ = draw((4, 6), seed=1)
    labels[::2] = 255
    each, of_target = sf.category_discrimination(source, labels, target, "none", ignore_index=255)
    assert (each[::2] == 0).all()
    for reduction, reduced in (
        ("sum", each.sum() + of_target.sum()),
        ("mean", each[1::2].mean() + of_target.mean()),
    ):
        got = sf.category_discrimination(source, labels, target, reduction, ignore_index=255)
        torch.testing.assert_close(got, reduced)
    nothing = torch.full_like(labels, -100)
    assert sf.category_discrimination(source, nothing, target).isnan()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_bad_numbers_are_not_hidden_by_category_discrimination(bad):
    good, labels = draw((2, 6))
    logits = good.clone()
    logits[0, 1] = bad
    assert not torch.isfinite(sf.category_discrimination(logits, labels, good))
    assert not torch.isfinite(sf.category_discrimination(good, labels, logits))


def test_bad_input_of_category_discrimination():
    good, labels = torch.zeros(2, 6), torch.tensor([0, 1])
    for bad in (torch.zeros(4, 5), torch.zeros(0, 6), torch.zeros(6)):
        with pytest.raises(ValueError, match="source_logits"):
            sf.category_discrimination(bad, labels, good)
        with pytest.raises(ValueError, match="target_logits"):
            sf.category_discrimination(good, labels, bad)
    with pytest.raises(ValueError, match=r"same dim 1 .*\(2, 6\) and \(3, 8\)"):
        sf.category_discrimination(good, labels, torch.zeros(3, 8))
    with pytest.raises(ValueError, match=r"labels must be in \[0, 3\) .* got 3"):
        sf.category_discrimination(good, torch.tensor([0, 3]), good)
    with pytest.raises(ValueError, match="labels must have shape"):
        sf.category_discrimination(good, torch.tensor([0]), good)
    with pytest.raises(ValueError, match="reduction must be"):
        sf.category_discrimination(good, labels, good, "avg")


# Eq. (36)


def test_target_category_confusion_at_uniform_is_half_of_log_2k():
    for k in (1, 2, 31):
        loss = sf.target_category_confusion(torch.full((3, 2 * k), 7.0))
        torch.testing.assert_close(loss, torch.tensor(math.log(2 * k) / 2))


def test_target_category_confusion_is_a_part_of_the_domains_and_one_of_the_categories():
    logits, _ = draw((7, 10))
    p_s, p_t = (half.softmax(1) for half in logits.chunk(2, 1))
    as_source, as_target = (half.sum(1) for half in logits.softmax(1).chunk(2, 1))
    of_domains = as_target * as_source.log() + as_source * as_target.log()
    of_categories = as_target * (p_t * p_s.log()).sum(1) + as_source * (p_s * p_t.log()).sum(1)
    got = sf.target_category_confusion(logits, reduction="none")
    torch.testing.assert_close(got, -(of_domains + of_categories) / 2)


def test_target_category_confusion_is_half_the_entropy_where_the_halves_agree():
    half, _ = draw((7, 10))
    p = torch.cat([half, half], 1).softmax(1)
    got = sf.target_category_confusion(torch.cat([half, half], 1), reduction="none")
    torch.testing.assert_close(got, torch.special.entr(p).sum(1) / 2)


def test_a_probability_of_exactly_0_has_its_logarithm():
    logits = torch.tensor([[0.0, -200.0, -300.0, -1000.0]], requires_grad=True)
    assert (logits.softmax(1)[0, 1:] == 0).all()
    loss = sf.target_category_confusion(logits)
    torch.testing.assert_close(loss, torch.tensor(150.0))  # p_0 = 1, log p_2 = -300
    loss.backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[0.5, 0.0, -0.5, 0.0]]))


# The balance of the categories


PRIOR = [0.5, 0.2, 0.3]


@pytest.mark.parametrize("shape", [(5, 6), (1, 6), (4, 6, 7), (2, 6, 3, 4)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("prior", [None, PRIOR])
def test_balance_equals_the_equation(shape, dtype, prior):
    logits, _ = draw(shape, dtype)
    value, gradient = reference.category_balance(
        reference.flatten(logits.double()), np.full(3, 1 / 3) if prior is None else prior
    )
    rtol = 1e-12 if dtype == torch.float64 else 1e-5
    logits.requires_grad_()
    loss = sf.category_balance(logits, prior)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    close = {"rtol": rtol, "atol": rtol, "check_dtype": False}
    torch.testing.assert_close(loss, torch.tensor(value), **close)
    loss.backward()
    close["atol"] = close["rtol"] = max(rtol, torch.finfo(dtype).eps)
    torch.testing.assert_close(logits.grad, unflatten(gradient, shape), **close)


@pytest.mark.parametrize(("dtype", "scale", "shift", "rtol"), EXTREMES)
@pytest.mark.parametrize("half", [slice(None), slice(5), slice(5, None)])
def test_balance_of_large_and_shifted_logits_matches_float64(half, dtype, scale, shift, rtol):
    limit = 0.45 * torch.finfo(dtype).max
    wide, _ = draw((64, 10), scale=scale)
    wide[:2] = draw((2, 10))[0]
    wide[:, half] += shift
    wide[:, [2, 7]] -= 2000  # a category of which no probability is left in float32
    logits = wide.clamp(-limit, limit).to(dtype).requires_grad_()
    value, gradient = reference.category_balance(logits.detach().double().numpy(), np.full(5, 0.2))
    loss = sf.category_balance(logits)
    loss.backward()
    np.testing.assert_allclose(loss.item(), value, rtol=1e-4)
    assert relative(logits.grad, torch.as_tensor(gradient)) < rtol


@pytest.mark.parametrize("prior", [None, PRIOR])
@pytest.mark.parametrize("shape", [(3, 6), (2, 6, 2, 2)])
def test_gradients_of_balance_once_and_twice(prior, shape):
    logits = draw(shape)[0].requires_grad_()
    assert gradcheck(lambda v: sf.category_balance(v, prior), (logits,))
    assert gradgradcheck(lambda v: sf.category_balance(v, prior), (logits,))


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e4])
def test_second_derivatives_of_balance_stay_finite(scale):
    logits = draw((16, 10), torch.float32, scale)[0].requires_grad_()
    (gradient,) = torch.autograd.grad(sf.category_balance(logits), logits, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), logits)
    assert torch.isfinite(second).all()


def test_balance_is_0_where_the_batchs_mean_is_the_prior():
    each = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.3, 0.5]], dtype=torch.float64)
    logits = torch.cat([each / 3, each * 2 / 3], 1).log() + torch.tensor([[5.0], [-7.0]])
    assert abs(sf.category_balance(logits, each.mean(0)).item()) < 1e-12
    assert sf.category_balance(logits, [0.2, 0.5, 0.3]).item() > 0.1


def test_balance_to_a_uniform_prior_is_log_k_less_the_entropy():
    logits, _ = draw((9, 8))
    m = logits.softmax(1).view(9, 2, 4).sum(1).mean(0)
    want = math.log(4) - torch.special.entr(m).sum()
    torch.testing.assert_close(sf.category_balance(logits), want)
    torch.testing.assert_close(sf.category_balance(logits, [0.25] * 4), want)


@given(st.permutations(range(4)), st.floats(-1e4, 1e4), st.booleans())
def test_balance_does_not_depend_on_order_shift_or_half(order, shift, swap):
    logits, _ = draw((5, 8))
    prior = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    halves = [half[:, order] + shift for half in logits.chunk(2, 1)]
    other = torch.cat(halves[::-1] if swap else halves, 1).flip(0)
    torch.testing.assert_close(
        sf.category_balance(other, prior[order]),
        sf.category_balance(logits, prior),
        rtol=1e-9,
        atol=1e-9,
    )


def test_balance_of_dense_logits_is_that_of_their_rows_in_any_layout():
    logits, _ = draw((2, 6, 3, 4))
    rows = logits.movedim(1, -1).reshape(-1, 6)
    for dense in (logits, logits.to(memory_format=torch.channels_last)):
        torch.testing.assert_close(sf.category_balance(dense), sf.category_balance(rows))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_bad_numbers_are_not_hidden_by_balance(bad):
    logits, _ = draw((4, 6))
    logits[0, 1] = bad
    assert not torch.isfinite(sf.category_balance(logits))


def test_balance_of_a_masked_category_is_nan_but_one_masked_half_is_not():
    logits, _ = draw((4, 6))
    logits[:, 1] = -math.inf
    m = logits.softmax(1).view(4, 2, 3).sum(1).mean(0)
    want = math.log(3) - torch.special.entr(m).sum()
    torch.testing.assert_close(sf.category_balance(logits), want)
    logits[:, 4] = -math.inf
    assert sf.category_balance(logits).isnan()


def test_balance_under_autocast_is_computed_in_float32():
    logits, _ = draw((8, 10), torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        half, full = sf.category_balance(logits.bfloat16()), sf.category_balance(logits)
    assert half.dtype == full.dtype == torch.float32
    torch.testing.assert_close(full, sf.category_balance(logits))
    torch.testing.assert_close(half, sf.category_balance(logits.bfloat16().float()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_a_prior_is_a_sequence_or_a_tensor_of_any_real_dtype_without_gradient(dtype):
    logits, _ = draw((4, 8), torch.float32)
    prior = [0.5, 0.25, 0.125, 0.125]
    want = sf.category_balance(logits, prior)
    tensor = torch.tensor(prior, dtype=dtype, requires_grad=True)
    logits.requires_grad_()
    got = sf.category_balance(logits, tensor)
    got.backward()
    assert tensor.grad is None
    for other in (got, sf.category_balance(logits, tuple(prior))):
        torch.testing.assert_close(other, want)
    torch.testing.assert_close(sf.category_balance(logits, np.array(prior)), want)


def test_a_prior_in_numbers_is_as_exact_as_the_logits():
    logits, _ = draw((4, 6))
    tensor = torch.tensor(PRIOR, dtype=torch.float64)
    assert sf.category_balance(logits, PRIOR) == sf.category_balance(logits, tensor)


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ([0.5, 0.5], r"prior must have shape \(3,\), .* got \(2,\)"),
        ([0.5, 0.5, 0.0], r"positive and sum to 1, got \[0.5, 0.5, 0.0\]"),
        ([0.6, 0.5, -0.1], "positive and sum to 1, got"),
        ([5, 3, 2], r"positive and sum to 1, got \[5"),
        ([0.5, 0.3, 0.2003], "positive and sum to 1, got"),
        ([math.nan, 0.5, 0.5], r"positive and sum to 1, got \[nan"),
        ([math.inf, 0.5, 0.5], r"positive and sum to 1, got \[inf"),
    ],
)
@pytest.mark.parametrize("make", [lambda x: x, torch.tensor], ids=["numbers", "tensor"])
def test_bad_priors(make, prior, message):
    with pytest.raises(ValueError, match=message):
        sf.category_balance(torch.zeros(4, 6), make(prior))


def test_priors_of_a_wrong_kind():
    logits = torch.zeros(4, 6)
    for prior in ("uniform", 1.0, {"a": 1}, [[0.2, 0.3, 0.5]]):
        with pytest.raises(TypeError, match="prior must be K numbers or None, got"):
            sf.category_balance(logits, prior)
    with pytest.raises(TypeError, match=r"prior must be real, got torch\.complex64"):
        sf.category_balance(logits, torch.ones(3, dtype=torch.complex64) / 3)
    for shape in ((1, 3), (2,), ()):
        with pytest.raises(
            ValueError, match=r"prior must have shape \(3,\), .*" + re.escape(str(shape))
        ):
            sf.category_balance(logits, torch.ones(shape))
    with pytest.raises(ValueError, match="on the logits' device, cpu, got meta"):
        sf.category_balance(logits, torch.ones(3, device="meta"))


@pytest.mark.parametrize("shape", [(4, 5), (4, 0), (4,), (), (0, 6), (2, 6, 0)])
def test_bad_shapes_of_logits_of_balance(shape):
    with pytest.raises(ValueError, match=r"target_logits.*" + re.escape(str(shape))):
        sf.category_balance(torch.zeros(shape))
    with pytest.raises(TypeError, match="target_logits must be floating point"):
        sf.category_balance(torch.zeros(shape, dtype=torch.int64))


def test_a_prior_need_not_be_exact():
    nearly = [0.5, 0.3, 0.20009]
    exact = sf.category_balance(torch.zeros(4, 6), [0.5, 0.3, 0.2])
    torch.testing.assert_close(
        sf.category_balance(torch.zeros(4, 6), nearly), exact, rtol=1e-2, atol=0
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("prior", [None, PRIOR, torch.tensor(PRIOR)])
def test_the_losses_compile_whole(prior):
    (source, labels), (target, _) = draw((5, 6), torch.float32), draw((4, 6), torch.float32, seed=1)

    def loss(source, target):
        return (
            sf.category_balance(target, prior)
            + sf.target_category_confusion(target)
            + sf.category_discrimination(source, labels, target, weight=torch.ones(3))
        )

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(source, target), loss(source, target))
