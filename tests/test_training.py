import copy
import math
import os
import warnings

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import symloss


def modules(norm=False, dtype=torch.float64):
    torch.manual_seed(0)
    layers = [nn.Linear(4, 8), *([nn.BatchNorm1d(8)] if norm else []), nn.Tanh(), nn.Linear(8, 6)]
    return nn.Sequential(*layers).to(dtype), symloss.SymmetricHead(6, 3).to(dtype)


def optimizers(extractor, head, make=torch.optim.SGD, **options):
    options = {"lr": 0.1, "momentum": 0.9} | options
    return {
        "extractor": make(extractor.parameters(), **options),
        "head": make(head.parameters(), **options),
    }


def batch(i, n=6, dtype=torch.float64):
    generator = torch.Generator().manual_seed(i)
    x_s, x_t = (torch.randn(n, 4, generator=generator).to(dtype) for _ in range(2))
    return x_s, torch.randint(3, (n,), generator=generator), x_t + 1


def total(extractor, head, x_s, y_s, x_t, lam=0.5):
    source, target = head.route(extractor(x_s)), head.route(extractor(x_t))
    return symloss.symnet_losses(source, y_s, target).total(lam)


def weights(*parts):
    return [p.detach().clone() for module in parts for p in module.parameters()]


def assert_equal(left, right):
    torch.testing.assert_close(left, right, rtol=0, atol=0)


# TwoOptimizerStep


def test_one_step_equals_two_plain_steps():
    extractor, head = modules()
    plain = copy.deepcopy((extractor, head))
    step = symloss.TwoOptimizerStep(**optimizers(extractor, head))
    theirs = optimizers(*plain)
    for i in range(3):
        assert step(total(extractor, head, *batch(i))) is True
        for optimizer in theirs.values():
            optimizer.zero_grad()
        total(*plain, *batch(i)).backward()
        for optimizer in theirs.values():
            optimizer.step()
    assert_equal(weights(extractor, head), weights(*plain))


def test_gradients_left_over_from_elsewhere_do_not_count():
    extractor, head = modules()
    plain = copy.deepcopy((extractor, head))
    total(extractor, head, *batch(7)).backward()
    symloss.TwoOptimizerStep(**optimizers(extractor, head))(total(extractor, head, *batch(0)))
    symloss.TwoOptimizerStep(**optimizers(*plain))(total(*plain, *batch(0)))
    assert_equal(weights(extractor, head), weights(*plain))


