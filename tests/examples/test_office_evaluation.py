"""What logits are worth, on logits made by hand."""

import pytest
import torch
from office.results import evaluation

NAMES = ["bike", "mouse", "mug"]
LABELS = [0, 0, 1, 2]


def one_hot(*predicted):
    return torch.nn.functional.one_hot(torch.tensor(predicted), 3).float()


# C_s, the first half, has one of four right, C_t three.
JOINT = torch.cat([one_hot(1, 2, 1, 0), one_hot(0, 2, 1, 2)], 1)


def test_the_halves_are_c_s_and_c_t_and_one_classifier_is_c_t():
    assert evaluation.target_accuracies(JOINT, LABELS, 3) == {
        "target_accuracy/C_t": 75.0,
        "target_accuracy/C_s": 25.0,
    }
    assert evaluation.target_accuracies(JOINT[:, :3], LABELS, 3) == {"target_accuracy/C_t": 25.0}
    assert evaluation.source_accuracy(JOINT, LABELS, 3) == {"source_accuracy/C_s": 25.0}
    assert evaluation.source_accuracy(JOINT[:, 3:], LABELS, 3) == {"source_accuracy/C_t": 75.0}


def test_without_labels_nothing_is_measured():
    found = evaluation.target_accuracies(JOINT, None, 3)
    assert found == {"target_accuracy/C_t": None, "target_accuracy/C_s": None}
    found = evaluation.by_category(JOINT[:, 3:], None, NAMES)
    assert found == {"per_category": dict.fromkeys(NAMES), "confusion": None}


def test_a_category_without_images_has_no_recall_and_counts_in_no_accuracy():
    found = evaluation.by_category(JOINT[:3, 3:], LABELS[:3], NAMES)
    assert found["confusion"] == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]
    assert found["per_category"] == {"bike": 50.0, "mouse": 100.0, "mug": None}
    assert evaluation.accuracy(JOINT[:3, 3:], LABELS[:3]) == pytest.approx(100 * 2 / 3)


def test_confusion_has_categories_in_rows_and_predictions_in_columns():
    found = evaluation.by_category(JOINT[:, 3:], LABELS, NAMES)
    assert found["confusion"] == [[1, 0, 1], [0, 1, 0], [0, 0, 1]]
    assert found["per_category"] == pytest.approx({"bike": 50.0, "mouse": 100.0, "mug": 100.0})
