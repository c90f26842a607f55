import math
import shutil

import numpy as np
import pytest
import reference
import torch
from drawn import halves
from torch import nn
from torch.utils.checkpoint import checkpoint

import symloss
from symloss import functional as sf

SOURCE_LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 2, 1])


def routed(shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = (
        torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for _ in range(2)
    )
    return symloss.RoutedLogits(*logits)


def players(dtype, dense=False):
    """A conv net with batch norm and a head; no convolution has a bias before a batch norm."""
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 8, 3, stride=2, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
    ]
    if dense:
        head = symloss.SymmetricHead2d(16, 3)
    else:
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 12)]
        head = symloss.SymmetricHead(12, 3)
    return nn.Sequential(*layers).to(dtype), head.to(dtype)


def images(dtype):
    torch.manual_seed(1)
    return torch.randn(8, 3, 11, 11, dtype=dtype), 1 + 2 * torch.randn(6, 3, 11, 11, dtype=dtype)


OBJECTIVES = {
    "symnet_losses": symloss.SymNetLosses._fields,
    "symnet_v2_losses": symloss.SymNetV2Losses._fields,
}


# Eq. (11), and (33) to (37)


def composed(objective, source, labels, target, **options):
    """The terms by the functions of the library."""
    terms = {
        "source_task": sf.source_task(source.head, labels, **options),
        "target_task": sf.target_task(source.head, labels, **options),
        "domain_discrimination": sf.domain_discrimination(source.head, target.head),
        "category_discrimination": sf.category_discrimination(
            source.head, labels, target.head, **options
        ),
        "category_confusion": sf.category_confusion(source.extractor, labels, **options),
        "domain_confusion": sf.domain_confusion(target.extractor),
        "symmetric_entropy": sf.symmetric_entropy(target.extractor),
        "target_category_confusion": sf.target_category_confusion(target.extractor),
    }
    return {name: terms[name] for name in OBJECTIVES[objective]}


@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 2.0, 0.0])])
@pytest.mark.parametrize("trailing", [(), (3,)])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_each_term_and_its_gradient_are_those_of_its_players_logits(objective, trailing, weight):
    source, target = routed((8, 6, *trailing), seed=0), routed((5, 6), seed=1)
    labels = SOURCE_LABELS.view(8, *[1] * len(trailing)).repeat(1, *trailing)
    labels[1] = 255
    options = {"weight": weight, "ignore_index": 255}
    losses = getattr(symloss, objective)(source, labels, target, **options)
    expected = composed(objective, source, labels, target, **options)
    assert losses._fields == tuple(expected)
    logits = [*source, *target]
    every = {"retain_graph": True, "materialize_grads": True}
    for name, want in expected.items():
        got = getattr(losses, name)
        torch.testing.assert_close(got, want, msg=name)
        torch.testing.assert_close(
            torch.autograd.grad(got, logits, **every), torch.autograd.grad(want, logits, **every)
        )


@pytest.mark.parametrize("lam", [0.0, 0.3, torch.tensor(0.3, dtype=torch.float64)])
def test_the_players_sums(lam):
    losses = symloss.SymNetLosses(*torch.tensor([1, 2, 4, 8, 16, 32], dtype=torch.float64))
    assert losses.head() == 7
    assert losses.extractor(lam) == 8 + lam * 48
    assert losses.total(lam) == 15 + lam * 48
    losses = symloss.SymNetV2Losses(*torch.tensor([1, 2, 4, 8, 16], dtype=torch.float64))
    assert losses.head() == 7
    assert losses.extractor(lam) == 8 + lam * 16
    assert losses.total(lam) == 15 + lam * 16


def test_the_target_may_have_other_sizes_and_source_positions_may_be_ignored():
    source, target = routed((2, 6, 3, 4)), routed((3, 6, 5, 2))
    labels = torch.randint(3, (2, 3, 4))
    labels[:, 0] = 255
    losses = symloss.symnet_losses(source, labels, target, ignore_index=255)
    for name, logits in (
        ("source_task", source.head),
        ("target_task", source.head),
        ("category_confusion", source.extractor),
    ):
        kept = logits[:, :, 1:].detach()
        torch.testing.assert_close(
            getattr(losses, name).detach(), getattr(sf, name)(kept, labels[:, 1:])
        )
    assert losses.domain_discrimination.isfinite()


