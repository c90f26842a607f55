from itertools import pairwise
from typing import Any

import matplotlib
import numpy as np
import pytest
from made_results import CATEGORIES, made_result
from matplotlib.figure import Figure
from matplotlib.text import Text
from office.results import figures
from office.results.outputs import Result

METHODS = (
    "source-only",
    "domain-confusion",
    "domain-confusion-em",
    "symnets",
    "symnets-balanced",
)


def test_curves_are_target_accuracies_averaged_over_seeds() -> None:
    results = [made_result(method=m, seed=seed) for m in METHODS for seed in (0, 1)]
    figure = figures.convergence([*results, made_result(method="symnets-wo-entropy")])
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert list(lines) == [
        "Source only",
        "Domain Confusion",
        "Domain Confusion (Em)",
        "SymNets-S",
        "SymNets-T",
        "SymNets (balanced)",
    ]
    np.testing.assert_allclose(lines["SymNets-T"].get_xdata(), [1, 2, 3, 4])
    np.testing.assert_allclose(lines["SymNets-T"].get_ydata(), [61.5, 62.5, 63.5, 64.5])
    np.testing.assert_allclose(lines["SymNets-S"].get_ydata(), [51, 52, 53, 54])
    assert len({(line.get_color(), line.get_linestyle()) for line in lines.values()}) == 6


def test_the_ends_of_curves_are_named_one_above_the_other() -> None:
    with matplotlib.rc_context(figures.STYLE):
        figure = figures.convergence([made_result(method=method) for method in METHODS])
    names = figure.axes[0].texts
    assert {text.get_text() for text in names} == {
        *(f"{name} 64.0" for name in ("Source only", "Domain Confusion", "Domain Confusion (Em)")),
        *("SymNets-S 54.0", "SymNets-T 64.0", "SymNets (balanced) 64.0"),
    }
    figure.draw_without_rendering()
    boxes = sorted((Text.get_window_extent(text) for text in names), key=lambda box: box.y0)
    assert all(below.y1 <= above.y0 + 1 for below, above in pairwise(boxes))
    meeting = [text for text in names if "64.0" in text.get_text()]
    assert np.mean([text.xyann[1] for text in meeting]) == pytest.approx(64)  # both up and down
    (apart,) = (text for text in names if text.get_text() == "SymNets-S 54.0")
    assert apart.xyann[1] == pytest.approx(54)  # meets no other, so it stays at its line


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


def shares(figure: Figure, panel: int = 0) -> np.ndarray:
    """What a panel shows: right answers and mistakes are two layers."""
    right, mistakes = (layer.get_array() for layer in figure.axes[panel].images)
    assert not right.mask.diagonal().any()
    assert mistakes.mask.diagonal().all()
    return np.where(mistakes.mask, right.data, mistakes.data)


def test_confusion_is_in_percent_of_the_true_category() -> None:
    figure = figures.confusion([made_result()])
    np.testing.assert_allclose(shares(figure), [[75, 25, 0], [0, 100, 0], [0, 0, 100]])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == CATEGORIES
    assert sorted(text.get_text() for text in figure.axes[0].texts) == ["100", "100", "25", "75"]
    assert figure.axes[0].get_title() == "SymNets: 90.0 %"


def test_confusions_of_the_seeds_are_added_up() -> None:
    other = made_result(seed=1, confusion=[[0, 0, 4], [0, 0, 0], [1, 0, 0]])
    foreign = made_result(seed=2, categories=["a", "b"], confusion=[[9, 9], [9, 9]])
    figure = figures.confusion([made_result(), other, foreign])
    np.testing.assert_allclose(
        shares(figure), [[37.5, 12.5, 50], [0, 100, 0], [100 / 3, 0, 200 / 3]], atol=1e-12
    )


def test_a_category_without_images_is_an_empty_row() -> None:
    figure = figures.confusion([made_result(confusion=[[3, 1, 0], [0, 0, 0], [0, 0, 2]])])
    assert not shares(figure)[1].any()


