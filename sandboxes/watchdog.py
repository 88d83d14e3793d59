"""Resident memory of a process tree, used if no control group can be made.

Weaker than a group: ``running`` checks it ten times a second, so it can miss a burst, and it
does not see memory that no process maps (tmpfs files). Backends report ``memory:watchdog``.
"""

import os
from pathlib import Path


def family(pid: int) -> list[int]:
    """Return ``pid`` and its living descendants; nothing if it is gone."""
    found: list[int] = []
    ahead = [pid]
    while ahead:
        one = ahead.pop()
        try:
            # The kernel's own list of children (Linux 3.5, CONFIG_PROC_CHILDREN): to search all
            # processes of the machine for them costs sixty times as much.
            lists = [file.read_text() for file in Path(f"/proc/{one}/task").glob("*/children")]
        except OSError:
            lists = []  # it ended while we looked
        if not lists:
            if not Path(f"/proc/{one}").exists():
                continue
            return _family_by_search(pid)  # a kernel without such lists
        found.append(one)
        ahead += [int(child) for text in lists for child in text.split()]
    return found


def _family_by_search(pid: int) -> list[int]:
    import psutil  # not at the top: it costs 15 ms, and is rarely needed

    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []
    return [pid, *(child.pid for child in children)]


def over(pid: int, limit_bytes: int) -> bool:
    """Return whether ``pid`` and its descendants have more than ``limit_bytes`` resident."""
    pids = family(pid)
    if sum(map(_resident_bytes, pids)) <= limit_bytes:
        return False
    # Pages that forked workers share were counted once for each worker. Only now is it worth
    # asking for the proportional size, for which the kernel walks page tables.
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
