"""From a command line to a finished run, and from an interrupted one to the same end."""

import os
import secrets
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from harness import __version__
from harness.agents import Agent, make_agent
from harness.errors import Cancelled, ConfigError, HarnessError, InfrastructureError
from harness.policies import Policy, make_policy
from harness.runs.garbage import collect
from harness.runs.result import compose
from harness.runs.rundir import Asked, Locked, Run, write_whole
from harness.search.evaluator import Job, LocalEvaluator
from harness.search.loop import Observe, Search
from sandboxes import registry
from sandboxes.base import Backend
from sandboxes.gpus import gpu_uuids
from scorers import conditions
from scorers.evaluate import Request
from tasks.spec import Manifest, Task, find_task

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Ready:
    """A task whose data are prepared, and the backend to run submissions in."""

    task: Task
    profile: str
    data: Path
    manifest: Manifest
    backend: Backend
    gpus: tuple[str, ...]
    warning: str | None

    def request(self, job: Job) -> Request:
        """Return the evaluation request of a job."""
        return Request(
            task=self.task,
            profile=self.profile,
            split=job.split,
            files=job.files,
            data=self.data,
            manifest=self.manifest,
            training_seed=job.training_seed,
            audit_seed=job.audit_seed,
            backend=self.backend,
            gpus=self.gpus,
        )


