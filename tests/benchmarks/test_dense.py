"""benchmarks/dense.py: it runs, and its shares and class confusion are what they should be."""

import csv

import pytest
import torch
from torch import nn

pytest.importorskip("torchvision", reason="the segmentation recipe needs torchvision")

import dense


def test_a_line_for_each_setting(capsys):
    dense.main(["--quick", "--seeds", "100"])
    lines = [*csv.DictReader(capsys.readouterr().out.splitlines())]
    names = [*dense.settings(*torch.full((2, dense.recipe.K), 0.2))]
    assert [line["method"] for line in lines] == ["source only, weights", *names]


def test_the_estimated_shares_are_those_of_a_perfect_classifier():
    """Trained on equal shares, certain of pixels in the ratio 6:1:1:1:1."""
    categories = torch.tensor([0] * 6 + [1, 2, 3, 4]).repeat(27).view(1, 15, 18)
    certain = 20.0 * nn.functional.one_hot(categories, 5).movedim(-1, 1)

    def network(images):
        return torch.cat([torch.zeros_like(certain), certain], dim=1)

    shares = dense.estimate_shares(network, torch.zeros(1, 3, 15, 18), torch.full((5,), 0.2))
    sampled = categories[:, ::3, ::3].flatten().bincount(minlength=5) / 30
    torch.testing.assert_close(shares, sampled, atol=1e-4, rtol=0)


def test_pixels_that_say_nothing_leave_the_shares_as_they_were():
    trained_on = torch.tensor([0.4, 0.3, 0.1, 0.1, 0.1])
    logits = trained_on.log().view(1, 5, 1, 1).expand(1, 5, 6, 6)

    def network(images):
        return torch.cat([logits, logits], dim=1)

    shares = dense.estimate_shares(network, torch.zeros(1, 3, 6, 6), trained_on)
    torch.testing.assert_close(shares, trained_on)


def test_certain_predictions_have_no_class_confusion():
    certain = 1e3 * nn.functional.one_hot(torch.arange(5).view(1, 1, 5), 5).movedim(-1, 1).float()
    logits = torch.cat([torch.randn(1, 5, 1, 5), certain], dim=1)
    assert float(dense.class_confusion(logits)) == pytest.approx(0.0, abs=1e-6)
    equal = torch.cat([certain, torch.zeros(1, 5, 1, 5)], dim=1)
    assert float(dense.class_confusion(equal)) == pytest.approx(0.8)
