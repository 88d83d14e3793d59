"""What dead harness processes left behind, and runs beyond a size."""

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import psutil

from harness.runs.rundir import Run
from sandboxes.registry import BACKENDS
from scorers.evaluate import STAGE_PREFIX


def stale_stages() -> list[Path]:
    """Return folders of evaluations whose process is gone."""
    found = []
    for path in Path(tempfile.gettempdir()).glob(f"{STAGE_PREFIX}*"):
        owner = path.name.removeprefix(STAGE_PREFIX).split("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            found.append(path)
    return found


def collect() -> list[str]:
    """Remove sandboxes and scratch folders of dead processes; return what was removed."""
    removed = []
    for backend in BACKENDS.values():
        removed += list(backend.sweep())
    # GPU locks are left: the kernel has freed them, and their files cannot be removed without
    # a race (see sandboxes.gpu_locks).
    for path in stale_stages():
        shutil.rmtree(path, ignore_errors=True)
        removed.append(str(path))
    return removed


def beyond(paths: Iterable[Path], max_bytes: int) -> list[tuple[Path, int]]:
    """Return the oldest runs (with their sizes) that must go so that the rest fit.

    Runs that a live process holds stay, whatever their size.
    """
    sizes = [(path, _size(path)) for path in paths]
    total = sum(size for _, size in sizes)
    chosen = []
    for path, size in sorted(sizes, key=lambda item: item[0].stat().st_mtime):
        if total <= max_bytes:
            break
        if not Run(path).is_held():
            chosen.append((path, size))
            total -= size
    return chosen


def _size(path: Path) -> int:
    return sum(f.lstat().st_size for f in path.rglob("*") if not f.is_dir())
