"""The paper's tables and figures from finished runs of train_office.py.

    python examples/report.py runs/

prints Tables 1 to 4 with the published numbers beside yours and writes them, as Markdown and
CSV, with the figures (confusion matrix, convergence, t-SNE).
"""

import argparse
from pathlib import Path

from office.report import ReportError, write_report


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
        print(write_report(args.runs, args.out or args.runs / "report", args.task))
    except (ReportError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
