from collections.abc import Iterator

import numpy as np
import pytest
from made_results import CATEGORIES, made_features, made_result
from matplotlib.axes import Axes
from office.results import tsne
from threadpoolctl import threadpool_limits


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The threads of t-SNE's thousand short steps starve each other on a busy machine."""
    with threadpool_limits(1):
        yield


def marks(axes: Axes) -> dict[str, np.ndarray]:
    return {str(m.get_label()): np.asarray(m.get_offsets()) for m in axes.collections}


def test_maps_show_both_domains_of_each_method() -> None:
    runs = [
        (made_result(method="symnets-balanced", accuracy=None), made_features()),
        (made_result(method="source-only", accuracy=72.25), made_features()),
    ]
    figure = tsne.maps(runs, limit=15)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["Source only: 72.2 %", "SymNets (balanced)"]
    for axes in figure.axes:
        assert {name: len(points) for name, points in marks(axes).items()} == {
            "source": 15,
            "target": 12,
        }
        shapes = [len(m.get_paths()[0].vertices) for m in axes.collections]
        assert shapes[0] != shapes[1]


def test_maps_keep_neighbours_together() -> None:
    """The domains of these features lie far apart: nobody's nearest neighbour is of the other."""
    (axes,) = tsne.maps([(made_result(), made_features(gap=50))]).axes
    found = marks(axes)
    points = np.concatenate([found["source"], found["target"]])
    domain = np.repeat([0, 1], [18, 12])
    distance = np.linalg.norm(points[:, None] - points, axis=2)
    np.fill_diagonal(distance, np.inf)
    np.testing.assert_array_equal(domain[distance.argmin(1)], domain)


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
        figure = tsne.maps([(made_result(classifier=classifier), saved)])
        found = marks(figure.axes[0])
        assert len(found.get("target, misclassified", ())) == expected
        assert len(found.get("target", ())) == 12 - expected


def test_categories_are_named_at_their_source_images_where_they_fit() -> None:
    labels = np.concatenate([np.repeat([0, 1, 2], 6), np.zeros(12)]).astype(np.int16)
    names = ["bike", "desk_chair", "mug"]
    result = made_result(
        categories=names, per_category={"bike": 90.0, "desk_chair": 80.0, "mug": None}
    )
    apart = made_features(label=labels)
    apart.features[:18] += 100 * labels[:18, None].astype(np.float16)
    (axes,) = tsne.maps([(result, apart)]).axes
    texts = {text.get_text(): text for text in axes.texts}
    assert set(texts) == {"bike", "desk chair", "mug"}
    source = marks(axes)["source"]
    for k, name in enumerate(texts[plain] for plain in ("bike", "desk chair", "mug")):
        own = np.median(source[labels[:18] == k], axis=0)
        others = [np.median(source[labels[:18] == other], axis=0) for other in {0, 1, 2} - {k}]
        to_others = min(np.linalg.norm(name.get_position() - other) for other in others)
        assert np.linalg.norm(name.get_position() - own) < to_others


@pytest.mark.parametrize("side", [1, -1])
def test_a_category_in_two_places_is_named_where_most_of_it_lies(
    monkeypatch: pytest.MonkeyPatch, side: int
) -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 1, (30, 2))
    points[10:18, 1] += 50 * side  # eight of eighteen lie far above or below
    monkeypatch.setattr(tsne, "_embed", lambda features: points)
    (axes,) = tsne.maps([(made_result(), made_features())]).axes
    ((x, y),) = (text.get_position() for text in axes.texts)
    assert 0 <= x <= 1
    assert 0 <= y <= 1


def test_of_categories_at_one_place_the_lowest_recall_is_named() -> None:
    k = 12
    names = [f"a_rather_long_name_{i}" for i in range(k)]
    labels = np.concatenate([np.arange(18) % k, np.zeros(12)]).astype(np.int16)
    recalls = dict(zip(names, np.arange(k, 0, -1.0), strict=True))
    result = made_result(categories=names, per_category=recalls)
    (axes,) = tsne.maps([(result, made_features(label=labels))]).axes
    texts = [text.get_text() for text in axes.texts]
    assert texts[0] == "a rather long name 11"
    assert len(texts) < k
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_methods_without_a_panel_have_no_map() -> None:
    assert tsne.maps([(made_result(method="symnets-wo-entropy"), made_features())]) is None
    assert tsne.maps([]) is None


@pytest.mark.parametrize("count", range(1, 6))
def test_the_marks_are_explained_once(count: int) -> None:
    runs = [(made_result(method=method), made_features()) for method in tsne.PANELS[:count]]
    figure = tsne.maps(runs)
    legends = [*figure.legends, *(a.get_legend() for a in figure.axes if a.get_legend())]
    (legend,) = legends
    assert [text.get_text() for text in legend.get_texts()] == ["source", "target"]
    assert CATEGORIES[0] in {text.get_text() for text in figure.axes[0].texts}
