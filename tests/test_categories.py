import math

import numpy as np
import pytest
import torch

from symloss import scores

NAMES = ["bike", "mouse", "mug", "pen"]


def logits_of(predicted, num_classes=4, dtype=torch.float32):
    """One classifier's logits that predict these categories."""
    return 5 * torch.eye(num_classes, dtype=dtype)[predicted]


def joint(source, target, num_classes=4):
    return torch.cat([logits_of(source, num_classes), logits_of(target, num_classes)], 1)


# Agreement


def test_agreement_is_the_share_of_like_answers():
    assert scores.agreement(joint([0, 1, 2, 3], [0, 1, 1, 3])) == 0.75
    assert scores.agreement(joint([0, 1], [0, 1])) == 1
    assert scores.agreement(joint([0, 1], [1, 0])) == 0
    dense = joint([0, 1, 2, 3], [0, 1, 1, 3]).T.reshape(1, 8, 2, 2)
    assert scores.agreement(dense) == 0.75


def test_agreement_is_symmetric_and_needs_no_certainty():
    torch.manual_seed(0)
    v = torch.randn(50, 6)
    source, target = v.chunk(2, 1)
    want = np.mean(source.numpy().argmax(1) == target.numpy().argmax(1))
    assert scores.agreement(v).item() == pytest.approx(want)
    assert scores.agreement(torch.cat([target, source / 100], 1)) == scores.agreement(v)


# Shares


def test_shares_count_predictions_of_the_target_classifier():
    predicted, expected = scores.category_shares(joint([3] * 5, [0, 0, 0, 1, 2]))
    torch.testing.assert_close(predicted, torch.tensor([0.6, 0.2, 0.2, 0.0]))
    torch.testing.assert_close(expected, torch.full((4,), 0.25))
    alone, _ = scores.category_shares(logits_of([0, 0, 0, 1, 2]), joint=False)
    assert torch.equal(alone, predicted)
    dense, _ = scores.category_shares(logits_of([0, 0, 0, 1]).T.reshape(1, 4, 2, 2), joint=False)
    assert dense.tolist() == [0.75, 0.25, 0, 0]


@pytest.mark.parametrize("prior", [[0.1, 0.2, 0.3, 0.4], np.array([0.1, 0.2, 0.3, 0.4])])
def test_expected_shares_are_the_prior(prior):
    for given in (prior, torch.tensor(prior)):
        for dtype in (torch.float32, torch.float64):
            _, expected = scores.category_shares(logits_of([0], dtype=dtype), given, joint=False)
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
        getattr(scores, name)(torch.zeros(3, 8), prior=prior)


def test_more_positions_than_float32_can_count():
    many = 2**24 + 4
    logits = torch.tensor([[1.0, 0.0]]).expand(many, 2)
    predicted, _ = scores.category_shares(logits, joint=False)
    assert predicted.tolist() == [1.0, 0.0]


# Weights


def test_weights_follow_the_authors_rule():
    torch.manual_seed(0)
    v = torch.randn(9, 10, dtype=torch.float64)
    e = np.exp(v.numpy()[:, 5:])
    mean = (e / e.sum(1, keepdims=True)).mean(0)
    for lam in (0, 0.3, 1.0, torch.tensor(0.3)):
        want = float(lam) * mean / mean.max() + (1 - float(lam))
        np.testing.assert_allclose(scores.category_weights(v, lam), want, rtol=1e-6)
        alone = scores.category_weights(v[:, 5:], lam, joint=False)
        assert torch.equal(alone, scores.category_weights(v, lam))


def test_weights_leave_out_what_the_target_lacks():
    weights = scores.category_weights(joint([3, 3, 3, 3], [0, 0, 1, 1]) * 10, lam=1.0)
    torch.testing.assert_close(weights, torch.tensor([1.0, 1.0, 0.0, 0.0]))


@pytest.mark.parametrize("lam", [-0.1, 1.1, math.nan, math.inf])
@pytest.mark.parametrize("kind", [float, torch.tensor])
def test_lam_must_be_in_0_to_1(lam, kind):
    with pytest.raises(ValueError, match=r"lam must be in \[0, 1\], got"):
        scores.category_weights(torch.zeros(3, 8), kind(lam))


