"""Numbers from logits made by hand."""

import itertools

import numpy as np
import pytest
import torch
from office.results import outputs

LABELS = [0, 0, 1, 2]


def one_hot(*predicted):
    return torch.nn.functional.one_hot(torch.tensor(predicted), 3).float()


# C_s, the first half, has one of four right, C_t three; they agree on two.
JOINT = torch.cat([one_hot(1, 2, 1, 0), one_hot(0, 2, 1, 2)], 1)


def test_the_halves_are_c_s_and_c_t_and_one_classifier_is_c_t():
    assert outputs.target_accuracies(JOINT, LABELS, 3) == {
        "target_accuracy/C_t": 75.0,
        "target_accuracy/C_s": 25.0,
    }
    assert outputs.target_accuracies(JOINT[:, :3], LABELS, 3) == {"target_accuracy/C_t": 25.0}
    assert outputs.source_accuracy(JOINT, LABELS, 3) == {"source_accuracy/C_s": 25.0}
    assert outputs.source_accuracy(JOINT[:, 3:], LABELS, 3) == {"source_accuracy/C_t": 75.0}


def test_without_labels_accuracies_are_none():
    none = {"target_accuracy/C_t": None, "target_accuracy/C_s": None}
    assert outputs.target_accuracies(JOINT, None, 3) == none


def test_confusion_has_categories_in_rows_and_predictions_in_columns():
    counts = outputs.confusion_matrix(JOINT[:, 3:], LABELS)
    assert counts == [[1, 0, 1], [0, 1, 0], [0, 0, 1]]
    assert outputs.recalls(counts) == [50.0, 100.0, 100.0]


def test_a_category_without_images_has_no_recall_and_counts_in_no_accuracy():
    counts = outputs.confusion_matrix(JOINT[:3, 3:], LABELS[:3])
    assert counts == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]
    assert outputs.recalls(counts) == [50.0, 100.0, None]
    assert outputs.accuracy(JOINT[:3, 3:], LABELS[:3]) == pytest.approx(100 * 2 / 3)


def test_agreement_is_a_share_of_images_and_needs_two_classifiers():
    assert outputs.agreement(JOINT, 3) == 0.5
    assert outputs.agreement(JOINT[:, 3:], 3) is None


def test_calibration_error_is_that_of_the_definition():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(500, 4)) * 3, rng.integers(4, size=500)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    confidence, right = p.max(1), p.argmax(1) == labels
    edges, expected = np.linspace(0, 1, 16), 0.0
    for low, high in itertools.pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            gap = right[inside].mean() - confidence[inside].mean()
            expected += inside.mean() * abs(gap)
    error = outputs.calibration_error(torch.from_numpy(logits), torch.from_numpy(labels))
    assert error == pytest.approx(100 * expected)
