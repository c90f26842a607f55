"""What is told of a run without labels, on logits and results made by hand."""

import pytest
import torch
from made_results import CATEGORIES, made_result
from office.console import UserError
from office.results import evaluation, health

EVEN = [1 / 3] * 3


def one_hot(*predicted):
    return torch.nn.functional.one_hot(torch.tensor(predicted), 3).float()


# C_s, the first half, and C_t agree on two of four.
JOINT = torch.cat([one_hot(1, 2, 1, 2), one_hot(0, 2, 1, 1)], 1)


@pytest.mark.parametrize(
    ("classifier", "shares"), [("C_t", (0.25, 0.5, 0.25)), ("C_s", (0.0, 0.5, 0.5))]
)
def test_the_shares_are_those_of_the_classifier_that_answers(classifier, shares):
    answers = evaluation.classifiers(JOINT, 3)[classifier]
    found = health.label_free(JOINT, answers, CATEGORIES, [0.2, 0.3, 0.5])
    assert found["predicted"] == dict(zip(CATEGORIES, shares, strict=True))
    assert found["expected"] == pytest.approx({"bike": 0.2, "mouse": 0.3, "mug": 0.5})
    assert found["agreement"] == 0.5
    json_values = {
        type(v) for shares in (found["predicted"], found["expected"]) for v in shares.values()
    }
    assert json_values == {float}


def test_one_classifier_agrees_with_nobody():
    found = health.label_free(JOINT[:, 3:], JOINT[:, 3:], CATEGORIES, EVEN)
    assert found["agreement"] is None
    assert found["predicted"] == {"bike": 0.25, "mouse": 0.5, "mug": 0.25}


@pytest.mark.parametrize("column", [0, 4])
def test_logits_that_are_nan_end_with_words(column):
    logits = JOINT.clone()
    logits[1, column] = float("nan")
    with pytest.raises(UserError, match="NaN: the run has diverged"):
        health.label_free(logits, logits[:, 3:], CATEGORIES, EVEN)


def test_a_diagnosis_of_a_result_shows_what_names_hide():
    predicted = {"a\nb": 0.0, "c": 1.0}
    result = made_result(predicted=predicted, expected=dict.fromkeys(predicted, 0.5))
    found = health.diagnosis(result)
    assert found.rarely_predicted == ["a\\nb"]
    assert found.predicted == (0.0, 1.0)
    assert found.agreement == 0.9


@pytest.mark.parametrize(
    ("method", "settings", "advice"),
    [
        ("symnets", {}, "--method symnets-balanced"),
        ("symnets-v2", {"partial": False}, "--method symnets-v2-balanced"),
        ("source-only", {}, "--method symnets-balanced"),
        ("symnets", {"partial": True}, None),  # a category may be missing there
        ("symnets-balanced", {"balance": 3.0}, None),
        ("a method of one's own", {}, "--method symnets-balanced"),
    ],
)
def test_the_remedy_fits_the_method(method, settings, advice):
    assert health.remedy(method, settings) == advice