def test_accumulation_equals_one_large_batch():
    x_s, y_s, x_t = batch(0, n=12)
    extractor, head = modules()
    large = copy.deepcopy((extractor, head))
    step = symloss.TwoOptimizerStep(**optimizers(extractor, head), accumulate=3)
    for _ in range(2):
        results = [
            step(total(extractor, head, x_s[part], y_s[part], x_t[part]))
            for part in (slice(0, 4), slice(4, 8), slice(8, 12))
        ]
        assert results == [False, False, True]
    step = symloss.TwoOptimizerStep(**optimizers(*large))
    for _ in range(2):
        step(total(*large, x_s, y_s, x_t))
    torch.testing.assert_close(weights(extractor, head), weights(*large), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("with_scaler", [False, True])
@pytest.mark.parametrize("calls", [1, 2])
def test_an_incomplete_cycle_is_finished_with_the_mean_of_its_calls(calls, with_scaler):
    extractor, head = modules()
    plain = copy.deepcopy((extractor, head))
    options = {"scaler": scaler()} if with_scaler else {}
    step = symloss.TwoOptimizerStep(**optimizers(extractor, head), accumulate=3, **options)
    assert step.finish() is False
    assert_equal(weights(extractor, head), weights(*plain))
    losses = [total(extractor, head, *batch(i)) for i in range(calls)]
    assert [step(loss) for loss in losses] == [False] * calls
    assert step.finish() is True
    assert step.finish() is False
    step.state_dict()  # which is refused inside a cycle
    step = symloss.TwoOptimizerStep(**optimizers(*plain))
    step(sum(total(*plain, *batch(i)) for i in range(calls)) / calls)
    torch.testing.assert_close(weights(extractor, head), weights(*plain), rtol=1e-12, atol=1e-14)


def test_each_players_gradient_is_clipped_on_its_own():
    extractor, head = modules()
    step = symloss.TwoOptimizerStep(
        **optimizers(extractor, head, lr=1.0, momentum=0.0), max_grad_norm=0.01
    )
    reference = copy.deepcopy((extractor, head))
    total(*reference, *batch(0)).backward()
    before = weights(extractor), weights(head)
    step(total(extractor, head, *batch(0)))
    for module, old, ref in zip((extractor, head), before, reference, strict=True):
        moved = [b - a for b, a in zip(old, weights(module), strict=True)]
        norm = math.sqrt(sum(float(m.square().sum()) for m in moved))
        assert norm == pytest.approx(0.01, rel=1e-4)
        full = [p.grad for p in ref.parameters()]
        full_norm = math.sqrt(sum(float(g.square().sum()) for g in full))
        for m, g in zip(moved, full, strict=True):
            torch.testing.assert_close(m / norm, g / full_norm, rtol=1e-3, atol=1e-9)


def scaler(**options):
    return torch.amp.GradScaler("cpu", init_scale=1024.0, **options)


@pytest.mark.parametrize("max_grad_norm", [None, 0.05])
def test_a_scaler_changes_nothing_while_gradients_are_finite(max_grad_norm):
    extractor, head = modules()
    plain = copy.deepcopy((extractor, head))
    grad_scaler = scaler(growth_interval=2)
    step = symloss.TwoOptimizerStep(
        **optimizers(extractor, head), scaler=grad_scaler, max_grad_norm=max_grad_norm
    )
    plain_step = symloss.TwoOptimizerStep(**optimizers(*plain), max_grad_norm=max_grad_norm)
    for i in range(4):
        assert step(total(extractor, head, *batch(i))) is True
        plain_step(total(*plain, *batch(i)))
    torch.testing.assert_close(weights(extractor, head), weights(*plain), rtol=1e-9, atol=1e-12)
    assert grad_scaler.get_scale() == 4096  # updated once per step: it grew after steps 2 and 4


@pytest.mark.parametrize("max_grad_norm", [None, 1.0])
@pytest.mark.parametrize("player", ["extractor", "head"])
def test_a_player_whose_gradients_are_not_finite_is_skipped_alone(player, max_grad_norm):
    extractor, head = modules()
    grad_scaler = scaler()
    step = symloss.TwoOptimizerStep(
        **optimizers(extractor, head), scaler=grad_scaler, max_grad_norm=max_grad_norm
    )
    skipped, stepped = (extractor, head) if player == "extractor" else (head, extractor)
    before = weights(skipped), weights(stepped)
    overflow = next(skipped.parameters()).sum() * torch.tensor(math.inf)
    assert step(total(extractor, head, *batch(0)) + overflow) is False
    assert_equal(weights(skipped), before[0])
    assert all(not torch.equal(a, b) for a, b in zip(weights(stepped), before[1], strict=True))
    assert grad_scaler.get_scale() == 512
    assert step(total(extractor, head, *batch(1))) is True


def test_autocast_and_scaler_train_in_bfloat16():
    extractor, head = modules(norm=True, dtype=torch.float32)
    step = symloss.TwoOptimizerStep(**optimizers(extractor, head), scaler=scaler())
    first = last = None
    for _ in range(30):
        with torch.autocast("cpu", torch.bfloat16):
            loss = total(extractor, head, *batch(0, dtype=torch.float32))
        step(loss)
        first, last = first if first is not None else loss.item(), loss.item()
    assert last < first


@pytest.mark.parametrize("grad_scaler", [None, scaler()])
def test_a_player_without_gradients_is_left_alone(grad_scaler):
    extractor, head = modules()
    step = symloss.TwoOptimizerStep(**optimizers(extractor, head), scaler=grad_scaler)
    before = weights(extractor)
    x_s, y_s, _ = batch(0)
    loss = symloss.functional.source_task(head.route(extractor(x_s)).head, y_s)
    with pytest.warns(UserWarning, match="no parameter of the extractor"):
        assert step(loss) is True
    assert_equal(weights(extractor), before)


def test_a_loss_that_reaches_no_player_steps_nothing():
    extractor, head = modules()
    step = symloss.TwoOptimizerStep(**optimizers(extractor, head), scaler=scaler())
    with pytest.warns(UserWarning, match="got a gradient") as caught:
        assert step(torch.ones((), requires_grad=True)) is False
    assert len(caught) == 2


def test_schedulers_follow_a_player_that_the_loss_does_not_reach():
    extractor, head = modules()
    players = optimizers(extractor, head)
    schedule = symloss.AnnealedLR(players["extractor"], total_steps=5)
    with pytest.warns(UserWarning, match="no parameter of the extractor"):
        assert symloss.TwoOptimizerStep(**players)(head.weight.sum()) is True
    schedule.step()  # torch warns here if the optimizer was not stepped


class Broken(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise RuntimeError("broken on purpose")


def test_a_backward_that_fails_leaves_nothing_behind():
    extractor, head = modules()
    plain = copy.deepcopy((extractor, head))
    step = symloss.TwoOptimizerStep(**optimizers(extractor, head), accumulate=2)
    step(total(extractor, head, *batch(0)))
    source = head.route(Broken.apply(extractor(batch(1)[0])))
    target = head.route(extractor(batch(1)[2]))
    with pytest.raises(RuntimeError, match="broken on purpose"):
        step(symloss.symnet_losses(source, batch(1)[1], target).total(0.5))
    plain_step = symloss.TwoOptimizerStep(**optimizers(*plain), accumulate=2)
    for i in (2, 3):
        assert step(total(extractor, head, *batch(i))) is (i == 3)
        plain_step(total(*plain, *batch(i)))
    assert_equal(weights(extractor, head), weights(*plain))


def test_a_disabled_scaler_is_no_scaler():
    extractor, head = modules()
    plain = copy.deepcopy((extractor, head))
    step = symloss.TwoOptimizerStep(
        **optimizers(extractor, head), scaler=scaler(enabled=False), max_grad_norm=1.0
    )
    plain_step = symloss.TwoOptimizerStep(**optimizers(*plain), max_grad_norm=1.0)
    assert step(total(extractor, head, *batch(0))) is True
    plain_step(total(*plain, *batch(0)))
    assert_equal(weights(extractor, head), weights(*plain))


@pytest.mark.parametrize("scale", [0.0, math.inf, math.nan])
def test_a_scale_that_cannot_recover_is_no_step_and_said_once(scale):
    extractor, head = modules()
    grad_scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    step = symloss.TwoOptimizerStep(**optimizers(extractor, head), scaler=grad_scaler)
    before = weights(extractor, head)
    with pytest.warns(UserWarning, match=f"the scaler's scale is {scale} and cannot recover"):
        assert step(total(extractor, head, *batch(0))) is False
    assert step(total(extractor, head, *batch(1))) is False
    assert_equal(weights(extractor, head), before)


def test_a_scale_that_falls_to_0_is_said():
    extractor, head = modules()
    grad_scaler = torch.amp.GradScaler("cpu", init_scale=1e-37)
    step = symloss.TwoOptimizerStep(**optimizers(extractor, head), scaler=grad_scaler)
    before = weights(extractor, head)
    with pytest.warns(UserWarning, match=r"the scaler's scale is .*e-39 and cannot"):
        results = [step(total(extractor, head, *batch(i)) * math.nan) for i in range(8)]
    assert step(total(extractor, head, *batch(8))) is False  # whose unscaling would make NaN
    assert results == [False] * 8
    assert_equal(weights(extractor, head), before)


@pytest.mark.parametrize("calls", [1, 3])
def test_finish_looks_at_forgotten_parameters_too(calls):
    extractor, head = modules()
    bottleneck = nn.Linear(6, 6).double()
    step = symloss.TwoOptimizerStep(**optimizers(extractor, head), accumulate=8)
    for i in range(calls):  # the first call alone reaches the bottleneck
        between = nn.Sequential(extractor, bottleneck) if i == 0 else extractor
        assert step(total(between, head, *batch(i))) is False
    with pytest.warns(UserWarning, match="2 parameters of the loss belong to neither"):
        assert step.finish() is True
    step(total(nn.Sequential(extractor, bottleneck), head, *batch(9)))
    assert step.finish() is True  # and no second warning


def test_finish_looks_for_a_player_without_gradients():
    extractor, head = modules()
    step = symloss.TwoOptimizerStep(**optimizers(extractor, head), accumulate=8)
    step(head.weight.sum())
    with pytest.warns(UserWarning, match="no parameter of the extractor"):
        assert step.finish() is True


# Resuming


def trainer(make, with_scaler):
    extractor, head = modules(norm=True, dtype=torch.float32)
    players = optimizers(extractor, head, make)
    step = symloss.TwoOptimizerStep(
        **players, scaler=scaler(growth_interval=3) if with_scaler else None, accumulate=2
    )
    schedulers = [symloss.AnnealedLR(optimizer, total_steps=10) for optimizer in players.values()]
    return extractor, head, step, schedulers


def train(parts, first, last):
    extractor, head, step, schedulers = parts
    for i in range(first, last):
        lam = symloss.progressive_lambda(i / 20)
        if step(total(extractor, head, *batch(i, dtype=torch.float32), lam)):
            for scheduler in schedulers:
                scheduler.step()
    return [extractor.state_dict(), head.state_dict(), step.state_dict()]


def sgd(parameters, lr, momentum):
    return torch.optim.SGD(parameters, lr=lr, momentum=momentum)


def adam(parameters, lr, momentum):
    return torch.optim.Adam(parameters, lr=lr, betas=(momentum, 0.99))


@pytest.mark.parametrize("with_scaler", [False, True])
@pytest.mark.parametrize("make", [sgd, adam])
def test_resuming_equals_training_straight_through(make, with_scaler, tmp_path):
    straight = train(trainer(make, with_scaler), 0, 20)
    first = trainer(make, with_scaler)
    state = train(first, 0, 8)
    torch.save((state, [s.state_dict() for s in first[3]]), tmp_path / "checkpoint.pt")

    second = trainer(make, with_scaler)
    (extractor, head, step), schedulers = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    for part, saved in zip(second, (extractor, head, step), strict=False):
        part.load_state_dict(saved)
    for scheduler, saved in zip(second[3], schedulers, strict=True):
        scheduler.load_state_dict(saved)
    assert_equal(train(second, 8, 20), straight)


def test_state_inside_a_cycle_is_refused():
    extractor, head = modules()
    step = symloss.TwoOptimizerStep(**optimizers(extractor, head), accumulate=2)
    state = step.state_dict()
    step(total(extractor, head, *batch(0)))
    with pytest.raises(RuntimeError, match=r"state_dict must be .* got a call after 1 of 2"):
        step.state_dict()
    with pytest.raises(RuntimeError, match=r"load_state_dict must be .* got a call after 1 of 2"):
        step.load_state_dict(state)
    step(total(extractor, head, *batch(1)))
    step.load_state_dict(step.state_dict())


def test_state_of_another_kind_is_refused():
    extractor, head = modules()
    with_scaler = symloss.TwoOptimizerStep(**optimizers(extractor, head), scaler=scaler())
    without = symloss.TwoOptimizerStep(**optimizers(extractor, head))
    with pytest.raises(ValueError, match=r"state must have the keys .* got .*'scaler'"):
        without.load_state_dict(with_scaler.state_dict())
    with pytest.raises(ValueError, match=r"state must have the keys .*'scaler'"):
        with_scaler.load_state_dict(without.state_dict())


# Bad input of TwoOptimizerStep


def test_optimizers_that_share_a_parameter():
    extractor, head = modules()
    players = optimizers(nn.Sequential(extractor, head), head)
    with pytest.raises(ValueError, match="must not share parameters, got 2 in both"):
        symloss.TwoOptimizerStep(**players)


@pytest.mark.parametrize("player", ["extractor", "head"])
def test_an_optimizer_without_parameters(player):
    players = optimizers(*modules())
    players[player] = torch.optim.SGD([{"params": []}], lr=0.1)
    with pytest.raises(ValueError, match=f"{player} must have parameters"):
        symloss.TwoOptimizerStep(**players)


def test_modules_are_not_optimizers():
    extractor, head = modules()
    with pytest.raises(
        TypeError, match=r"extractor must be a torch.optim.Optimizer, got Sequential"
    ):
        symloss.TwoOptimizerStep(extractor, head)


@pytest.mark.parametrize("accumulate", [0, -1, 1.5, math.nan])
def test_accumulate_below_one(accumulate):
    with pytest.raises(
        ValueError, match=f"accumulate must be a whole number of at least 1, got {accumulate}"
    ):
        symloss.TwoOptimizerStep(**optimizers(*modules()), accumulate=accumulate)


@pytest.mark.parametrize("norm", [0.0, -1.0, math.nan])
def test_max_grad_norm_must_be_positive(norm):
    with pytest.raises(ValueError, match="max_grad_norm must be above 0"):
        symloss.TwoOptimizerStep(**optimizers(*modules()), max_grad_norm=norm)


def test_the_loss_must_be_a_scalar_tensor():
    step = symloss.TwoOptimizerStep(**optimizers(*modules()))
    losses = symloss.SymNetLosses(*torch.zeros(6))
    with pytest.raises(TypeError, match=r"got SymNetLosses; call its \.total\(lam\)"):
        step(losses)
    with pytest.raises(TypeError, match=r"loss must be a tensor, got float$"):
        step(1.0)
    with pytest.raises(ValueError, match=r"loss must be a scalar, got shape \(2,\)"):
        step(torch.ones(2, requires_grad=True))


# Schedules


@pytest.mark.parametrize("progress", [0.0, 0.001, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("gamma", [10.0, 1.0, 0.0])
def test_progressive_lambda_is_the_papers(progress, gamma):
    expected = 2 / (1 + math.exp(-gamma * progress)) - 1
    assert symloss.progressive_lambda(progress, gamma) == pytest.approx(expected, abs=1e-15)


def test_progressive_lambda_takes_any_gamma():
    assert symloss.progressive_lambda(1.0, 1e6) == 1.0


@pytest.mark.parametrize("progress", [-0.01, 1.01, math.nan, math.inf])
def test_progress_outside_its_range(progress):
    with pytest.raises(ValueError, match=rf"progress must be in \[0, 1\], got {progress}"):
        symloss.progressive_lambda(progress)


@pytest.mark.parametrize("gamma", [-1.0, math.nan, math.inf])
def test_gamma_below_zero(gamma):
    with pytest.raises(ValueError, match=f"gamma must be finite and at least 0, got {gamma}"):
        symloss.progressive_lambda(0.5, gamma)


def two_groups():
    parameters = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (0.001, 0.01)]
    return torch.optim.SGD(parameters, lr=1.0)


def test_annealed_lr_is_the_papers_in_every_group():
    optimizer = two_groups()
    scheduler = symloss.AnnealedLR(optimizer, total_steps=8)
    for i in range(12):
        progress = min(i / 8, 1)
        for group, lr in zip(optimizer.param_groups, (0.001, 0.01), strict=True):
            assert group["lr"] == pytest.approx(lr / (1 + 10 * progress) ** 0.75, rel=1e-12)
        optimizer.step()
        scheduler.step()


def test_annealed_lr_resumes_from_its_state():
    optimizer = two_groups()
    scheduler = symloss.AnnealedLR(optimizer, total_steps=8, alpha=3.0, beta=0.5)
    optimizer.step()
    scheduler.step()
    resumed_optimizer = two_groups()
    resumed = symloss.AnnealedLR(resumed_optimizer, total_steps=8, alpha=3.0, beta=0.5)
    resumed_optimizer.load_state_dict(optimizer.state_dict())
    resumed.load_state_dict(scheduler.state_dict())
    for _ in range(3):
        for o, s in ((optimizer, scheduler), (resumed_optimizer, resumed)):
            o.step()
            s.step()
        assert resumed.get_last_lr() == scheduler.get_last_lr()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"total_steps": 0}, "total_steps must be at least 1, got 0"),
        ({"total_steps": math.nan}, "total_steps must be at least 1, got nan"),
        ({"total_steps": 8, "alpha": math.inf}, "alpha must be finite and at least 0, got inf"),
        ({"total_steps": 8, "alpha": -1.0}, "alpha must be finite and at least 0, got -1.0"),
    ],
)
def test_bad_schedules(options, message):
    with pytest.raises(ValueError, match=message):
        symloss.AnnealedLR(two_groups(), **options)


