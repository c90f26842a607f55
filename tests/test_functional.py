import math
import re

import numpy as np
import pytest
import reference
import torch
import torch.nn.functional as F
from drawn import DTYPES, EXTREMES, draw, relative, unflatten
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.autograd import gradcheck, gradgradcheck

from symloss import functional as sf

LABELLED = ["source_task", "target_task", "category_confusion"]
UNLABELLED = ["domain_confusion", "symmetric_entropy", "target_category_confusion"]
SHAPES = [(5, 6), (1, 2), (3, 62), (4, 6, 7), (2, 6, 3, 4), (2, 4, 1, 2, 3)]


def call(name, logits, labels, **options):
    arguments = (logits, labels) if name in LABELLED else (logits,)
    return getattr(sf, name)(*arguments, **options)


def expected(name, logits, labels):
    v = reference.flatten(logits.detach().to(torch.float64))
    arguments = (v, labels.numpy().ravel()) if name in LABELLED else (v,)
    return getattr(reference, name)(*arguments)


# Values and gradients


@pytest.mark.parametrize("name", LABELLED + UNLABELLED)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_the_papers_equation(name, shape, dtype):
    logits, labels = draw(shape, dtype)
    value, gradient = expected(name, logits, labels)
    out_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    rtol = 1e-12 if dtype == torch.float64 else 1e-5
    for reduction, reduced in (
        ("none", value.reshape(labels.shape)),
        ("sum", value.sum()),
        ("mean", value.mean()),
    ):
        loss = call(name, logits, labels, reduction=reduction)
        assert loss.dtype == out_dtype
        torch.testing.assert_close(
            loss, torch.as_tensor(reduced, dtype=out_dtype), rtol=rtol, atol=rtol
        )
    logits.requires_grad_()
    call(name, logits, labels, reduction="sum").backward()
    rounding = torch.finfo(dtype).eps
    torch.testing.assert_close(
        logits.grad.double(),
        unflatten(gradient, shape),
        rtol=max(rtol, rounding),
        atol=max(rtol, rounding),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shapes", [((5, 6), (3, 6)), ((2, 6, 3, 4), (3, 6, 5, 2))])
def test_domain_discrimination_equals_the_papers_equation(shapes, dtype):
    source, target = draw(shapes[0], dtype)[0], draw(shapes[1], dtype, seed=1)[0]
    value_s, gradient_s = reference.discrimination_of_source(reference.flatten(source.double()))
    value_t, gradient_t = reference.discrimination_of_target(reference.flatten(target.double()))
    rtol = 1e-12 if dtype == torch.float64 else 1e-5
    close = {"rtol": rtol, "atol": rtol, "check_dtype": False}
    pair = sf.domain_discrimination(source, target, reduction="none")
    assert pair[0].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    for loss, value, shape in zip(pair, (value_s, value_t), shapes, strict=True):
        torch.testing.assert_close(
            loss, torch.as_tensor(value).reshape(shape[:1] + shape[2:]), **close
        )
    for reduction, reduced in (
        ("sum", value_s.sum() + value_t.sum()),
        ("mean", value_s.mean() + value_t.mean()),
    ):
        loss = sf.domain_discrimination(source, target, reduction=reduction)
        torch.testing.assert_close(loss, torch.tensor(reduced), **close)
    source.requires_grad_(), target.requires_grad_()
    sf.domain_discrimination(source, target, reduction="sum").backward()
    close["atol"] = close["rtol"] = max(rtol, torch.finfo(dtype).eps)
    torch.testing.assert_close(source.grad, unflatten(gradient_s, shapes[0]), **close)
    torch.testing.assert_close(target.grad, unflatten(gradient_t, shapes[1]), **close)


@pytest.mark.parametrize("name", LABELLED + UNLABELLED)
@pytest.mark.parametrize("shape", [(3, 6), (2, 4, 3), (2, 4, 1, 2)])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradients_once_and_twice(name, shape, reduction):
    logits, labels = draw(shape)
    logits.requires_grad_()

    def loss(v):
        return call(name, v, labels, reduction=reduction)

    assert gradcheck(loss, (logits,))
    assert gradgradcheck(loss, (logits,))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradients_of_domain_discrimination_once_and_twice(reduction):
    source = draw((3, 6))[0].requires_grad_()
    target = draw((2, 6, 2), seed=1)[0].requires_grad_()

    def loss(s, t):
        return sf.domain_discrimination(s, t, reduction=reduction)

    assert gradcheck(loss, (source, target))
    assert gradgradcheck(loss, (source, target))


# Stability


@pytest.mark.parametrize(("dtype", "scale", "shift", "rtol", "half"), EXTREMES)
@pytest.mark.parametrize("layout", ["rows", "dense"])
@pytest.mark.parametrize("name", [*LABELLED, *UNLABELLED, "source", "target", "category"])
def test_large_and_shifted_logits_match_float64(name, layout, half, dtype, scale, shift, rtol):
    limit = 0.45 * torch.finfo(dtype).max  # the difference of two logits must be finite
    wide, labels = draw((64, 10), scale=scale)
    # Two rows that do not saturate, whatever the scale: the entropy has a gradient there.
    wide[:2] = draw((2, 10))[0]
    wide[:, half] += shift  # of both classifiers' logits, or of one classifier's alone
    logits = wide.clamp(-limit, limit).to(dtype)
    v = logits.double().numpy()
    if name in ("source", "target"):
        value, gradient = getattr(reference, f"discrimination_of_{name}")(v)
    elif name == "category":
        value, gradient = reference.discrimination_of_category(v, labels.numpy())
    else:
        value, gradient = expected(name, logits, labels)
    logits.requires_grad_()
    given = logits.T[None] if layout == "dense" else logits
    labels = labels[None] if layout == "dense" else labels
    if name in ("source", "target"):
        pair = sf.domain_discrimination(given, given, reduction="none")
        loss = pair[name == "target"]
    elif name == "category":
        loss, _ = sf.category_discrimination(given, labels, given, reduction="none")
    else:
        loss = call(name, given, labels, reduction="none")
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(logits.grad).all()
    np.testing.assert_allclose(loss.detach().double().ravel(), value, rtol=1e-4, atol=1e-6)
    assert relative(logits.grad, torch.as_tensor(gradient)) < rtol


@pytest.mark.parametrize("name", LABELLED + UNLABELLED)
@pytest.mark.parametrize("scale", [1.0, 100.0, 1e4])
def test_second_derivatives_stay_finite(name, scale):
    logits, labels = draw((16, 10), torch.float32, scale)
    logits.requires_grad_()
    loss = call(name, logits, labels)
    (gradient,) = torch.autograd.grad(loss, logits, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), logits)
    assert torch.isfinite(second).all()


