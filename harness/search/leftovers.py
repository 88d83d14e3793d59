"""Find and remove what dead harness processes left behind: sandboxes and scratch folders."""

import re
import shutil
import tempfile
from pathlib import Path

import psutil

from harness.base.paths import STAGE_PREFIX
from sandboxes.registry import BACKENDS


def stale_stages() -> list[Path]:
    """Return folders of evaluations whose process is gone."""
    found = []
    for path in Path(tempfile.gettempdir()).glob(f"{STAGE_PREFIX}*"):
        owner = path.name.removeprefix(STAGE_PREFIX).split("-")[0]
        # Any user may write to the temporary folder, so names there may be anything.
        if re.fullmatch("[0-9]{1,9}", owner) and not psutil.pid_exists(int(owner)):
            found.append(path)
    return found


def collect() -> list[str]:
    """Remove sandboxes and scratch folders of dead processes; return what was removed."""
    removed = []
    for backend in BACKENDS.usable().values():
        removed += list(backend.sweep())
    # GPU locks are left: the kernel has freed them, and their files cannot be removed without
    # a race (see sandboxes.gpu_locks).
    for path in stale_stages():
        shutil.rmtree(path, ignore_errors=True)
        removed.append(str(path))
    return removed