def rate(initial, i, total, alpha=10.0, beta=0.75):
    return initial / (1 + alpha * i / total) ** beta


def test_a_longer_schedule_goes_on_from_the_state_of_a_shorter_and_says_so():
    optimizer = two_groups()
    short = symloss.AnnealedLR(optimizer, total_steps=4)
    for _ in range(3):
        optimizer.step()
        short.step()
    again = two_groups()
    longer = symloss.AnnealedLR(again, total_steps=10)
    again.load_state_dict(optimizer.state_dict())
    with pytest.warns(UserWarning, match=r"with total_steps=4; this one keeps total_steps=10 .* 3"):
        longer.load_state_dict(short.state_dict())
    again.step()
    longer.step()
    expected = [rate(lr, 4, 10) for lr in longer.base_lrs]
    assert longer.get_last_lr() == pytest.approx(expected, rel=1e-12)


def test_a_group_that_joins_later_is_annealed_from_its_own_rate():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.01)
    schedule = symloss.AnnealedLR(optimizer, total_steps=10)
    optimizer.step()
    schedule.step()
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))], "lr": 0.2})
    optimizer.step()
    schedule.step()
    expected = [rate(0.01, 2, 10), rate(0.2, 2, 10)]
    assert schedule.get_last_lr() == pytest.approx(expected, rel=1e-12)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx(expected, rel=1e-12)
    alone = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.01)
    with pytest.raises(ValueError, match="state_dict must have at most 1 groups, got 2"):
        symloss.AnnealedLR(alone, total_steps=10).load_state_dict(schedule.state_dict())


