import dataclasses
import math
import re

import numpy as np
import pytest
import torch
from drawn import DTYPES, draw

import symloss
from symloss import diagnostics

NAMES = ["bike", "mouse", "mug", "pen"]


def logits_of(predicted, num_classes=4, dtype=torch.float32):
    """One classifier's logits that predict these categories."""
    return 5 * torch.eye(num_classes, dtype=dtype)[predicted]


def joint(source, target, num_classes=4):
    return torch.cat([logits_of(source, num_classes), logits_of(target, num_classes)], 1)


# Agreement


def test_agreement_is_the_share_of_like_answers():
    assert diagnostics.agreement(joint([0, 1, 2, 3], [0, 1, 1, 3])) == 0.75
    assert diagnostics.agreement(joint([0, 1], [0, 1])) == 1
    assert diagnostics.agreement(joint([0, 1], [1, 0])) == 0
    dense = joint([0, 1, 2, 3], [0, 1, 1, 3]).T.reshape(1, 8, 2, 2)
    assert diagnostics.agreement(dense) == 0.75


def test_agreement_is_symmetric_and_needs_no_certainty():
    torch.manual_seed(0)
    v = torch.randn(50, 6)
    source, target = v.chunk(2, 1)
    want = np.mean(source.numpy().argmax(1) == target.numpy().argmax(1))
    assert diagnostics.agreement(v).item() == pytest.approx(want)
    assert diagnostics.agreement(torch.cat([target, source / 100], 1)) == diagnostics.agreement(v)


# Shares


def test_shares_count_predictions():
    predicted, expected = diagnostics.category_shares(logits_of([0, 0, 0, 1, 2]))
    torch.testing.assert_close(predicted, torch.tensor([0.6, 0.2, 0.2, 0.0]))
    torch.testing.assert_close(expected, torch.full((4,), 0.25))
    dense, _ = diagnostics.category_shares(logits_of([0, 0, 0, 1]).T.reshape(1, 4, 2, 2))
    assert dense.tolist() == [0.75, 0.25, 0, 0]


@pytest.mark.parametrize("prior", [[0.1, 0.2, 0.3, 0.4], np.array([0.1, 0.2, 0.3, 0.4])])
def test_expected_shares_are_the_prior(prior):
    for given in (prior, torch.tensor(prior)):
        for dtype in (torch.float32, torch.float64):
            _, expected = diagnostics.category_shares(logits_of([0], dtype=dtype), given)
            torch.testing.assert_close(expected, torch.tensor(prior, dtype=dtype))


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ([0.5, 0.5], r"prior must have shape \(4,\).*\(2,\)"),
        (torch.full((1, 4), 0.25), r"prior must have shape \(4,\).*\(1, 4\)"),
        ([0.5, 0.5, 0.5, 0.5], "sum to 1"),
        ([0.5, 0.5, 0.5, -0.5], "positive"),
        ([math.nan] * 4, "sum to 1"),
    ],
)
@pytest.mark.parametrize("name", ["category_shares", "diagnose"])
def test_bad_priors(name, prior, message):
    with pytest.raises(ValueError, match=message):
        getattr(diagnostics, name)(torch.zeros(3, 4), prior=prior)


def test_more_positions_than_float32_can_count():
    many = 2**24 + 4
    logits = torch.tensor([[1.0, 0.0]]).expand(many, 2)
    predicted, _ = diagnostics.category_shares(logits)
    assert predicted.tolist() == [1.0, 0.0]


# Weights


def test_weights_follow_the_authors_rule():
    torch.manual_seed(0)
    v = torch.randn(9, 5, dtype=torch.float64)
    e = np.exp(v.numpy())
    mean = (e / e.sum(1, keepdims=True)).mean(0)
    for lam in (0, 0.3, 1.0, torch.tensor(0.3)):
        want = float(lam) * mean / mean.max() + (1 - float(lam))
        np.testing.assert_allclose(diagnostics.category_weights(v, lam), want, rtol=1e-6)


def test_weights_leave_out_what_the_target_lacks():
    weights = diagnostics.category_weights(10 * logits_of([0, 0, 1, 1]), lam=1.0)
    torch.testing.assert_close(weights, torch.tensor([1.0, 1.0, 0.0, 0.0]))


