import copy
import functools
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune
from torch.utils._pytree import tree_map

import symloss

HEADS = {
    "linear": (lambda **options: symloss.SymmetricHead(4, 3, **options), (5, 4)),
    "conv": (lambda **options: symloss.SymmetricHead2d(4, 3, **options), (5, 4, 2, 3)),
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", HEADS)
def test_joint_logits_are_one_linear_layer(kind, bias):
    make, shape = HEADS[kind]
    head, features = make(bias=bias, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
    expected = torch.einsum("nf...,kf->nk...", features, head.weight.flatten(1))
    if bias:
        expected = expected + head.bias.view(-1, *[1] * (features.dim() - 2))
    torch.testing.assert_close(head(features), expected)
    assert list(head.state_dict()) == ["weight", "bias"][: 1 + bias]
    assert head.num_classes == 3


def test_a_layer_trained_elsewhere_loads():
    trained = nn.Linear(4, 6)
    head = symloss.SymmetricHead(4, 3)
    head.load_state_dict(trained.state_dict())
    features = torch.randn(5, 4)
    assert torch.equal(head(features), trained(features))


def test_the_init_is_torchs():
    torch.manual_seed(0)
    expected = nn.Linear(4, 6)
    torch.manual_seed(0)
    assert torch.equal(symloss.SymmetricHead(4, 3).weight, expected.weight)


def test_device_and_dtype_are_the_users():
    head = symloss.SymmetricHead(4, 3, device="meta", dtype=torch.bfloat16)
    assert head.weight.is_meta
    assert head.weight.dtype == torch.bfloat16
    head2d = symloss.SymmetricHead2d(4, 3, device="meta", dtype=torch.bfloat16)
    assert head2d.weight.shape == (6, 4, 1, 1)
    assert head2d.weight.is_meta


# Routing


def mlp():
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 6)).double()


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode, self.decode = nn.Linear(4, 4), nn.Linear(4, 4)
        self.decode.weight = self.encode.weight

    def forward(self, x):
        return self.decode(self.encode(x)).repeat(1, 2)[:, :6]


def routers():
    for kind, (make, shape) in HEADS.items():
        for bias in (True, False):
            head = make(bias=bias, dtype=torch.float64)
            yield pytest.param(head, head.route, shape, id=f"{kind}-bias-{bias}")
            yield pytest.param(
                head, lambda f, h=head: symloss.route(h, f), shape, id=f"route-{kind}-bias-{bias}"
            )
    for head in (mlp(), Tied().double()):
        yield pytest.param(
            head, lambda f, h=head: symloss.route(h, f), (5, 4), id=type(head).__name__
        )


@pytest.mark.parametrize(("head", "router", "shape"), [*routers()])
def test_each_player_gets_its_own_gradient_and_no_other(head, router, shape):
    features = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    parameters = list(head.parameters())
    logits = head(features)
    weights = torch.randn_like(logits)
    want = torch.autograd.grad((logits.sin() * weights).sum(), [features, *parameters])

    routed = router(features)
    assert torch.equal(routed.head, logits)
    assert torch.equal(routed.extractor, logits)
    grads = torch.autograd.grad(
        (routed.head.sin() * weights).sum(), [features, *parameters], allow_unused=True
    )
    assert grads[0] is None
    torch.testing.assert_close(grads[1:], want[1:])
    grads = torch.autograd.grad(
        (routed.extractor.sin() * weights).sum(), [features, *parameters], allow_unused=True
    )
    assert all(gradient is None for gradient in grads[1:])
    torch.testing.assert_close(grads[0], want[0])


def test_route_leaves_frozen_parameters_and_the_module_alone():
    head = mlp().eval()
    head[0].requires_grad_(False)
    before = copy.deepcopy(head.state_dict())
    parameters = dict(head.named_parameters())
    routed = symloss.route(head, torch.randn(5, 4, dtype=torch.float64, requires_grad=True))
    (routed.head.sum() + routed.extractor.sum()).backward()
    assert head[0].weight.grad is None
    assert head[2].weight.grad is not None
    assert not head.training
    assert all(parameters[name] is p for name, p in head.named_parameters())
    torch.testing.assert_close(head.state_dict(), before)