@pytest.mark.parametrize("name", LABELLED + UNLABELLED)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_bad_numbers_are_not_hidden(name, bad):
    logits, labels = draw((2, 6))
    logits[0, [1, 4]] = bad  # in either half, for (5) and (6) each depend on one
    loss = call(name, logits, labels, reduction="none")
    assert not torch.isfinite(loss[0])
    assert torch.isfinite(loss[1])
    assert not torch.isfinite(call(name, logits, labels))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_bad_numbers_are_not_hidden_by_domain_discrimination(bad):
    good, _ = draw((2, 6))
    logits = good.clone()
    logits[0, 1] = bad
    assert not torch.isfinite(sf.domain_discrimination(logits, good))
    assert not torch.isfinite(sf.domain_discrimination(good, logits))


@pytest.mark.parametrize("name", LABELLED + UNLABELLED)
def test_autocast_computes_in_float32(name):
    logits, labels = draw((8, 10), torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        half = call(name, logits.bfloat16(), labels)
        full = call(name, logits, labels)
    assert half.dtype == full.dtype == torch.float32
    torch.testing.assert_close(full, call(name, logits, labels))
    torch.testing.assert_close(half, call(name, logits.bfloat16().float(), labels))


# Properties


@st.composite
def samples(draw_from):
    n, k = draw_from(st.integers(1, 4)), draw_from(st.integers(1, 6))
    values = st.floats(-30, 30, width=32)
    logits = draw_from(arrays(np.float64, (n, 2 * k), elements=values))
    labels = draw_from(arrays(np.int64, n, elements=st.integers(0, k - 1)))
    return torch.from_numpy(logits), torch.from_numpy(labels)


def everything(logits, labels):
    """Every loss per position, the two sides of (7) and the source's of (37) as its own."""
    losses = {name: call(name, logits, labels, reduction="none") for name in LABELLED + UNLABELLED}
    source, target = sf.domain_discrimination(logits, logits, reduction="none")
    category, _ = sf.category_discrimination(logits, labels, logits, reduction="none")
    return losses | {"source": source, "target": target, "category": category}


def assert_same(left, right):
    assert left.keys() == right.keys()
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=1e-9, atol=1e-9, msg=name)


