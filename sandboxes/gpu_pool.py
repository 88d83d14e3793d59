"""Exclusive leases of GPUs, by UUID, across the processes and users of one host.

    with GpuPool().lease(1, on_wait=print) as lease:
        SandboxSpec(gpus=lease.uuids)

A GPU is also checked before it is leased: one that a process uses without a lease (a stranger) is
skipped, and ``on_wait`` reports that. Requests are served in order of arrival, so that a request
for many GPUs is not starved by requests for few; a request that waits for a stranger to leave
lets the others pass. The locks themselves are in ``gpu_locks``.
"""

import os
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from harness.base.errors import Cancelled, ConfigError, GpuUnavailableError
from harness.base.numbers import counted
from harness.base.text import one_line
from sandboxes import gpu_locks, nvml
from sandboxes.gpus import Gpu, Listing

OnWait = Callable[[str], None]

ITSELF = "this process itself"
"""Stands for the owner of our own leases. A wait for these alone is not reported."""

_PAUSE_S = 0.01
"""Between two attempts. One costs 0.1 ms per GPU, and only the first in the queue makes them."""

_QUEUE_PAUSE_S = 0.05
_STRANGER_PAUSE_S = 1.0

_SAY_AGAIN_S = 60.0
_PATIENCE_S = 0.5
"""How long even ``wait=False`` waits for other processes that are just choosing their GPUs."""


class Lease:
    """GPUs reserved until ``close``, or until this process ends. Its children do not keep them."""

    def __init__(self, held: dict[str, int] | None = None) -> None:
        self._held = held or {}
        self.uuids = tuple(self._held)

    def close(self) -> None:
        """Release the GPUs. Idempotent."""
        held, self._held = self._held, {}
        _free(held)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Use:
    """Who uses a GPU: ``by`` is a text for people; ``free`` if nobody does."""

    gpu: Gpu
    free: bool
    by: str