def test_a_compiled_head_can_be_routed():
    head = mlp()
    features = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    routed = symloss.route(torch.compile(head, backend="eager"), features)
    torch.testing.assert_close(routed.extractor, head(features))
    routed.extractor.sum().backward()
    assert features.grad is not None
    assert all(p.grad is None for p in head.parameters())


@pytest.mark.parametrize("kind", HEADS)
def test_routing_under_autocast(kind):
    make, shape = HEADS[kind]
    head, features = make(), torch.randn(shape, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        routed = head.route(features)
    assert routed.head.dtype == routed.extractor.dtype == torch.bfloat16
    routed.extractor.float().sum().backward()
    assert features.grad is not None
    assert head.weight.grad is None


class LowRank(nn.Module):
    """A layer as PEFT's LoRA makes it: the frozen head and a learnt product of low rank."""

    def __init__(self, base_layer):
        super().__init__()
        self.base_layer = base_layer.requires_grad_(False)
        self.lora_a, self.lora_b = nn.Linear(4, 2, bias=False), nn.Linear(2, 6, bias=False)

    def forward(self, x):
        return self.base_layer(x) + self.lora_b(self.lora_a(x))


def test_an_adapter_around_a_head_is_routed_by_the_function():
    head, features = LowRank(symloss.SymmetricHead(4, 3)), torch.randn(5, 4, requires_grad=True)
    routed = symloss.route(head, features)
    inputs = [features, head.lora_a.weight, head.lora_b.weight]
    reached = [
        [g is not None for g in torch.autograd.grad(v.sum(), inputs, allow_unused=True)]
        for v in routed
    ]
    assert reached == [[False, True, True], [True, False, False]]


# Outputs that other code takes apart


NAMED = {
    "RoutedLogits": (symloss.RoutedLogits, 2),
    "SymNetLosses": (symloss.SymNetLosses, 6),
    "SymNetV2Losses": (symloss.SymNetV2Losses, 5),
}


@pytest.mark.parametrize("name", NAMED)
def test_outputs_can_be_rebuilt_from_an_iterable_as_transformers_does(name):
    make, size = NAMED[name]
    fields = [*torch.arange(float(size))]
    output = make(*fields)
    for again in (
        type(output)(x.detach() for x in output),
        type(output)([x.numpy() for x in output]),
        type(output)(output),
        make._make(output),
        pickle.loads(pickle.dumps(output)),
        copy.deepcopy(output),
        tree_map(torch.clone, output),
    ):
        assert type(again) is make
        assert [float(x) for x in again] == [float(x) for x in fields]
    with pytest.raises(TypeError):
        make(fields[1:])
    with pytest.raises(TypeError, match="missing"):
        make(torch.zeros(size))


# Prediction


@pytest.mark.parametrize("router", ["head.route", "symloss.route"])
@pytest.mark.parametrize("kind", HEADS)
def test_a_forward_under_no_grad_takes_no_gradient_away(kind, router):
    make, shape = HEADS[kind]
    head, features = make(), torch.randn(shape, requires_grad=True)
    route = head.route if router == "head.route" else functools.partial(symloss.route, head)

    def gradients(before):
        with torch.autocast("cpu", torch.bfloat16):
            if before:
                head.predict(features)
                with torch.no_grad():
                    nn.Module.__call__(head, features)
                    torch.nn.functional.linear(torch.zeros(1, 4), head.weight.flatten(1))
            routed = route(features)
            loss = (routed.head.float().sin() + routed.extractor.float().cos()).sum()
        return torch.autograd.grad(loss, [features, *head.parameters()])

    for clean, after in zip(gradients(before=False), gradients(before=True), strict=True):
        assert torch.equal(clean, after)


def test_an_mlp_whose_weights_no_grad_cast_before_gets_its_gradient():
    head, features = mlp().float(), torch.randn(5, 4)
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            head(features)
        symloss.route(head, features).head.sum().backward()
    assert all(p.grad is not None for p in head.parameters())


# Weights that something computes


NORMS = {
    "spectral_norm": nn.utils.spectral_norm,
    "parametrizations.spectral_norm": nn.utils.parametrizations.spectral_norm,
    "weight_norm": nn.utils.weight_norm,
    "parametrizations.weight_norm": nn.utils.parametrizations.weight_norm,
    "prune": lambda head: prune.l1_unstructured(head, "weight", 0.3),
}


def seeded(make):
    torch.manual_seed(0)
    return make()


@pytest.mark.filterwarnings("ignore::FutureWarning")  # weight_norm's, of itself
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("router", ["head.route", "symloss.route"])
@pytest.mark.parametrize("kind", HEADS)
def test_computed_weights_train_through_either_route(kind, router, norm):
    make, shape = HEADS[kind]
    head, again = (seeded(lambda: NORMS[norm](make())) for _ in range(2))
    features = torch.randn(shape, requires_grad=True)
    for _ in range(3):  # the state of a power iteration goes on
        routed = head.route(features) if router == "head.route" else symloss.route(head, features)
        assert torch.equal(routed.head, routed.extractor)
        assert torch.equal(routed.head, again(features))
    found = torch.autograd.grad(routed.head.sin().sum(), [*head.parameters()])
    expected = torch.autograd.grad(again(features.detach()).sin().sum(), [*again.parameters()])
    if "spectral" not in norm:  # whose next forward has another weight
        for gradient, want in zip(found, expected, strict=True):
            torch.testing.assert_close(gradient, want)
    assert all(gradient.abs().sum() > 0 for gradient in found)
    (of_features,) = torch.autograd.grad(routed.extractor.sum(), [features])
    assert of_features.abs().sum() > 0
    assert torch.autograd.grad(routed.extractor.sum(), [*head.parameters()], allow_unused=True) == (
        None,
    ) * len(found)


def test_batch_norm_in_a_routed_head_counts_each_batch_once():
    torch.manual_seed(0)
    head = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6))
    once = copy.deepcopy(head)
    features = torch.randn(5, 4)
    routed = symloss.route(head, features)
    once(features)
    assert torch.equal(routed.head, routed.extractor)
    for buffer, want in zip(head.buffers(), once.buffers(), strict=True):
        assert torch.equal(buffer, want)