@given(samples(), st.floats(-1e4, 1e4))
def test_a_constant_added_to_all_logits_changes_nothing(sample, constant):
    logits, labels = sample
    assert_same(everything(logits + constant, labels), everything(logits, labels))


@given(samples(), st.randoms())
def test_permuting_the_categories_changes_nothing(sample, random):
    logits, labels = sample
    k = logits.shape[1] // 2
    order = random.sample(range(k), k)
    permuted = logits[:, order + [k + i for i in order]]
    new_labels = torch.tensor(order).argsort()[labels]
    assert_same(everything(permuted, new_labels), everything(logits, labels))


@given(samples())
def test_swapping_the_halves_exchanges_the_players(sample):
    logits, labels = sample
    swapped = everything(torch.cat(logits.chunk(2, 1)[::-1], 1), labels)
    own = everything(logits, labels)
    del own["category"]  # it has one player: swapped, it is what is left of the other
    torch.testing.assert_close(swapped.pop("category"), own["target_task"] + own["target"])
    exchanged = {"source_task": "target_task", "source": "target"}
    exchanged |= {new: old for old, new in exchanged.items()}
    assert_same(
        {exchanged.get(name, name): loss for name, loss in swapped.items()},
        own,
    )


@given(samples())
def test_bounds(sample):
    logits, labels = sample
    losses = everything(logits, labels)
    k = logits.shape[1] // 2
    assert (losses["symmetric_entropy"] >= 0).all()
    assert (losses["symmetric_entropy"] <= math.log(k) + 1e-12).all()
    assert (losses["domain_confusion"] >= math.log(2) - 1e-12).all()
    assert (losses["target_category_confusion"] >= math.log(2) / 2 - 1e-12).all()
    task = (losses["source_task"] + losses["target_task"]) / 2
    assert (losses["category_confusion"] - task >= math.log(2) - 1e-12).all()


@given(samples())
def test_equal_halves_reach_log_2(sample):
    logits, labels = sample
    source, target = logits.chunk(2, 1)
    target = target - target.logsumexp(1, keepdim=True) + source.logsumexp(1, keepdim=True)
    losses = everything(torch.cat([source, target], 1), labels)
    log2 = torch.full(labels.shape, math.log(2), dtype=torch.float64)
    torch.testing.assert_close(losses["domain_confusion"], log2)
    task = (losses["source_task"] + losses["target_task"]) / 2
    torch.testing.assert_close(losses["category_confusion"] - task, log2)


@given(samples())
def test_category_confusion_is_ablation_13_plus_ablation_12(sample):
    logits, labels = sample
    ablation_13 = (sf.source_task(logits, labels) + sf.target_task(logits, labels)) / 2
    ablation_12 = sf.domain_confusion(logits)
    torch.testing.assert_close(sf.category_confusion(logits, labels), ablation_13 + ablation_12)


@pytest.mark.parametrize("name", LABELLED + UNLABELLED)
@pytest.mark.parametrize("shape", [(4, 6, 7), (2, 6, 3, 4)])
def test_dense_equals_flattened(name, shape):
    logits, labels = draw(shape)
    rows = logits.movedim(1, -1).reshape(-1, shape[1])
    dense = call(name, logits, labels, reduction="none")
    flat = call(name, rows, labels.reshape(-1), reduction="none")
    torch.testing.assert_close(dense.reshape(-1), flat)


@pytest.mark.parametrize("name", LABELLED + UNLABELLED)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_the_memory_layout_does_not_matter(name, reduction):
    logits, labels = draw((2, 6, 3, 4))
    other = logits.to(memory_format=torch.channels_last)
    torch.testing.assert_close(
        call(name, other, labels, reduction=reduction),
        call(name, logits, labels, reduction=reduction),
    )


@pytest.mark.parametrize("name", LABELLED + UNLABELLED)
def test_reductions_agree(name):
    logits, labels = draw((3, 6, 5))
    each = call(name, logits, labels, reduction="none")
    torch.testing.assert_close(call(name, logits, labels, reduction="sum"), each.sum())
    torch.testing.assert_close(call(name, logits, labels), each.sum() / labels.numel())