def test_a_group_that_joins_later_with_a_tensor_rate_decays_once():
    rates = [torch.tensor(0.01, dtype=torch.float64), torch.tensor(0.2, dtype=torch.float64)]
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=rates[0])
    schedule = symloss.AnnealedLR(optimizer, total_steps=10)
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))], "lr": rates[1]})
    for i in range(1, 4):
        optimizer.step()
        schedule.step()
        expected = [rate(0.01, i, 10), rate(0.2, i, 10)]
        assert [float(g["lr"]) for g in optimizer.param_groups] == pytest.approx(expected, 1e-9)
    assert [float(g["initial_lr"]) for g in optimizer.param_groups] == [0.01, 0.2]
    assert [float(lr) for lr in schedule.base_lrs] == [0.01, 0.2]


def test_a_state_that_is_loaded_stays_as_it_was():
    optimizer = two_groups()
    schedule = symloss.AnnealedLR(optimizer, total_steps=10)
    state = schedule.state_dict()
    again = two_groups()
    longer = symloss.AnnealedLR(again, total_steps=10)
    longer.load_state_dict(state)
    again.add_param_group({"params": [nn.Parameter(torch.zeros(1))], "lr": 0.2})
    again.step()
    longer.step()
    assert len(longer.base_lrs) == 3
    assert schedule.base_lrs == [0.001, 0.01]


