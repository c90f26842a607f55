import dataclasses

import digits as pictures
import numpy as np
import pytest
import torch
from digits import Digits, Run, load_handwritten, render_digits
from office.results.colours import SOURCE, TARGET
from torch import nn

import symloss

ERRORS = {  # of two epochs, for the seeds 4 and 5
    ("source-only", "target_accuracy/C_t"): [(40, 30), (50, 20)],
    ("symnets", "target_accuracy/C_t"): [(20, 10), (22, 16)],
    ("symnets", "target_accuracy/C_s"): [(25, 11), (21, 15)],
    ("symnets-balanced", "target_accuracy/C_t"): [(12, 4), (10, 8)],
}


@pytest.fixture
def figures(monkeypatch):
    """A list that takes up every figure instead of a file."""
    drawn = []
    monkeypatch.setattr(pictures.Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    return drawn


def trained(method, seed):
    """A run with the accuracies that belong to ``ERRORS``."""
    ours = {name: by_seed[seed - 4] for (m, name), by_seed in ERRORS.items() if m == method}
    history = [{name: 100.0 - errors[i] for name, errors in ours.items()} for i in range(2)]
    network = nn.Identity(), symloss.SymmetricHead(2, 10)
    return Run(method, seed, *network, history=history, final=history[-1], seconds=1.0)


@pytest.fixture
def reader(monkeypatch):
    """A run whose features, in the picture too, are the images: two numbers.

    C^t reads a 3 where the first is positive, else a 4.
    """

    class Same:
        def __init__(self, **_):
            pass

        def fit_transform(self, features):
            return features

    monkeypatch.setattr("sklearn.manifold.TSNE", Same)
    monkeypatch.setattr(pictures, "TSNE_POINTS", 20)
    head = symloss.SymmetricHead(2, 10)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
        head.weight[10 + 3, 0] = 1.0
        head.weight[10 + 4, 0] = -1.0
        head.weight[7, 0] = 100.0  # C^s is not asked
    return Run("symnets", 4, nn.Identity(), head, [], {"target_accuracy/C_t": 75.0}, 1.0)


def test_a_misread_handwritten_digit_is_drawn_in_another_way(figures, reader, tmp_path):
    images = torch.stack([torch.arange(20) - 9.5, torch.arange(20.0)], 1)
    source = Digits(images + 100, torch.arange(20) % 10)
    labels = torch.where(images[:, 0] > 0, 3, 4)
    labels[[2, 17, 18]] = 9
    pictures.plot_tsne([reader], source, Digits(images, labels), tmp_path)
    (axes,) = figures[0].axes
    printed, right, misread = ({*map(tuple, c.get_offsets().tolist())} for c in axes.collections)
    assert printed == {*map(tuple, source.images.tolist())}
    assert misread == {*map(tuple, images[[2, 17, 18]].tolist())}
    assert right == {*map(tuple, images.tolist())} - misread
    texts = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert texts == ["Printed", "Handwritten", "Handwritten, misread"]
    names = [(t.get_text(), *t.get_position()) for t in axes.texts if t.get_color() == TARGET]
    nine = images[[2, 17, 18]].median(0).values.tolist()
    assert names[-1] == ("9", *nine)
    assert [t.get_text() for t in axes.texts if t.get_color() == SOURCE] == [*"0123456789"]
    assert axes.get_title() == "SymNets: 75 % right, one seed"


def test_every_method_has_a_panel(figures, reader, tmp_path):
    digits = Digits(torch.arange(40.0).view(20, 2), torch.arange(20) % 10)
    methods = "source-only", "symnets", "symnets-balanced"
    runs = [dataclasses.replace(reader, method=method) for method in methods]
    pictures.plot_tsne(runs, digits, digits, tmp_path)
    titles = [axes.get_title().split(":")[0] for axes in figures[0].axes]
    assert titles == ["Source only", "SymNets", "Balanced"]


def test_each_row_of_the_samples_goes_from_0_to_9():
    rows = torch.tensor(pictures.ROWS)[:, None] + torch.arange(10)
    assert (load_handwritten().labels[rows] == torch.arange(10)).all()
    assert (render_digits(50, seed=0).labels == torch.arange(50) % 10).all()


def test_the_samples_are_the_first_printed_and_the_chosen_handwritten_digits(figures, tmp_path):
    printed, handwritten = torch.rand(60, 1, 8, 8), torch.rand(1797, 1, 8, 8)
    pictures.plot_samples(printed, handwritten, tmp_path)
    left, right = (axes.images[0].get_array() for axes in figures[0].axes)
    tile = slice(21, 29), slice(31, 39)  # of the third row, the 3
    np.testing.assert_array_equal(left[tile], printed[23, 0])
    np.testing.assert_array_equal(right[tile], handwritten[256 + 3, 0])
