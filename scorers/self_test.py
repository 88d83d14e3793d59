"""Tests before a run that this machine can evaluate submissions, by one tiny evaluation.

Without this test a fault of the machine looks like a fault of the submission: a package that the
sandbox does not see is an import error in every node, a folder that it may not read is an early
exit, and the run pays for model calls for each of these nodes. So a reference submission of the
task is trained and served first, by the same sandbox, runner, wire and judge, with the smallest
settings. This takes a few seconds, once.

Only success is remembered, and only until something changes that the result may depend on.
"""

import contextlib
import fcntl
import importlib.util
import json
import os
import platform
import shlex
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from hashlib import sha256
from pathlib import Path

import sandboxes
from harness.base.errors import ConfigError, InfrastructureError, SandboxStartError
from harness.base.text import clean
from sandboxes import state
from sandboxes.base import Backend, SandboxSpec
from scorers import conditions
from scorers import evaluate as evaluation
from scorers.request import Evaluated, Observe, Request
from scorers.score import Reason, Score
from tasks.definition import Value
from tasks.spec import Design, Task

ALWAYS = ("numpy",)
"""Packages that ``candidate.py`` itself imports."""

SMALL: dict[str, Value] = {
    **{"steps": 2, "batch_size": 4, "warmup": 0, "time_budget": 0.1},
    **{"dim": 8, "depth": 1, "heads": 1, "mlp_dim": 8},
    **{"audit_rows": 16, "twins": 4, "repeats": 4},
}
"""Smallest settings of our runners and judges. They replace only settings that a task has."""
CUT: dict[str, Value] = {"seq_len": 32}
"""Settings that are set even if a task leaves them out."""

TRAINING_SEED, AUDIT_SEED = 0, "self-test"
PATIENCE_S = 300.0
"""Time limit within which our own code ends even on a busy machine."""
LAST_LINES = 600

EXTRAS = {"torch": "'aira-harness[torch]'"}
"""Packages that an extra of the harness installs, in the versions that were tested."""

_IMPORT = """
import importlib, json, sys
found = {}
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except BaseException as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name == name
        found[name] = [absent, f"{type(error).__name__}: {error}"]
print(json.dumps(found))
"""


def passed(request: Request) -> bool:
    """Return whether the sandbox that ``request`` would use was tested and has not changed since.

    ``request``: any request of the task and profile. Its files are not used, and of its GPUs only
    the model and the power cap count.
    """
    return _good(_passed(request))


def require(request: Request, *, say: Callable[[str], None]) -> None:
    """Test the sandbox that ``request`` would use, unless it ``passed`` before.

    Where no code of a submission runs, no sandbox is used: then only packages are looked for.
    Raises ConfigError if a package is missing, InfrastructureError if anything else is wrong.
    """
    if not request.task.runs_code:
        _have(needs(request.task), request.backend)
        return
    passed = _passed(request)
    if _good(passed):
        return
    with _alone(passed):  # of several runs that start together, one tests and the others wait
        if not _good(passed):
            say(f"testing the sandbox ({request.backend.name}) with a submission of our own …")
            check(request)


def check(request: Request, cancel: threading.Event | None = None) -> None:
    """Test the sandbox even if it ``passed`` before. Raises as ``require`` does."""
    task, backend = request.task, request.backend
    passed = _passed(request)
    with contextlib.suppress(OSError):
        os.truncate(passed, 0)
    limits = task.profile(request.profile).limits
    imports(
        backend,
        needs(task),
        SandboxSpec(memory_bytes=limits.memory_mb << 20, pids=limits.pids, gpus=request.gpus),
    )
    if (own := task.self_test()) is not None:
        score = _tried(request, own, cancel)
        # An error in the design's own lines is no fault of the machine: the sandbox ran them.
        broken = score.reason is Reason.RUNTIME_ERROR and not may_be_ours(score, task)
        if score.measured is None and not broken:
            raise InfrastructureError(
                f"The self-test of the sandbox {backend.name!r} failed: {task.name}'s own "
                f"{own.name} could not be scored in it.",
                cause=f"{score.reason}: {score.message}",
                remedy="mend what it names; harness doctor shows what else is wrong here",
            )
    with contextlib.suppress(OSError):
        passed.parent.mkdir(exist_ok=True)
        passed.write_text("passed\n")


def evaluate(
    request: Request,
    *,
    observe: Observe = lambda what, details: None,
    cancel: threading.Event | None = None,
) -> Evaluated:
    """Evaluate like ``scorers.evaluate``, but test the machine if it may have caused the failure.

    So a fault of this machine does not become a score. Also raises what ``check`` raises.
    """
    evaluated = evaluation.evaluate(request, observe=observe, cancel=cancel)
    if may_be_ours(evaluated.score, request.task):
        check(request, cancel)
    return evaluated


def may_be_ours(score: Score, task: Task) -> bool:
    """Return whether the machine may have caused a failure; a submission can also pretend this."""
    said = score.message
    match score.reason:
        case Reason.IMPORT_ERROR:
            return any(name in said for name in needs(task))
        case Reason.EXITED_EARLY | Reason.CRASHED:
            # It never connected, or its last output is a traceback of our own runner.
            return score.conditions.candidate_uid is None or "/runner/" in said
        case Reason.RUNTIME_ERROR:
            return 'File "' not in said  # no line of the submission is in the traceback
    return False


def needs(task: Task) -> tuple[str, ...]:
    """Return the modules that every submission of the task needs in order to be scored."""
    return tuple(dict.fromkeys((*ALWAYS, *task.definition.needs)))


