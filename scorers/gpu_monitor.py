"""Watches the GPUs of one evaluation: one sample per second, and a verdict on who disturbed them.

The records are evidence and not a condition, because clocks and neighbours differ from score to
score. What must agree before scores compare (model and power cap) is in ``conditions.hardware``.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Self

from sandboxes import nvml
from sandboxes.gpu_pool import is_ours, is_visible
from sandboxes.nvml import Facts
from scorers.score import GpuRecord

EVERY_S = 1.0
UNDISTURBED = "undisturbed"

_SLOWED = ("hw_slowdown", "hw_thermal_slowdown", "sw_thermal_slowdown", "hw_power_brake_slowdown")
"""Without ``sw_power_cap``: a card that works hard is at its cap, and the cap is a condition."""

_REPORTED = ("sw_power_cap", *_SLOWED)
_STUCK_S = 5.0

SampleGpus = Callable[[Iterable[str]], tuple[Facts, ...]]


class GpuMonitor:
    """Samples while the ``with`` block runs; ``records`` then has one entry per GPU."""

    def __init__(self, uuids: tuple[str, ...], sample: SampleGpus = nvml.snapshot) -> None:
        self._uuids, self._sample = uuids, sample
        self._stop = threading.Event()
        self._seen: dict[str, list[Facts]] = {uuid: [] for uuid in uuids}
        self._neighbours: dict[str, Counter[int]] = {uuid: Counter() for uuid in uuids}
        self._unknown: dict[str, Counter[int]] = {uuid: Counter() for uuid in uuids}
        # A daemon thread, so that a driver that hangs cannot keep the harness from ending.
        self._thread = threading.Thread(target=self._main, name="gpu-monitor", daemon=True)

    def __enter__(self) -> Self:
        if self._uuids:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._uuids:
            self._thread.join(_STUCK_S)

    @property
    def records(self) -> tuple[GpuRecord, ...]:
        """Return the record of each GPU."""
        return tuple(self._record(uuid) for uuid in self._uuids)

    def _main(self) -> None:
        while True:
            self._look()
            if self._stop.wait(EVERY_S):
                self._look()
                return

    def _look(self) -> None:
        for facts in self._sample(self._uuids):
            self._seen[facts.uuid].append(facts)
            for pid in facts.pids or ():
                if not is_visible(pid):
                    self._unknown[facts.uuid][pid] += 1
                elif not is_ours(pid):
                    self._neighbours[facts.uuid][pid] += 1

    def _record(self, uuid: str) -> GpuRecord:
        seen = list(self._seen[uuid])
        caps = [f.power_cap_w for f in seen if f.power_cap_w is not None]
        powers = [f.power_w for f in seen if f.power_w is not None]
        limits = Counter(name for f in seen for name in f.throttle or () if name in _REPORTED)
        return GpuRecord(
            uuid=uuid,
            verdict=self._verdict(uuid, seen, limits),
            samples=len(seen),
            sm_mhz=_range(f.sm_mhz for f in seen),
            memory_mhz=_range(f.memory_mhz for f in seen),
            power_w=max(powers, default=None),
            power_cap_w=caps[-1] if caps else None,
            throttled={name: round(n / len(seen), 3) for name, n in sorted(limits.items())},
            neighbours=tuple(sorted(self._neighbours[uuid]))[:8],
        )

    def _verdict(self, uuid: str, seen: list[Facts], limits: Counter[str]) -> str:
        others = self._neighbours[uuid]
        found = [f"pid {pid} computed there in {n} of {len(seen)} samples"
                 for pid, n in others.most_common(3)]  # fmt: skip
        found += [f"{name} in {limits[name]} of {len(seen)} samples"
                  for name in _SLOWED if limits[name]]  # fmt: skip
        caps = {f.power_cap_w for f in seen if f.power_cap_w is not None}
        if len(caps) > 1:
            found.append(f"the power cap changed between {min(caps):g} and {max(caps):g} W")
        if found:
            return "disturbed: " + "; ".join(found)
        if not any(f.pids is not None for f in seen):
            return f"cannot tell: {nvml.unavailable() or 'the card names no processes'}"
        # A process seen once may have just ended; seen twice, it is outside of our pid namespace.
        if any(n > 1 for n in self._unknown[uuid].values()):
            return "cannot tell: NVML names processes by numbers that mean nothing here"
        return UNDISTURBED


def _range(values: Iterable[int | None]) -> tuple[int, int] | None:
    known = [v for v in values if v is not None]
    return (min(known), max(known)) if known else None
