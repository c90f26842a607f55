"""Mistakes that would train silently wrong get an error or one warning, and right uses none."""

import math
import re

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import symloss
from symloss import _checks
from symloss import functional as sf

LABELS = torch.tensor([0, 1, 2, 0])


def sgd(*modules):
    return torch.optim.SGD([p for m in modules for p in m.parameters()], lr=0.1)


def loss_of(head, features_s, features_t):
    losses = symloss.symnet_losses(head.route(features_s), LABELS, head.route(features_t))
    return losses.total(lam=0.5)


@pytest.fixture
def parts():
    torch.manual_seed(0)
    return nn.Linear(5, 4), symloss.SymmetricHead(4, 3), torch.randn(4, 5), torch.randn(4, 5)


# The routed logits


def test_one_tensor_in_both_fields_is_refused():
    logits = torch.zeros(4, 6, requires_grad=True)
    good = symloss.RoutedLogits(logits, logits.clone())
    twice = symloss.RoutedLogits(logits, logits)
    for arguments, name in (((twice, LABELS, good), "source"), ((good, LABELS, twice), "target")):
        with pytest.raises(
            ValueError, match=rf"{name}\.head and {name}\.extractor .* got the same one twice, .*"
        ):
            symloss.symnet_losses(*arguments)


@pytest.mark.parametrize("objective", [symloss.symnet_losses, symloss.symnet_v2_losses])
def test_one_domain_in_place_of_two_is_refused(objective):
    logits = torch.zeros(4, 6, requires_grad=True)
    source = symloss.RoutedLogits(logits, logits.clone())
    with pytest.raises(ValueError, match="source and target must be the logits of two domains"):
        objective(source, LABELS, source)


# λ


