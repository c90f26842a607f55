import pytest
from digits import pictures
from digits.results import Run
from torch import nn

import symloss

ERRORS = {  # of two epochs, for the seeds 4 and 5
    ("source-only", "target_accuracy/C_t"): [(40, 30), (50, 20)],
    ("symnets", "target_accuracy/C_t"): [(20, 10), (22, 16)],
    ("symnets", "target_accuracy/C_s"): [(25, 11), (21, 15)],
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


def curves(figure):
    (axes,) = figure.axes
    return {line.get_label(): line.get_xydata().tolist() for line in axes.lines}


def test_a_curve_is_the_mean_error_of_its_classifier_after_each_epoch(figures, tmp_path):
    runs = [trained(method, seed) for seed in (4, 5) for method in ("source-only", "symnets")]
    pictures.plot_convergence(runs, tmp_path)
    assert curves(figures[0]) == {
        "Source only": [[1, 45], [2, 25]],
        "SymNets, $C^t$": [[1, 21], [2, 13]],
        "SymNets, $C^s$": [[1, 23], [2, 13]],
    }
    assert figures[0].axes[0].get_xlabel() == "Epoch, mean of 2 seeds"


def test_a_method_that_was_not_trained_has_no_curve(figures, tmp_path):
    pictures.plot_convergence([trained("source-only", 4)], tmp_path)
    assert curves(figures[0]) == {"Source only": [[1, 40], [2, 30]]}
    assert figures[0].axes[0].get_xlabel() == "Epoch"
