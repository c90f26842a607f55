"""A look at every image of some tasks, for ``--check``."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from office.console import UserError, printable, visible
from office.data import images
from office.data.images import Look
from office.data.tasks import Task, warn_about_copies


def check_images(tasks: Sequence[Task]) -> bool:
    """Decode every image; print counts per category, and unreadable and skipped files by path.

    Returns:
        Whether all images could be read.

    Raises:
        UserError: If all images of a domain are also the other's.
    """
    pairs = [(task, domain) for task in tasks for domain in (task.source, task.target)]
    domains = {domain.name: domain for _, domain in pairs}
    counts = {
        domain.name: Counter[str | None](task.categories[label] for label in domain.labels or [])
        for task, domain in pairs
    }
    # In partial adaptation, the same domain may be a source in full and a target in part.
    paths = [*dict.fromkeys(path for domain in domains.values() for path in domain.paths)]
    skipped = [*dict.fromkeys(item for domain in domains.values() for item in domain.skipped)]
    results = dict(zip(paths, images.read_all(paths, _look, "reading"), strict=True))
    faults = [fault for fault in results.values() if isinstance(fault, UserError)]
    seen = {path: look for path, look in results.items() if not isinstance(look, UserError)}
    hashes = dict.fromkeys(paths, "") | {path: content for path, (_, content) in seen.items()}
    for task in tasks:
        warn_about_copies(task, hashes)

    table = [["category", *map(visible, domains), "skipped"]]
    columns = [*counts.values(), Counter(item.category for item in skipped)]
    names: list[str | None] = [*dict.fromkeys(name for task in tasks for name in task.categories)]
    for name in names + [None] * (None in columns[-1]):
        shown = "no category" if name is None else visible(name)
        table.append([shown, *(str(column[name] or "-") for column in columns)])
    totals = [*(len(domain.paths) for domain in domains.values()), len(skipped)]
    table.append(["all", *(str(total or "-") for total in totals)])
    _print_table(table)

    modes = Counter(look.mode for look, _ in seen.values() if look.mode != "RGB")
    converted = ", ".join(f"{count} {mode}" for mode, count in modes.items())
    verb = "files are read" if skipped else "images can be read"
    print(f"{len(seen):,} of {len(paths) + len(skipped):,} {verb}", end="")
    print(f", {len(skipped):,} skipped" if skipped else "", end="")
    print(f"; converted to RGB: {converted}" if converted else "")
    images.grey_bits({domain.name: domain.paths for domain in domains.values()})
    several = [path for path, (look, _) in seen.items() if look.frames > 1]
    if several:
        print(f"only the first picture is read in {len(several):,} multi-picture files:", end=" ")
        print(visible(several[0]), *["..."] * (len(several) > 1))
    for item in skipped:
        print(f"skipped: {visible(item.path)} ({item.why})")
    print(*faults, sep="\n", end="\n" * bool(faults))
    return not faults


def _look(path: Path) -> tuple[Look, str]:
    """Return what an image is, and a hash of its file."""
    return images.look(path), hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()


def _print_table(rows: list[list[str]]) -> None:
    """Print aligned columns, the first to the left."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        right = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        print("  ".join([name.ljust(widths[0]), *right]))
