"""Runs beyond a size."""

import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from harness.store.rundir import Run


def beyond(
    paths: Iterable[Path], max_bytes: int, *, unfinished: bool = False
) -> list[tuple[Path, int]]:
    """Return the oldest runs (with their sizes) that must go so that the rest fit.

    Runs that a live process holds stay, whatever their size, and, unless ``unfinished``, those
    without a result: what was paid for in them is not told yet.
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
    """Delete a run. Raises ConfigError where a process has begun to work on it, OSError.

    It is out of sight at once, so that no half of a run is ever taken for one.
    """
    gone = path.with_name(f".deleted-{path.name}")
    with Run(path).hold():
        path.rename(gone)
    shutil.rmtree(gone)


def _size(path: Path) -> int:
    total = 0
    for file in path.rglob("*"):
        with suppress(FileNotFoundError):  # of a live run: it was there a moment ago
            if not file.is_dir():
                total += file.lstat().st_size
    return total