@pytest.mark.parametrize("lam", [-0.1, 1.1, math.nan, math.inf])
@pytest.mark.parametrize("kind", [float, torch.tensor])
def test_lam_must_be_in_0_to_1(lam, kind):
    with pytest.raises(ValueError, match=r"lam must be in \[0, 1\], got"):
        diagnostics.category_weights(torch.zeros(3, 4), kind(lam))


def test_lam_has_no_dimensions():
    with pytest.raises(ValueError, match=r"0-d tensor, got shape \(4,\)"):
        diagnostics.category_weights(torch.zeros(3, 4), torch.ones(4))


# Diagnosis


def test_a_diagnosis_holds_plain_numbers():
    target, source = logits_of([0, 0, 1, 1]), logits_of([0, 0, 0, 1])
    found = diagnostics.diagnose(target, NAMES, [0.4, 0.2, 0.2, 0.2], other_logits=source)
    assert found.categories == ("bike", "mouse", "mug", "pen")
    assert found.predicted == (0.5, 0.5, 0, 0)
    assert found.expected == pytest.approx((0.4, 0.2, 0.2, 0.2))
    assert found.agreement == 0.75
    assert found.samples == 4
    assert {type(x) for x in (*found.predicted, *found.expected, found.agreement)} == {float}


def test_one_classifier_has_no_agreement_and_categories_may_be_numbers():
    found = diagnostics.diagnose(logits_of([0, 1, 2, 3]))
    assert found.agreement is None
    assert not found.classifiers_disagree
    assert found.categories == ("0", "1", "2", "3")
    assert "agree" not in str(found)


def test_each_position_of_dense_logits_is_a_sample():
    dense = logits_of([0, 1, 2, 3, 0, 1]).T.reshape(1, 4, 2, 3)
    assert diagnostics.diagnose(dense).samples == 6


@pytest.mark.parametrize(
    ("count", "rarely"),
    [(0, ["pen"]), (4, ["pen"]), (5, []), (6, [])],  # of 100; 25 are expected
)
def test_rarely_is_less_than_a_fifth_of_what_is_expected(count, rarely):
    rest = [0] * 40 + [1] * 30 + [2] * (30 - count)
    found = diagnostics.diagnose(logits_of(rest + [3] * count, dtype=torch.float64), NAMES)
    assert found.rarely_predicted == rarely
    assert found.healthy == (not rarely)


def test_what_is_expected_to_be_rare_may_be_rare():
    logits = logits_of([0] * 98 + [1, 2])
    found = diagnostics.diagnose(logits, NAMES, [0.9, 0.04, 0.04, 0.02])
    assert found.rarely_predicted == ["pen"]
    # Below a twentieth of an equal share, 0.0125, it is taken for absent.
    found = diagnostics.diagnose(logits_of([0] * 100), NAMES, [0.96, 0.014, 0.014, 0.012])
    assert found.rarely_predicted == ["mouse", "mug"]


@pytest.mark.parametrize(("trust", "absent"), [(None, []), (0.0, []), (0.1, ["mug", "pen"])])
def test_below_a_fifth_of_an_equal_share_a_category_seems_absent(trust, absent):
    found = diagnostics.diagnose(logits_of([0, 1, 2, 3]), NAMES, [0.85, 0.052, 0.049, 0.049])
    assert dataclasses.replace(found, trust=trust).absent == absent


def made(predicted, agreement=None, samples=None):
    names = tuple(f"c{i}" for i in range(len(predicted)))
    expected = (1 / len(predicted),) * len(predicted)
    return diagnostics.Diagnosis(names, predicted, expected, agreement, samples)


@pytest.mark.parametrize(
    ("predicted", "sentence"),
    [
        ((0.25,) * 4, "All 4 categories are predicted."),
        (
            (0.5, 0.5, 0.0, 0.0),
            "2 of 4 categories are rarely or never predicted (c2, c3): if the target "
            "contains them, try --balance 3.",
        ),
        (
            (0.5, 0.3, 0.18, 0.02),
            "1 of 4 categories is rarely or never predicted (c3): if the target contains "
            "it, try --balance 3.",
        ),
    ],
)
@pytest.mark.parametrize("samples", [None, 1000])
def test_the_sentence(predicted, sentence, samples):
    found = made(predicted, 0.99, samples)
    assert found.sentence("--balance 3") == sentence
    assert found.sentence() == sentence.split(":")[0].rstrip(".") + "."


