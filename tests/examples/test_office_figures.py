from collections.abc import Iterator

import numpy as np
import pytest
from made_results import CATEGORIES, made_features, made_result
from office import figures
from threadpoolctl import threadpool_limits


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The threads of t-SNE's thousand short steps starve each other on a busy machine."""
    with threadpool_limits(1):
        yield


def test_curves_are_test_errors_averaged_over_seeds() -> None:
    results = [made_result(method=m, seed=seed) for m in figures.PANELS for seed in (0, 1)]
    figure = figures.convergence([*results, made_result(method="symnets-wo-entropy")])
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert list(lines) == [
        "Source only",
        "Domain Confusion",
        "Domain Confusion (Em)",
        "SymNets-S",
        "SymNets-T",
    ]
    np.testing.assert_allclose(lines["SymNets-T"].get_xdata(), [1, 2, 3, 4])
    np.testing.assert_allclose(lines["SymNets-T"].get_ydata(), [38.5, 37.5, 36.5, 35.5])
    np.testing.assert_allclose(lines["SymNets-S"].get_ydata(), [49, 48, 47, 46])
    assert len({(line.get_color(), line.get_linestyle()) for line in lines.values()}) == 5


def test_runs_of_one_evaluation_have_no_curve() -> None:
    assert figures.convergence([made_result(length=1)]) is None


def test_epochs_without_an_accuracy_are_left_out() -> None:
    """With --max-steps, and on a target without labels, epochs have terms alone."""
    measured = made_result().epochs
    epochs = [{"epoch": 1, "source_task": 0.5}, measured[1], {**measured[2]}, measured[3]]
    epochs[2]["target_accuracy/C_s"] = None
    figure = figures.convergence([made_result(epochs=epochs)])
    lines = {line.get_label(): list(line.get_xdata()) for line in figure.axes[0].lines}
    assert lines == {"SymNets-S": [2, 4], "SymNets-T": [2, 3, 4]}


def test_confusion_is_in_percent_of_the_true_category() -> None:
    figure = figures.confusion([made_result()])
    shown = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(shown, [[75, 25, 0], [0, 100, 0], [0, 0, 100]])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == CATEGORIES
    assert sorted(text.get_text() for text in figure.axes[0].texts) == ["100", "100", "25", "75"]


def test_confusions_of_the_seeds_are_added_up() -> None:
    other = made_result(seed=1, confusion=[[0, 0, 4], [0, 0, 0], [1, 0, 0]])
    foreign = made_result(seed=2, categories=["a", "b"], confusion=[[9, 9], [9, 9]])
    figure = figures.confusion([made_result(), other, foreign])
    shown = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(
        shown, [[37.5, 12.5, 50], [0, 100, 0], [100 / 3, 0, 200 / 3]], atol=1e-12
    )


def test_a_category_without_images_is_an_empty_row() -> None:
    figure = figures.confusion([made_result(confusion=[[3, 1, 0], [0, 0, 0], [0, 0, 2]])])
    assert not figure.axes[0].images[0].get_array()[1].any()


def test_maps_show_both_domains_of_each_method() -> None:
    features = {method: made_features() for method in ("symnets", "source-only")}
    figure = figures.maps(features, limit=15)
    assert [axes.get_title() for axes in figure.axes] == ["(a) Source only", "(b) SymNets"]
    for axes in figure.axes:
        source, target = axes.collections
        assert (len(source.get_offsets()), len(target.get_offsets())) == (15, 12)
        shapes = [len(marks.get_paths()[0].vertices) for marks in (source, target)]
        assert shapes[0] != shapes[1]


def test_maps_keep_neighbours_together() -> None:
    """The domains of these features lie far apart: nobody's nearest neighbour is of the other."""
    (axes,) = figures.maps({"symnets": made_features(gap=50)}).axes
    source, target = (np.asarray(marks.get_offsets()) for marks in axes.collections)
    points, domain = np.concatenate([source, target]), np.repeat([0, 1], [18, 12])
    distance = np.linalg.norm(points[:, None] - points, axis=2)
    np.fill_diagonal(distance, np.inf)
    np.testing.assert_array_equal(domain[distance.argmin(1)], domain)


def test_methods_without_a_panel_have_no_map() -> None:
    assert figures.maps({"symnets-wo-entropy": made_features()}) is None
    assert figures.maps({}) is None