def test_lam_has_no_default_and_no_dimensions():
    with pytest.raises(TypeError, match="lam is missing"):
        scores.category_weights(torch.zeros(3, 8), None)
    with pytest.raises(ValueError, match=r"0-d tensor, got shape \(4,\)"):
        scores.category_weights(torch.zeros(3, 8), torch.ones(4))


# Diagnosis


def test_a_diagnosis_holds_plain_numbers():
    found = scores.diagnose(joint([0, 0, 0, 1], [0, 0, 1, 1]), NAMES, [0.4, 0.2, 0.2, 0.2])
    assert found.categories == ("bike", "mouse", "mug", "pen")
    assert found.predicted == (0.5, 0.5, 0, 0)
    assert found.expected == pytest.approx((0.4, 0.2, 0.2, 0.2))
    assert found.agreement == 0.75
    assert {type(x) for x in (*found.predicted, *found.expected, found.agreement)} == {float}


def test_one_classifier_has_no_agreement_and_categories_may_be_numbers():
    found = scores.diagnose(logits_of([0, 1, 2, 3]), joint=False)
    assert found.agreement is None
    assert found.categories == ("0", "1", "2", "3")
    assert "agree" not in str(found)


@pytest.mark.parametrize(
    ("count", "rarely"),
    [(0, ["pen"]), (4, ["pen"]), (5, []), (6, [])],  # of 100; 25 are expected
)
def test_rarely_is_less_than_a_fifth_of_what_is_expected(count, rarely):
    rest = [0] * 40 + [1] * 30 + [2] * (30 - count)
    found = scores.diagnose(logits_of(rest + [3] * count, dtype=torch.float64), NAMES, joint=False)
    assert found.rarely_predicted == rarely


def test_what_is_expected_to_be_rare_may_be_rare():
    logits = logits_of([0] * 98 + [1, 2])
    found = scores.diagnose(logits, NAMES, [0.9, 0.04, 0.04, 0.02], joint=False)
    assert found.rarely_predicted == ["pen"]


def made(predicted, agreement=None):
    names = tuple(f"c{i}" for i in range(len(predicted)))
    return scores.Diagnosis(names, predicted, (1 / len(predicted),) * len(predicted), agreement)


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
def test_the_sentence(predicted, sentence):
    assert made(predicted).sentence("--balance 3") == sentence
    assert made(predicted).sentence() == sentence.split(":")[0].rstrip(".") + "."


def test_a_long_list_of_categories_is_cut():
    found = made((0.5, 0.5, *[0.0] * 18))
    listed = ", ".join(f"c{i}" for i in range(2, 12))
    assert found.sentence().endswith(
        f"18 of 20 categories are rarely or never predicted ({listed} and 8 more)."
    )
    shares = found.describe().splitlines()[0]
    assert shares.count("(5.0)") == 10
    assert shares.endswith(
        "..., c17 0.0 (5.0), c18 0.0 (5.0), c19 0.0 (5.0), c0 50.0 (5.0), c1 50.0 (5.0)"
    )


def test_the_description_has_the_agreement_all_shares_and_the_sentence():
    found = made((0.6, 0.0, 0.4), 0.985)
    assert found.describe("balance=3").splitlines() == [
        "The source and target classifiers agree on 98.5 % of the target.",
        "Predicted (expected) share in %: c1 0.0 (33.3), c2 40.0 (33.3), c0 60.0 (33.3)",
        "1 of 3 categories is rarely or never predicted (c1): if the target contains it, try "
        "balance=3.",
    ]
    assert str(found) == found.describe()


def test_a_diagnosis_needs_a_name_for_each_category_and_numbers():
    expected = "categories must have 4 names, one per category of the logits, got 3"
    with pytest.raises(ValueError, match=expected):
        scores.diagnose(torch.zeros(2, 8), NAMES[:3])
    for half in (0, 4):
        logits = torch.zeros(2, 8)
        logits[1, half] = math.nan
        with pytest.raises(ValueError, match="target_logits must not contain NaN"):
            scores.diagnose(logits, NAMES)
