"""From a command line to a finished run, and from an interrupted one to the same end."""

import os
import secrets
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from harness import __version__
from harness.agents.calls import Calls
from harness.agents.replay import ReplayAgent
from harness.base.commands import command
from harness.base.errors import Cancelled, HarnessError
from harness.base.faults import explain
from harness.base.files import write_whole
from harness.base.watching import unbreakable
from harness.core.agent import Agent
from harness.core.asked import Asked, Locked
from harness.core.budget import Budget, refuse_unknown_price
from harness.core.model import Endpoint
from harness.core.policy import Policy
from harness.core.writing import Writing
from harness.launch.agents import make_agent
from harness.launch.ready import Ready, get_ready
from harness.launch.result import compose
from harness.operators.scribe import Scribe
from harness.policies import make_policy
from harness.search.evaluator import LocalEvaluator
from harness.search.loop import Observe, Search
from harness.store import unchanged
from harness.store.journal import Journal
from harness.store.rundir import Run
from harness.store.training import Notes
from scorers import conditions
from tasks import hidden
from tasks.definition import Progress
from tasks.spec import find_task


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
        run.refuse_other_lock(journal.events)
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
