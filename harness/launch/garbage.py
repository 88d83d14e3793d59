"""Choose the oldest runs beyond a total size, and delete runs (``harness gc``).

Sandboxes and scratch folders of dead processes: ``harness.search.leftovers``.
"""

import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from harness.store.rundir import Run


def beyond(
    paths: Iterable[Path], max_bytes: int, *, unfinished: bool = False
) -> list[tuple[Path, int]]:
    """Return the oldest runs (with their sizes) to delete, so that the rest fit ``max_bytes``.

    Runs that a live process holds stay, whatever their size. Runs without a result also stay,
    unless ``unfinished``: their work was paid for, but is not reported yet.
    """
    sizes = [(path, path.stat().st_mtime, _size(path)) for path in paths]
    total = sum(size for _, _, size in sizes)
    chosen = []
    for path, _, size in sorted(sizes, key=lambda item: item[1]):
        if total <= max_bytes:
            break
        done = unfinished or (path / "result.json").exists()
        if done and not Run(path).is_held():
            chosen.append((path, size))
            total -= size
    return chosen


def delete(path: Path) -> None:
    """Delete a run. Raises ConfigError where a process works on it, and OSError.

    The folder is hidden first, by a new name, so that a half-deleted run never looks like a run.
    """
    gone = path.with_name(f".deleted-{path.name}")
    with Run(path).hold():
        path.rename(gone)
    shutil.rmtree(gone)


def _size(path: Path) -> int:
    total = 0
    for file in path.rglob("*"):
        with suppress(FileNotFoundError):  # a live run has just removed it
            if not file.is_dir():
                total += file.lstat().st_size
    return total
