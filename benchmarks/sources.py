"""One source or several: every domain as the target, adapted from each other one and from all.

    python benchmarks/sources.py features/office31 > results/sources.csv

Trains SymNetClassifier with its defaults on features written by extract_features.py, with views
averaged and rows scaled to length 1. Several sources are concatenated. Each line gives target,
sources, seed, and accuracy in %.
"""

import argparse
from pathlib import Path

import features
import numpy as np

import symloss


def main(argv: list[str] | None = None) -> None:
    """Print a line for each target, choice of sources and seed."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="features of three domains or more"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N")
    args = parser.parse_args(argv)
    domains = {path.stem: features.read(path) for path in sorted(args.folder.glob("*.npy"))}
    print("target,sources,seed,accuracy")
    for seed in args.seeds:
        for target, (x_t, y_t) in domains.items():
            others = [name for name in domains if name != target]
            for sources in (*([name] for name in others), others):
                x_s, y_s = (
                    np.concatenate(both)
                    for both in zip(*(domains[s] for s in sources), strict=True)
                )
                model = symloss.SymNetClassifier(random_state=seed).fit(x_s, y_s, x_t)
                accuracy = 100 * np.mean(model.predict(x_t) == y_t)
                print(f"{target},{' + '.join(sources)},{seed},{accuracy:.1f}", flush=True)


if __name__ == "__main__":
    main()
