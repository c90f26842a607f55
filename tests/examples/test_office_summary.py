"""Finished runs in words, from results made by hand."""

import pytest
from made_results import made_result
from office.results import outputs, tables

LOST = {"bike": 0.7, "mouse": 0.3, "mug": 0.0}


def test_names_are_shown_with_what_they_hide():
    predicted = {"a\nb": 0.0, "c": 1.0}
    result = made_result(predicted=predicted, expected=dict.fromkeys(predicted, 0.5))
    diagnosis = result.diagnosis
    assert diagnosis.rarely_predicted == ["a\\nb"]
    assert diagnosis.predicted == (0.0, 1.0)
    assert diagnosis.agreement == 0.9


@pytest.mark.parametrize(
    ("method", "settings", "remedy"),
    [
        ("symnets", {}, "--method symnets-balanced"),
        ("symnets-v2", {"partial": False}, "--method symnets-v2-balanced"),
        ("source-only", {}, None),
        ("source-only-em", {}, "--method symnets-balanced"),
        ("symnets", {"partial": True}, "--method symnets-balanced"),
        ("symnets-balanced", {"balance": 3.0}, "--prior estimate"),  # of an old run
        ("symnets-balanced", {"prior": "source"}, "--prior estimate"),
        ("symnets-balanced", {"prior": [["mug", 1.0]]}, None),
        ("symnets-balanced", {"prior": "estimate"}, "--prior FILE"),  # they could not be told
        ("a method of one's own", {}, "--method symnets-balanced"),
    ],
)
def test_the_remedy_fits_the_method(method, settings, remedy):
    assert tables.remedy(made_result(method=method, recipe=settings)) == remedy


@pytest.mark.parametrize(
    ("trust", "sentence"),
    [
        (0.9, "1 of 3 categories seems absent from the target (mug; trust 0.90)."),
        (0.0, "No clear difference from equal shares was found; equal ones were assumed."),
    ],
)
def test_a_run_that_estimated_the_shares_ends_with_what_it_found(trust, sentence, tmp_path):
    made = {"method": "symnets-v2-balanced", "recipe": {"prior": "estimate"}, "trust": trust}
    shares = {"bike": 0.6, "mouse": 0.39, "mug": 0.01} if trust else dict.fromkeys(LOST, 1 / 3)
    lines = tables.finished(made_result(**made, predicted=LOST, expected=shares), tmp_path)
    assert sentence in lines.split("\n")
    assert lines.endswith("try --prior FILE.") == (not trust)


def test_a_run_ends_with_its_diagnosis(tmp_path):
    first, *lines = tables.finished(made_result(predicted=LOST, seconds=61.6), tmp_path).split("\n")
    assert first == f"office31 A2W symnets seed 0: done in 62 s, see {tmp_path}"
    assert lines[0] == "The source and target classifiers agree on 90.0 % of the target."
    assert lines[-1].endswith("try --method symnets-balanced.")


def test_the_summary_is_a_table_the_lost_categories_and_the_files(tmp_path):
    results = [
        made_result(predicted=LOST, per_category={"bike": 50.0, "mug": None}, seconds=3.2),
        made_result(method="source-only", seed=1, accuracy=87.25, predicted=LOST),
    ]
    for result in results:
        (tmp_path / result.method).mkdir()
        outputs.write_result(tmp_path / result.method, result)
    assert tables.summarise([tmp_path / result.method for result in results]).split("\n") == [
        "",
        "method       seed  accuracy  worst category  C^s and C^t agree  rarely predicted  seconds",
        "symnets      0     90.0 %    bike 50 %       90.0 %             1 of 3            3",
        "source-only  1     87.2 %    -               -                  1 of 3            0",
        "",
        "symnets, seed 0: 1 of 3 categories is rarely or never predicted (mug): if the target "
        "contains it, try --method symnets-balanced.",
        "source-only, seed 1: without adaptation, 1 of 3 categories is rarely or never predicted "
        "(mug).",
        "result.json, model.pt (for predict.py) and, without labels, predictions.csv and "
        "predictions.html are in:",
        f"  {tmp_path}/symnets",
        f"  {tmp_path}/source-only",
    ]


def test_without_labels_the_table_has_no_accuracy(tmp_path):
    outputs.write_result(tmp_path, made_result(accuracy=None))
    assert "symnets  0     -         -  " in tables.summarise([tmp_path])