@pytest.mark.parametrize("kind", HEADS)
def test_predict_is_the_argmax_of_one_half_and_changes_no_mode(kind):
    make, shape = HEADS[kind]
    head, features = make(), torch.randn(shape, requires_grad=True)
    for mode in (True, False):
        head.train(mode)
        source, target = head(features).split(3, dim=1)
        assert torch.equal(head.predict(features), target.argmax(1))
        assert torch.equal(head.predict(features, "source"), source.argmax(1))
        assert head.training is mode
    with torch.inference_mode():
        assert head.predict(features).shape == (shape[0], *shape[2:])


@pytest.mark.parametrize("kind", HEADS)
def test_unknown_classifier(kind):
    make, shape = HEADS[kind]
    with pytest.raises(ValueError, match="classifier must be 'target' or 'source', got 'both'"):
        make().predict(torch.randn(shape), classifier="both")


# Deploying one classifier


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kind", HEADS)
def test_a_classifier_by_itself_is_a_plain_copy_of_its_half(kind, dtype, bias):
    make, shape = HEADS[kind]
    head, features = make(bias=bias, dtype=dtype), torch.randn(shape, dtype=dtype)
    for name, logits in zip(("source", "target"), head(features).chunk(2, dim=1), strict=True):
        layer = head.classifier(name)
        assert type(layer) is (nn.Linear if kind == "linear" else nn.Conv2d)
        assert (layer.bias is not None) == bias
        torch.testing.assert_close(layer(features), logits)
        assert torch.equal(layer(features).argmax(1), head.predict(features, name))
        before = head.weight.detach().clone()
        nn.init.zeros_(layer.weight)
        assert torch.equal(head.weight, before)
    with pytest.raises(ValueError, match="classifier must be 'target' or 'source', got 'both'"):
        head.classifier("both")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # of the checks of shapes
