"""From a command line to a finished run, and from an interrupted one to the same end."""

import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from harness import __version__
from harness.agents import Agent, Writing, make_agent
from harness.agents.calls import Calls, Endpoint
from harness.agents.replay import ReplayAgent
from harness.agents.scribe import Scribe
from harness.commands import command
from harness.errors import Cancelled, ConfigError, HarnessError
from harness.faults import explain
from harness.policies import Policy, make_policy
from harness.runs import unchanged
from harness.runs.garbage import collect
from harness.runs.result import compose
from harness.runs.rundir import Asked, Locked, Run, data_root, write_whole
from harness.search.budget import Budget, refuse_unknown_price
from harness.search.evaluator import Job, LocalEvaluator
from harness.search.journal import Journal
from harness.search.loop import Observe, Search
from harness.search.training import Notes
from sandboxes import registry
from sandboxes.base import Backend
from sandboxes.gpu_pool import GpuPool, Lease
from scorers import conditions, self_test
from scorers.evaluate import Request
from scorers.watching import unbreakable
from tasks import hidden
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
    lease: Lease
    """One GPU for each worker, ours until ``close``; empty where it computes on the CPU."""
    warning: str | None
    queued_s: float = 0.0
    """How long it waited for GPUs."""

    @property
    def hardware(self) -> dict[str, str | int]:
        """What an evaluation has: one GPU, however many are leased."""
        return conditions.hardware(self.lease.uuids[:1])

    def close(self) -> None:
        """Give the GPUs back. Idempotent."""
        self.lease.close()

    def request(self, job: Job, worker: int = 0) -> Request:
        """Return the evaluation request of a job, on the GPU of that worker."""
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
            gpus=self.lease.uuids[worker : worker + 1],
        )


def get_ready(
    task: Task,
    profile: str,
    sandbox: str,
    *,
    trusted: bool,
    progress: Progress,
    overrides: Mapping[str, str] = MappingProxyType({}),
    workers: int = 1,
    say: Callable[[str], None],
) -> Ready:
    """Choose the sandbox, prepare the data, wait for GPUs, and test; ``close`` what is returned.

    Raises ConfigError with a remedy, and InfrastructureError where the sandbox fails its test: so
    nothing is paid, and no submission blamed, for what is wrong here. No budget runs yet: waiting
    is charged to nobody.
    """
    progress, say = unbreakable(progress), unbreakable(say)
    pool = GpuPool()
    wanted = _gpus_wanted(task, profile, workers, pool)
    backend, warning = registry.choose(sandbox, trusted=trusted)
    collect()  # what a killed run left holds memory: its scratch disk is a tmpfs
    try:
        data, manifest = task.prepare(profile, data_root(), progress, overrides)
    except OSError as error:
        told = explain(error)
        raise type(told)(
            f"The data of {task.name} could not be prepared in {data_root()}.",
            cause=str(error),
            remedy=f"{told.remedy}; or set HARNESS_DATA to another folder",
        ) from error
    # Last: nobody should wait for a GPU that waits for a download.
    began = time.monotonic()
    lease = pool.lease(wanted, on_wait=say)
    queued_s = round(time.monotonic() - began, 3)
    warnings = [w for w in (warning, _crowded(task, profile, workers)) if w]
    said = " ".join(warnings) or None
    ready = Ready(task, profile, data, manifest, backend, lease, said, queued_s)
    try:
        self_test.require(ready.request(Job("self-test", {}, "search", 0, "", Path())), say=say)
    except BaseException:
        ready.close()
        raise
    return ready


def _gpus_wanted(task: Task, profile: str, workers: int, pool: GpuPool) -> int:
    """Return how many GPUs a profile is to have. Raises ConfigError if it needs more than are."""
    device, here = task.profile(profile).device, len(pool.gpus)
    if device == "cpu" or (device == "any" and not here):
        return 0
    if not here:
        raise ConfigError(
            f"Profile {profile} of {task.name} needs a GPU, and there is none here.",
            cause=pool.reason,
            remedy="--profile smoke, or a machine with a GPU (harness doctor)",
        )
    if here < workers:
        raise ConfigError(
            f"{workers} workers need a GPU each, and there are {here} here.",
            cause=pool.reason,
            remedy=f"{here} workers, or a machine with more GPUs",
        )
    return workers


