"""The paper's tables and figures from finished runs of train_office.py.

    python examples/report.py runs/

prints Tables 1 to 4 with the published numbers beside yours, and names the runs that rarely predict
a category of the target. It also saves all that, with figures: convergence, t-SNE, and each
category's recall.
"""

import argparse
import io
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from office import console, files
from office.console import UserError
from office.results import figures, outputs, tables
from office.results.outputs import Features, Result


def main(argv: list[str] | None = None) -> None:
    """Print the report, and write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("runs", type=Path, help="folder with runs, at any depth")
    add("--out", type=Path, metavar="DIR", help="folder for the report (default: RUNS/report)")
    add("--task", help="draw the figures of this task (default: each benchmark's first)")
    args = parser.parse_args(argv)
    by_path = read_results(args.runs)
    results = [*by_path.values()]
    if args.task is not None and args.task not in {result.task for result in results}:
        raise UserError(f"no finished run of task {args.task} in {args.runs}")
    written: dict[str, bytes] = {}
    for name, table in tables.tables(results).items():
        print(text := tables.markdown(table))
        written[f"{name}.md"] = text.encode()
    # Results from before the label-free numbers have none.
    if predicted := [result for result in results if result.predicted]:
        print(text := tables.on_targets(predicted))
        written["health.md"] = text.encode()
    for path, result in by_path.items():
        if (page := path.with_name("predictions.html")).exists():
            name = f"predictions-{result.task}-{result.method}-seed{result.seed}.html"
            written[name] = page.read_bytes()
    with matplotlib.rc_context(figures.STYLE):
        for dataset in dict.fromkeys(result.dataset for result in results):
            for name, figure in draw(by_path, dataset, args.task).items():
                picture = io.BytesIO()
                figure.savefig(picture)
                written[f"{name}.png"] = picture.getvalue()
    out = args.out or args.runs / "report"
    out.mkdir(parents=True, exist_ok=True)
    for name, content in written.items():
        files.put(out / name, content)
    print("Written:", *(out / name for name in written), sep="\n")


def read_results(runs: Path) -> dict[Path, Result]:
    """Return every result below ``runs`` by its path."""
    results: dict[Path, Result] = {}
    paths: dict[str, Path] = {}
    for path in sorted(runs.rglob("result.json")):
        results[path] = result = outputs.read_result(path)
        if result.title in paths:
            raise UserError(f"{path} and {paths[result.title]} hold the same run: {result.title}")
        paths[result.title] = path
    if not results:
        raise UserError(f"no finished run (result.json) in {runs}")
    return results


def draw(results: dict[Path, Result], dataset: str, task: str | None = None) -> dict[str, Figure]:
    """Return the figures of one task by name; by default the first of the benchmark's tasks."""
    order = [t for p in tables.PUBLISHED.values() if p["dataset"] == dataset for t in p["tasks"]]
    tasks = {result.task for result in results.values() if result.dataset == dataset}
    task = task or next((name for name in order if name in tasks), min(tasks))
    shown = {p: r for p, r in results.items() if (r.dataset, r.task) == (dataset, task)}
    drawn = {
        "convergence": figures.convergence([*shown.values()]),
        "tsne": figures.tsne(read_features(shown)),
        "recall": figures.recalls([*shown.values()]),
    }
    return {f"{name}-{dataset}-{task}": f for name, f in drawn.items() if f is not None}


def read_features(results: dict[Path, Result]) -> list[tuple[Result, Features]]:
    """Return the lowest seed that saved features, with them, of each method shown as t-SNE."""
    runs: dict[str, tuple[Result, Features]] = {}
    for path, result in sorted(results.items(), key=lambda item: item[1].seed):
        saved = path.with_name("features.npz")
        if result.method in figures.PANELS and result.method not in runs and saved.exists():
            runs[result.method] = result, outputs.read_features(saved)
    return [*runs.values()]


if __name__ == "__main__":
    console.run(main)