@pytest.mark.parametrize("lam", [-0.1, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", [float, torch.tensor])
@pytest.mark.parametrize("method", ["extractor", "total"])
@pytest.mark.parametrize("objective", [symloss.SymNetLosses, symloss.SymNetV2Losses])
def test_lam_must_be_finite_and_at_least_0(objective, method, kind, lam):
    losses = objective(*torch.ones(len(objective._fields)))
    with pytest.raises(ValueError, match=f"lam must be finite and at least 0, got {lam}"):
        getattr(losses, method)(kind(lam))


@pytest.mark.parametrize("method", ["extractor", "total"])
@pytest.mark.parametrize("objective", [symloss.SymNetLosses, symloss.SymNetV2Losses])
def test_lam_is_required(objective, method):
    losses = objective(*torch.ones(len(objective._fields)))
    with pytest.raises(TypeError, match=r"missing 1 required positional argument: 'lam'"):
        getattr(losses, method)()


def test_values_are_read_on_the_cpu_alone():
    lam = torch.tensor(-1.0, device="meta")  # reading it would raise
    assert _checks.checked_lam(lam) is lam
    labels = torch.zeros(4, dtype=torch.long, device="meta")
    assert _checks.checked_labels(torch.zeros(4, 6, device="meta"), labels, -100).is_meta
    three = torch.zeros(3, device="meta")
    assert _checks.checked_weight(torch.zeros(4, 2, 3, device="meta"), three).is_meta
    assert _checks.checked_prior(three, three).is_meta


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_step_with_a_tensor_lam_compiles_whole(parts):
    extractor, head, x_s, x_t = parts

    @torch.compile(fullgraph=True, backend="aot_eager")
    def total(lam):
        source, target = head.route(extractor(x_s)), head.route(extractor(x_t))
        return symloss.symnet_losses(source, LABELS, target).total(lam)

    for lam in (torch.tensor(0.5), 0.5):
        torch.testing.assert_close(total(lam), loss_of(head, extractor(x_s), extractor(x_t)))


# Weights of categories

LOSSES = {
    "source_task": lambda v, w: sf.source_task(v, LABELS, weight=w),
    "target_task": lambda v, w: sf.target_task(v, LABELS, weight=w),
    "category_confusion": lambda v, w: sf.category_confusion(v, LABELS, weight=w),
    "category_discrimination": lambda v, w: sf.category_discrimination(v, LABELS, v, weight=w),
    "symnet_losses": lambda v, w: symloss.symnet_losses(two(v), LABELS, two(v), weight=w),
    "symnet_v2_losses": lambda v, w: symloss.symnet_v2_losses(two(v), LABELS, two(v), weight=w),
}


def two(logits):
    return symloss.RoutedLogits(logits, logits.clone())


@pytest.mark.parametrize(
    ("weight", "error", "message"),
    [
        ([1.0, 2.0, 1.0], TypeError, "weight must be a tensor, got list"),
        (torch.ones(3, dtype=torch.int64), TypeError, r"floating point, got torch\.int64"),
        (torch.ones(2), ValueError, r"weight must have shape \(3,\), .* got \(2,\)"),
        (torch.ones(6), ValueError, r"weight must have shape \(3,\), .* got \(6,\)"),
        (torch.ones(1, 3), ValueError, r"weight must have shape \(3,\), .* got \(1, 3\)"),
        (torch.tensor(1.0), ValueError, r"weight must have shape \(3,\), .* got \(\)"),
        (torch.tensor([1.0, -0.5, 1.0]), ValueError, r"finite and at least 0, got \[1.0, -0.5"),
        (torch.tensor([1.0, math.nan, 1.0]), ValueError, "finite and at least 0, got"),
        (torch.tensor([1.0, math.inf, 1.0]), ValueError, "finite and at least 0, got"),
        (torch.ones(3, device="meta"), ValueError, "the logits' device, cpu, got meta"),
    ],
)
@pytest.mark.parametrize("loss", LOSSES)
def test_bad_weights(loss, weight, error, message):
    with pytest.raises(error, match=message):
        LOSSES[loss](torch.zeros(4, 6), weight)


# Features


@pytest.mark.parametrize("method", ["__call__", "route", "predict"])
def test_logits_in_place_of_features_get_a_hint(method):
    head = symloss.SymmetricHead(2048, 31)
    with pytest.raises(ValueError, match=r"\(N, 2048\), got \(4, 1000\).*backbone\.fc = "):
        getattr(head, method)(torch.zeros(4, 1000))
    with pytest.raises(ValueError, match=r"\(4, 2048, 1, 1\); call features.flatten\(1\)$"):
        getattr(head, method)(torch.zeros(4, 2048, 1, 1))


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((5, 2, 2, 2), "; call features.flatten(1)"),
        ((5, 7, 8), "; average the positions, features.mean(1) or take one, features[:, 0]"),
        ((5, 3, 3, 8), "; average the positions, features.mean((1, 2))"),
        ((5, 8, 7), "; average the positions, features.mean(2)"),
        ((5, 8, 3, 3), "; average the positions, features.mean((2, 3))"),
        ((5, 3, 3), ""),
        ((8,), "; call features.unsqueeze(0) for a batch of one"),
    ],
)
def test_the_hint_for_features_of_another_shape_is_one_that_works(shape, hint):
    head = symloss.SymmetricHead(8, 3)
    features = torch.zeros(shape)
    with pytest.raises(ValueError, match=re.escape(f"got {shape}{hint}") + "$"):
        head(features)
    for call in re.findall(r"features[.\[].*?[\])](?=$| )", hint):
        head(eval(call, {"features": features}))


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((5, 3, 2, 8), "; call features.permute(0, 3, 1, 2)"),
        ((8, 3, 2), "; call features.unsqueeze(0) for a batch of one"),
        ((5, 8), ""),
    ],
)
def test_the_hint_for_pixels_of_another_shape(shape, hint):
    with pytest.raises(ValueError, match=re.escape(f"got {shape}{hint}") + "$"):
        symloss.SymmetricHead2d(8, 3)(torch.zeros(shape))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("method", ["__call__", "route", "predict"])
@pytest.mark.parametrize(
    ("head", "shape"),
    [(symloss.SymmetricHead(4, 3), (2, 4)), (symloss.SymmetricHead2d(4, 3), (2, 4, 3, 3))],
    ids=["linear", "2d"],
)
def test_features_of_another_dtype_need_autocast(head, shape, method, dtype):
    features = torch.zeros(shape, dtype=dtype)
    message = f"the head's dtype, torch.float32, got {dtype}; run the head under torch.autocast"
    with pytest.raises(TypeError, match=message):
        getattr(head, method)(features)
    if dtype == torch.bfloat16:
        with torch.autocast("cpu", torch.bfloat16):
            getattr(head, method)(features)


# Optimizers


def test_an_optimizer_that_needs_a_closure_is_refused(parts):
    extractor, head, *_ = parts
    lbfgs = torch.optim.LBFGS(head.parameters())
    with pytest.raises(TypeError, match="head must step without a closure, got LBFGS; use SGD"):
        symloss.TwoOptimizerStep(extractor=sgd(extractor), head=lbfgs)


