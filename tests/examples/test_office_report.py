import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import report as command
from office import report
from threadpoolctl import threadpool_limits

CATEGORIES = ["bike", "mouse", "mug"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The threads of t-SNE's thousand short steps starve each other on a busy machine."""
    with threadpool_limits(1):
        yield


def write_run(
    runs: Path,
    task: str = "A2W",
    method: str = "symnets",
    seed: int = 0,
    accuracy: float | None = 90.0,
    dataset: str = "office31",
    epochs: int = 4,
    features: bool = False,
    **changes: object,
) -> Path:
    folder = runs / dataset / task / method / f"seed{seed}"
    folder.mkdir(parents=True)
    curve = [
        {"epoch": e, "source": 50.0 + e if method == "symnets" else None, "target": 60.0 + e + seed}
        for e in range(1, epochs + 1)
    ]
    run = {
        "dataset": dataset,
        "task": task,
        "method": method,
        "seed": seed,
        "reported": "target",
        "arguments": {"backbone": "resnet18", "epochs": 4, "max_steps": None, "batch_size": 8},
        "versions": {},
        "commit": None,
        "processes": 1,
        "epochs": curve,
        "final": {"source": None, "target": accuracy},
        "accuracy": accuracy,
        "categories": CATEGORIES,
        "per_category": {},
        "confusion": [[3, 1, 0], [0, 4, 0], [0, 0, 2]],
        "seconds": 1.0,
        "peak_memory_bytes": 1,
    }
    (folder / "result.json").write_text(json.dumps({**run, **changes}))
    if features:
        rng = np.random.default_rng(seed)
        np.savez(
            folder / "features.npz",
            features=rng.normal(size=(30, 8)).astype(np.float16),
            domain=np.repeat([0, 1], [18, 12]).astype(np.uint8),
            label=np.zeros(30, np.int16),
        )
    return folder


def rows(markdown: str) -> dict[str, list[str]]:
    """Cells of a Markdown table by first column; a row "difference" belongs to the one above."""
    found, last = {}, ""
    for line in re.findall(r"^\| (.*) \|$", markdown, re.MULTILINE):
        label, *cells = re.split(r" ?\| ?", line)
        last = f"{last}, difference" if label == "difference" else label
        found[last] = cells
    return found


# Published numbers


@pytest.mark.parametrize("name", ["Table 1", "Table 2", "Table 3", "Table 4"])
def test_published_rows_agree_with_their_printed_averages(name: str) -> None:
    table = report.PUBLISHED[name]
    wrong = {
        row["method"]
        for row in table["rows"]
        if abs(np.mean([mean for mean, _ in row["cells"]]) - row["average"]) > 0.06
    }
    # The paper's own averages differ there.
    own = {"Table 1": {"RTN", "ADDA"}, "Table 2": {"ResNet-50"}}
    assert wrong == own.get(name, set())
    assert {len(row["cells"]) for row in table["rows"]} == {len(table["tasks"])}


def test_published_tables_hold_the_papers_rows() -> None:
    sizes = [len(table["rows"]) for table in report.PUBLISHED.values()]
    assert sizes == [13, 7, 5, 9]
    first, fourth = (report.PUBLISHED[name]["rows"] for name in ("Table 1", "Table 4"))
    assert first[-1]["cells"] == fourth[-1]["cells"]
    beside = {row.get("ours"): row["average"] for row in first}
    assert "source-only" not in beside
    assert next(row["average"] for row in fourth if row["ours"] == "source-only") == 81.9


def test_methods_are_those_that_can_be_trained() -> None:
    methods = pytest.importorskip("office.methods")
    assert list(report.NAMES) == list(methods.METHODS)[:9]


# Tables


def test_tables_against_values_computed_by_hand(tmp_path: Path) -> None:
    for seed, accuracy in enumerate((90.0, 92.0, 94.0)):
        write_run(tmp_path, "A2W", seed=seed, accuracy=accuracy)
    for task, accuracy in zip(
        ("D2W", "W2D", "A2D", "D2A", "W2A"), (98, 100, 90, 70, 72), strict=True
    ):
        write_run(tmp_path, task, accuracy=accuracy)
    for seed, accuracy in enumerate((80.0, 83.0)):
        write_run(tmp_path, "A2W", "source-only", seed, accuracy)
    tables = report.tables(report.load_runs(tmp_path))
    assert list(tables) == ["table1", "table4"]

    first = rows(report.markdown(tables["table1"]))
    assert first["Methods"] == ["A→W", "D→W", "W→D", "A→D", "D→A", "W→A", "Avg"]
    assert first["iCAN"] == ["92.5", "98.8", "100.0", "90.1", "72.1", "69.9", "87.2"]
    assert first["SymNets, published"][0] == "90.8 ± 0.1"
    # 90, 92, 94: standard deviation 2, over the root of 3.
    assert first["SymNets, ours"] == ["92.0 ± 1.2", "98.0", "100.0", "90.0", "70.0", "72.0", "87.0"]
    differences = ["+1.2", "-0.8", "+0.0", "-3.9", "-4.6", "-0.5", "-1.4"]
    assert first["SymNets, ours, difference"] == differences
    assert not any("Source only" in label for label in first)

    fourth = rows(report.markdown(tables["table4"]))
    # 80, 83: standard deviation 3 / sqrt(2), over the root of 2.
    assert fourth["Source only, ours"] == ["81.5 ± 1.5", "", "", "", "", "", ""]
    assert fourth["Source only, ours, difference"] == ["+1.6", "", "", "", "", "", ""]
    assert fourth["ResNet-50, published"][-1] == "81.9"
    assert fourth["SymNets, ours"] == first["SymNets, ours"]
    assert fourth["Domain Confusion"][-1] == "83.1"


def test_csv_holds_means_and_errors(tmp_path: Path) -> None:
    for seed, accuracy in enumerate((90.0, 92.0, 94.0)):
        write_run(tmp_path, seed=seed, accuracy=accuracy)
    command.main([str(tmp_path), "--out", str(tmp_path / "out")])
    with (tmp_path / "out/table1.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    ours = next(line for line in lines if line["method"] == "SymNets, ours")
    assert float(ours["A2W"]) == 92
    assert float(ours["A2W error"]) == pytest.approx(2 / 3**0.5)
    assert ours["D2W"] == ours["D2W error"] == ours["average"] == ""
    assert float(lines[lines.index(ours) + 1]["A2W"]) == pytest.approx(1.2)


def test_datasets_without_published_numbers(tmp_path: Path) -> None:
    for task, method, accuracy in (
        ("A2W", "source-only", 91.0),
        ("A2W", "symnets", 96.0),
        ("D2W", "symnets", 98.0),
        ("D2W", "a-tenth-method", 50.0),
    ):
        write_run(tmp_path, task, method, accuracy=accuracy, dataset="office-caltech10")
    write_run(tmp_path, "photos2sketches", accuracy=40.0, dataset="folders")
    tables = report.tables(report.load_runs(tmp_path))
    assert set(tables) == {"office-caltech10", "folders"}
    assert rows(report.markdown(tables["office-caltech10"])) == {
        "Methods": ["A→W", "D→W", "Avg"],
        "---": ["---", "---", "---"],
        "Source only": ["91.0", "", ""],
        "SymNets": ["96.0", "98.0", "97.0"],
        "a-tenth-method": ["", "50.0", ""],
    }
    assert rows(report.markdown(tables["folders"]))["Methods"] == ["photos2sketches", "Avg"]


def test_the_ablation_on_other_benchmarks_follows_the_published_rows(tmp_path: Path) -> None:
    write_run(tmp_path, "I2P", "symnets-wo-entropy", accuracy=77.0, dataset="imageclef-da")
    table = rows(report.markdown(report.tables(report.load_runs(tmp_path))["table2"]))
    assert list(table)[-2:] == ["SymNets", "SymNets (w/o M^st), ours"]


def test_the_note_names_what_differs_between_runs(tmp_path: Path) -> None:
    write_run(tmp_path, seed=0)
    write_run(tmp_path, seed=3, arguments={"backbone": "resnet50", "epochs": 200, "max_steps": 7})
    note = report.tables(report.load_runs(tmp_path))["table1"].note
    assert "backbone resnet18 / resnet50; " in note
    assert "epochs 4; " in note
    assert "max steps 7; " in note
    assert "seeds 0, 3." in note


def test_runs_without_target_labels_have_no_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(
        tmp_path, "a2b", accuracy=None, dataset="folders", confusion=None, epochs=1, features=True
    )
    command.main([str(tmp_path)])
    assert capsys.readouterr().out.splitlines() == [
        "Written:",
        f"{tmp_path}/report/tsne-folders-a2b.png",
    ]


# Figures


def test_curves_are_test_errors_averaged_over_seeds(tmp_path: Path) -> None:
    for method in ("source-only", "domain-confusion", "domain-confusion-em", "symnets"):
        for seed in (0, 1):
            write_run(tmp_path, method=method, seed=seed)
    write_run(tmp_path, method="symnets-wo-entropy")
    figure = report.convergence_figure(report.load_runs(tmp_path))
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


def test_runs_of_one_evaluation_have_no_curve(tmp_path: Path) -> None:
    write_run(tmp_path, epochs=1)
    assert report.convergence_figure(report.load_runs(tmp_path)) is None


def test_confusion_is_in_percent_of_the_true_category(tmp_path: Path) -> None:
    write_run(tmp_path)
    (run,) = report.load_runs(tmp_path)
    figure = report.confusion_figure(run, np.array(run["confusion"]))
    shown = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(shown, [[75, 25, 0], [0, 100, 0], [0, 0, 100]])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == CATEGORIES
    assert sorted(text.get_text() for text in figure.axes[0].texts) == ["100", "100", "25", "75"]


def test_maps_show_both_domains_of_each_method(tmp_path: Path) -> None:
    for method in ("symnets", "source-only"):
        write_run(tmp_path, method=method, features=True)
    write_run(tmp_path, method="domain-confusion")
    figure = report.tsne_figure(report.load_runs(tmp_path), limit=15)
    assert [axes.get_title() for axes in figure.axes] == ["(a) Source only", "(b) SymNets"]
    for axes in figure.axes:
        source, target = axes.collections
        assert (len(source.get_offsets()), len(target.get_offsets())) == (15, 12)
        shapes = [len(marks.get_paths()[0].vertices) for marks in (source, target)]
        assert shapes[0] != shapes[1]


def test_the_report_writes_every_file_it_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for task in ("A2W", "D2W"):
        for method in ("source-only", "symnets"):
            shown = (task, method) == ("A2W", "symnets")
            write_run(tmp_path / "runs", task, method, features=shown)
    command.main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "**Table 1. Accuracy (%) on Office-31**" in printed
    named = printed.split("Written:\n")[1].split()
    assert sorted(named) == sorted(map(str, (tmp_path / "out").iterdir()))
    assert {Path(name).name for name in named if name.endswith(".png")} == {
        "convergence-office31-A2W.png",
        "tsne-office31-A2W.png",
        "confusion-symnets-office31-A2W.png",
    }
    command.main([str(tmp_path / "runs"), "--task", "D2W"])
    assert "confusion-symnets-office31-D2W.png" in capsys.readouterr().out


# Bad input


def failure(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as exit_:
        command.main([str(argument) for argument in arguments])
    assert exit_.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"dataset": "office31"', "Expecting"),
        ("[]", "not a JSON object"),
        ("{}", "'dataset' is missing"),
    ],
)
def test_a_broken_result_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    path = write_run(tmp_path) / "result.json"
    path.write_text(content)
    line = failure(capsys, tmp_path)
    assert str(path) in line
    assert message in line


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("accuracy", "high"),
        ("seed", None),
        ("epochs", [{"epoch": 1, "target": "low"}]),
        ("epochs", [3]),
        ("confusion", [[1, 2]]),
    ],
)
def test_a_broken_value_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str, value: object
) -> None:
    path = write_run(tmp_path) / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    line = failure(capsys, tmp_path)
    assert str(path) in line
    assert f"'{key}'" in line


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"no finished run (result.json) in {tmp_path}/none" in failure(capsys, tmp_path / "none")
    one = write_run(tmp_path / "runs/one", features=True)
    assert "no finished run of task W2A" in failure(capsys, tmp_path, "--task", "W2A")
    (one / "features.npz").write_bytes(b"PK")
    assert f"cannot read the features in {one}/features.npz" in failure(capsys, tmp_path)
    two = write_run(tmp_path / "runs/two")
    line = failure(capsys, tmp_path)
    assert f"{two}/result.json and {one}/result.json hold the same run" in line
