"""The paper's experiments: SymNets and the rows of the ablation on the Office benchmarks.

    python examples/train_office.py --dataset office31 --root data/office31 --task A2W
    torchrun --nproc_per_node 4 examples/train_office.py ...

Each run (task, method, seed) writes OUT/DATASET/TASK/METHOD/seedN/ with result.json, log.jsonl,
checkpoint.pt, features.npz, model.pt and TensorBoard event files; report.py makes the tables.
"""

import math
import re
import signal
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace

import extract_features
import train_features
from office import command_line, console, distributed
from office.console import UserError, visible
from office.data import datasets, hashes, images
from office.options import PROG, Recipe, Runtime, Selection
from office.results import summary
from office.training import features
from office.training.experiment import perform
from office.training.plan import load_tasks, make_plan
from office.training.runs import Run

EPOCHS, STEPS = 20, 1000  # at least, for --preset quick
VIEWS = 2  # of each image, for --preset quick: the centre crop and its mirror image
NO_MEMORY = "out of memory|(can't|not enough|unable to) (allocate )?memory"  # CUDA's and the CPU's


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and run it; exits as :func:`carry_out` does."""
    console.take_any_character()
    carry_out(*command_line.read(argv))


def carry_out(recipe: Recipe, runtime: Runtime, selection: Selection) -> None:
    """Train and evaluate every requested run that is not finished, or only check the images.

    Raises:
        SystemExit: With one clear line if something is wrong, 130 if stopped.
    """
    try:
        runs = (quick if selection.preset == "quick" else train)(recipe, runtime, selection)
        if recipe.dataset == "folders" and distributed.rank() == 0:
            print(summary.answer(runs, runtime.out))
    except BrokenPipeError:
        raise
    except (UserError, OSError) as error:
        sys.exit(f"{PROG}: error: {error}")
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or re.search(NO_MEMORY, str(error))):
            raise
        sys.exit(
            f"{PROG}: error: out of memory: try a smaller --batch-size, --cache off or "
            "--precision bf16; finished epochs are kept for --resume with the same settings"
        )
    except KeyboardInterrupt:
        sys.exit(130)


def train(recipe: Recipe, runtime: Runtime, selection: Selection) -> list[Run]:
    """Train on images, end to end; return the runs."""
    with distributed.process_group(runtime.device):
        tasks = load_tasks(recipe.dataset, selection, partial=recipe.partial)
        if selection.check:
            sys.exit(0 if datasets.check(tasks) else 1)
        # Only the first process checks existing files and reports errors.
        runs, todo = distributed.in_first(
            lambda: make_plan(
                tasks,
                hashes.listings(tasks, recipe.weights_file, runtime.out),
                recipe,
                runtime,
                selection,
            )
        )
        domains = [domain for run in todo for domain in (run.task.source, run.task.target)]
        paths = [path for domain in domains for path in domain.paths]
        cache = images.decode(
            runtime.cache, paths, recipe.preprocessing, runtime.device, runtime.out
        )
        for run in runs:
            perform(run, runtime, cache)
    return runs


def quick(recipe: Recipe, runtime: Runtime, selection: Selection) -> list[Run]:
    """Extract features with a frozen network and train on them; return the runs.

    Their model.pt contains the network too, so it can predict images.
    """
    (task,) = load_tasks(recipe.dataset, selection, partial=recipe.partial)
    if selection.check:
        sys.exit(0 if datasets.check([task]) else 1)
    domains = task.source, task.target
    recipe = fitted(recipe, [len(domain.paths) for domain in domains])
    out = runtime.out / "features"
    extract_features.carry_out(recipe, replace(runtime, out=out), selection, VIEWS)
    stored = features.read(out / recipe.dataset, [visible(domain.name) for domain in domains])
    stored = {domain.name: stored[visible(domain.name)] for domain in domains}
    frozen = features.frozen(stored)
    selection = replace(selection, tasks=(task.name,))
    runs = train_features.carry_out(stored, replace(recipe, frozen=frozen), runtime, selection)
    for run in runs:
        features.put_backbone(run.folder(runtime.out), recipe)
    return runs


def fitted(recipe: Recipe, images: list[int]) -> Recipe:
    """Return a quick recipe for domains of so many images: smaller batches, enough epochs."""
    size = min(recipe.batch_size, *images)
    if size < recipe.batch_size:
        warnings.warn(
            f"--batch-size {recipe.batch_size} exceeds the smaller domain; using {size}",
            stacklevel=2,
        )
    epochs = recipe.epochs or max(EPOCHS, math.ceil(STEPS / (max(images) // size)))
    return replace(recipe, batch_size=size, epochs=epochs)


if __name__ == "__main__":
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    # A job scheduler's SIGTERM ends a run as Ctrl-C does: it prints which checkpoint is left.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console.run(main)