# Closed-form gradients, against numpy and float64


def reference_terms(source, labels, target):
    """Each term and its gradient in (source, target), means over the rows that count."""
    keep = labels != -100
    y = np.where(keep, labels, 0)
    weight = keep / keep.sum()
    terms = {}
    for name in ("source_task", "target_task", "category_confusion"):
        value, gradient = getattr(reference, name)(source, y)
        terms[name] = (value * weight).sum(), gradient * weight[:, None], 0 * target
    for name in ("domain_confusion", "symmetric_entropy", "target_category_confusion"):
        value, gradient = getattr(reference, name)(target)
        terms[name] = value.mean(), 0 * source, gradient / len(target)
    (of_s, grad_s), (of_t, grad_t) = (
        reference.discrimination_of_source(source),
        reference.discrimination_of_target(target),
    )
    terms["domain_discrimination"] = (
        of_s.mean() + of_t.mean(),
        grad_s / len(source),
        grad_t / len(target),
    )
    of_y, grad_y = reference.discrimination_of_category(source, y)
    terms["category_discrimination"] = (
        (of_y * weight).sum() + of_t.mean(),
        grad_y * weight[:, None],
        grad_t / len(target),
    )
    return terms


def players_of(logits, layout):
    """Two leaves with the same numbers, as rows or as dense logits of one image, and the pair."""
    leaves = [logits.clone().requires_grad_() for _ in range(2)]
    return leaves, symloss.RoutedLogits(
        *(leaf.T[None] if layout == "dense" else leaf for leaf in leaves)
    )


def extremes(half, dtype, scale, shift):
    """Logits of 32 source and 20 target samples, one half shifted, and labels, some ignored."""
    generator = torch.Generator().manual_seed(0)
    limit = 0.45 * torch.finfo(dtype).max
    drawn = []
    for n in (32, 20):
        logits = scale * torch.randn(n, 10, generator=generator, dtype=torch.float64)
        logits[:2] /= scale  # rows that do not saturate
        logits[:, half] += shift
        drawn.append(logits.clamp(-limit, limit).to(dtype))
    labels = torch.randint(5, (32,), generator=generator)
    labels[5:9] = -100
    return *drawn, labels


@pytest.mark.parametrize("layout", ["rows", "dense"])
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(
    ("dtype", "scale", "shift", "rtol", "half"),
    halves(
        [
            (torch.float64, 3.0, 0.0, 1e-12),
            (torch.float64, 3e3, 1e4, 1e-9),
            (torch.float32, 3.0, 0.0, 1e-5),
            (torch.float32, 3e3, 0.0, 1e-4),
            (torch.float32, 3.0, 1e3, 1e-4),
            (torch.float32, 3.0, 1e4, 1e-4),
            (torch.bfloat16, 3.0, 0.0, 4e-3),
            (torch.float16, 3e4, 0.0, 1e-3),
        ]
    ),
)
def test_each_term_and_its_gradient_equal_the_papers(
    objective, layout, dtype, scale, shift, rtol, half
):
    source, target, labels = extremes(half, dtype, scale, shift)
    expected = reference_terms(source.double().numpy(), labels.numpy(), target.double().numpy())
    leaves_s, routed_s = players_of(source, layout)
    leaves_t, routed_t = players_of(target, layout)
    y = labels[None] if layout == "dense" else labels
    losses = getattr(symloss, objective)(routed_s, y, routed_t)
    for i, (name, loss) in enumerate(losses._asdict().items()):
        value, *gradients = expected[name]
        assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32), name
        np.testing.assert_allclose(loss.item(), value, rtol=min(rtol, 1e-4), err_msg=name)
        loss.backward(retain_graph=True)
        player = i // 3
        for leaves, want in zip((leaves_s, leaves_t), gradients, strict=True):
            assert leaves[1 - player].grad is None, name
            got = leaves[player].grad
            assert got.dtype == dtype
            close = {"rtol": rtol, "atol": rtol * np.abs(want).max(), "err_msg": name}
            np.testing.assert_allclose(got.double(), want, **close)
            leaves[player].grad = None