@pytest.mark.parametrize("kind", HEADS)
def test_export_and_trace_take_a_head(kind):
    make, shape = HEADS[kind]
    head, features = make(), torch.randn(shape)
    exported = torch.export.export(head, (features,)).module()
    traced = torch.jit.trace(head, features)
    for deployed in (exported, traced):
        torch.testing.assert_close(deployed(features), head(features))


# Adopting classifiers


@pytest.mark.parametrize("bias", [True, False])
def test_from_classifiers(bias):
    source, target = nn.Linear(4, 3, bias=bias), nn.Linear(4, 3, bias=bias)
    generator = torch.get_rng_state()
    head = symloss.SymmetricHead.from_classifiers(source, target)
    assert torch.equal(torch.get_rng_state(), generator)
    features = torch.randn(5, 4)
    torch.testing.assert_close(head(features), torch.cat([source(features), target(features)], 1))
    assert head.num_classes == 3
    assert all(p.requires_grad and p.is_leaf for p in head.parameters())
    with torch.no_grad():
        head.weight.zero_()
    assert source.weight.abs().sum() > 0  # a copy


@pytest.mark.parametrize(
    "target",
    [
        nn.Linear(4, 2),
        nn.Linear(5, 3),
        nn.Linear(4, 3, bias=False),
        nn.Linear(4, 3, dtype=torch.float64),
    ],
)
def test_classifiers_that_do_not_fit(target):
    with pytest.raises(ValueError, match="source and target must agree"):
        symloss.SymmetricHead.from_classifiers(nn.Linear(4, 3), target)


def test_classifiers_must_be_linear():
    with pytest.raises(TypeError, match=r"target must be a torch.nn.Linear, got Conv2d"):
        symloss.SymmetricHead.from_classifiers(nn.Linear(4, 3), nn.Conv2d(4, 3, 1))


# Bad input


@pytest.mark.parametrize(
    ("head", "argument"),
    [
        (symloss.SymmetricHead, "in_features"),
        (symloss.SymmetricHead2d, "in_channels"),
    ],
)
def test_sizes_below_one(head, argument):
    with pytest.raises(ValueError, match=f"{argument} must be at least 1, got 0"):
        head(0, 3)
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        head(4, 0)


@pytest.mark.parametrize("method", ["__call__", "route", "predict"])
@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("linear", (4,)),
        ("linear", (5, 3)),
        ("linear", (5, 6, 4)),
        ("conv", (5, 4)),
        ("conv", (4, 2, 3)),
        ("conv", (5, 3, 2, 3)),
    ],
)
def test_features_of_the_wrong_shape(method, kind, shape):
    head = HEADS[kind][0]()
    with pytest.raises(
        ValueError, match=r"features must have shape \(N, 4.*got \(" + str(shape[0])
    ):
        getattr(head, method)(torch.zeros(shape))


def test_route_names_what_is_wrong():
    with pytest.raises(TypeError, match=r"head must be a torch.nn.Module, got function"):
        symloss.route(F.relu, torch.zeros(2, 4))
    with pytest.raises(TypeError, match=r"features must be .* got torch.int64"):
        symloss.route(mlp(), torch.zeros(2, 4, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"features must be .* got list"):
        symloss.route(mlp(), [0.0])


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("method", ["__call__", "route", "predict"])
def test_features_must_be_floating_point(method, kind):
    make, shape = HEADS[kind]
    with pytest.raises(TypeError, match=r"features must be .* got torch.int64"):
        getattr(make(), method)(torch.zeros(shape, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"features must be .* got list"):
        getattr(make(), method)([0.0])


def test_route_materialises_a_lazy_head():
    routed = symloss.route(nn.LazyLinear(6), torch.zeros(2, 4))
    assert torch.equal(routed.head, routed.extractor)