def test_the_layer_decay_of_timm_multiplies_the_rate_of_its_group():
    def layered():
        groups = [
            {"params": [nn.Parameter(torch.zeros(1))], "lr_scale": scale} for scale in (0.5, 1.0)
        ]
        return torch.optim.SGD([*groups, {"params": [nn.Parameter(torch.zeros(1))]}], lr=0.1)

    optimizer = layered()
    schedule = symloss.AnnealedLR(optimizer, total_steps=10)

    def check(optimizer, schedule, i):
        expected = [rate(0.05, i, 10), rate(0.1, i, 10), rate(0.1, i, 10)]
        assert [g["lr"] for g in optimizer.param_groups][:3] == pytest.approx(expected, rel=1e-12)
        assert schedule.get_last_lr()[:3] == pytest.approx(expected, rel=1e-12)

    check(optimizer, schedule, 0)
    for i in range(1, 3):
        optimizer.step()
        schedule.step()
        check(optimizer, schedule, i)
    resumed = layered()
    again = symloss.AnnealedLR(resumed, total_steps=10)
    resumed.load_state_dict(optimizer.state_dict())
    again.load_state_dict(schedule.state_dict())
    late = {"params": [nn.Parameter(torch.zeros(1))], "lr": 0.2, "lr_scale": 0.25}
    resumed.add_param_group(late)
    resumed.step()
    again.step()
    check(resumed, again, 3)
    assert again.get_last_lr()[3] == pytest.approx(rate(0.05, 3, 10), rel=1e-12)