class GpuPool:
    """The GPUs of this host. Only ``devices`` and ``processes`` ask the hardware."""

    def __init__(
        self,
        devices: Callable[[], Listing] = nvml.list_gpus,
        processes: Callable[[str], tuple[int, ...]] = nvml.compute_pids,
    ) -> None:
        listing = devices()
        self.gpus, self.reason, self.remedy = listing.gpus, listing.reason, listing.remedy
        """``reason``: why there are no GPUs, or what cannot be seen of them; else empty."""
        self._processes = processes

    def only(self, uuids: Collection[str]) -> "GpuPool":
        """Return a pool of only these GPUs."""
        pool = copy(self)
        pool.gpus = tuple(gpu for gpu in self.gpus if gpu.uuid in uuids)
        return pool

    def lease(
        self,
        n: int,
        *,
        wait: bool | float = True,
        on_wait: OnWait = lambda line: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Lease:
        """Return a lease of ``n`` GPUs, all at once: the free ones with the lowest numbers.

        ``wait``: for ever (True), not at all (False), or seconds. ``on_wait`` gets a line that
        says who holds the GPUs, or which GPU is skipped because of a stranger. Raises
        GpuUnavailableError when the time is up, or at once if there are fewer than ``n`` GPUs;
        ConfigError for a count below 0; Cancelled once ``stopped()`` is true.
        """
        if n < 0:
            raise ConfigError(f"{n} GPUs cannot be leased")
        if n > len(self.gpus):
            raise GpuUnavailableError(
                f"{counted(n, 'GPU')} wanted, and there {_are(len(self.gpus))} here",
                cause=self.reason,
                remedy=self.remedy or "ask for fewer, or use a machine with more",
            )
        if n == 0:
            return Lease()
        patience = _PATIENCE_S if wait is False else float("inf") if wait is True else wait
        voice = _WaitReporter(on_wait)
        until = time.monotonic() + patience
        ticket = gpu_locks.Ticket()
        try:
            while True:
                first, strangers = ticket.first(), False
                held: dict[str, int] = {}
                obstacles: tuple[str, ...] = ("others came first",)
                if first:
                    held, obstacles, strangers = self._attempt(n, until, voice)
                if held:
                    return Lease(held)
                left = until - time.monotonic()
                # ``wait=False`` waits only for the gate; if GPUs are held, it fails at once.
                if left <= 0 or (wait is False and obstacles):
                    raise GpuUnavailableError(
                        f"{n} of {len(self.gpus)} GPUs could not be leased"
                        + ("" if isinstance(wait, bool) else f" within {wait:g} s"),
                        cause="; ".join(obstacles) or "other processes are choosing theirs",
                        remedy="wait for them (harness doctor shows who), or use another machine",
                    )
                if stopped():
                    raise Cancelled("Stopped while it waited for a GPU.")
                if any(not obstacle.endswith(ITSELF) for obstacle in obstacles):
                    voice.wait(f"waiting for {counted(n, 'GPU')}: {'; '.join(obstacles)}")
                pause = _PAUSE_S if first else _QUEUE_PAUSE_S
                if strangers:
                    ticket.close()
                    pause = _STRANGER_PAUSE_S
                time.sleep(min(left, pause))
                if strangers:
                    ticket = gpu_locks.Ticket()
        finally:
            ticket.close()

    def usage(self) -> tuple[Use, ...]:
        """Return who uses each GPU."""
        found = []
        for gpu in self.gpus:
            try:
                holder = gpu_locks.owner(gpu.uuid)
            except (GpuUnavailableError, OSError) as error:
                found.append(Use(gpu, False, f"its lock cannot be read: {error}"))
                continue
            strangers = self._strangers(gpu)
            if holder is not None:
                found.append(Use(gpu, False, f"leased by {holder}"))
            elif strangers:
                found.append(Use(gpu, False, f"used by a stranger's {strangers}"))
            else:
                found.append(Use(gpu, True, "free"))
        return tuple(found)

    def _attempt(
        self, n: int, until: float, voice: "_WaitReporter"
    ) -> tuple[dict[str, int], tuple[str, ...], bool]:
        """Try once; return the locks of ``n`` GPUs, or none and the obstacles.

        Also whether strangers are the reason: too few GPUs are without a stranger.
        """
        disturbed: dict[str, str] = {}
        while True:
            with gpu_locks.selection_lock(min(until, time.monotonic() + 1.0)) as ours:
                if not ours:
                    return {}, (), False
                held, obstacles = self._take(n, disturbed)
            if len(held) < n:
                few = len(self.gpus) - len(disturbed) < n
                return {}, (*disturbed.values(), *obstacles), few
            try:
                # Outside the gate, because NVML can be slow. And after the lock, because the
                # process of a lease that just ended, or was killed, may still be dying there.
                new = {g.uuid: s for g in self.gpus if g.uuid in held and (s := self._strangers(g))}
            except BaseException:
                _free(held)
                raise
            if not new:
                for descriptor in held.values():
                    gpu_locks.write_owner(descriptor)
                return held, (), False
            _free(held)
            for gpu in self.gpus:
                if gpu.uuid in new:
                    line = f"GPU {gpu.minor} is used by a stranger's {new[gpu.uuid]}"
                    disturbed[gpu.uuid] = line
                    voice.skip(f"{line}: skipped")

    def _take(self, n: int, disturbed: dict[str, str]) -> tuple[dict[str, int], list[str]]:
        """Lock the first ``n`` free GPUs, or none if fewer are free; name the owners of others."""
        held: dict[str, int] = {}
        obstacles = []
        try:
            for gpu in self.gpus:
                if len(held) == n:
                    break
                if gpu.uuid in disturbed:
                    continue
                try:
                    descriptor = gpu_locks.try_lock(gpu.uuid)
                except GpuUnavailableError as error:
                    obstacles.append(f"GPU {gpu.minor}: {error.message}: {error.cause}")
                    continue
                if descriptor is None:
                    holder = gpu_locks.recorded_owner(gpu.uuid)
                    whose = ITSELF if holder.pid == os.getpid() else str(holder)
                    obstacles.append(f"GPU {gpu.minor} is leased by {whose}")
                else:
                    held[gpu.uuid] = descriptor
        except BaseException:
            _free(held)
            raise
        if len(held) < n:
            _free(held)
            held = {}
        return held, obstacles

    def _strangers(self, gpu: Gpu) -> str:
        """Return as text the processes on a GPU, except this process and its descendants."""
        pids = [pid for pid in self._processes(gpu.uuid) if not is_ours(pid)]
        return ", ".join(f"pid {pid} ({_command(pid)})" for pid in pids[:4])


def is_ours(pid: int) -> bool:
    """Return whether this process is an ancestor of ``pid``, or ``pid`` itself."""
    for _ in range(1000):  # longer than any chain; reused pids can form a loop
        if pid == os.getpid():
            return True
        parent = _parent(pid)
        if parent is None or parent == 0:
            return False
        pid = parent
    return False


def is_visible(pid: int) -> bool:
    """Return whether there is such a process in our pid namespace."""
    return Path(f"/proc/{pid}").exists()


def _parent(pid: int) -> int | None:
    # Not psutil: it reads the boot time and more for each process, and this runs every second.
    with suppress(OSError, ValueError, IndexError):
        # The name, in parentheses, may itself contain parentheses and spaces.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return None


def _command(pid: int) -> str:
    with suppress(OSError):
        name = Path(f"/proc/{pid}/comm").read_text().strip()
        return one_line(name, 120)
    return "not visible from here"


def _free(held: dict[str, int]) -> None:
    for descriptor in held.values():
        gpu_locks.unlock(descriptor)


def _are(count: int) -> str:
    return {0: "is none", 1: "is 1"}.get(count, f"are {count}")


class _WaitReporter:
    """Reports a wait once, and again only if it changed and ``_SAY_AGAIN_S`` have passed."""

    def __init__(self, say: OnWait) -> None:
        self._say = say
        self._last, self._at = "", float("-inf")
        self._skipped: set[str] = set()

    def wait(self, line: str) -> None:
        now = time.monotonic()
        if line != self._last and now >= self._at + _SAY_AGAIN_S:
            self._last, self._at = line, now
            self._say(line)

    def skip(self, line: str) -> None:
        if line not in self._skipped:
            self._skipped.add(line)
            self._say(line)
