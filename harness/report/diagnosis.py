"""Checks what this machine can do, for ``harness doctor``; each problem comes with a remedy.

It only reports: it installs and repairs nothing.
"""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from harness.agents import AGENTS
from harness.agents.providers import PROVIDERS
from harness.base.errors import ConfigError, HarnessError
from harness.base.faults import explain
from harness.base.paths import data_root
from harness.base.registry import Registry
from harness.policies import POLICIES
from harness.search.executors import EXECUTORS
from harness.search.leftovers import stale_stages
from sandboxes.base import Backend, SandboxSpec
from sandboxes.gpu_pool import GpuPool
from sandboxes.registry import BACKENDS
from scorers import self_test
from tasks import hidden, shared
from tasks.kinds import KINDS
from tasks.metrics import METRICS
from tasks.submissions import SUBMISSIONS

PAGE = "docs/guides/shared-server.md"
ENOUGH_DISK_GB = 5
PACKAGES = ("numpy", "torch")
"""Packages that the submissions of our own tasks import in a sandbox."""
REGISTRIES: tuple[Registry[Any], ...] = (
    KINDS, METRICS, SUBMISSIONS, BACKENDS, AGENTS, PROVIDERS, POLICIES, EXECUTORS
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """One line. ``blocks``: until it is good, no submission of a model can be scored here."""

    what: str
    good: bool
    detail: str
    remedy: str = ""
    blocks: bool = False

    def line(self) -> str:
        """Return the finding as text."""
        mark = "ok  " if self.good else ("MISS" if self.blocks else "note")
        remedy = f"\n        try: {self.remedy}" if self.remedy and not self.good else ""
        return f"{mark}  {self.what}: {self.detail}{remedy}"


def diagnose() -> list[Finding]:
    """Check everything that a run needs."""
    checks = (_python, _packages_added, _backends, _gpu, _disk, _hidden_key, _leftovers)
    return [finding for check in checks for finding in _made(check)]


def _made(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Yield what a check finds. A check that raises an error is itself a finding."""
    try:
        yield from check()
    except (HarnessError, OSError) as error:
        explained = explain(error) if isinstance(error, OSError) else error
        what = check.__name__.strip("_").replace("_", " ")
        detail = " ".join(filter(None, (explained.message, explained.cause)))
        yield Finding(what, False, detail, explained.remedy, blocks=True)


def _python() -> Iterator[Finding]:
    good = sys.version_info >= (3, 11)
    yield Finding("python", good, sys.version.split()[0], "Python 3.11 or 3.12", blocks=not good)
    torch = f"pip install {self_test.EXTRAS['torch']}"
    for package, use, remedy in (
        ("torch", "submissions need it", torch),
        ("optuna", "only the agent tpe needs it", "pip install optuna"),
        ("scikit-learn", "only the agent gp needs it", "pip install scikit-learn"),
    ):
        try:
            yield Finding(package, True, version(package))
        except PackageNotFoundError:
            detail = f"not installed; {use}"
            yield Finding(package, False, detail, remedy, blocks=package == "torch")


def _packages_added() -> Iterator[Finding]:
    for registry in REGISTRIES:
        added, broken = registry.added(), registry.broken()
        for name, package in added.items():
            error = broken.get(name)
            detail = f"{error.message} {error.cause}" if error else f"of the package {package}"
            yield Finding(
                f"{registry.word} {name}", error is None, detail, error.remedy if error else ""
            )


def _backends() -> Iterator[Finding]:
    isolating = False
    for name, backend in BACKENDS.usable().items():
        probe = backend.probe()
        if not probe.available:
            yield Finding(f"sandbox {name}", False, probe.detail, probe.remedy)
            continue
        isolating |= backend.isolates
        missing = backend.unenforced(SandboxSpec())
        walls = f"walls not held: {', '.join(missing)}" if missing else "all walls hold"
        yield Finding(
            f"sandbox {name}",
            backend.isolates and not missing,
            f"{probe.detail}; {walls}",
            "run as root, or with writable cgroups, to hold them"
            if backend.isolates
            else "for code you trust only",
        )
        if backend.isolates:
            yield _packages(name, backend)
    if not isolating:
        yield Finding(
            "isolation",
            False,
            "no isolating sandbox: code that a model wrote is refused here",
            "apt-get install bubblewrap",
            blocks=True,
        )


def _packages(name: str, backend: Backend) -> Finding:
    what = f"packages in {name}"
    try:
        self_test.imports(backend, PACKAGES, SandboxSpec())
    except HarnessError as error:
        detail = f"{error.message} {error.cause}"
        return Finding(what, False, detail, error.remedy, blocks=True)
    return Finding(what, True, f"{', '.join(PACKAGES)} can be imported")


def _gpu() -> Iterator[Finding]:
    pool = GpuPool()
    if not pool.gpus:
        detail = f"none: profiles test and smoke only ({pool.reason})"
        yield Finding("gpu", False, detail, pool.remedy or "a machine with a GPU")
        return
    for use in pool.usage():
        yield Finding(
            f"gpu {use.gpu.minor}",
            use.free,
            f"{use.gpu.name}, {use.gpu.uuid}: {use.by}",
            "wait for it; a run waits by itself",
        )
    if pool.reason:
        yield Finding("nvml", False, pool.reason, pool.remedy)


def _disk() -> Iterator[Finding]:
    root = data_root()
    existing = next(p for p in (root, *root.parents) if os.path.exists(p))  # noqa: PTH110 (does not raise EACCES)
    free = shutil.disk_usage(existing).free / 1e9
    detail, writable = f"{root}, {free:.0f} GB free", os.access(existing, os.W_OK)
    if not writable:
        detail += "; you cannot write there, so only what is prepared can be used"
    remedy = f"{PAGE}, or set HARNESS_DATA to another folder"
    yield Finding("data", free > ENOUGH_DISK_GB and writable, detail, remedy)
    if shared.group_rights(existing):
        group, closed = shared.group_of(existing), shared.unreadable_by_group(existing)
        detail = f"with group {group}, mode {existing.stat().st_mode & 0o7777:o}"
        if closed:
            detail += f"; it cannot read {len(closed)} things there, {closed[0].name} first"
        remedy = f"as their owner: chgrp -R {group} {existing}; chmod -R g+rX {existing}"
        yield Finding("data shared", not closed, detail, remedy)


def _hidden_key() -> Iterator[Finding]:
    given, file = os.environ.get(hidden.VARIABLE), data_root() / hidden.FILE
    try:
        key = hidden.known_key(data_root())
    except ConfigError as error:
        yield Finding("hidden key", False, error.message, error.remedy)
        return
    if given == hidden.PUBLIC:
        detail = f"none: ${hidden.VARIABLE} asks for hidden rows as published"
        yield Finding("hidden key", False, detail, f"unset {hidden.VARIABLE} to hide them")
    elif key is None:
        yield Finding("hidden key", True, f"none yet: the first prepare makes {file}")
    elif given:
        yield Finding("hidden key", True, f"{key.fingerprint}, from ${hidden.VARIABLE}")
    else:
        mode = 0o600 | shared.group_rights(file.parent, shared.FILES)
        closed = not file.stat().st_mode & 0o777 & ~mode
        detail = f"{key.fingerprint}, in {file}{'' if closed else ', which others may read'}"
        yield Finding("hidden key", closed, detail, f"chmod {mode:o} {file}")


def _leftovers() -> Iterator[Finding]:
    stages = len(stale_stages())
    detail = f"{stages} folders of dead evaluations" if stages else "none"
    yield Finding("leftovers", not stages, detail, "harness gc" if stages else "")
