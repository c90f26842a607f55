import dataclasses
from collections.abc import Iterator
from typing import Any

import matplotlib
import numpy as np
import pytest
from made_results import CATEGORIES, made_features, made_result
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from office.results import colours, figures
from office.results.outputs import Result
from threadpoolctl import threadpool_limits

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
        "Source only 64.5",
        "Domain Confusion 64.5",
        "Domain Confusion (Em) 64.5",
        "SymNets, Cˢ 54.0",
        "SymNets, Cᵗ 64.5",
        "SymNets (balanced) 64.5",
    ]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(lines)
    np.testing.assert_allclose(lines["SymNets, Cᵗ 64.5"].get_xdata(), [1, 2, 3, 4])
    np.testing.assert_allclose(lines["SymNets, Cᵗ 64.5"].get_ydata(), [61.5, 62.5, 63.5, 64.5])
    np.testing.assert_allclose(lines["SymNets, Cˢ 54.0"].get_ydata(), [51, 52, 53, 54])
    assert len({(line.get_color(), line.get_linestyle()) for line in lines.values()}) == 6
    assert figure.axes[0].get_ylabel() == "target accuracy (%), mean of 2 seeds"


def test_runs_of_one_evaluation_have_no_curve() -> None:
    assert figures.convergence([made_result(length=1)]) is None


def test_epochs_without_an_accuracy_are_left_out() -> None:
    """With --max-steps, and on a target without labels, epochs have terms alone."""
    measured = made_result().epochs
    epochs = [{"epoch": 1, "source_task": 0.5}, measured[1], {**measured[2]}, measured[3]]
    epochs[2]["target_accuracy/C_s"] = None
    figure = figures.convergence([made_result(epochs=epochs)])
    lines = {line.get_label(): list(line.get_xdata()) for line in figure.axes[0].lines}
    assert lines == {"SymNets, Cˢ 54.0": [2, 4], "SymNets, Cᵗ 64.0": [2, 3, 4]}


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
    assert figure.axes[0].get_xlabel() == "recall (%), one seed"


def test_recalls_are_of_all_seeds_that_know_the_categories() -> None:
    reversed_ = [[0, 10, 0, 0], [0, 0, 10, 0], [0, 2, 8, 0], [0] * 4]
    runs = [
        counted("source-only"),
        counted("symnets"),
        counted("symnets", seed=1, confusion=reversed_),
        counted("symnets", seed=2, categories=["a", "b"], confusion=[[0, 9], [9, 0]]),
    ]
    assert drawn(figures.recalls(runs))["SymNets"] == {"bike": 45, "desk chair": 0, "mug": 80}


def test_one_method_has_no_before_and_after() -> None:
    unlabelled = counted("source-only", confusion=None)
    assert figures.recalls([counted("symnets"), unlabelled]) is None


def test_a_method_has_one_colour_on_any_page() -> None:
    runs = [counted(method) for method in COUNTS]
    with matplotlib.rc_context({"text.color": "#eeeeee", "axes.facecolor": "#131416"}):
        lines = figures.convergence(runs).axes[0].lines
        dots = [d for d in figures.recalls(runs).axes[0].collections if d.get_label()[0] != "_"]
    expected = [colours.SOURCE_ONLY, colours.SYMNETS, colours.BALANCED]
    assert list(dict.fromkeys(line.get_color() for line in lines)) == expected
    assert [matplotlib.colors.to_hex(d.get_facecolor()[0]).upper() for d in dots] == expected


def test_other_curves_follow_the_page() -> None:
    with matplotlib.rc_context({"text.color": "#eeeeee"}):
        (line,) = figures.convergence([made_result(method="domain-confusion")]).axes[0].lines
    assert line.get_color() == "#eeeeee"


# t-SNE


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The threads of t-SNE's thousand short steps starve each other on a busy machine."""
    with threadpool_limits(1):
        yield


