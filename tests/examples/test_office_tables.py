import re

import numpy as np
import pytest
from made_results import RECIPE, made_result
from office import methods
from office.results import tables

# Published numbers


@pytest.mark.parametrize("name", ["Table 1", "Table 2", "Table 3", "Table 4"])
def test_published_rows_agree_with_their_printed_averages(name: str) -> None:
    table = tables.PUBLISHED[name]
    wrong = {
        row["method"]
        for row in table["rows"]
        if all(row["cells"])
        and abs(np.mean([mean for mean, _ in row["cells"]]) - row["average"]) > 0.06
    }
    # The paper's own averages differ there.
    own = {"Table 1": {"RTN", "ADDA"}, "Table 2": {"ResNet-50"}}
    assert wrong == own.get(name, set())
    assert {len(row["cells"]) for row in table["rows"]} == {len(table["tasks"])}


def test_published_tables_hold_the_papers_rows() -> None:
    sizes = [len(table["rows"]) for table in tables.PUBLISHED.values()]
    assert sizes == [14, 8, 6, 9]  # SymmNets-V2 in three
    first, fourth = (tables.PUBLISHED[name]["rows"] for name in ("Table 1", "Table 4"))
    assert first[-2]["cells"] == fourth[-1]["cells"]
    beside = {row.get("ours"): row["average"] for row in first}
    assert "source-only" not in beside
    assert next(row["average"] for row in fourth if row["ours"] == "source-only") == 81.9


def test_methods_are_those_that_can_be_trained() -> None:
    published = [row["ours"] for row in tables.PUBLISHED["Table 4"]["rows"]]
    assert list(methods.METHODS)[:9] == published
    for row in tables.PUBLISHED["Table 4"]["rows"]:
        assert methods.METHODS[row["ours"]].row == row["method"]


# Rows


def rows(table: tables.Table) -> dict[str, list[str]]:
    """Printed cells by first column; a row "difference" belongs to the one above."""
    found, last = {}, ""
    for line in re.findall(r"^\| (.*) \|$", tables.markdown(table), re.MULTILINE):
        label, *cells = re.split(r" ?\| ?", line)
        last = f"{last}, difference" if label == "difference" else label
        found[last] = cells
    return found


@pytest.fixture
def office31() -> dict[str, tables.Table]:
    """SymNets on all six tasks, A2W three times; source only on A2W twice."""
    others = {"D2W": 98.0, "W2D": 100.0, "A2D": 90.0, "D2A": 70.0, "W2A": 72.0}
    return tables.tables(
        [made_result(seed=seed, accuracy=90.0 + 2 * seed) for seed in range(3)]
        + [made_result(task, accuracy=accuracy) for task, accuracy in others.items()]
        + [made_result(method="source-only", seed=s, accuracy=80.0 + 3 * s) for s in range(2)]
    )


def test_table_1_against_values_computed_by_hand(office31: dict[str, tables.Table]) -> None:
    assert list(office31) == ["table1", "table4"]
    assert office31["table1"].title == "Table 1. Accuracy (%) on Office-31"
    first = rows(office31["table1"])
    assert first["Methods"] == ["A→W", "D→W", "W→D", "A→D", "D→A", "W→A", "Avg"]
    assert first["iCAN"] == ["92.5", "98.8", "100.0", "90.1", "72.1", "69.9", "87.2"]
    assert first["SymNets, published"][0] == "90.8 ± 0.1"
    # 90, 92, 94: standard deviation 2, over the root of 3.
    assert first["SymNets, ours"] == [
        "92.0 ± 1.2",
        "98.0",
        "100.0",
        "90.0",
        "70.0",
        "72.0",
        "87.0†",
    ]
    differences = ["+1.2", "-0.8", "+0.0", "-3.9", "-4.6", "-0.5", "-1.4†"]
    assert first["SymNets, ours, difference"] == differences
    assert not any("Source only" in label for label in first)