@pytest.mark.parametrize("name", LABELLED)
@pytest.mark.parametrize("ignore_index", [-100, 255, 1])
def test_ignored_positions_do_not_count(name, ignore_index):
    logits, labels = draw((6, 6, 3))
    labels[::2] = ignore_index
    counted = labels != ignore_index
    each = call(name, logits, labels, reduction="none", ignore_index=ignore_index)
    assert (each[~counted] == 0).all()
    rows, row_labels = logits.movedim(1, -1)[counted], labels[counted]
    torch.testing.assert_close(each[counted], call(name, rows, row_labels, reduction="none"))
    for reduction in ("sum", "mean"):
        got = call(name, logits, labels, reduction=reduction, ignore_index=ignore_index)
        torch.testing.assert_close(got, call(name, rows, row_labels, reduction=reduction))


@pytest.mark.parametrize("name", LABELLED)
def test_nothing_that_counts_gives_nan(name):
    logits, labels = draw((3, 6))
    assert call(name, logits, torch.full_like(labels, -100)).isnan()
    assert call(name, logits, torch.full_like(labels, -100), reduction="sum") == 0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32])
@pytest.mark.parametrize("num_classes", [3, 128, 256, 300])
def test_any_integer_dtype_will_do_for_labels(dtype, num_classes):
    logits, labels = draw((5, 2 * num_classes))
    labels = labels.clamp(max=torch.iinfo(dtype).max)
    for name in LABELLED:
        torch.testing.assert_close(call(name, logits, labels.to(dtype)), call(name, logits, labels))


def test_split_logits_returns_views():
    logits = torch.arange(24.0).view(2, 6, 2).clone()
    source, target = sf.split_logits(logits)
    assert torch.equal(torch.cat([source, target], 1), logits)
    assert source.shape == target.shape == (2, 3, 2)
    assert source._base is logits
    assert target._base is logits


# Weights of categories

WEIGHT = [2.0, 0.0, 0.5, 1.25]


