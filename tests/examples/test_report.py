from collections.abc import Iterator
from pathlib import Path

import pytest
import report
from made_results import made_features, made_result
from office.console import UserError
from office.results import outputs
from threadpoolctl import threadpool_limits


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The threads of t-SNE's thousand short steps starve each other on a busy machine."""
    with threadpool_limits(1):
        yield


def write(runs: Path, result: outputs.Result, features: bool = False) -> Path:
    folder = runs / result.dataset / result.task / result.method / f"seed{result.seed}"
    folder.mkdir(parents=True)
    outputs.write_result(folder, result)
    if features:
        outputs.write_features(folder, made_features())
    return folder


def test_the_report_writes_every_file_it_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for task in ("A2W", "D2W"):
        for method in ("source-only", "symnets"):
            shown = (task, method) == ("A2W", "symnets")
            write(tmp_path / "runs", made_result(task, method), features=shown)
    report.main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert (tmp_path / "out/table1.md").read_text(encoding="utf-8") in printed
    assert "**Table 1. Accuracy (%) on Office-31**" in printed
    named = printed.split("Written:\n")[1].split()
    assert sorted(named) == sorted(map(str, (tmp_path / "out").iterdir()))
    assert {Path(name).name for name in named if name.endswith(".png")} == {
        "convergence-office31-A2W.png",
        "tsne-office31-A2W.png",
        "recall-office31-A2W.png",
    }
    report.main([str(tmp_path / "runs"), "--task", "D2W"])
    assert "recall-office31-D2W.png" in capsys.readouterr().out


def test_figures_are_of_the_benchmarks_first_task_that_was_run(tmp_path: Path) -> None:
    for result in (
        made_result("A2D"),
        made_result("W2D", "source-only"),
        made_result("b2a", "symnets-wo-entropy", dataset="folders"),
        made_result("a2b", "source-only", dataset="folders"),
    ):
        write(tmp_path, result)
    report.main([str(tmp_path)])
    assert {path.name for path in (tmp_path / "report").glob("*.png")} == {
        "convergence-office31-W2D.png",
        "convergence-folders-a2b.png",
    }


def test_runs_without_target_labels_have_no_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blind = made_result("a2b", accuracy=None, dataset="folders", confusion=None, length=1)
    folder = write(tmp_path, blind, features=True)
    (folder / "predictions.html").write_text("page")
    report.main([str(tmp_path)])
    pages = [*(tmp_path / "report").glob("*.html")]
    assert [(page.name, page.read_text()) for page in pages] == [
        ("predictions-a2b-symnets-seed0.html", "page")
    ]
    health = (tmp_path / "report/health.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out.splitlines() == [
        *health.splitlines(),
        "",
        "Written:",
        f"{tmp_path}/report/health.md",
        f"{tmp_path}/report/predictions-a2b-symnets-seed0.html",
        f"{tmp_path}/report/tsne-folders-a2b.png",
    ]


def test_the_report_has_the_shares_of_targets_without_labels(tmp_path: Path) -> None:
    write(tmp_path, made_result("A2W"))
    write(tmp_path, made_result("a2b", accuracy=None, dataset="folders"))
    report.main([str(tmp_path)])  # without a page, as older runs are
    health = (tmp_path / "report/health.md").read_text(encoding="utf-8")
    assert health.splitlines()[3:] == [
        "- The source and target classifiers agree on 90.0 % of the target.",
        "",
        "folders a2b symnets seed 0:",
        "",
        "    images  predicted  expected  category (expected: the source's shares)",
        "         2     20.0 %    33.3 %  mug",
        "         4     30.0 %    33.3 %  mouse",
        "         6     50.0 %    33.3 %  bike",
    ]


def test_the_report_says_which_runs_rarely_predict_a_category(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = {"bike": 0.7, "mouse": 0.3, "mug": 0.0}
    write(tmp_path, made_result("A2W", "symnets", predicted=lost, agreement=0.85))
    write(tmp_path, made_result("D2W", "symnets"))
    older = {"predicted": {}, "expected": {}, "agreement": None}
    write(tmp_path, made_result("W2D", "symnets", **older))
    report.main([str(tmp_path)])
    health = (tmp_path / "report/health.md").read_text(encoding="utf-8")
    assert health in capsys.readouterr().out
    assert health.splitlines()[2:] == [
        "- office31 A2W symnets seed 0: 1 of 3 categories is rarely or never predicted (mug): "
        "if the target contains it, try --method symnets-balanced.",
        "- Nothing looks wrong in 1 of 2 runs.",
        "- The source and target classifiers agree on 85.0 to 90.0 % of the target.",
    ]


def test_results_from_before_the_label_free_numbers_have_a_report(tmp_path: Path) -> None:
    write(tmp_path, made_result(predicted={}, expected={}, agreement=None))
    report.main([str(tmp_path)])
    assert not (tmp_path / "report/health.md").exists()


def test_tsne_is_of_the_lowest_seed_with_features(tmp_path: Path) -> None:
    for seed in (10, 2, 1):
        write(tmp_path, made_result(seed=seed), features=seed > 1)
    write(tmp_path, made_result(method="symnets-wo-entropy"), features=True)
    results = report.read_results(tmp_path)
    features = {r.seed: p.with_name("features.npz") for p, r in results.items() if r.seed > 1}
    features[10].write_bytes(b"never read")
    assert [result.seed for result, _ in report.read_features(results)] == [2]


# Bad input


def failure(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises((UserError, OSError)) as error:
        report.main([str(argument) for argument in arguments])
    return str(error.value)


@pytest.mark.parametrize("content", ['{"dataset": "office31"', "[]", "{}"])
def test_a_broken_result_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    path = write(tmp_path, made_result()) / "result.json"
    path.write_text(content)
    assert str(path) in failure(capsys, tmp_path)


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"no finished run (result.json) in {tmp_path}/none" in failure(capsys, tmp_path / "none")
    one = write(tmp_path / "runs/one", made_result(), features=True)
    assert "no finished run of task W2A" in failure(capsys, tmp_path, "--task", "W2A")
    (one / "features.npz").write_bytes(b"PK")
    assert f"{one}/features.npz" in failure(capsys, tmp_path)
    two = write(tmp_path / "runs/two", made_result())
    line = failure(capsys, tmp_path)
    assert f"{two}/result.json and {one}/result.json hold the same run" in line


def test_out_must_be_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "runs", made_result())
    (tmp_path / "taken").touch()
    line = failure(capsys, tmp_path / "runs", "--out", tmp_path / "taken")
    assert f"{tmp_path}/taken" in line