@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 2.0, 0.25])])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_gradcheck_of_the_terms_each_with_a_factor(objective, weight):
    def loss(*logits):
        source, target = symloss.RoutedLogits(*logits[:2]), symloss.RoutedLogits(*logits[2:])
        labels = torch.tensor([[0, 2, -100], [1, 2, 0]])
        losses = getattr(symloss, objective)(source, labels, target, weight=weight)
        factors = torch.tensor([1.0, -0.5, 2.0, 0.3, 1.7, -0.9], dtype=torch.float64)
        return factors[: len(losses)] @ torch.stack(losses)

    logits = (*routed((2, 6, 3), seed=0), *routed((4, 6, 2), seed=1))
    assert torch.autograd.gradcheck(loss, logits)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_backward_can_be_repeated_and_the_players_taken_one_by_one(objective):
    source, target = routed((8, 6), seed=0), routed((5, 6), seed=1)
    losses = getattr(symloss, objective)(source, SOURCE_LABELS, target)
    both = torch.autograd.grad(losses.total(0.7), [*source, *target], retain_graph=True)
    losses.extractor(0.7).backward()  # frees its own part of the graph alone
    assert source.head.grad is None
    losses.head().backward()
    torch.testing.assert_close([x.grad for x in (*source, *target)], [*both])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_second_derivatives_are_refused(objective):
    losses = getattr(symloss, objective)(routed((8, 6)), SOURCE_LABELS, routed((5, 6)))
    for player in (losses.head(), losses.extractor(0.5)):
        with pytest.raises(RuntimeError, match=r"once; .* symloss\.functional"):
            player.backward(create_graph=True)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's forward mode, of itself
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "transform",
    [
        torch.func.grad,
        torch.func.jacrev,
        torch.func.jacfwd,
        torch.func.hessian,
        torch.func.vmap,
        lambda f: lambda x: torch.func.vjp(f, x),
        lambda f: lambda x: torch.func.jvp(f, (x,), (x,)),
    ],
)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_torch_func_is_refused_in_our_words(objective, transform):
    def loss(v):
        pair = symloss.RoutedLogits(v.reshape(-1, 6), 2 * v.reshape(-1, 6))
        labels = torch.zeros(len(pair.head), dtype=torch.int64)
        other = symloss.RoutedLogits(*pair)
        return getattr(symloss, objective)(pair, labels, other).total(0.5)

    with pytest.raises(
        RuntimeError, match=r"cannot be used under torch\.func, .* symloss\.functional"
    ):
        transform(loss)(torch.randn(8, 6))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_if_no_label_counts_the_labelled_terms_are_nan_and_have_no_gradient(objective):
    source, target = routed((8, 6)), routed((5, 6))
    nothing = torch.full((8,), -100)
    for weight in (None, torch.ones(3)):
        losses = getattr(symloss, objective)(source, nothing, target, weight=weight)._asdict()
        labelled = {"source_task", "target_task", "category_confusion", "category_discrimination"}
        losses = [loss for name, loss in losses.items() if name in labelled]
        assert all(loss.isnan() for loss in losses)
        gradients = torch.autograd.grad(sum(losses), source)
        assert all((gradient == 0).all() for gradient in gradients)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_weights_of_one_change_nothing_and_weights_that_sum_to_zero_give_nan(objective):
    source, target = routed((8, 6)), routed((5, 6))
    loss = getattr(symloss, objective)
    plain = loss(source, SOURCE_LABELS, target)
    torch.testing.assert_close(
        [*loss(source, SOURCE_LABELS, target, weight=torch.ones(3))], [*plain]
    )
    nothing = loss(source, SOURCE_LABELS, target, weight=torch.zeros(3))
    assert nothing.source_task.isnan()
    assert nothing.target_task.isnan()
    assert nothing.category_confusion.isnan()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_weights_of_any_dtype_get_no_gradient(objective):
    source, target = routed((8, 6), torch.float32), routed((5, 6), torch.float32)
    loss = getattr(symloss, objective)
    want = loss(source, SOURCE_LABELS, target, weight=torch.tensor([0.5, 2.0, 1.0]))
    for dtype in (torch.bfloat16, torch.float64):
        weight = torch.tensor([0.5, 2.0, 1.0], dtype=dtype, requires_grad=True)
        losses = loss(source, SOURCE_LABELS, target, weight=weight)
        torch.testing.assert_close([*losses], [*want])
        losses.total(0.5).backward()
        assert weight.grad is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("position", [0, 2])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_bad_numbers_are_not_hidden(objective, position, bad):
    arguments = [routed((8, 6)), SOURCE_LABELS, routed((5, 6))]
    for player in arguments[position]:
        with torch.no_grad():
            player[0, [0, 3]] = bad
    losses = getattr(symloss, objective)(*arguments)
    assert not losses.head().isfinite()
    assert not losses.extractor(1.0).isfinite()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_category_masked_with_minus_infinity_is_as_if_it_were_not_there(objective):
    def pad(joint, value):
        return nn.functional.pad(joint.reshape(-1, 2, 3), (0, 1), value=value).flatten(1)

    source, target = routed((8, 6), seed=0), routed((5, 6), seed=1)
    wider = [
        symloss.RoutedLogits(*(pad(x, -math.inf).detach().requires_grad_() for x in y))
        for y in (source, target)
    ]
    losses = getattr(symloss, objective)(source, SOURCE_LABELS, target)
    with_masked = getattr(symloss, objective)(wider[0], SOURCE_LABELS, wider[1])
    torch.testing.assert_close([*with_masked], [*losses])
    gradients = torch.autograd.grad(losses.total(0.5), [*source, *target])
    with_masked.total(0.5).backward()
    for leaf, want in zip((*wider[0], *wider[1]), gradients, strict=True):
        torch.testing.assert_close(leaf.grad, pad(want, 0.0))