def test_table_4_against_values_computed_by_hand(office31: dict[str, tables.Table]) -> None:
    first, fourth = rows(office31["table1"]), rows(office31["table4"])
    # 80, 83: standard deviation 3 / sqrt(2), over the root of 2.
    assert fourth["Source only, ours"] == ["81.5 ± 1.5", "", "", "", "", "", ""]
    assert fourth["Source only, ours, difference"] == ["+1.6", "", "", "", "", "", ""]
    assert fourth["ResNet-50, published"][-1] == "81.9"
    assert fourth["SymNets, ours"] == first["SymNets, ours"]
    assert fourth["Domain Confusion"][-1] == "83.1"


def test_a_mean_over_tasks_of_different_seeds_is_marked() -> None:
    def runs(method: str, **seeds: tuple[int, ...]) -> list[object]:
        return [made_result(t, method, s, dataset="d") for t, of in seeds.items() for s in of]

    even = [*runs("symnets", A2W=(0, 1), D2W=(0, 1)), *runs("source-only", A2W=(2,), D2W=(2,))]
    uneven = runs("symnets-wo-entropy", A2W=(0, 1), D2W=(0, 2))  # as many, but others
    table = tables.tables([*even, *uneven])["d"]
    assert [cells[-1] for cells in rows(table).values()] == ["Avg", "---", "90.0", "90.0†", "90.0"]
    footnote = "\n\n† Mean over tasks that were run with different seeds.\n"
    assert tables.markdown(table).endswith(footnote)
    assert "†" not in tables.markdown(tables.tables(even)["d"])
    only = tables.tables(runs("symnets", A2W=(0, 1)) + runs("source-only", A2W=(0,), D2W=(1,)))
    assert [cells[-1] for cells in rows(only["d"]).values()][2:] == ["90.0†", ""]


def test_datasets_without_published_numbers() -> None:
    runs = [
        ("A2W", "source-only", 91.0),
        ("A2W", "symnets", 96.0),
        ("D2W", "symnets", 98.0),
        ("D2W", "a-tenth-method", 50.0),
    ]
    results = [made_result(t, m, accuracy=a, dataset="office-caltech10") for t, m, a in runs]
    results.append(made_result("photos2sketches", accuracy=40.0, dataset="folders"))
    made = tables.tables(results)
    assert list(made) == ["office-caltech10", "folders"]
    assert rows(made["office-caltech10"]) == {
        "Methods": ["A→W", "D→W", "Avg"],
        "---": ["---", "---", "---"],
        "Source only": ["91.0", "", ""],
        "SymNets": ["96.0", "98.0", "97.0"],
        "a-tenth-method": ["", "50.0", ""],
    }
    assert rows(made["folders"])["Methods"] == ["photos2sketches", "Avg"]


def test_the_ablation_on_other_benchmarks_follows_the_published_rows() -> None:
    result = made_result("I2P", "symnets-wo-entropy", accuracy=77.0, dataset="imageclef-da")
    table = rows(tables.tables([result])["table2"])
    assert list(table)[-3:] == ["SymNets", "SymmNets-V2", "SymNets (w/o M^st), ours"]


def test_of_symmnets_v2_averages_are_published_alone() -> None:
    for name, average in (("Table 1", "89.1"), ("Table 2", "89.7"), ("Table 3", "68.1")):
        tasks, dataset = tables.PUBLISHED[name]["tasks"], tables.PUBLISHED[name]["dataset"]
        result = made_result(tasks[0], dataset=dataset)
        table = rows(tables.tables([result])[name.lower().replace(" ", "")])
        assert table["SymmNets-V2"] == [*[""] * len(tasks), average]
        ours = [made_result(t, "symnets-v2", accuracy=90.0, dataset=dataset) for t in tasks]
        table = rows(tables.tables(ours)[name.lower().replace(" ", "")])
        assert table["SymmNets-V2, published"] == [*[""] * len(tasks), average]
        assert table["SymmNets-V2, ours"] == ["90.0"] * (len(tasks) + 1)
        difference = f"{90 - float(average):+.1f}"
        assert table["SymmNets-V2, ours, difference"] == [*[""] * len(tasks), difference]


