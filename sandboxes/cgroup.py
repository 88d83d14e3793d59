"""Memory, process and CPU limits by control groups, version 1 or 2.

One group holds a sandbox's limits. Below it, each started program has a group of its own (a
leaf), which counts that program's memory peak and out-of-memory kills. The kernel counts a
killed child in the child's leaf (both versions; measured on version 1). Exit codes do not
show such kills, since a shell whose child was killed exits with 0.

Version 1 is used where its memory controller is mounted; groups then lie at the top of
each mount, as Docker's do. Version 2 allows no processes in a group that passes controllers to
its children. So our groups go under the nearest ancestor that already passes its controllers
down (or lets us enable that) and lets our processes move in. In a container whose own top
group holds processes there may be no such ancestor: then ``find`` returns None, and backends
use ``watchdog`` instead and report that.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from harness.base.errors import SandboxLostError, SandboxStartError
from sandboxes.base import SandboxSpec

_CONTROLLERS = ("memory", "pids", "cpu")
_PERIOD_US = 100_000
OWN_PIDS = 3
"""Added to the limit, for what is not the code's: bubblewrap's monitor, its init and a short-lived
shell; in a container the engine's init, the shell that waits for our end, and a short runc."""
_PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Where groups can be made: controller -> parent folder (in version 2 the same for all)."""

    version: Literal[1, 2]
    bases: Mapping[str, Path]


@cache
def find() -> Hierarchy | None:
    """Return where this process can make groups, or None. Really tries it, once per process."""
    mounts = _mounts()
    v1 = {c: mounts[c] for c in _CONTROLLERS if c in mounts}
    if "memory" in v1:
        bases = {c: base for c, base in v1.items() if _usable(base)}
        return Hierarchy(1, bases) if bases else None
    top = mounts.get("cgroup2")
    if top is None:
        return None
    own = _own_v2_path(top)
    for base in (own, *own.parents):
        held = _delegated(base)
        if "memory" in held and _usable(base):
            return Hierarchy(2, dict.fromkeys(held, base))
        if base == top:
            break
    return None


def _mounts() -> dict[str, Path]:
    found: dict[str, Path] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mounts").read_text().splitlines():
            _, point, kind, options, *_ = line.split()
            if kind == "cgroup":
                for option in options.split(","):
                    found.setdefault(option, Path(point))
            elif kind == "cgroup2":
                found.setdefault("cgroup2", Path(point))
    return found


def _own_v2_path(top: Path) -> Path:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            if line.startswith("0::"):
                # ``/../x`` is a group outside our cgroup namespace: do not go there.
                inside = line[3:].strip("/")
                path = top / inside
                if ".." not in Path(inside).parts and path.is_dir():
                    return path
    return top


def _delegated(base: Path) -> list[str]:
    """Return the controllers that ``base`` passes to its children, after enabling ours."""
    control = base / "cgroup.subtree_control"
    try:
        held = control.read_text().split()
        offered = (base / "cgroup.controllers").read_text().split()
    except OSError:
        return []
    for missing in (c for c in _CONTROLLERS if c in offered and c not in held):
        # EBUSY if the group holds processes (see the module), EACCES if it is not ours.
        with contextlib.suppress(OSError):
            control.write_text(f"+{missing}")
            held.append(missing)
    return [c for c in _CONTROLLERS if c in held]


def _usable(base: Path) -> bool:
    """Try it: make a group, move a process in, remove it. Looking at permissions is not enough
    (version 2 also needs the common ancestor's ``cgroup.procs`` to be writable)."""
    trial = base / f"harness-trial-{os.getpid()}-{time.monotonic_ns()}"
    try:
        trial.mkdir()
    except OSError:
        return False
    try:
        script = f"echo 0 > '{trial}/cgroup.procs'"
        done = subprocess.run(
            ["/bin/sh", "-c", script], stdin=subprocess.DEVNULL, capture_output=True, timeout=10
        )
    finally:
        _remove(trial)
    return done.returncode == 0


class ControlGroup:
    """The limits of one sandbox. ``name`` is unique on the machine.

    Raises SandboxStartError.
    """

    def __init__(self, name: str, spec: SandboxSpec, hierarchy: Hierarchy) -> None:
        self.version = hierarchy.version
        self.folders = {c: base / name for c, base in hierarchy.bases.items()}
        try:
            self._make(spec)
        except OSError as error:
            raise SandboxStartError(
                "The sandbox's control group could not be made",
                cause=str(error),
                remedy="look for leftovers of the harness in /sys/fs/cgroup",
            ) from error

    def _make(self, spec: SandboxSpec) -> None:
        for folder in set(self.folders.values()):
            folder.mkdir()
        try:
            self._limit(spec)
        except BaseException:
            self.remove()
            raise

    def _limit(self, spec: SandboxSpec) -> None:
        memory, pids, cpu = (self.folders.get(c) for c in _CONTROLLERS)
        if memory and self.version == 2:
            # Leaves need their own memory counters; the limits stay in this group.
            (memory / "cgroup.subtree_control").write_text("+memory")
        if memory and spec.memory_bytes is not None:
            if self.version == 1:
                (memory / "memory.limit_in_bytes").write_text(str(spec.memory_bytes))
                # The same limit for memory and swap together means no swap: swapping would be
                # very slow where the process should end. Absent if the kernel counts no swap.
                with contextlib.suppress(FileNotFoundError):
                    (memory / "memory.memsw.limit_in_bytes").write_text(str(spec.memory_bytes))
            else:
                (memory / "memory.max").write_text(str(spec.memory_bytes))
                with contextlib.suppress(FileNotFoundError):
                    (memory / "memory.swap.max").write_text("0")
        if pids and spec.pids is not None:
            (pids / "pids.max").write_text(str(spec.pids + OWN_PIDS))
        if cpu and spec.cpus is not None:
            quota = max(1000, round(spec.cpus * _PERIOD_US))
            if self.version == 1:
                (cpu / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
                (cpu / "cpu.cfs_quota_us").write_text(str(quota))
            else:
                (cpu / "cpu.max").write_text(f"{quota} {_PERIOD_US}")

    def remove(self) -> None:
        for folder in set(self.folders.values()):
            _remove(folder)


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory counters of one group, which we or a container engine made."""

    folder: Path
    version: Literal[1, 2]

    def oom_kills(self) -> int:
        """Return how many processes of this group itself the kernel killed for lack of memory."""
        name = "memory.oom_control" if self.version == 1 else "memory.events"
        with contextlib.suppress(OSError):
            for line in (self.folder / name).read_text().splitlines():
                key, _, value = line.partition(" ")
                if key == "oom_kill":
                    return int(value)
        return 0

    def peak_bytes(self) -> int | None:
        """Return the peak memory, page cache included; None if the kernel does not record it."""
        name = "memory.max_usage_in_bytes" if self.version == 1 else "memory.peak"
        with contextlib.suppress(OSError, ValueError):
            return int((self.folder / name).read_text())
        return None


def memory_of(pid: int) -> Memory | None:
    """Return the memory group that holds this process; None if it is not visible from here."""
    mounts = _mounts()
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            version: Literal[1, 2] = 1 if controllers else 2
            top = mounts.get("memory" if controllers else "cgroup2")
            if top is None or (controllers and "memory" not in controllers.split(",")):
                continue
            folder = top / path.strip("/")
            name = "memory.oom_control" if version == 1 else "memory.events"
            # ``/../x`` is outside our cgroup namespace. On a host with both versions, cgroup2
            # has no memory controller.
            if ".." not in folder.parts and (folder / name).exists():
                return Memory(folder, version)
    return None


class Leaf:
    """The control group of one started program. Raises SandboxStartError."""

    def __init__(self, group: ControlGroup, number: int) -> None:
        folders = dict(group.folders)
        self.memory: Memory | None = None
        """Its counters; None if memory is not controlled."""
        if "memory" in folders:
            own = folders["memory"] / f"start-{number}"
            try:
                own.mkdir()
            except OSError as error:  # version 2 charges the folder itself to the memory limit
                raise SandboxStartError(
                    "The control group of a start could not be made",
                    cause=str(error),
                    remedy="the memory limit may be too small even for that",
                ) from error
            self.memory = Memory(own, group.version)
            if group.version == 2:
                folders = dict.fromkeys(folders, own)
            else:
                folders["memory"] = own
        self.joins = sorted({str(f / "cgroup.procs") for f in folders.values()})
        """The files into which a process writes ``0`` to enter the leaf."""

    def remove(self) -> None:
        if self.memory is not None:
            _remove(self.memory.folder)


def remove_named(name: str) -> bool:
    """Kill all processes in group ``name`` and remove it. Return whether it existed.

    In every hierarchy: a container engine makes a group that it is given in all of them.
    """
    hierarchy = find()
    there = False
    bases = {*_mounts().values(), *(hierarchy.bases.values() if hierarchy else ())}
    for folder in {base / name for base in bases}:
        if folder.is_dir():
            there = True
            _remove(folder)
    return there


def _remove(folder: Path) -> None:
    """Kill the processes of a group and its children, then remove it. Raises SandboxLostError.

    Children first. A group is EBUSY while a process in it lives or is just being reaped.
    """
    deadline = time.monotonic() + _PATIENCE_S
    pause = 0.0005
    while True:
        with contextlib.suppress(FileNotFoundError):
            for child in [c for c in folder.iterdir() if c.is_dir()]:
                _remove(child)
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise SandboxLostError(
                    f"The control group {folder} could not be removed",
                    cause=str(error),
                    remedy=f"see who is in {folder}/cgroup.procs",
                ) from error
            _kill(folder)
            time.sleep(pause)
            pause = min(pause * 2, 0.05)
        else:
            return


def _kill(folder: Path) -> None:
    with contextlib.suppress(OSError):
        (folder / "cgroup.kill").write_text("1")  # version 2, Linux 5.14: no fork escapes
        return
    with contextlib.suppress(OSError):
        for pid in (folder / "cgroup.procs").read_text().split():
            # 0 is a process that our pid namespace cannot see; kill(0) would kill ourselves.
            if int(pid) > 0:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(int(pid), signal.SIGKILL)