@pytest.mark.parametrize(("objective", "most"), [("symnet_losses", 2.5), ("symnet_v2_losses", 2.7)])
def test_the_backward_keeps_little(objective, most):
    source, target = (routed((2000, 38), torch.float32, seed) for seed in (0, 1))
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        losses = getattr(symloss, objective)(source, torch.arange(2000) % 19, target)
    logits = sum(routed.head.untyped_storage().nbytes() for routed in (source, target))
    assert sum(kept.values()) < most * logits
    losses.total(0.5).backward()


# The gradient rule (section 3 of the design): routed equals two backwards


def two_backwards(objective, extractor, head, x_s, y_s, x_t, lam):
    """Run the textbook recipe: one backward for each player over the same graph."""
    source, target = (symloss.RoutedLogits(*[head(extractor(x))] * 2) for x in (x_s, x_t))
    terms = [*composed(objective, source, y_s, target).values()]
    for_head, for_extractor = sum(terms[:3]), terms[3] + lam * sum(terms[4:])
    keep = {"retain_graph": True}
    of_head = torch.autograd.grad(for_head, list(head.parameters()), **keep)
    of_extractor = torch.autograd.grad(for_extractor, list(extractor.parameters()))
    return [*of_extractor, *of_head]


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("router", ["head.route", "symloss.route"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_routed_gradients_equal_the_two_backward_recipe(objective, router, dtype, dense):
    (x_s, x_t), lam = images(dtype), 0.7
    y_s = torch.randint(3, (8, 3, 3)) if dense else SOURCE_LABELS
    extractor, head = players(dtype, dense)
    want = two_backwards(objective, extractor, head, x_s, y_s, x_t, lam)

    extractor, head = players(dtype, dense)
    route = head.route if router == "head.route" else lambda f: symloss.route(head, f)
    source, target = route(extractor(x_s)), route(extractor(x_t))
    getattr(symloss, objective)(source, y_s, target).total(lam).backward()
    got = [p.grad for p in (*extractor.parameters(), *head.parameters())]

    largest = max(gradient.abs().max() for gradient in want)
    for g, w in zip(got, want, strict=True):
        if dtype == torch.float64:
            torch.testing.assert_close(g, w, rtol=1e-10, atol=1e-12)
        else:
            assert (g - w).abs().max() < 1e-5 * largest


def test_one_forward_per_domain_and_one_backward():
    extractor, head = players(torch.float32)
    counts = {"forward": 0, "backward": 0}

    def count(name):
        counts[name] += 1

    extractor.register_forward_hook(lambda *_: count("forward"))
    extractor[-1].weight.register_hook(lambda _: count("backward"))
    x_s, x_t = images(torch.float32)
    source, target = head.route(extractor(x_s)), head.route(extractor(x_t))
    symloss.symnet_losses(source, SOURCE_LABELS, target).total(0.5).backward()
    # A parameter's hook runs once per backward, on its whole gradient.
    assert counts == {"forward": 2, "backward": 1}


def test_a_heads_two_passes_may_differ():
    torch.manual_seed(0)
    head = nn.Sequential(nn.Dropout(0.5), nn.Linear(12, 6)).double()
    features = torch.randn(8, 12, dtype=torch.float64, requires_grad=True)
    source = symloss.route(head, features)
    assert not torch.equal(source.head, source.extractor)
    target = symloss.RoutedLogits(*source)
    losses = symloss.symnet_losses(source, SOURCE_LABELS, target)
    want = torch.autograd.grad(
        sf.source_task(source.head, SOURCE_LABELS)
        + sf.target_task(source.head, SOURCE_LABELS)
        + sf.domain_discrimination(source.head, source.head)
        + sf.category_confusion(source.extractor, SOURCE_LABELS)
        + 0.5 * sf.domain_confusion(source.extractor)
        + 0.5 * sf.symmetric_entropy(source.extractor),
        source,
        retain_graph=True,
    )
    torch.testing.assert_close(torch.autograd.grad(losses.total(0.5), source), want)


# Composition


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    ("backend", "router", "objective"),
    [
        ("aot_eager", "head.route", "symnet_v2_losses"),
        ("aot_eager", "symloss.route", "symnet_losses"),
        pytest.param("inductor", "head.route", "symnet_losses", marks=pytest.mark.slow),
    ],
)
def test_the_whole_step_compiles_without_a_graph_break(backend, router, objective):
    if backend == "inductor" and shutil.which("g++") is None:
        pytest.skip("torch's inductor backend needs a C++ compiler")
    if router == "symloss.route" and tuple(map(int, torch.__version__.split(".")[:2])) < (2, 5):
        pytest.skip("torch.compile(fullgraph=True) traces functional_call from torch 2.5")
    torch._dynamo.reset()
    extractor, head = players(torch.float32)
    x_s, x_t = images(torch.float32)

    def loss(x_s, y_s, x_t, lam):
        if router == "head.route":
            source, target = head.route(extractor(x_s)), head.route(extractor(x_t))
        else:
            source = symloss.route(head, extractor(x_s))
            target = symloss.route(head, extractor(x_t))
        weight = torch.tensor([0.5, 2.0, 1.0])
        return getattr(symloss, objective)(source, y_s, target, weight=weight).total(lam)

    parameters = [*extractor.parameters(), *head.parameters()]
    lam = torch.tensor(0.7)
    want = torch.autograd.grad(loss(x_s, SOURCE_LABELS, x_t, lam), parameters)
    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    got = torch.autograd.grad(compiled(x_s, SOURCE_LABELS, x_t, lam), parameters)
    largest = max(gradient.abs().max() for gradient in want)
    for g, w in zip(got, want, strict=True):
        assert (g - w).abs().max() < 1e-4 * largest


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_autocast_trains_in_bfloat16(objective):
    extractor, head = players(torch.float32)
    x_s, x_t = images(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        source, target = head.route(extractor(x_s)), head.route(extractor(x_t))
        losses = getattr(symloss, objective)(source, SOURCE_LABELS, target)
    assert source.head.dtype == torch.bfloat16
    assert all(loss.dtype == torch.float32 for loss in losses)
    losses.total(0.5).backward()
    assert all(p.grad.isfinite().all() for p in (*extractor.parameters(), *head.parameters()))


# Bad input


@pytest.mark.parametrize("position", [0, 2])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_plain_logits_are_refused(objective, position):
    arguments = [routed((8, 6)), SOURCE_LABELS, routed((5, 6))]
    arguments[position] = torch.zeros(8, 6)
    name = ("source", "labels", "target")[position]
    message = (
        rf"{name} must be RoutedLogits, got Tensor; call head\.route\(features\), "
        r"or symloss\.route\(head, features\)"
    )
    with pytest.raises(TypeError, match=message):
        getattr(symloss, objective)(*arguments)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch 2.4 about itself
def test_the_tuple_that_a_reentrant_checkpoint_makes_gets_a_hint():
    head, features = symloss.SymmetricHead(4, 3), torch.randn(8, 4, requires_grad=True)
    target = head.route(features[:5])

    def loss(use_reentrant):
        source = checkpoint(head.route, features, use_reentrant=use_reentrant)
        return symloss.symnet_losses(source, SOURCE_LABELS, target).total(0.5)

    with pytest.raises(TypeError, match=r"got tuple; .* a reentrant .* use_reentrant=False$"):
        loss(use_reentrant=True)
    loss(use_reentrant=False).backward()
    with pytest.raises(TypeError, match=r"got Tensor; .* for a wrapped head$"):
        symloss.symnet_losses(features, SOURCE_LABELS, target)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_pair_must_have_one_shape(objective):
    uneven = symloss.RoutedLogits(torch.zeros(5, 6), torch.zeros(5, 8))
    with pytest.raises(ValueError, match=r"target\.head and target\.extractor"):
        getattr(symloss, objective)(routed((8, 6)), SOURCE_LABELS, uneven)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_source_and_target_must_have_the_same_categories(objective):
    with pytest.raises(ValueError, match=r"same dim 1 .*\(8, 6\) and \(5, 8\)"):
        getattr(symloss, objective)(routed((8, 6)), SOURCE_LABELS, routed((5, 8)))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_field_that_is_wrong_is_named(objective):
    good = routed((8, 6))
    for bad in (torch.zeros(0, 6), torch.zeros(8, 5)):
        broken = symloss.RoutedLogits(good.head, bad)
        with pytest.raises(ValueError, match=r"source\.extractor must"):
            getattr(symloss, objective)(broken, SOURCE_LABELS, good)
    with pytest.raises(TypeError, match=r"target\.head must be a tensor, got list"):
        getattr(symloss, objective)(
            good, SOURCE_LABELS, symloss.RoutedLogits([1.0], good.extractor)
        )


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_bad_labels(objective):
    source, target = routed((8, 6)), routed((5, 6))
    with pytest.raises(ValueError, match=r"labels must be in \[0, 3\)"):
        getattr(symloss, objective)(source, torch.full((8,), 3), target)
    with pytest.raises(ValueError, match="labels must have shape"):
        getattr(symloss, objective)(source, SOURCE_LABELS[:5], target)
    with pytest.raises(TypeError, match="labels must be integer"):
        getattr(symloss, objective)(source, SOURCE_LABELS.float(), target)


@pytest.mark.parametrize(
    "losses", [symloss.SymNetLosses(*"123456"), symloss.SymNetV2Losses(*"12345")]
)
def test_lam_must_be_a_scalar(losses):
    for method in (losses.extractor, losses.total):
        with pytest.raises(ValueError, match=r"lam must be a number or a 0-d tensor, .* \(2,\)"):
            method(torch.ones(2))