def test_methods_that_are_not_the_papers_stand_below_its_rows() -> None:
    names = ("symnets", "symnets-wo-entropy", "symnets-balanced")
    made = tables.tables(made_result(method=name) for name in names)
    label = "SymNets (balanced), ours"
    assert list(rows(made["table1"]))[-3:] == ["SymNets, ours, difference", "SymmNets-V2", label]
    assert list(rows(made["table4"]))[-1] == label
    assert "SymNets (w/o M^st), ours" not in rows(made["table1"])
    assert rows(made["table4"])[label][0] == "90.0"


def test_results_without_target_labels_have_no_row() -> None:
    blind = made_result("a2b", accuracy=None, dataset="folders")
    assert tables.tables([blind]) == {}
    seen = made_result("b2a", "source-only", dataset="folders")
    assert list(rows(tables.tables([blind, seen])["folders"])) == ["Methods", "---", "Source only"]


# Notes


def note(name: str, *results: object) -> str:
    return tables.tables(results)[name].note


def test_the_note_says_how_runs_were_made() -> None:
    recipe = {**RECIPE, "weights": "/home/me/resnet50.pt", "bottleneck": 256}
    assert note("table1", *(made_result(seed=seed, recipe=recipe) for seed in (3, 0))) == (
        "Ours: backbone resnet18; weights resnet50.pt; bottleneck 256; batch size 8; "
        "length 4 epochs; lr 0.01; precision fp32; seeds 0, 3. "
        "Mean ± standard error over the seeds."
    )


FROZEN = {**RECIPE, "frozen": {"width": 2048, "views": 2, "precision": "bf16"}}


@pytest.mark.parametrize(("views", "words"), [(1, "views: 1"), (2, "views: 2")])
def test_title_and_note_say_that_features_are_frozen(views: int, words: str) -> None:
    recipe = {**FROZEN, "frozen": {**FROZEN["frozen"], "views": views}}
    names = ("symnets", "source-only")
    made = tables.tables(made_result(method=name, recipe=recipe) for name in names)
    assert made["table1"].title == "Table 1. Accuracy (%) on Office-31, ours on frozen features"
    assert made["table4"].title.endswith("ablation, ours on frozen features")
    for name in ("table1", "table4"):
        assert f"; features frozen, {words} (bf16); " in made[name].note
    other = made_result(dataset="folders", recipe=recipe)
    assert tables.tables([other])["folders"].title == "Accuracy (%) on folders, on frozen features"


def test_a_table_of_both_frozen_and_trained_networks_warns() -> None:
    results = made_result("A2W", recipe=FROZEN), made_result("D2W")
    made = tables.tables(results)["table1"]
    assert made.title == "Table 1. Accuracy (%) on Office-31"
    assert "differ between the runs of this table:** features frozen, views: 2 (bf16)" in made.note


def test_steps_take_the_place_of_epochs() -> None:
    recipes = ({**RECIPE, "max_steps": 7, "epochs": epochs} for epochs in (None, 200))
    text = note("table1", *(made_result(seed=i, recipe=r) for i, r in enumerate(recipes)))
    assert "length 7 steps; " in text
    assert "epochs" not in text
    assert "Warning" not in text


@pytest.mark.parametrize(
    "hidden",
    [
        made_result(method="source-only", seed=5, recipe={**RECIPE, "lr": 0.5}),  # Table 4's
        made_result("A2C", seed=5, recipe={**RECIPE, "lr": 0.5}),  # no column for it
        made_result("A2D", accuracy=None, seed=5, recipe={**RECIPE, "lr": 0.5}),  # no accuracy
        made_result(dataset="office-home", task="Ar2Cl", seed=5, recipe={**RECIPE, "lr": 0.5}),
    ],
    ids=["row", "column", "accuracy", "dataset"],
)
def test_the_note_is_silent_about_runs_that_the_table_does_not_show(hidden: object) -> None:
    assert note("table1", hidden, made_result()) == note("table1", made_result())


def test_a_table_without_ours_says_so() -> None:
    text = note("table1", made_result(method="source-only"))
    assert text == "Published numbers only: none of our runs belongs in this table."


