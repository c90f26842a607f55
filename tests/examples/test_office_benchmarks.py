"""The published facts of the benchmarks, also on real photographs where there are any."""

from pathlib import Path

import pytest
from office.data import images
from office.data.layouts import DATASETS
from office.data.tasks import available_tasks, load_task
from office.training.batches import Images

REAL = Path(__file__).parents[2].parent / "shared/data"
real = pytest.mark.skipif(not REAL.is_dir(), reason="needs the photographs of ../shared/data")
TASKS = {
    "office31": "A2W D2W W2D A2D D2A W2A",
    "imageclef-da": "I2P P2I I2C C2I C2P P2C",
    "office-home": "Ar2Cl Ar2Pr Ar2Rw Cl2Ar Cl2Pr Cl2Rw Pr2Ar Pr2Cl Pr2Rw Rw2Ar Rw2Cl Rw2Pr",
    "office-caltech10": "A2C A2D A2W C2A C2D C2W D2A D2C D2W W2A W2C W2D",
    "office31-partial": "A2W D2W W2D A2D D2A W2A",
}


def test_tasks_follow_the_order_of_the_papers_tables() -> None:
    assert {name: " ".join(benchmark.tasks) for name, benchmark in DATASETS.items()} == TASKS


def test_published_counts_add_up_to_the_papers() -> None:
    totals = {
        name: sum(part.images for part in benchmark.domains.values())
        for name, benchmark in DATASETS.items()
    }
    # 4,110 is section 4.1's; 15,588 its "15,500"; 3 x 12 x 50; Gong et al.'s 2,533.
    assert totals == {
        "office31": 4110,
        "imageclef-da": 1800,
        "office-home": 15588,
        "office-caltech10": 2533,
        "office31-partial": 4110,
    }


@real
@pytest.mark.parametrize(
    ("dataset", "folder"), [("office31", "office31"), ("office-caltech10", "office_caltech10")]
)
def test_real_photographs_have_the_published_counts(dataset: str, folder: str) -> None:
    assert available_tasks(dataset, REAL / folder) == DATASETS[dataset].tasks
    for name in DATASETS[dataset].tasks:
        task = load_task(dataset, REAL / folder, name)  # other counts would warn, which fails
        for domain in (task.source, task.target):
            for path, label in zip(domain.paths, domain.labels or [], strict=True):
                assert path.parent.name == task.categories[label]
    photographs = Images(task.source.paths, images.Preprocessing(), {})
    assert photographs[-1, None][0].shape == (3, 224, 224)


@real
def test_partial_office31_keeps_the_ten_categories_of_caltech() -> None:
    benchmark = DATASETS["office31-partial"]
    for name in benchmark.tasks:
        task = load_task("office31-partial", REAL / "office31", name)
        assert len(task.target.paths) == benchmark.kept_images[name[-1]]
        assert len(task.categories) == 31
        assert sorted({*task.categories} - {*task.lacking}) == sorted(benchmark.kept)
        for path, label in zip(task.target.paths, task.target.labels or [], strict=True):
            assert path.parent.name == task.categories[label]
    tens = DATASETS["office-caltech10"].domains  # made of the same ten
    assert benchmark.kept_images == {name: tens[name].images for name in "AWD"}