@pytest.mark.parametrize("name", LABELLED)
@pytest.mark.parametrize("shape", [(9, 8), (3, 8, 5)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weight_dtype", DTYPES)
def test_weights_are_those_of_cross_entropy(name, shape, dtype, weight_dtype):
    logits, labels = draw(shape, dtype)
    labels[0] = -100
    counts = labels.numpy().ravel() != -100
    value, gradient = expected(name, logits, labels.clamp(min=0))
    of_label = np.where(counts, np.array(WEIGHT)[labels.clamp(min=0).numpy().ravel()], 0)
    weight = torch.tensor(WEIGHT, dtype=weight_dtype, requires_grad=True)
    out_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    close = {"rtol": 1e-5, "atol": 1e-5, "check_dtype": False}
    for reduction, reduced in (
        ("none", (of_label * value).reshape(labels.shape)),
        ("sum", (of_label * value).sum()),
        ("mean", (of_label * value).sum() / of_label.sum()),
    ):
        loss = call(name, logits, labels, reduction=reduction, weight=weight)
        assert loss.dtype == out_dtype
        torch.testing.assert_close(loss, torch.as_tensor(reduced), **close)
    logits.requires_grad_()
    call(name, logits, labels, weight=weight).backward()
    assert weight.grad is None
    scaled = gradient * (of_label / of_label.sum())[:, None]
    close["rtol"] = close["atol"] = max(1e-5, torch.finfo(dtype).eps)
    torch.testing.assert_close(logits.grad, unflatten(scaled, shape), **close)


@pytest.mark.parametrize(("name", "half"), [("source_task", 0), ("target_task", 1)])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weight", [None, torch.tensor(WEIGHT, dtype=torch.float64)])
def test_the_tasks_are_torchs_cross_entropy(name, half, reduction, weight):
    logits, labels = draw((3, 8, 5))
    labels[0] = -100
    want = F.cross_entropy(logits.chunk(2, 1)[half], labels, weight, reduction=reduction)
    torch.testing.assert_close(call(name, logits, labels, reduction=reduction, weight=weight), want)


@pytest.mark.parametrize("name", LABELLED)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_weights_of_one_change_nothing_and_a_weight_of_zero_drops_its_category(name, reduction):
    logits, labels = draw((6, 6, 3))
    options = {"reduction": reduction}
    torch.testing.assert_close(
        call(name, logits, labels, weight=torch.ones(3), **options),
        call(name, logits, labels, **options),
    )
    torch.testing.assert_close(
        call(name, logits, labels, weight=torch.tensor([1.0, 1.0, 0.0]), **options),
        call(name, logits, labels, ignore_index=2, **options),
    )


@pytest.mark.parametrize("name", LABELLED)
def test_weights_that_sum_to_zero_give_nan(name):
    logits, labels = draw((3, 6))
    assert call(name, logits, labels, weight=torch.zeros(3)).isnan()
    assert call(name, logits, labels, weight=torch.zeros(3), reduction="sum") == 0


@pytest.mark.parametrize("name", LABELLED)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_weighted_gradients_once_and_twice(name, reduction):
    logits, labels = draw((2, 8, 3))
    logits.requires_grad_()

    def loss(v):
        return call(name, v, labels, reduction=reduction, weight=torch.tensor(WEIGHT))

    assert gradcheck(loss, (logits,))
    assert gradgradcheck(loss, (logits,))


# torch.func


@pytest.mark.parametrize("name", [*LABELLED, "category_discrimination"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weight", [None, torch.tensor([2.0, 0.25, 0.5])])
def test_labelled_losses_under_vmap(name, reduction, weight):
    (logits, labels), (target, _) = draw((5, 6, 4)), draw((5, 6, 2), seed=1)
    labels[:, 0] = -100

    def loss(v, y, t):
        further = [t[None]] if name == "category_discrimination" else []
        options = {"reduction": reduction, "weight": weight}
        out = getattr(sf, name)(v[None], y[None], *further, **options)
        return sum(part.sum() for part in out) if isinstance(out, tuple) else out.sum()

    each = [*zip(logits, labels, target, strict=True)]
    for function in (loss, torch.func.grad(loss)):
        want = torch.stack([function(*one) for one in each])
        torch.testing.assert_close(torch.func.vmap(function)(logits, labels, target), want)


# Bad input

EVERY = ["split_logits", *LABELLED, *UNLABELLED]


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("shape", [(4, 5), (4, 0), (4,), (), (0, 6), (2, 6, 0)])
def test_bad_shapes_of_logits(name, shape):
    with pytest.raises(ValueError, match=r"logits.*" + re.escape(str(shape))):
        call(name, torch.zeros(shape), torch.zeros(shape[:1], dtype=torch.int64))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_logits_must_be_floating_point(name, dtype):
    with pytest.raises(TypeError, match=rf"logits must be floating point, got {dtype}"):
        call(name, torch.zeros(2, 4, dtype=dtype), torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize("name", EVERY)
def test_logits_must_be_a_tensor(name):
    with pytest.raises(TypeError, match="logits must be a tensor, got list"):
        call(name, [[0.0, 0.0]], torch.tensor([0]))


@pytest.mark.parametrize("bad", [torch.zeros(4, 5), torch.zeros(0, 6), torch.zeros(6)])
def test_domain_discrimination_names_the_bad_argument(bad):
    with pytest.raises(ValueError, match="target_logits"):
        sf.domain_discrimination(torch.zeros(2, 6), bad)
    with pytest.raises(ValueError, match="source_logits"):
        sf.domain_discrimination(bad, torch.zeros(2, 6))


def test_domain_discrimination_needs_the_same_categories():
    with pytest.raises(ValueError, match=r"same dim 1 .*\(2, 6\) and \(3, 8\)"):
        sf.domain_discrimination(torch.zeros(2, 6), torch.zeros(3, 8))


@pytest.mark.parametrize("name", LABELLED)
@pytest.mark.parametrize("shape", [(3,), (1,), (2, 1), (2, 6), ()])
def test_bad_shapes_of_labels(name, shape):
    with pytest.raises(
        ValueError, match=r"labels must have shape \(2,\) .*" + re.escape(str(shape))
    ):
        call(name, torch.zeros(2, 6), torch.zeros(shape, dtype=torch.int64))


@pytest.mark.parametrize("name", LABELLED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.complex64])
def test_labels_must_be_integer(name, dtype):
    with pytest.raises(TypeError, match=f"labels must be integer, got {dtype}"):
        call(name, torch.zeros(2, 6), torch.zeros(2, dtype=dtype))


@pytest.mark.parametrize("name", LABELLED)
def test_labels_must_be_a_tensor(name):
    with pytest.raises(TypeError, match="labels must be a tensor, got list"):
        call(name, torch.zeros(2, 6), [0, 1])


@pytest.mark.parametrize("name", LABELLED)
@pytest.mark.parametrize("label", [3, 5, -1, -99, 255])
def test_labels_outside_the_range(name, label):
    hint = "; count from 0" if label == 3 else ""
    with pytest.raises(ValueError, match=rf"labels must be in \[0, 3\) .*-100, got {label}{hint}$"):
        call(name, torch.zeros(2, 6), torch.tensor([0, label]))


@pytest.mark.parametrize("name", LABELLED)
def test_one_hot_labels_are_told_of_argmax(name):
    with pytest.raises(ValueError, match=r"got \(2, 3\); for one-hot labels, call \.argmax\(1\)$"):
        call(name, torch.zeros(2, 6), torch.eye(3, dtype=torch.int64)[:2])


def test_a_narrow_dtype_does_not_hide_a_label_outside_the_range():
    with pytest.raises(ValueError, match="got 156"):  # -100 in 8 bits
        sf.source_task(torch.zeros(2, 6), torch.tensor([0, 156], dtype=torch.uint8))


@pytest.mark.parametrize("name", LABELLED + UNLABELLED)
def test_unknown_reduction(name):
    with pytest.raises(ValueError, match="reduction must be 'mean', 'sum' or 'none', got 'avg'"):
        call(name, torch.zeros(2, 6), torch.tensor([0, 1]), reduction="avg")


def test_unknown_reduction_of_domain_discrimination():
    with pytest.raises(ValueError, match="reduction must be"):
        sf.domain_discrimination(torch.zeros(2, 6), torch.zeros(2, 6), reduction="avg")


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


@pytest.mark.parametrize(("dtype", "scale", "shift", "rtol", "half"), EXTREMES)
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


@pytest.mark.parametrize("prior", [None, PRIOR])
@pytest.mark.parametrize("masked", [[1], [1, 4], [0, 1, 3, 4]])
def test_a_category_masked_in_both_halves_is_absent_from_the_balance(masked, prior):
    logits, _ = draw((4, 6))
    logits[:, masked] = -math.inf
    logits.requires_grad_()
    m = logits.detach().softmax(1).view(4, 2, 3).sum(1).mean(0)
    want = -torch.special.entr(m).sum() - (m * torch.tensor(prior or [1 / 3] * 3).log()).sum()
    loss = sf.category_balance(logits, prior)
    torch.testing.assert_close(loss, want, check_dtype=False)
    (gradient,) = torch.autograd.grad(loss, logits, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), logits)
    assert (gradient[:, masked] == 0).all()
    assert (second[:, masked] == 0).all()
    # As if there were only the other categories and their shares, up to a constant.
    rest = [k for k in range(6) if k not in masked]
    if len(rest) % 2 == 0:
        left = logits.detach()[:, rest].requires_grad_()
        shares = torch.tensor(prior or [1 / 3] * 3, dtype=torch.float64)[rest[: len(rest) // 2]]
        (alone,) = torch.autograd.grad(sf.category_balance(left, shares / shares.sum()), left)
        torch.testing.assert_close(gradient[:, rest], alone)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_share_that_underflows_adds_nothing_to_the_balance(dtype):
    lost = math.log(torch.finfo(dtype).tiny) - 100
    logits = torch.tensor([[0.0, 1.0, lost, 2.0, 1.0, lost]], dtype=dtype, requires_grad=True)
    two = logits.detach()[:, [0, 1, 3, 4]].requires_grad_()
    (gradient,) = torch.autograd.grad(sf.category_balance(logits), logits)
    (without,) = torch.autograd.grad(sf.category_balance(two), two)
    assert (gradient[:, [2, 5]] == 0).all()
    torch.testing.assert_close(gradient[:, [0, 1, 3, 4]], without)
    difference = sf.category_balance(logits) - sf.category_balance(two)
    torch.testing.assert_close(difference, torch.tensor(math.log(3 / 2), dtype=dtype))


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
def test_the_balance_and_v2_compile_whole(prior):
    (source, labels), (target, _) = draw((5, 6), torch.float32), draw((4, 6), torch.float32, seed=1)

    def loss(source, target):
        return (
            sf.category_balance(target, prior)
            + sf.target_category_confusion(target)
            + sf.category_discrimination(source, labels, target, weight=torch.ones(3))
        )

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(source, target), loss(source, target))