def _crowded(task: Task, profile: str, workers: int) -> str | None:
    wanted = workers * task.profile(profile).limits.cpus
    here = len(os.sched_getaffinity(0))
    if workers == 1 or wanted <= here:
        return None
    return (
        f"{workers} evaluations at once may use {wanted} cores and there are {here}: "
        "each trains slower than alone, and time limits are by the clock."
    )


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
    workers: int = 1
    sandbox: Literal["auto", "docker", "bubblewrap", "process"] = "auto"
    settings: tuple[str, ...] = ()
    data: Mapping[str, str] = field(default_factory=dict)
    gpu_hours: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    dollars: float | None = None
    charge_waiting: bool = False
    on_divergence: Literal["stop", "live"] = "stop"
    writing: Writing = field(default_factory=Writing)
    name: str = ""
    """The run directory's; empty for one made of date, task, agent, policy and seed."""


def start(options: Options, *, progress: Progress, observe: Observe) -> dict[str, Any]:
    """Make a new run and take it to its end; return the result.

    Raises HarnessError; a run that was begun can then be resumed.
    """
    task = find_task(options.task)
    agent = make_agent(options.agent, options.writing, live=options.on_divergence == "live")
    policy = make_policy(options.policy, list(options.settings))
    profile = task.profile(options.profile)
    steps = options.steps or (1 if policy.name == "one_shot" else profile.search_steps)
    if isinstance(agent, ReplayAgent):
        steps = options.steps or agent.recording.run.asked.steps
    workers = min(options.workers, steps)  # more would lease GPUs for nothing
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
        workers=workers,
        data=dict(options.data),
        gpu_hours=options.gpu_hours,
        input_tokens=options.input_tokens,
        output_tokens=options.output_tokens,
        dollars=options.dollars,
        charge_waiting=options.charge_waiting,
        on_divergence=options.on_divergence,
        writing=options.writing,
    )
    _check(asked, agent)
    ready = get_ready(
        task,
        options.profile,
        options.sandbox,
        trusted=agent.trusted,
        progress=progress,
        overrides=options.data,
        workers=workers,
        say=_teller(observe),
    )
    with closing(ready):
        lock = _resolve(ready, policy, agent)
        run = Run.create(options.runs_dir, asked, lock, name=options.name)
        try:
            return _execute(run, ready, agent, policy, observe)
        except BaseException:
            run.remove_unbegun()
            raise


def resume(path: Path, *, progress: Progress, observe: Observe) -> dict[str, Any]:
    """Take an interrupted run to its end; return the result. A finished one is left as it is."""
    run = Run.open(path)
    if run.result is not None:
        return run.result
    run.refuse_unwritable()
    asked, lock = run.asked, run.lock
    task = find_task(asked.task)
    agent = make_agent(asked.agent, asked.writing, live=asked.on_divergence == "live")
    _check(asked, agent)
    policy = make_policy(asked.policy, list(asked.settings))
    ready = get_ready(
        task,
        asked.profile,
        lock.sandbox,
        trusted=agent.trusted,
        progress=progress,
        overrides=asked.data,
        workers=asked.workers,
        say=_teller(observe),
    )
    with closing(ready):
        unchanged.refuse_other(lock, _resolve(ready, policy, agent))
        return _execute(run, ready, agent, policy, observe)


def _check(asked: Asked, agent: Agent) -> None:
    """Raise ConfigError where a limit could not be held, or a replay would be of something else."""
    endpoint = _endpoint(agent)
    if endpoint is not None:
        refuse_unknown_price(asked.limits, endpoint.price, agent.name)
    if isinstance(agent, ReplayAgent):
        agent.recording.check(asked)
    if endpoint is not None:
        endpoint.client.check()  # last: it talks to the provider


def _endpoint(agent: Agent) -> Endpoint | None:
    """Return what an agent asks, if it asks a model; of a replay only if it may go on live."""
    if isinstance(agent, ReplayAgent):
        return _endpoint(agent.agent) if agent.recording.live and agent.agent else None
    endpoint: Endpoint | None = getattr(agent, "endpoint", None)
    return endpoint


