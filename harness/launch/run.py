"""Start a run and take it to its result, or resume an interrupted run.

Finds the parts that a request names, checks them, and writes ``result.json``. The search itself is
in ``harness.search.loop``.
"""

import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness import __version__
from harness.agents import AGENTS
from harness.agents.calls import Calls
from harness.agents.providers import PROVIDERS
from harness.agents.replay import ReplayAgent
from harness.base.commands import command
from harness.base.errors import Cancelled, ConfigError, HarnessError
from harness.base.faults import explain
from harness.base.registry import errors_of_packages
from harness.base.watching import unbreakable
from harness.core.agent import Agent
from harness.core.asked import Asked, Lockfile
from harness.core.budget import Budget, refuse_unknown_price
from harness.core.jobs import ObserveJobs, Place, waiting_reporter
from harness.core.model import Endpoint
from harness.launch.agents import make_agent
from harness.launch.interruptible import interruptible
from harness.launch.result import write_result
from harness.operators.blinding import Blindfold
from harness.policies import POLICIES, make_policy
from harness.policies.base import BasePolicy
from harness.search.evaluator import Evaluator
from harness.search.executors import EXECUTORS
from harness.search.loop import Search
from harness.store import unchanged
from harness.store.journal import Journal, read
from harness.store.rundir import Run
from harness.store.training import TrainingFile
from sandboxes.registry import BACKENDS
from tasks.definition import Progress
from tasks.spec import Task, find_task


@dataclass(frozen=True, slots=True)
class _Parts:
    """A request, and the task, agent and policy that it names."""

    asked: Asked
    task: Task
    agent: Agent
    policy: BasePolicy

    @classmethod
    def of(cls, asked: Asked) -> "_Parts":
        parts = cls(
            asked,
            find_task(asked.task),
            make_agent(asked.agent, asked.writing, live=asked.on_divergence == "live"),
            make_policy(asked.policy, list(asked.settings)),
        )
        if asked.writing.blind:
            Blindfold.of(parts.task, asked.profile, asked.seed)  # raises where it cannot be
            if asked.writing.literature:
                raise ConfigError(
                    "Notes on papers would tell a blind model what its task is about.",
                    remedy="leave out --literature or --blind",
                )
        return parts

    def evaluator(self) -> Evaluator:
        """Return a new evaluator for the request; the caller must ``close`` it."""
        return EXECUTORS.find(self.asked.executor)(self.asked.workers)

    def filled(self) -> "_Parts":
        """Return a copy whose request has open values filled in, and names in their full form."""
        asked, agent, policy = self.asked, self.agent, self.policy
        steps = asked.steps
        if not steps and isinstance(agent, ReplayAgent):
            steps = agent.recording.run.asked.steps
        elif not steps:
            steps = policy.most or self.task.profile(asked.profile).search_steps
        values = {
            "task": self.task.name,
            "agent": agent.name,
            "policy": policy.name,
            "steps": steps,
            "workers": min(asked.workers, steps),
        }
        return replace(self, asked=asked.model_copy(update=values))


@errors_of_packages()
def start(
    asked: Asked, runs_dir: Path, *, name: str = "", progress: Progress, observe: ObserveJobs
) -> dict[str, Any]:
    """Make a new run and take it to its end; return the result.

    ``name``: the name of the run directory; if empty, it is made of date, task, profile, agent,
    policy and seed. Raises HarnessError; if a node was begun, the run can then be resumed.
    """
    parts = _Parts.of(asked).filled()
    with closing(parts.evaluator()) as evaluator:
        place = _find_place(evaluator, parts, progress, observe)
        run = Run.create(runs_dir, parts.asked, _resolve(place, parts), name=name)
        try:
            return _execute(run, evaluator, place, parts, observe)
        except BaseException:
            run.remove_unbegun()
            raise


@errors_of_packages()
def resume(path: Path, *, progress: Progress, observe: ObserveJobs) -> dict[str, Any]:
    """Take an interrupted run to its end; return the result. A finished run is left as it is."""
    run = Run.open(path)
    if run.result is not None:
        return run.result
    run.refuse_unwritable()
    # First: what was edited would look as if this machine had changed.
    run.refuse_other_lock(read(run.path / "events.jsonl"))
    # A resumed run uses the sandbox that it began in, even if it was asked for ``auto``.
    parts = _Parts.of(run.asked.model_copy(update={"sandbox": run.lock.sandbox}))
    with closing(parts.evaluator()) as evaluator:
        place = _find_place(evaluator, parts, progress, observe, hardware=run.lock.hardware)
        unchanged.refuse_other(run.lock, _resolve(place, parts))
        return _execute(run, evaluator, place, parts, observe)


