"""What machine and which versions a score was made with."""

import hashlib
import os
import platform
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from harness.base.registry import places
from sandboxes import nvml
from sandboxes.gpus import gpu_models
from scorers.score import CONDITIONS, SCORER_VERSION
from tasks import kinds, submissions
from tasks.definition import Definition
from tasks.kinds import KINDS
from tasks.submissions import SUBMISSIONS


def hardware(gpus: tuple[str, ...] = ()) -> dict[str, str | int]:
    """Return the processor's name, the number of usable cores, and the models of ``gpus``.

    And their power caps, where NVML tells: a card that may draw less computes less. Asked anew
    each time: an administrator can change it while a run lasts.
    """
    found: dict[str, str | int] = {"cpu": _cpu_name(), "cores": len(os.sched_getaffinity(0))}
    if gpus:
        models = gpu_models()
        found["gpu"] = ", ".join(models.get(uuid, "unknown") for uuid in gpus)
        caps = [facts.power_cap_w for facts in nvml.snapshot(gpus)]
        if None not in caps:
            found["gpu_power_cap"] = ", ".join(f"{cap:.0f} W" for cap in caps)
    return found


@cache
def versions() -> dict[str, str]:
    """Return the versions that can move a score, without importing any of them."""
    found = {"python": platform.python_version()}
    for package in ("torch", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found


AS_BEFORE = frozenset({"4+76c3e2d01f7f", "4+cf23e739bb4e", "4+d6c0f814b5d7", "4+9855fe2dfdd8"})
"""Hashes of earlier sources that judged as these do: a run that began under one goes on, and its
scores compare. Emptied when a change may move a score or a verdict (CHANGELOG, *Scores*)."""


def as_today(judge: str) -> str:
    """Return today's ``scorer`` for an earlier one that judged as it does, any other as it is."""
    ours, by, theirs = judge.partition(BY)
    return f"{scorer()}{by}{theirs}" if ours in AS_BEFORE else judge


def differing(a: Mapping[str, str], b: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of what differs between the keys of two scores."""
    a, b = ({**key, "scorer": as_today(key.get("scorer", ""))} for key in (a, b))
    return tuple(name for name in CONDITIONS if a.get(name) != b.get(name))


BY = " by "
"""Between our own scorer and the package that measures or checks with it."""


def judge_of(definition: Definition) -> str:
    """Return what decides the scores of a task: our scorer, and packages that bring a part of it.

    A package stands there with its version and a hash of its source.
    """
    kind, writes = KINDS.find(definition.kind), SUBMISSIONS.find(definition.writes)
    found = [scorer()]
    for package, address in (
        (KINDS.added().get(definition.kind), kind.examiner),
        (KINDS.added().get(definition.kind), kind.together),
        (SUBMISSIONS.added().get(definition.writes), writes.check),
    ):
        if package is not None and address:
            found.append(f"{package} {_source_of(address.partition(':')[0])}")
    return BY.join(dict.fromkeys(found))


@cache
def scorer() -> str:
    """Return the scorer's version and a hash of its source, the tables of its parts included."""
    files = sorted(Path(__file__).parent.rglob("*.py"))
    files += [Path(kinds.__file__), Path(submissions.__file__)]
    return f"{SCORER_VERSION}+{_hash_of(files)}"


@cache
def _source_of(module: str) -> str:
    """Return a hash of the package that a module is in, or of the module where it is in none."""
    found = places(module)
    return _hash_of(f for p in found for f in (sorted(p.rglob("*.py")) if p.is_dir() else [p]))


def _hash_of(files: Iterable[Path]) -> str:
    source = hashlib.sha256()
    for file in files:
        source.update(file.read_bytes())
    return source.hexdigest()[:12]


@cache
def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
