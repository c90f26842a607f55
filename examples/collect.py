"""One CSV line per finished run: what results/ keeps of an experiment.

    python examples/collect.py runs/ --out results/frozen.csv

Accuracies, worst category, agreement, calibration and label-free scores come from the run's
result.json and features.npz.
"""

import argparse
from pathlib import Path

from office import console
from office.console import UserError
from office.results import outputs, records
from tqdm import tqdm


def main(argv: list[str] | None = None) -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders to search, at any depth")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="CSV file to write")
    args = parser.parse_args(argv)
    try:
        paths = sorted(path for runs in args.runs for path in runs.rglob("result.json"))
        if not paths:
            raise UserError(f"no finished run (result.json) in {' '.join(map(str, args.runs))}")
        args.out.parent.mkdir(parents=True, exist_ok=True)
        lines = []
        for path in tqdm(paths, "reading", disable=None):
            saved = path.with_name("features.npz")
            features = outputs.read_features(saved) if saved.exists() else None
            lines.append(records.record(outputs.read_result(path), features))
        records.write(args.out, lines)
    except (UserError, OSError) as error:
        parser.error(str(error))
    print(f"{len(paths)} runs: {args.out}")


if __name__ == "__main__":
    console.run(main)