def test_parameter_groups_in_one_optimizer_equal_two_optimizers():
    extractor, head = modules()
    plain = copy.deepcopy((extractor, head))
    groups = symloss.parameter_groups(extractor, head, lr=0.01)
    assert [group["lr"] for group in groups] == [0.01, 0.1]
    one = torch.optim.SGD(groups, lr=0.01, momentum=0.9)
    step = symloss.TwoOptimizerStep(
        extractor=torch.optim.SGD(plain[0].parameters(), lr=0.01, momentum=0.9),
        head=torch.optim.SGD(plain[1].parameters(), lr=0.1, momentum=0.9),
    )
    for i in range(3):
        one.zero_grad()
        total(extractor, head, *batch(i)).backward()
        one.step()
        step(total(*plain, *batch(i)))
    assert_equal(weights(extractor, head), weights(*plain))


def test_parameter_groups_take_lists_of_modules_and_count_a_shared_one_once():
    extractor, head = modules()
    bottleneck = nn.Linear(2, 2)
    groups = symloss.parameter_groups(extractor, [bottleneck, head, head], lr=0.01, multiplier=4)
    expected = [[*extractor.parameters()], [*bottleneck.parameters(), *head.parameters()]]
    for group, parameters in zip(groups, expected, strict=True):
        assert [id(p) for p in group["params"]] == [id(p) for p in parameters]
    assert [group["lr"] for group in groups] == [0.01, 0.04]


