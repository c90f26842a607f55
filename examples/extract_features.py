"""Extract features of every image in a benchmark or two folders with a frozen network.

    python examples/extract_features.py --dataset office31 --root data/office31 --views 2

writes features/office31/NAME.npy and NAME.json for each domain, for train_features.py or any other
use. If it is stopped, the same command continues. Unreadable images are reported before extraction
starts.
"""

import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from office import command_line, console
from office.console import UserError, visible
from office.data import hashes, images
from office.data.benchmarks import DATASETS
from office.data.tasks import Task, available_tasks, load_tasks, warn_about_copies
from office.models import backbones
from office.options import Recipe, Runtime, Selection
from office.training import extraction
from office.training.features import Extraction, Store
from office.training.progress import EVERY, in_time
from torch import Tensor, nn
from tqdm import tqdm

PROG = "extract_features.py"
OPTIONS = {"dataset", "root", "source", "target", "task", "backbone", "weights", "device"}
OPTIONS |= {"workers", "precision"}


def main(argv: Sequence[str] | None = None) -> None:
    """Extract the features of every requested domain.

    Raises:
        SystemExit: With one clear line if something is wrong, 130 if stopped.
    """
    console.take_any_character()
    try:
        carry_out(*read(argv))
    except BrokenPipeError:
        raise
    except (UserError, OSError) as error:
        sys.exit(f"{PROG}: error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def read(argv: Sequence[str] | None) -> tuple[Recipe, Runtime, Selection, int]:
    """Read the command line; the last is the number of views."""
    parser = command_line.build_parser(PROG, __doc__.partition("\n")[0], OPTIONS)
    parser.add_argument(
        "--views",
        type=console.positive,
        default=1,
        metavar="N",
        help="per image: 1, the centre crop; 2, its mirror image too; more adds random crops "
        "(default: 1)",
    )
    parser.add_argument(
        "--batch-size",
        type=console.positive,
        metavar="N",
        help="approximate number of views per forward pass (default: 64)",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: features")
    parser.set_defaults(batch_size=64, out=Path("features"))
    args = parser.parse_args(argv)
    if args.dataset in DATASETS and DATASETS[args.dataset].kept:
        parser.error(
            f"--dataset {args.dataset} uses another benchmark's images: extract that one, and pass "
            f"--dataset {args.dataset} to train_features.py"
        )
    return *command_line.filled(parser, args), args.views


def carry_out(recipe: Recipe, runtime: Runtime, selection: Selection, views: int) -> None:
    """Extract what is missing; all domains are checked before the first is extracted.

    Raises:
        UserError: With one clear line.
        KeyboardInterrupt: After printing how far it got.
    """
    tasks = load(recipe.dataset, selection)
    torch.manual_seed(0)  # so that random weights are the same when the command continues
    extractor = backbones.build_extractor(recipe.backbone, recipe.weights)
    stores = [
        Store(runtime.out / recipe.dataset, described, extractor.num_features)
        for described in describe(tasks, recipe, runtime.out, views)
    ]
    left = [path for store in stores for path in store.extraction.images()[store.done :]]
    cache = images.fill(runtime.cache, left, recipe.preprocessing, runtime.device)
    network = extractor.eval().to(runtime.device, memory_format=torch.channels_last)
    for store in stores:
        extract(store, network, recipe, runtime, cache)


def load(dataset: str, selection: Selection) -> list[Task]:
    """Return the requested or, of all, the available tasks."""
    if selection.tasks == ("all",) and dataset != "folders":
        available = available_tasks(dataset, selection.root)
        selection = replace(selection, tasks=available or selection.tasks)
    return load_tasks(dataset, selection, partial=True)


def describe(tasks: list[Task], recipe: Recipe, out: Path, views: int) -> Iterator[Extraction]:
    """Yield what to extract of each domain, with a hash of each file."""
    domains = {
        domain.name: (domain, task.categories)
        for task in tasks
        for domain in (task.source, task.target)
    }
    weights = recipe.weights_file
    paths = [path for domain, _ in domains.values() for path in domain.paths]
    contents = hashes.hash_files([*paths, *filter(None, [weights])], out / "hashes.json")
    by_path = {path: content.hash for path, content in contents.items()}
    for task in tasks:
        warn_about_copies(task, by_path)
    for domain, categories in domains.values():
        folder = Path(os.path.commonpath([path.parent for path in domain.paths]))
        yield Extraction(
            dataset=recipe.dataset,
            domain=visible(domain.name),
            backbone=recipe.backbone,
            weights=weights.name if weights else recipe.weights,
            weights_content=contents[weights] if weights else None,
            preprocessing=recipe.preprocessing,
            precision=recipe.precision,
            views=views,
            categories=categories if domain.labels else [],
            labels=domain.labels,
            folder=str(folder.absolute()),
            paths=[path.relative_to(folder).as_posix() for path in domain.paths],
            contents=[contents[path] for path in domain.paths],
        )


def extract(
    store: Store,
    network: nn.Module,
    recipe: Recipe,
    runtime: Runtime,
    cache: dict[Path, Tensor],
) -> None:
    """Extract a domain's missing features, with a progress bar or, without a terminal, lines."""
    domain, paths, done = store.extraction.domain, store.extraction.images(), store.done
    if store.finished:
        print(f"{domain}: already extracted, see {store.path}", flush=True)
        return
    rows = extraction.extract(
        network, paths[done:], store.extraction.views, recipe, runtime, cache, first=done
    )
    started = told = time.perf_counter()
    with tqdm(
        desc=domain, total=len(paths), initial=done, unit=" images", disable=None, leave=False
    ) as bar:
        try:
            for features in rows:
                store.add(features)
                bar.update(len(features))
                now = time.perf_counter()
                if bar.disable and now - told >= EVERY:
                    left = (len(paths) - store.done) * (now - started) / (store.done - done)
                    print(
                        f"{domain}: {store.done:,} of {len(paths):,} images, about {in_time(left)} "
                        "left",
                        flush=True,
                    )
                    told = now
        except KeyboardInterrupt:
            tqdm.write(
                f"{domain}: stopped after {store.done:,} of {len(paths):,} images; run the same "
                "command to continue"
            )
            raise
    store.finish()
    seconds = time.perf_counter() - started
    size = " x ".join(f"{n:,}" for n in store.shape)
    print(
        f"{domain}: {size} features in {seconds:.0f} s, {(len(paths) - done) / seconds:.1f} "
        f"images/s, see {store.path}",
        flush=True,
    )


if __name__ == "__main__":
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a job scheduler's, as Ctrl-C
    console.run(main)