@pytest.mark.parametrize("prior", [[0.25] * 4, [0.7, 0.1, 0.1, 0.1]])
@pytest.mark.parametrize("n", [1, 5, 30])
def test_categories_absent_by_chance_are_those_of_random_samples(prior, n):
    drawn = np.random.default_rng(0).multinomial(n, prior, size=20_000)
    found = diagnostics.Diagnosis(tuple("abcd"), (0.25,) * 4, tuple(prior), samples=n)
    assert found.absent_by_chance == pytest.approx((drawn == 0).sum(1).mean(), abs=0.02)


def test_few_samples_leave_out_categories_by_chance():
    few = made((0.125,) * 8 + (0.0,) * 12, samples=8)  # 20 (19 / 20)^8 = 13.3
    assert len(few.rarely_predicted) == 12
    assert few.healthy
    told = few.sentence("--balance 3")
    assert told.endswith("c17 and 2 more); with so few samples (8), chance alone explains 13.")
    # The same shares of many samples are no chance.
    many = made(few.predicted, samples=8000)
    assert not many.healthy
    assert "chance" not in many.sentence()
    assert many.sentence("--balance 3").endswith(
        "2 more): if the target contains them, try --balance 3."
    )


def test_more_absent_categories_than_chance_leaves_out():
    found = made((0.5, 0.5) + (0.0,) * 18, samples=40)  # 20 (19 / 20)^40 = 2.6
    assert not found.healthy
    assert found.sentence("--balance 3").endswith(
        "and 8 more); with so few samples (40), chance alone explains 3: if the target contains "
        "them, try --balance 3."
    )


def test_classifiers_that_disagree_come_before_any_advice():
    found = made((0.6, 0.0, 0.4), 0.067, 1000)
    assert found.classifiers_disagree
    assert not found.healthy
    first = (
        "The source and target classifiers agree on only 6.7 % of the target, so neither can be "
        "trusted: training was too short, or λ or a learning rate is wrong."
    )
    assert found.sentence("balance=3") == first
    assert found.describe("balance=3").splitlines() == [
        first,
        "Predicted (expected) share in %: c1: 0.0 (33.3), c2: 40.0 (33.3), c0: 60.0 (33.3)",
        "1 of 3 categories is rarely or never predicted (c1).",
    ]
    assert not made((0.3, 0.3, 0.4), 0.067).healthy


@pytest.mark.parametrize(("agreement", "disagree"), [(0.0, True), (0.499, True), (0.5, False)])
def test_classifiers_disagree_below_half(agreement, disagree):
    assert made((0.5, 0.5), agreement).classifiers_disagree == disagree


def test_a_long_list_of_categories_is_cut():
    found = made((0.5, 0.5, *[0.0] * 18))
    listed = ", ".join(f"c{i}" for i in range(2, 12))
    assert found.sentence().endswith(
        f"18 of 20 categories are rarely or never predicted ({listed} and 8 more)."
    )
    shares = found.describe().splitlines()[0]
    assert shares.count("(5.0)") == 10
    assert shares.endswith(
        "..., c17: 0.0 (5.0), c18: 0.0 (5.0), c19: 0.0 (5.0), c0: 50.0 (5.0), c1: 50.0 (5.0)"
    )


def test_the_description_has_the_agreement_all_shares_and_the_sentence():
    found = made((0.6, 0.0, 0.4), 0.985)
    assert found.describe("balance=3").splitlines() == [
        "The source and target classifiers agree on 98.5 % of the target.",
        "Predicted (expected) share in %: c1: 0.0 (33.3), c2: 40.0 (33.3), c0: 60.0 (33.3)",
        "1 of 3 categories is rarely or never predicted (c1): if the target contains it, try "
        "balance=3.",
    ]
    assert str(found) == found.describe()


@pytest.mark.parametrize(
    ("novel", "about"),
    [(0.21, "About a fifth"), (0.31, "About a third"), (0.46, "About half"), (0.95, "Most")],
)
def test_unknown_objects_come_before_categories_and_after_disagreement(novel, about):
    found = dataclasses.replace(made((0.6, 0.0, 0.4), 0.985), novel=novel)
    assert not found.healthy
    assert found.sentence("x").startswith(f"{about} of the target resembles no category")
    assert found.describe().splitlines()[1] == found.sentence()
    assert dataclasses.replace(found, agreement=0.3).sentence().startswith("The source and target")