def marks(axes: Axes) -> dict[str, np.ndarray]:
    return {str(m.get_label()): np.asarray(m.get_offsets()) for m in axes.collections}


def test_tsne_shows_both_domains_of_each_method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "LIMIT", 15)
    runs = [
        (made_result(method="symnets-balanced", accuracy=None), made_features()),
        (made_result(method="source-only", accuracy=72.25), made_features()),
    ]
    figure = figures.tsne(runs)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["Source only: 72.2 %", "SymNets (balanced)"]
    for axes in figure.axes:
        assert {name: len(points) for name, points in marks(axes).items()} == {
            "source": 15,
            "target": 12,
        }
        shapes = [len(m.get_paths()[0].vertices) for m in axes.collections]
        assert shapes[0] != shapes[1]


def test_tsne_keeps_neighbours_together() -> None:
    """The domains of these features lie far apart: nobody's nearest neighbour is of the other."""
    (axes,) = figures.tsne([(made_result(), made_features(gap=50))]).axes
    points = np.concatenate([marks(axes)[name] for name in ("source", "target")])
    domain = np.repeat([0, 1], [18, 12])
    distance = np.linalg.norm(points[:, None] - points, axis=2)
    np.fill_diagonal(distance, np.inf)
    np.testing.assert_array_equal(domain[distance.argmin(1)], domain)


def test_tsne_of_features_that_are_all_equal_is_one_point() -> None:
    saved = made_features()
    saved = dataclasses.replace(saved, features=np.ones_like(saved.features))
    (axes,) = figures.tsne([(made_result(), saved)]).axes
    assert not any(points.any() for points in marks(axes).values())


@pytest.mark.parametrize(("classifier", "wrong"), [("C_t", 5), ("C_s", 12)])
def test_target_images_that_the_answering_classifier_mistakes_stand_out(
    classifier: str, wrong: int
) -> None:
    logits = np.zeros((12, 6), np.float32)
    logits[:, 1] = 1  # C_s takes all for category 1
    logits[:5, 3 + 2] = logits[5:, 3 + 0] = 1  # C_t takes five for category 2
    for label, expected in ((0, wrong), (-1, 0)):  # -1: no labels, so nothing is known
        labels = np.repeat([0, label], [18, 12]).astype(np.int16)
        saved = made_features(label=labels, logits=logits)
        figure = figures.tsne([(made_result(classifier=classifier), saved)])
        drawn_marks = marks(figure.axes[0])
        assert len(drawn_marks.get("target, misclassified", ())) == expected
        assert len(drawn_marks.get("target", ())) == 12 - expected


def test_every_category_is_named_at_its_source_images() -> None:
    labels = np.concatenate([np.arange(18) % 10, np.zeros(12)]).astype(np.int16)
    names = [f"thing_{i}" for i in range(11)]  # the last has no source images
    (axes,) = figures.tsne([(made_result(categories=names), made_features(label=labels))]).axes
    texts = {text.get_text(): text.get_position() for text in axes.texts}
    assert list(texts) == [f"thing {i}" for i in range(10)]
    source = marks(axes)["source"]
    np.testing.assert_allclose(texts["thing 2"], np.median(source[labels[:18] == 2], axis=0))


def test_methods_without_a_panel_have_no_tsne() -> None:
    assert figures.tsne([(made_result(method="symnets-wo-entropy"), made_features())]) is None
    assert figures.tsne([]) is None


@pytest.mark.parametrize("count", range(1, 6))
def test_the_marks_are_explained_once(count: int) -> None:
    runs = [(made_result(method=method), made_features()) for method in figures.PANELS[:count]]
    figure = figures.tsne(runs)
    legends = [*figure.legends, *(a.get_legend() for a in figure.axes if a.get_legend())]
    (legend,) = legends
    assert [text.get_text() for text in legend.get_texts()] == ["source", "target"]
    assert legend.get_title().get_text() == "accuracy on the target, one seed"
    assert CATEGORIES[0] in {text.get_text() for text in figure.axes[0].texts}