class Wrapped(torch.optim.Optimizer):
    """As Accelerate's: an Optimizer that holds another."""

    def __init__(self, optimizer):
        self.optimizer = optimizer


def test_a_wrapped_optimizer_is_refused_by_name(parts):
    extractor, head, *_ = parts
    message = r"extractor must be a plain .*, got Wrapped, .* use one optimizer over symloss\.param"
    with pytest.raises(TypeError, match=message):
        symloss.TwoOptimizerStep(extractor=Wrapped(sgd(extractor)), head=sgd(head))


@pytest.mark.slow  # to import them takes most of its time
def test_accelerate_and_lightning_are_wrappers(parts):
    accelerate = pytest.importorskip("accelerate", reason="needs Accelerate")
    lightning = pytest.importorskip("lightning.pytorch.core.optimizer", reason="needs Lightning")
    extractor, head, *_ = parts
    prepared = accelerate.Accelerator(cpu=True).prepare(sgd(head))
    for wrapped in (prepared, lightning.LightningOptimizer(sgd(head))):
        with pytest.raises(TypeError, match=f"head must be a plain .*{type(wrapped).__name__}"):
            symloss.TwoOptimizerStep(extractor=sgd(extractor), head=wrapped)


@pytest.mark.parametrize("argument", ["pretrained", "new"])
def test_parameter_groups_take_modules_not_parameters(parts, argument):
    extractor, head, *_ = parts
    modules = {"pretrained": extractor, "new": head}
    got = modules | {argument: extractor.parameters()}
    with pytest.raises(TypeError, match=rf"{argument} must be .*, got generator; pass the module"):
        symloss.parameter_groups(**got, lr=0.1)
    with pytest.raises(TypeError, match=f"{argument} must be .*, got list"):
        symloss.parameter_groups(**modules | {argument: [*extractor.parameters()]}, lr=0.1)
    for empty in (nn.ReLU(), []):
        with pytest.raises(ValueError, match=f"{argument} must have parameters, got none"):
            symloss.parameter_groups(**modules | {argument: empty}, lr=0.1)


# Gradients that did not come, and gradients that nobody takes


def test_a_frozen_backbone_gets_one_warning(parts):
    extractor, head, x_s, x_t = parts
    step = symloss.TwoOptimizerStep(extractor=sgd(extractor), head=sgd(head))
    extractor.requires_grad_(False)
    with pytest.warns(UserWarning, match="no parameter of the extractor got a grad"):
        step(loss_of(head, extractor(x_s), extractor(x_t)))
    step(loss_of(head, extractor(x_s), extractor(x_t)))  # a second one would be an error here


def test_features_made_under_no_grad_get_a_warning_at_the_end_of_the_first_cycle(parts):
    extractor, head, x_s, x_t = parts
    step = symloss.TwoOptimizerStep(extractor=sgd(extractor), head=sgd(head), accumulate=2)
    with torch.no_grad():
        features = extractor(x_s), extractor(x_t)
    step(loss_of(head, *features))
    with pytest.warns(UserWarning, match=r"torch\.no_grad\(\) or read from a file.*bottleneck"):
        step(loss_of(head, *features))


def test_a_head_that_does_not_learn_gets_a_warning(parts):
    extractor, head, x_s, x_t = parts
    other = symloss.SymmetricHead(4, 3)
    step = symloss.TwoOptimizerStep(extractor=sgd(extractor), head=sgd(other))
    with pytest.warns(UserWarning, match="parameter") as caught:
        step(loss_of(head, extractor(x_s), extractor(x_t)))
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == 2
    assert "no parameter of the head got a gradient" in messages[0]
    assert "2 parameters of the loss belong to neither" in messages[1]
    assert {warning.filename for warning in caught} == {__file__}


def test_a_forgotten_bottleneck_is_named_by_its_shapes(parts):
    backbone, head, x_s, x_t = parts
    bottleneck = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    step = symloss.TwoOptimizerStep(extractor=sgd(backbone), head=sgd(head))
    with pytest.warns(UserWarning, match=r"2 parameters .* \(4, 4\), \(4,\)\. If this is a bot"):
        step(loss_of(head, bottleneck(backbone(x_s)), bottleneck(backbone(x_t))))


# The same look, for those with one optimizer


def wiring(part, form):
    """One player as any of the forms that check_wiring takes."""
    if form == "optimizer":
        return sgd(part)
    return part if form == "module" else part.parameters()


FORMS = pytest.mark.parametrize("form", ["module", "optimizer", "parameters"])