def test_symnets_stands_beside_its_balanced_variant() -> None:
    balanced = made_result(method="symnets-balanced", accuracy=95.0, confusion=np.eye(3).tolist())
    results = [balanced, made_result(method="source-only"), made_result()]
    figure = figures.confusion(results)
    titles = [axes.get_title() for axes in figure.axes[:2]]
    assert titles == ["SymNets: 90.0 %", "SymNets (balanced): 95.0 %"]
    np.testing.assert_allclose(shares(figure, 1), 100 * np.eye(3))
    others = [made_result(method=method) for method in ("source-only", "symnets-v2")]
    assert [a.get_title() for a in figures.confusion(others).axes[:1]] == ["Source only: 90.0 %"]
    assert figures.confusion([made_result(confusion=None)]) is None


def test_what_most_of_a_category_is_taken_for_is_named() -> None:
    k = 13
    counts = 10 * np.eye(k, dtype=int)
    counts[2], counts[9], counts[5, 7] = 0, 0, 10
    counts[2, 8] = counts[9, 1] = 3
    names = [f"thing_{i}" for i in range(k)]
    figure = figures.confusion([made_result(categories=names, confusion=counts.tolist())])
    told = [(text.get_text(), text.get_position()[1]) for text in figure.axes[0].texts]
    assert told == [("thing 8", 2), ("thing 1", 9)]  # half of 5 is not most of it
    figure.draw_without_rendering()
    panel = figure.axes[0].get_window_extent()
    for text in figure.axes[0].texts:
        box = text.get_window_extent()
        assert panel.x0 < box.x0
        assert box.x1 < panel.x1


# Recall of each category

CHAIR = ["bike", "desk_chair", "mug", "pen"]
COUNTS = {  # of ten images each, but for pens, of which there are none
    "source-only": [[5, 5, 0, 0], [0, 9, 1, 0], [0, 2, 8, 0], [0] * 4],
    "symnets": [[9, 1, 0, 0], [0, 0, 10, 0], [0, 2, 8, 0], [0] * 4],
    "symnets-balanced": [[8, 2, 0, 0], [0, 10, 0, 0], [0, 2, 8, 0], [0] * 4],
}


def counted(method: str, seed: int = 0, **changes: Any) -> Result:
    fields = {"categories": CHAIR, "confusion": COUNTS[method]} | changes
    return made_result(method=method, seed=seed, **fields)


def drawn(figure: Figure) -> dict[str, dict[str, float]]:
    """Recalls by method and category, as they are drawn."""
    (axes,) = figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    dots = {d.get_label(): d.get_offsets() for d in axes.collections if ":" in str(d.get_label())}
    return {
        label.split(":")[0]: {names[round(y)]: float(x) for x, y in points}
        for label, points in dots.items()
    }


def test_recalls_are_drawn_by_name_from_lost_to_recovered() -> None:
    figure = figures.recalls([counted(method) for method in COUNTS])
    assert drawn(figure) == {
        "Source only": {"bike": 50, "desk chair": 90, "mug": 80},
        "SymNets": {"bike": 90, "desk chair": 0, "mug": 80},
        "SymNets (balanced)": {"bike": 80, "desk chair": 100, "mug": 80},
    }
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["bike", "mug", "desk chair"]  # from below: lost, as before, recovered


def test_recalls_are_of_all_seeds_that_know_the_categories() -> None:
    reversed_ = [[0, 10, 0, 0], [0, 0, 10, 0], [0, 2, 8, 0], [0] * 4]
    runs = [
        counted("source-only"),
        counted("symnets"),
        counted("symnets", seed=1, confusion=reversed_),
        counted("symnets", seed=2, categories=["a", "b"], confusion=[[0, 9], [9, 0]]),
    ]
    found = drawn(figures.recalls(runs))
    assert found["SymNets"] == {"bike": 45, "desk chair": 0, "mug": 80}


def test_one_method_has_no_before_and_after() -> None:
    unlabelled = counted("source-only", confusion=None)
    assert figures.recalls([counted("symnets"), unlabelled]) is None


def test_figures_follow_the_colours_of_the_page() -> None:
    runs = [counted(method) for method in COUNTS]
    with matplotlib.rc_context({"text.color": "#eeeeee", "axes.facecolor": "#131416"}):
        line = figures.convergence(runs).axes[0].lines[0]
        dots = [d for d in figures.recalls(runs).axes[0].collections if d.get_label()[0] != "_"]
    assert line.get_label() == "Source only"
    assert line.get_color() == "#eeeeee"
    np.testing.assert_allclose(dots[0].get_facecolor()[0], matplotlib.colors.to_rgba("#eeeeee"))