@pytest.mark.parametrize("novel", [None, 0.0])
def test_without_unknown_objects_nothing_is_said_of_them(novel):
    found = dataclasses.replace(made((0.3, 0.3, 0.4), 0.985), novel=novel)
    assert found.healthy
    assert "resembles" not in found.describe()


def test_numbers_of_categories_are_not_taken_for_shares():
    found = diagnostics.diagnose(torch.eye(3)[[0, 0, 0, 2] * 10])
    first = found.describe().splitlines()[0]
    assert first.endswith(": 1: 0.0 (33.3), 2: 25.0 (33.3), 0: 75.0 (33.3)")


def test_a_diagnosis_needs_a_name_for_each_category():
    expected = "categories must have 4 names, one per category of the logits, got 3$"
    with pytest.raises(ValueError, match=expected):
        diagnostics.diagnose(torch.zeros(2, 4), NAMES[:3])
    with pytest.raises(
        ValueError, match=r"got 4; of joint logits, pass split_logits\(logits\)\[1\]"
    ):
        diagnostics.diagnose(torch.zeros(2, 8), NAMES)


def test_the_other_classifiers_logits_have_the_same_shape():
    with pytest.raises(
        ValueError, match=r"other_logits must have the shape .* \(2, 4\), got \(2, 8\)"
    ):
        diagnostics.diagnose(torch.zeros(2, 4), other_logits=torch.zeros(2, 8))
    with pytest.raises(TypeError, match="other_logits must be a tensor, got list"):
        diagnostics.diagnose(torch.zeros(2, 4), other_logits=[[0.0]])


def test_a_diagnosis_needs_numbers():
    good, bad = torch.zeros(2, 4), torch.zeros(2, 4)
    bad[1, 0] = math.nan
    for target, other in ((bad, None), (bad, good), (good, bad)):
        with pytest.raises(ValueError, match="must not contain NaN"):
            diagnostics.diagnose(target, other_logits=other)


# Numerics

EVERY = {
    "category_shares": lambda v: diagnostics.category_shares(v)[0],
    "category_weights": lambda v: diagnostics.category_weights(v, 0.5),
    "agreement": diagnostics.agreement,
}


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("dtype", DTYPES)
def test_results_have_a_wide_dtype_and_no_gradient(name, dtype):
    out = EVERY[name](draw((4, 6), dtype)[0].requires_grad_())
    assert out.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert not out.requires_grad


@pytest.mark.parametrize("name", EVERY)
def test_autocast_changes_nothing(name):
    logits = draw((30, 12), torch.float32)[0]
    with torch.autocast("cpu", torch.bfloat16):
        inside = EVERY[name](logits)
    assert torch.equal(inside, EVERY[name](logits))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("column", [1, 4])
def test_nan_is_not_hidden(name, column):
    logits = draw((4, 6))[0]
    logits[2, column] = math.nan
    assert EVERY[name](logits).isnan().all()


@pytest.mark.parametrize("name", EVERY)
def test_compiles_without_a_graph_break(name):
    torch._dynamo.reset()
    logits = draw((12, 6))[0]
    compiled = torch.compile(EVERY[name], fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(logits), EVERY[name](logits))


# Bad input


@pytest.mark.parametrize("name", [*EVERY, "diagnose"])
@pytest.mark.parametrize("shape", [(4, 0), (4,), (), (0, 6), (2, 6, 0)])
def test_bad_shapes_of_logits(name, shape):
    function = EVERY.get(name, diagnostics.diagnose)
    with pytest.raises(ValueError, match=r"target_logits.*" + re.escape(str(shape))):
        function(torch.zeros(shape))


def test_agreement_needs_joint_logits():
    with pytest.raises(ValueError, match=r"target_logits .* dim 1 even .* got \(4, 5\)"):
        diagnostics.agreement(torch.zeros(4, 5))


@pytest.mark.parametrize("name", [*EVERY, "diagnose"])
def test_bad_kinds_of_logits(name):
    function = EVERY.get(name, diagnostics.diagnose)
    with pytest.raises(TypeError, match=r"must be floating point, got torch\.int64"):
        function(torch.zeros(2, 6, dtype=torch.int64))
    with pytest.raises(TypeError, match="target_logits must be a tensor, got list"):
        function([[0.0, 1.0]])


def test_the_module_is_a_public_name():
    assert symloss.diagnostics is diagnostics
    assert "diagnostics" in symloss.__all__
    for name in diagnostics.__all__:
        assert hasattr(diagnostics, name)