def data_root() -> Path:
    """Return where prepared data are kept: $HARNESS_DATA, or the user's cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("HARNESS_DATA") or cache / "harness")


def get_ready(
    task: Task,
    profile: str,
    sandbox: str,
    *,
    trusted: bool,
    progress: Progress,
    overrides: Mapping[str, str] = MappingProxyType({}),
) -> Ready:
    """Choose the sandbox and prepare the data. Raises ConfigError with a remedy."""
    gpus = _find_gpus(task, profile)
    backend, warning = registry.choose(sandbox, trusted=trusted)
    collect()  # what a killed run left holds memory: its scratch disk is a tmpfs
    try:
        data, manifest = task.prepare(profile, data_root(), progress, overrides)
    except OSError as error:
        raise ConfigError(
            f"The data of {task.name} could not be prepared in {data_root()}.",
            cause=str(error),
            remedy="free some space, or set HARNESS_DATA to another folder",
        ) from error
    return Ready(task, profile, data, manifest, backend, gpus, warning)


def _find_gpus(task: Task, profile: str) -> tuple[str, ...]:
    """Return the GPUs that the profile may use here. Raises ConfigError if it needs one."""
    device = task.profile(profile).device
    if device == "cpu":
        return ()
    found = gpu_uuids()[:1]
    if device == "gpu" and not found:
        raise ConfigError(
            f"Profile {profile} of {task.name} needs a GPU, and there is none here.",
            remedy="--profile smoke, or a machine with a GPU (harness doctor)",
        )
    return found


@dataclass(frozen=True, slots=True)
class Options:
    """What ``harness run`` was given; None means the profile's or policy's default."""

    task: str
    agent: str
    policy: str
    profile: str
    runs_dir: Path
    steps: int | None = None
    time_s: float = 86_400.0
    seed: int = 0
    sandbox: Literal["auto", "docker", "bubblewrap", "process"] = "auto"
    settings: tuple[str, ...] = ()
    data: Mapping[str, str] = field(default_factory=dict)


def start(options: Options, *, progress: Progress, observe: Observe) -> dict[str, Any]:
    """Make a new run and take it to its end; return the result.

    Raises HarnessError; a run that was begun can then be resumed.
    """
    task = find_task(options.task)
    agent = make_agent(options.agent)
    policy = make_policy(options.policy, list(options.settings))
    profile = task.profile(options.profile)
    steps = options.steps or (1 if policy.name == "one_shot" else profile.search_steps)
    ready = get_ready(
        task,
        options.profile,
        options.sandbox,
        trusted=agent.trusted,
        progress=progress,
        overrides=options.data,
    )
    asked = Asked(
        task=task.name,
        profile=options.profile,
        agent=agent.name,
        policy=policy.name,
        settings=options.settings,
        steps=steps,
        time_s=options.time_s,
        seed=options.seed,
        sandbox=options.sandbox,
        data=dict(options.data),
    )
    run = Run.create(options.runs_dir, asked, _resolve(ready, policy))
    return _execute(run, ready, agent, policy, observe)


def resume(path: Path, *, progress: Progress, observe: Observe) -> dict[str, Any]:
    """Take an interrupted run to its end; return the result. A finished one is left as it is."""
    run = Run.open(path)
    if run.result is not None:
        return run.result
    asked, lock = run.asked, run.lock
    task = find_task(asked.task)
    agent = make_agent(asked.agent)
    policy = make_policy(asked.policy, list(asked.settings))
    ready = get_ready(
        task,
        asked.profile,
        lock.sandbox,
        trusted=agent.trusted,
        progress=progress,
        overrides=asked.data,
    )
    _same(lock, _resolve(ready, policy))
    return _execute(run, ready, agent, policy, observe)


def _resolve(ready: Ready, policy: Policy) -> Locked:
    return Locked(
        harness=__version__,
        task_hash=ready.task.hash(ready.profile),
        data_hash=ready.manifest.hash,
        data=str(ready.data),
        scorer=conditions.scorer(),
        sandbox=ready.backend.name,
        policy=asdict(policy),  # type: ignore[call-overload]
        versions=conditions.versions(),
        hardware=conditions.hardware(ready.gpus),
        direction=ready.task.definition.direction,
        audit_key=secrets.token_hex(16),
    )


def _same(before: Locked, now: Locked) -> None:
    """Refuse to go on where later nodes could not be compared with earlier ones."""
    for name in ("task_hash", "data_hash", "scorer", "versions", "hardware"):
        old, new = getattr(before, name), getattr(now, name)
        if old != new:
            raise ConfigError(
                f"This run began with another {name}: later nodes would not compare.",
                cause=f"then {old}, now {new}",
                remedy="go back to what it began with, or start a new run",
            )


def _execute(
    run: Run, ready: Ready, agent: Agent, policy: Policy, observe: Observe
) -> dict[str, Any]:
    with run.hold(), _interruptible(), closing(run.journal()) as journal:
        evaluator = LocalEvaluator(ready.request, workers=run.asked.workers, observe=observe)
        # Reads everything back, and refuses damage, before a byte is written.
        search = Search(
            run,
            task=ready.task,
            agent=agent,
            policy=policy,
            evaluator=evaluator,
            journal=journal,
            observe=observe,
        )
        observe("run", run.name, {"run": run, "ready": ready})
        journal.append("opened", pid=os.getpid(), harness=__version__)
        try:
            search.search()
            score = search.finalize()
            metric = ready.task.definition.metric
            result = compose(run, search.state, score, metric=metric, elapsed_s=journal.elapsed_s)
            write_whole(run.path / "result.json", result.text)
            journal.append("closed", status="finished", message="")
        except (KeyboardInterrupt, Cancelled):
            evaluator.cancel()
            journal.append("closed", status="interrupted", message="stopped by the user")
            raise Cancelled(
                "Interrupted; everything that was finished is kept.",
                remedy=f"harness resume {run.path}",
            ) from None
        except OSError as error:
            raise InfrastructureError(
                f"{run.path} could not be written.",
                cause=str(error),
                remedy=f"make room, then: harness resume {run.path}",
            ) from error
        except HarnessError as error:
            journal.append("closed", status="failed", message=str(error))
            raise
        finally:
            evaluator.cancel()
        return result.values


@contextmanager
def _interruptible() -> Iterator[None]:
    """Make SIGTERM and a lost terminal mean what Ctrl-C means, where signals can be handled."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = {sent: signal.signal(sent, stop) for sent in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for sent, handler in before.items():
            signal.signal(sent, handler)