def test_different_seeds_are_warned_of() -> None:
    results = [made_result("A2W", seed=seed, dataset="d") for seed in (0, 1, 2)]
    results += [made_result("D2W", seed=seed, dataset="d") for seed in (0, 1, 2)]
    even = tables.tables(results)["d"]
    assert "seeds 0, 1, 2. " in even.note
    assert "Warning" not in even.note
    uneven = tables.tables([*results, made_result("W2D", dataset="d")])["d"]
    assert "seeds 0, 1, 2 / 0. " in uneven.note
    told = "settings differ between the runs of this table:** seeds 0, 1, 2 / 0."
    assert uneven.note.split("\n\n")[1].endswith(told)
    others = [made_result("A2W", dataset="d"), made_result("A2W", "source-only", 1, dataset="d")]
    assert tables.tables(others)["d"].note.endswith("table:** seeds 1 / 0.")


def test_runs_of_a_task_on_different_images_are_told() -> None:
    results = [made_result(seed=0), made_result(seed=1, images=[18, 12, 7])]
    told = "**Warning: runs of the same task are on different images:** A→W."
    assert told in tables.tables(results)["table1"].note
    other = [results[0], made_result("D2W", images=[18, 12, 7]), made_result(seed=1, images=[])]
    assert "different images" not in tables.tables(other)["table1"].note


def test_rows_with_different_settings_are_warned_of() -> None:
    other = {**RECIPE, "backbone": "resnet50", "epochs": 200}
    methods = ("source-only", "source-only-em")
    text = note("table4", made_result(recipe=other), *(made_result(method=m) for m in methods))
    assert "backbone resnet18 / resnet50; " in text
    assert "length 4 epochs / 200 epochs; " in text
    assert text.split("\n\n")[1] == (
        "**Warning: settings differ between the runs of this table:** "
        "backbone resnet18 / resnet50; length 4 epochs / 200 epochs."
    )


def test_a_setting_that_other_methods_lack_is_compared_within_its_method() -> None:
    plain = made_result()
    three, five = (
        made_result(task, "symnets-balanced", recipe={**RECIPE, "balance": w, "prior": "uniform"})
        for task, w in (("A2W", 3.0), ("D2W", 5.0))
    )
    assert "; balance not set / 3.0; prior not set / uniform; seeds 0. " in (
        note("table1", plain, three)
    )
    assert "Warning" not in note("table1", plain, three)
    assert note("table1", plain, three, five).endswith(
        "differ between the runs of this table:** balance not set / 3.0 / 5.0."
    )


def test_the_note_has_partial_runs_and_the_shares_of_a_file() -> None:
    plain, partial = (
        made_result(task, recipe={**RECIPE, "partial": partial})
        for task, partial in (("A2W", False), ("D2W", True))
    )
    baseline = made_result(method="source-only")
    assert "partial" not in note("table4", plain, baseline)
    assert "; partial not set / True; seeds 0. " in note("table4", partial, baseline)
    assert "Warning" not in note("table4", partial, baseline)
    assert note("table4", partial, plain, baseline).endswith(
        "differ between the runs of this table:** partial not set / True."
    )
    recipe = {**RECIPE, "balance": 3.0, "prior": [["mug", 0.25], ["bike", 0.75]]}
    given = made_result(method="symnets-balanced", recipe=recipe)
    assert "; balance 3.0; prior mug 0.25, bike 0.75; seeds 0. " in note("table1", given)


def test_settings_that_the_note_leaves_out_are_warned_of_too() -> None:
    other = {**RECIPE, "channels_last": True, "bottleneck": 256}
    text = note("table4", made_result(method="source-only"), made_result(recipe=other))
    assert text.endswith("bottleneck not set / 256; channels last False / True.")
    assert "channels last" not in text.split("\n\n")[0]


def test_different_settings_in_one_row_are_warned_of() -> None:
    other = made_result("D2W", recipe={**RECIPE, "lr": 0.5})
    text = note("table1", made_result(), made_result("A2D"), other)
    assert text.endswith("table:** lr 0.01 / 0.5.")


def test_the_warning_stands_below_the_printed_table() -> None:
    other = made_result(method="source-only", recipe={**RECIPE, "lr": 0.5})
    printed = tables.markdown(tables.tables([made_result(), other])["table4"])
    assert printed.splitlines()[-1].startswith("**Warning: settings differ")
    assert "Warning" not in tables.markdown(tables.tables([made_result(), other])["table1"])