def _calls(run: Run, agent: Agent, budget: Budget, say: Callable[[str], None]) -> Calls | None:
    """Return the record of the calls to an agent's model, or None if it has none."""
    endpoint, recording = _endpoint(agent), None
    if isinstance(agent, ReplayAgent) and agent.agent is not None:
        recording = agent.recording
    if endpoint is None and recording is None:
        return None
    return Calls(run.path, budget=budget, endpoint=endpoint, recording=recording, say=say)


def _teller(observe: Observe) -> Callable[[str], None]:
    return lambda line: observe("waiting", "", {"message": line})


def _resolve(ready: Ready, policy: Policy, agent: Agent) -> Locked:
    endpoint = _endpoint(agent)
    return Locked(
        harness=__version__,
        task_hash=ready.task.hash(ready.profile),
        data_hash=ready.manifest.hash,
        hidden_key=str(ready.manifest.parameters.get(hidden.PARAMETER, "")),
        data=str(ready.data),
        scorer=conditions.scorer(),
        sandbox=ready.backend.name,
        image=ready.backend.image,
        policy=asdict(policy),  # type: ignore[call-overload]
        agent=agent.describe() if isinstance(agent, Scribe) else {},
        prices=endpoint.prices if endpoint else (),
        versions=conditions.versions(),
        hardware=ready.hardware,
        direction=ready.task.definition.direction,
        audit_key=secrets.token_hex(16),
    )


def _execute(
    run: Run, ready: Ready, agent: Agent, policy: Policy, observe: Observe
) -> dict[str, Any]:
    with (
        run.hold(),
        _interruptible(),
        closing(run.journal()) as journal,
        closing(Notes(run.path)) as notes,
    ):
        observe = unbreakable(observe, notes.observe)
        evaluator = LocalEvaluator(ready.request, workers=run.asked.workers, observe=observe)
        # Reads everything back, and refuses damage, before a byte is written.
        unchanged.refuse_other_lock(run, journal.events)
        if run.lock.asked is None:
            unchanged.refuse_other_seed(run.asked, run.training_seeds)
        budget = Budget(
            run.asked.limits, workers=run.asked.workers, gpus=len(ready.lease.uuids[:1])
        )
        calls = _calls(run, agent, budget, _teller(observe))
        recording = agent.recording if isinstance(agent, ReplayAgent) else None
        search = Search(
            run,
            task=ready.task,
            agent=agent,
            policy=policy,
            evaluator=evaluator,
            journal=journal,
            observe=observe,
            budget=budget,
            calls=calls,
            recording=recording,
        )
        observe("run", run.name, {"run": run, "ready": ready})
        journal.append(
            "opened",
            pid=os.getpid(),
            harness=__version__,
            lock=run.lock_digest,
            queued_s=ready.queued_s,
        )
        try:
            search.search()
            score = search.finalize()
            metric = ready.task.definition.metric
            result = compose(
                run,
                search.state,
                score,
                metric=metric,
                elapsed_s=journal.elapsed_s,
                ended=search.ended,
                spent=budget.to_json(search.progress),
                replay=recording.to_json(search.state.tree) if recording else None,
            )
            write_whole(run.path / "result.json", result.text)
            journal.append("closed", status="finished", message="")
        except (KeyboardInterrupt, Cancelled):
            search.cancel()
            _close(journal, "interrupted", "stopped by the user")
            raise Cancelled(
                "Interrupted; everything that was finished is kept.", remedy=_again(run, search)
            ) from None
        except OSError as error:
            raise explain(error, then=_again(run, search)) from error
        except HarnessError as error:
            _close(journal, "failed", str(error))
            raise
        finally:
            search.cancel()
        return result.values


def _again(run: Run, search: Search) -> str:
    """Return how to go on; "" where there is nothing to go on with."""
    return command("resume", run.path) if len(search.state.tree) else ""


def _close(journal: Journal, status: str, message: str) -> None:
    with suppress(OSError):  # a full disk must not hide why it ends
        journal.append("closed", status=status, message=message)


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
