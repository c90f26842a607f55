"""The paper's tables and figures from finished runs of train_office.py.

    python examples/report.py runs/

prints Tables 1 to 4 with the published numbers beside yours, and which runs rarely predict a
category of the target, and writes both, as Markdown and CSV, with the figures (convergence,
t-SNE, recall of each category, confusion matrix).
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from office import console
from office.console import UserError
from office.results import figures, health, outputs, tables, tsne


def main(argv: list[str] | None = None) -> None:
    """Write and print the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, help="folder with runs, searched at any depth")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: RUNS/report")
    parser.add_argument(
        "--task", help="the figures' task (default: the first of each benchmark that was run)"
    )
    args = parser.parse_args(argv)
    try:
        write_report(args.runs, args.out or args.runs / "report", args.task)
    except BrokenPipeError:
        raise
    except (UserError, OSError) as error:
        parser.error(str(error))


def write_report(runs: Path, out: Path, task: str | None = None) -> None:
    """Write tables and figures of the results in ``runs`` to ``out``; print tables and files.

    Raises:
        UserError: If there is no result, a file is broken, or nobody ran ``task``.
    """
    results = find_results(runs)
    if task is not None and task not in {result.task for result in results.values()}:
        raise UserError(f"no finished run of task {task} in {runs}")
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, table in tables.tables(results.values()).items():
        text = tables.markdown(table)
        print(text)
        (out / f"{name}.md").write_text(text, encoding="utf-8")
        tables.write_csv(table, out / f"{name}.csv")
        written += [out / f"{name}.md", out / f"{name}.csv"]
    told = health.summary(results.values())
    if told:
        print(told)
        (out / "health.md").write_text(told, encoding="utf-8")
        health.write_csv(results.values(), out / "health.csv")
        written += [out / "health.md", out / "health.csv"]
    with matplotlib.rc_context(figures.STYLE):
        for dataset in dict.fromkeys(result.dataset for result in results.values()):
            for name, figure in draw(results, dataset, task).items():
                written.append(out / f"{name}.png")
                figure.savefig(written[-1])
    print("Written:", *written, sep="\n")


def find_results(runs: Path) -> dict[Path, outputs.Result]:
    """Return every result below ``runs`` by its path.

    Raises:
        UserError: If there is none, one is broken, or one seed of a method was run twice.
    """
    results: dict[Path, outputs.Result] = {}
    paths: dict[tuple, Path] = {}
    for path in sorted(runs.rglob("result.json")):
        results[path] = result = outputs.read_result(path)
        key = (result.dataset, result.task, result.method, result.seed)
        if key in paths:
            same = " ".join(map(str, key))
            raise UserError(f"{path} and {paths[key]} hold the same run: {same}")
        paths[key] = path
    if not results:
        raise UserError(f"no finished run (result.json) in {runs}")
    return results


def draw(
    results: dict[Path, outputs.Result], dataset: str, task: str | None = None
) -> dict[str, Figure]:
    """Return the figures of one task by name; by default the first of the benchmark's tasks."""
    order = [t for p in tables.PUBLISHED.values() if p["dataset"] == dataset for t in p["tasks"]]
    found = {result.task for result in results.values() if result.dataset == dataset}
    task = task or next((name for name in order if name in found), min(found))
    shown = {p: r for p, r in results.items() if (r.dataset, r.task) == (dataset, task)}
    made = {
        "convergence": figures.convergence([*shown.values()]),
        "tsne": tsne.maps(read_features(shown)),
        "recall": figures.recalls([*shown.values()]),
        "confusion": figures.confusion([*shown.values()]),
    }
    return {f"{name}-{dataset}-{task}": f for name, f in made.items() if f is not None}


def read_features(
    results: dict[Path, outputs.Result],
) -> list[tuple[outputs.Result, outputs.Features]]:
    """Return each mapped method's lowest seed that saved features, with them.

    Raises:
        UserError: If they cannot be read, or are not all finite.
    """
    runs: dict[str, tuple[outputs.Result, outputs.Features]] = {}
    for path, result in sorted(results.items(), key=lambda item: item[1].seed):
        saved = path.with_name("features.npz")
        if result.method in tsne.PANELS and result.method not in runs and saved.exists():
            features = outputs.read_features(saved)
            if not np.isfinite(features.features).all():
                raise UserError(f"the features in {saved} are not all finite")
            runs[result.method] = result, features
    return [*runs.values()]


if __name__ == "__main__":
    console.run(main)