@FORMS
@pytest.mark.parametrize("player", ["extractor", "head"])
def test_check_wiring_names_a_player_without_gradient(parts, player, form):
    extractor, head, x_s, x_t = parts
    players = {"extractor": extractor, "head": head}
    players[player].requires_grad_(False)
    loss = loss_of(head, extractor(x_s), extractor(x_t))
    loss.backward()
    with pytest.warns(UserWarning, match=f"no parameter of the {player} got a grad") as caught:
        symloss.check_wiring(loss, **{name: wiring(p, form) for name, p in players.items()})
    assert [warning.filename for warning in caught] == [__file__]


@FORMS
def test_check_wiring_names_a_forgotten_bottleneck(parts, form):
    backbone, head, x_s, x_t = parts
    bottleneck = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    loss = loss_of(head, bottleneck(backbone(x_s)), bottleneck(backbone(x_t)))
    loss.backward()
    symloss.check_wiring(loss, [*backbone.parameters(), *bottleneck.parameters()], head)
    with pytest.warns(UserWarning, match=r"2 parameters .* \(4, 4\), \(4,\)\. If this is a bot"):
        symloss.check_wiring(loss, wiring(backbone, form), wiring(head, form))


def test_check_wiring_before_the_backward_is_refused(parts):
    extractor, head, x_s, x_t = parts
    loss = loss_of(head, extractor(x_s), extractor(x_t))
    with pytest.raises(RuntimeError, match="must be called after the loss's backward"):
        symloss.check_wiring(loss, extractor, head)
    loss.backward()
    symloss.check_wiring(loss, extractor, head)


def test_check_wiring_takes_parameters_of_two_players_and_the_loss_itself(parts):
    extractor, head, x_s, x_t = parts
    loss = loss_of(head, extractor(x_s), extractor(x_t))
    loss.backward()
    with pytest.raises(ValueError, match="loss must be the one that backward ran on"):
        symloss.check_wiring(loss.detach(), extractor, head)
    with pytest.raises(ValueError, match="share parameters, got 2 in both"):
        symloss.check_wiring(loss, nn.Sequential(extractor, head), head)
    with pytest.raises(ValueError, match="head must have parameters, got none"):
        symloss.check_wiring(loss, extractor, [p for p in head.parameters() if p.numel() == 0])
    with pytest.raises(TypeError, match=r"head must be a module, .* got a str among these"):
        symloss.check_wiring(loss, extractor, sgd(head).param_groups[0])
    with pytest.raises(TypeError, match="loss must be a tensor, got float"):
        symloss.check_wiring(1.0, extractor, head)


# Warnings are errors in this suite, so what follows is silent.


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch 2.4 about itself
def test_partly_frozen_checkpointed_and_learnt_inputs_are_silent(parts):
    extractor, head, x_s, x_t = parts
    deep = nn.Sequential(extractor, nn.Linear(4, 4), nn.Linear(4, 4))
    deep[0].requires_grad_(False)
    step = symloss.TwoOptimizerStep(extractor=sgd(deep), head=sgd(head))
    x_s.requires_grad_()
    step(loss_of(head, deep(x_s), deep(x_t)))
    for reentrant in (False, True):
        step = symloss.TwoOptimizerStep(extractor=sgd(deep), head=sgd(head))
        features = [checkpoint(deep, x, use_reentrant=reentrant) for x in (x_s, x_s + 1)]
        step(loss_of(head, *features))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_compiled_extractor_is_silent(parts):
    extractor, head, x_s, x_t = parts
    compiled = torch.compile(extractor, backend="aot_eager")
    step = symloss.TwoOptimizerStep(extractor=sgd(extractor), head=sgd(head))
    step(loss_of(head, compiled(x_s), compiled(x_t)))
    forgotten = nn.Linear(4, 4)
    both = torch.compile(nn.Sequential(extractor, forgotten), backend="aot_eager")
    step = symloss.TwoOptimizerStep(extractor=sgd(extractor), head=sgd(head))
    with pytest.warns(UserWarning, match=r"2 parameters .* shapes \(4,\), \(4, 4\)\."):
        step(loss_of(head, both(x_s), both(x_t)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_step_under_autocast_compiles_whole(parts):
    extractor, head, x_s, x_t = parts

    def total():
        with torch.autocast("cpu", torch.bfloat16):
            return loss_of(head, extractor(x_s), extractor(x_t))

    compiled = torch.compile(total, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(), total(), rtol=1e-2, atol=1e-2)