@pytest.mark.parametrize("argument", ["lr", "multiplier"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_rates_must_be_positive(argument, value):
    options = {"lr": 0.1} | {argument: value}
    with pytest.raises(ValueError, match=f"{argument} must be above 0, got {value}"):
        symloss.parameter_groups(*modules(), **options)


# DistributedDataParallel, two gloo processes


class Both(nn.Module):
    def __init__(self, extractor, head):
        super().__init__()
        self.extractor, self.head = extractor, head

    def forward(self, x_s, x_t):
        return (
            self.head.route(self.extractor(x_s)),
            self.head.route(self.extractor(x_t)),
        )


def distributed(rank, init_file, wrap, norm, results):
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{init_file}", rank=rank, world_size=2
    )
    extractor, head = modules(norm)
    x_s, y_s, x_t = batch(0, n=12)
    # Batch norm is per process: with it, both processes get the same images.
    part = slice(0, 6) if norm else slice(6 * rank, 6 * rank + 6)
    if wrap == "one":
        model = DistributedDataParallel(Both(extractor, head))
        source, target = model(x_s[part], x_t[part])
    else:
        options = {"broadcast_buffers": False}
        wrapped_extractor = DistributedDataParallel(extractor, **options)
        wrapped_head = DistributedDataParallel(head, **options)
        source = symloss.route(wrapped_head, wrapped_extractor(x_s[part]))
        target = symloss.route(wrapped_head, wrapped_extractor(x_t[part]))
    symloss.symnet_losses(source, y_s[part], target).total(0.5).backward()
    if rank == 0:
        torch.save([p.grad for p in (*extractor.parameters(), *head.parameters())], results)
    torch.distributed.barrier()
    os._exit(0)  # torch now and then aborts while its threads end, which is not under test


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrap", "norm"), [("one", False), ("one", True), ("two", False), ("two", True)]
)
def test_two_processes_give_the_single_process_gradients(wrap, norm, tmp_path):
    results = tmp_path / "gradients.pt"
    torch.multiprocessing.spawn(
        distributed, (str(tmp_path / "init"), wrap, norm, str(results)), nprocs=2
    )
    extractor, head = modules(norm)
    x_s, y_s, x_t = batch(0, n=12)
    part = slice(0, 6) if norm else slice(0, 12)
    total(extractor, head, x_s[part], y_s[part], x_t[part]).backward()
    want = [p.grad for p in (*extractor.parameters(), *head.parameters())]
    torch.testing.assert_close(torch.load(results, weights_only=True), want)
