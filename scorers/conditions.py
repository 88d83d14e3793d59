"""The conditions of a score: machine, package versions, and version and hash of the scorer's code.

``scorers.score`` holds the record that they are written to.
"""

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
from scorers.request import Request
from scorers.score import CONDITIONS, SCORER_VERSION, Conditions, GpuRecord
from tasks import architecture, kinds, submissions
from tasks.definition import Definition
from tasks.kinds import KINDS
from tasks.submissions import SUBMISSIONS


def hardware(gpus: tuple[str, ...] = ()) -> dict[str, str | int]:
    """Return the processor's name, the number of usable cores, and the models of ``gpus``.

    Also their power caps, if NVML reports them: a card with a lower cap computes more slowly. The
    caps are read at each call, because an administrator can change them during a run.
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
    """Return the versions of Python and packages that can change a score; import none of them."""
    found = {"python": platform.python_version()}
    for package in ("torch", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found


AS_BEFORE = frozenset(
    {
        "4+76c3e2d01f7f",
        "4+cf23e739bb4e",
        "4+d6c0f814b5d7",
        "4+9855fe2dfdd8",
        "4+dc388b4e7874",
        "4+69d725a7276f",
        "4+4a9992d0f05d",
        "4+2ee64efd464d",
        "4+6d6e74a36c89",
        "4+e2b38a8a0b2e",
        "4+4b9f8198f448",
    }
)
"""Earlier scorers (version and hash) that judge exactly as this one does. A run that began under
one of them may continue, and its scores compare with today's. Emptied when a change may move a
score or a verdict (CHANGELOG, *Scores*)."""


def as_today(judge: str) -> str:
    """Return ``judge`` with an equivalent earlier scorer (AS_BEFORE) replaced by today's."""
    ours, by, theirs = judge.partition(BY)
    return f"{scorer()}{by}{theirs}" if ours in AS_BEFORE else judge


def differing(a: Mapping[str, str], b: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of the conditions in which the keys of two scores differ."""
    a, b = ({**key, "scorer": as_today(key.get("scorer", ""))} for key in (a, b))
    return tuple(name for name in CONDITIONS if a.get(name) != b.get(name))


def of(
    request: Request,
    *,
    gpus: tuple[GpuRecord, ...],
    unenforced: tuple[str, ...] = (),
    candidate_uid: int | None = None,
) -> Conditions:
    """Return the conditions of a score that is made now. ``gpus``: what was observed of them."""
    return Conditions(
        task_hash=request.task.hash(request.profile),
        data_hash=request.manifest.hash,
        scorer=judge_of(request.task.definition),
        profile=request.profile,
        ranked=request.task.profile(request.profile).ranked,
        split=request.split,
        sandbox=request.backend.name,
        image=request.backend.image,
        isolated=request.backend.isolates,
        unenforced=unenforced,
        judge_uid=os.getuid(),
        candidate_uid=candidate_uid,
        hardware=hardware(request.gpus),
        gpus=gpus,
        versions=versions(),
        training_seed=request.training_seed,
        audit_seed=request.audit_seed,
    )


BY = " by "
"""Separates our own scorer from a package that measures or checks in addition."""


def judge_of(definition: Definition) -> str:
    """Return all code that decides the scores of a task: our scorer, and packages that add a part.

    A package is listed with its version and a hash of its source.
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
    """Return the scorer's version and a hash of its source, with what it takes from ``tasks``."""
    files = sorted(Path(__file__).parent.rglob("*.py"))
    files += [Path(architecture.__file__), Path(kinds.__file__), Path(submissions.__file__)]
    return f"{SCORER_VERSION}+{hash_of(files)}"


@cache
def _source_of(module: str) -> str:
    """Return a hash of the package that contains a module, or of the module if it is in none."""
    found = places(module)
    return hash_of(f for p in found for f in (sorted(p.rglob("*.py")) if p.is_dir() else [p]))


def hash_of(files: Iterable[Path]) -> str:
    """Return the first 12 hex digits of the SHA-256 of the files' contents, in their order."""
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