def _have(modules: Sequence[str], backend: Backend) -> None:
    """Raise ConfigError if a module is missing here, where our own code trains submissions."""
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    if absent:
        raise ConfigError(
            f"There is no {' and no '.join(absent)} here, which every submission is trained with.",
            remedy=_install(absent, backend),
        )


def imports(backend: Backend, modules: Sequence[str], spec: SandboxSpec) -> None:
    """Import modules in a sandbox. Raises ConfigError if a module is missing there.

    Raises InfrastructureError if Python does not start in the sandbox, or a module is broken.
    """
    with backend.open(spec) as sandbox:
        argv = [sandbox.python, "-I", "-B", "-c", _IMPORT, *modules]
        result = sandbox.exec(argv, timeout=PATIENCE_S)
    try:
        found: dict[str, tuple[bool, str]] = json.loads(result.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        said = clean(result.stderr.decode(errors="replace"), LAST_LINES).strip()
        raise InfrastructureError(
            f"Python does not work in the sandbox {backend.name!r}.",
            cause=f"{result.ended}, exit code {result.exit_code}: {said}",
            remedy={"oom": "raise the profile's memory_mb", "timeout": "try again later"}.get(
                result.ended, f"let everybody read it: chmod -R a+rX {shlex.quote(sys.prefix)}"
            ),
        ) from None
    absent = [name for name, (missing, _) in found.items() if missing]
    if absent:
        raise ConfigError(
            f"The sandbox {backend.name!r} has no {' and no '.join(absent)}, which every "
            "submission needs.",
            cause="; ".join(_why(name, backend) for name in absent),
            remedy=_install(absent, backend),
        )
    if found:
        broken = "; ".join(f"import {name}: {said}" for name, (_, said) in found.items())
        raise InfrastructureError(
            f"What every submission needs cannot be imported in the sandbox {backend.name!r}.",
            cause=clean(broken, LAST_LINES),
            remedy=_install(list(found), backend, again=True),
        )


def _tried(request: Request, own: Design, cancel: threading.Event | None) -> Score:
    """Evaluate the task's own design ``own`` with the smallest settings."""
    task, profile = request.task, request.task.profile(request.profile)
    limits = profile.limits
    patient = {
        "train_s": max(limits.train_s, PATIENCE_S),
        "serve_s": max(limits.serve_s, PATIENCE_S),
    }
    changed = {
        "settings": {**_smaller(profile.settings), **CUT},
        "judge": _smaller(profile.judge),
        "limits": limits.model_copy(update=patient),
    }
    profiles = {request.profile: profile.model_copy(update=changed)}
    small = Task(
        task.folder, task.definition.model_copy(update={"profiles": profiles}), task.variant
    )
    return evaluation.evaluate(
        replace(
            request,
            task=small,
            split="search",
            files=own.files,
            training_seed=TRAINING_SEED,
            audit_seed=AUDIT_SEED,
            strict=False,
        ),
        cancel=cancel,
    ).score


def _smaller(values: dict[str, Value]) -> dict[str, Value]:
    return {name: SMALL.get(name, value) for name, value in values.items()}


def _why(name: str, backend: Backend) -> str:
    """Return where on this machine a module is that the sandbox does not see, if it is anywhere."""
    found = None
    if not backend.image:
        with contextlib.suppress(ImportError, ValueError):
            found = importlib.util.find_spec(name)
    if found is None:
        return f"{name} is not installed"
    return f"{name} is in {found.origin}, and only what lies in {sys.prefix} is seen inside"


def _install(names: Sequence[str], backend: Backend, *, again: bool = False) -> str:
    if os.environ.get("HARNESS_IMAGE") and backend.image:
        return f"put {' and '.join(names)} into the image {os.environ['HARNESS_IMAGE']}"
    if backend.image:
        return "harness image build"
    force = "--force-reinstall " if again else ""
    wanted = " ".join(EXTRAS.get(name, name) for name in names)
    return f"{shlex.quote(sys.executable)} -m pip install {force}{wanted}"


def _passed(request: Request) -> Path:
    """Return the file that, if not empty, says that exactly this environment passed the test."""
    places = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), sys.executable}
    parts = [
        _sources(),
        conditions.judge_of(request.task.definition),
        request.task.hash(request.profile),
        request.backend.name,
        request.backend.image,
        str(request.data),
        repr(conditions.hardware(request.gpus)),
        repr(conditions.versions()),
        platform.release(),
        tempfile.gettempdir(),
        *(f"{place}: {_modified(place)}" for place in sorted(places)),
    ]
    digest = sha256("\0".join(parts).encode()).hexdigest()[:24]
    try:
        return state.root() / "self-tests" / digest
    except SandboxStartError:  # opening a sandbox will fail too, and report this
        return Path(os.devnull, digest)


def _good(passed: Path) -> bool:
    try:
        return passed.stat().st_size > 0
    except OSError:
        return False


@contextlib.contextmanager
def _alone(passed: Path) -> Iterator[None]:
    """Hold the file's lock if possible; the kernel frees it even if this process is killed."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            passed.parent.mkdir(exist_ok=True)
            fd = os.open(passed, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            held.callback(os.close, fd)
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield


def _modified(place: str) -> int:
    try:
        return Path(place).stat().st_mtime_ns
    except OSError:
        return 0


@cache
def _sources() -> str:
    """Return a hash of the source of the ``sandboxes`` package."""
    return conditions.hash_of(sorted(Path(next(iter(sandboxes.__path__))).glob("*.py")))