def _find_place(
    evaluator: Evaluator,
    parts: _Parts,
    progress: Progress,
    observe: ObserveJobs,
    *,
    hardware: Mapping[str, str | int] | None = None,
) -> Place:
    """Check limits, replay and model first, then find where evaluations run.

    Raises ConfigError if a limit cannot be enforced, or a replay asks other than its recording,
    and what ``Client.check`` and ``Evaluator.get_ready`` raise.
    """
    asked, agent, endpoint = parts.asked, parts.agent, _endpoint(parts.agent)
    if endpoint is not None:
        refuse_unknown_price(asked.limits, endpoint.price, agent.name)
    if isinstance(agent, ReplayAgent):
        agent.recording.check(asked)
    if endpoint is not None:
        endpoint.client.check()  # last: it talks to the provider
    return evaluator.get_ready(
        asked,
        trusted=agent.trusted and agent.name not in AGENTS.added(),
        hardware=hardware,
        progress=progress,
        observe=observe,
    )


def _endpoint(agent: Agent) -> Endpoint | None:
    """Return the endpoint of an agent's model, if any; for a replay only if it may go on live."""
    if isinstance(agent, ReplayAgent):
        return _endpoint(agent.agent) if agent.recording.live and agent.agent else None
    endpoint: Endpoint | None = getattr(agent, "endpoint", None)
    return endpoint


def _calls(run: Run, agent: Agent, budget: Budget, say: Callable[[str], None]) -> Calls | None:
    """Return the record of the calls to an agent's model, or None if it has no model."""
    endpoint, recording = _endpoint(agent), None
    if isinstance(agent, ReplayAgent) and agent.agent is not None:
        recording = agent.recording
    if endpoint is None and recording is None:
        return None
    return Calls(run.path, budget=budget, endpoint=endpoint, recording=recording, say=say)


def _resolve(place: Place, parts: _Parts) -> Lockfile:
    agent = parts.agent
    endpoint = _endpoint(agent)
    describe: Callable[[], dict[str, Any]] = getattr(agent, "describe", dict)
    return Lockfile(
        harness=__version__,
        **dict(place.expected),
        data=place.data,
        sandbox=place.sandbox,
        policy=asdict(parts.policy),
        agent={**describe(), **_told(parts)},
        prices=endpoint.prices if endpoint else (),
        versions={**place.versions, **_packages(parts.asked, place.sandbox, endpoint)},
        hardware=place.hardware,
        direction=parts.task.definition.direction,
        audit_key=secrets.token_hex(16),
    )


def _told(parts: _Parts) -> dict[str, str]:
    """Return the hash of what a blind model is told; nothing of a run that is not blind."""
    if not parts.asked.writing.blind:
        return {}
    return {"blinding": parts.task.blind_hash(parts.asked.profile)}


def _packages(asked: Asked, sandbox: str, endpoint: Endpoint | None) -> dict[str, str]:
    """Return the version of each package that adds a part which the run uses."""
    provider = endpoint.client.describe().get("provider") if endpoint else None
    named = (
        AGENTS.added().get(asked.agent),
        PROVIDERS.added().get(str(provider)),
        POLICIES.added().get(asked.policy),
        BACKENDS.added().get(sandbox),
        EXECUTORS.added().get(asked.executor),
    )
    return {name: version for name, _, version in (one.rpartition(" ") for one in named if one)}


def _execute(
    run: Run, evaluator: Evaluator, place: Place, parts: _Parts, observe: ObserveJobs
) -> dict[str, Any]:
    agent = parts.agent
    with (
        run.hold(),
        interruptible(),
        closing(run.journal()) as journal,
        closing(TrainingFile(run.path)) as notes,
    ):
        observe = unbreakable(observe, notes.observe)
        # Everything is read back, and damage is refused, before the first event is written.
        if run.lock.asked is None:
            unchanged.refuse_other_seed(run.asked, run.training_seeds)
        budget = Budget(run.asked.limits, workers=run.asked.workers, gpus=run.lock.gpus)
        calls = _calls(run, agent, budget, waiting_reporter(observe))
        recording = agent.recording if isinstance(agent, ReplayAgent) else None
        search = Search(
            run,
            task=parts.task,
            agent=agent,
            policy=parts.policy,
            evaluator=evaluator,
            place=place,
            journal=journal,
            observe=observe,
            budget=budget,
            calls=calls,
            recording=recording,
        )
        observe("run", run.name, {"run": run})
        journal.append("opened", pid=os.getpid(), harness=__version__, lock=run.lock_digest)
        try:
            search.search()
            score = search.finalize()
            metric = parts.task.definition.metric
            result = write_result(
                run,
                search.state,
                score,
                metric=metric,
                elapsed_s=journal.elapsed_s,
                ended=search.ended,
                spent=budget.to_json(search.progress),
                replay=recording.to_json(search.state.tree) if recording else None,
            )
            journal.append("closed", status="finished", message="")
        except (KeyboardInterrupt, Cancelled):
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
        return result


def _again(run: Run, search: Search) -> str:
    """Return the command that resumes the run; "" where no node was begun."""
    return command("resume", run.path) if len(search.state.tree) else ""


def _close(journal: Journal, status: str, message: str) -> None:
    with suppress(OSError):  # a full disk must not hide why the run ends
        journal.append("closed", status=status, message=message)
