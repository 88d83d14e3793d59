"""Resident memory of a process tree, for where no control group may be made.

Weaker than a group: it looks ten times a second, so a burst can pass it, and memory that
is mapped by nobody (tmpfs files) is not seen. Backends that use it say ``memory:watchdog``.
"""

import os
from pathlib import Path


def family(pid: int) -> list[int]:
    """Return ``pid`` and its living descendants."""
    import psutil  # not at the top: it costs 15 ms, and few need it

    try:
        process = psutil.Process(pid)
        return [pid, *(child.pid for child in process.children(recursive=True))]
    except psutil.Error:
        return []


def over(pid: int, limit_bytes: int) -> bool:
    """Say whether ``pid`` and its descendants have more resident than ``limit_bytes``."""
    pids = family(pid)
    if sum(map(_resident_bytes, pids)) <= limit_bytes:
        return False
    # Pages shared by forked workers were counted once for each. Only now is it worth asking
    # the kernel for the proportional size, which walks page tables.
    return sum(map(_proportional_bytes, pids)) > limit_bytes


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def _proportional_bytes(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, IndexError, ValueError):
        pass
    return _resident_bytes(pid)
