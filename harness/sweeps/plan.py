"""The plan of a sweep: the runs of a suite, what each will take, and which cannot run here.

Nothing is started here: ``harness.sweeps.sweep`` does that.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

import tomlkit
from filelock import FileLock, Timeout

from harness.base.commands import command
from harness.base.errors import ConfigError
from harness.base.files import write_whole
from harness.policies import make_policy
from harness.store.places import find_runs
from harness.store.rundir import LOCK, SWEEP
from harness.sweeps.agent_info import AgentInfo, offer
from harness.sweeps.estimate import Estimate, estimate, measure
from harness.sweeps.suite import Planned, Suite, expand, load
from sandboxes.gpu_pool import GpuPool
from tasks.spec import all_tasks


@dataclass(frozen=True, slots=True)
class Plan:
    """The runs of a suite, in the order in which they are started."""

    suite: Suite
    file: Path
    folder: Path
    """Where its run directories are."""
    estimates: tuple[Estimate, ...]
    offers: dict[str, AgentInfo]

    @property
    def missing(self) -> dict[Planned, tuple[str, ...]]:
        """Why runs cannot be made: a task that is not here yet, an agent's ``obstacle``."""
        return {one.run: one.missing for one in self.estimates if one.missing}

    def without(self, runs: Collection[Planned]) -> "Plan":
        """Return the plan without some runs. Raises ConfigError if none is left."""
        kept = tuple(one for one in self.estimates if one.run not in runs)
        if not kept:
            raise ConfigError(f"No run of {self.file} can be made here.", remedy="harness doctor")
        return replace(self, estimates=kept)

    def obstacles(self, gpus: int) -> dict[Planned, tuple[str, ...]]:
        """Return the runs that cannot be made here and now, each with the reasons."""
        found = {}
        for one in self.estimates:
            agent, why = one.run.asked.agent, list(one.missing)
            info = self.offers[agent]
            if info.unready and not (info.own_server and agent in self.suite.servers):
                why.append(info.unready)
            if one.gpu_seconds and not gpus:
                why.append(f"profile {one.run.asked.profile} needs a GPU, and there is none here")
            if why:
                found[one.run] = tuple(why)
        return found


def make_plan(file: Path, runs_dir: Path, offers: Callable[[str], AgentInfo] = offer) -> Plan:
    """Read a suite and estimate its runs. Raises ConfigError if a value of it is invalid."""
    suite = load(file)
    runs, tasks = list(expand(suite, file.parent)), all_tasks()
    for policy, settings in {(run.asked.policy, run.asked.settings) for run in runs}:
        make_policy(policy, list(settings))
    measured = measure(find_runs([runs_dir])) if runs_dir.is_dir() else {}
    known = {agent: offers(agent) for agent in dict.fromkeys(run.asked.agent for run in runs)}
    return Plan(
        suite=suite,
        file=file,
        folder=runs_dir / suite.name,
        estimates=tuple(
            estimate(run, suite, tasks.get(run.asked.task), measured, known[run.asked.agent])
            for run in runs
        ),
        offers=known,
    )


def by_count(obstacles: Mapping[Planned, tuple[str, ...]]) -> list[tuple[str, int]]:
    """Return each reason with the number of its runs, the most frequent first."""
    return Counter(chain.from_iterable(obstacles.values())).most_common()


def refuse_obstacles(obstacles: Mapping[Planned, tuple[str, ...]]) -> None:
    """Raise ConfigError if there are any obstacles, naming each with its number of runs."""
    if obstacles:
        raise ConfigError(
            f"{len(obstacles)} runs of this suite cannot be made here; none was started.",
            cause="\n".join(f"{n} x {why}" for why, n in by_count(obstacles)),
            remedy="mend that, or --skip-missing leaves those runs out",
        )


def refuse_unknown_prices(plan: Plan, max_dollars: float) -> None:
    """Raise ConfigError if a price is unknown, because the dollar limit could not be enforced."""
    unknown = sorted({one.run.asked.agent for one in plan.estimates if one.unpriced})
    if unknown:
        raise ConfigError(
            f"--max-dollars {max_dollars:g} cannot be held: the price of {', '.join(unknown)} "
            "is unknown.",
            remedy="give their prices in an agents file of your own (harness agents), or leave "
            "them out of the suite, or limit tokens: input_tokens, output_tokens in its groups",
        )


def gpus_here() -> int:
    """Return how many GPUs this machine has."""
    return len(GpuPool().gpus)


@contextmanager
def held(plan: Plan) -> Iterator[None]:
    """Make the sweep's folder and keep other sweeps out of it. Raises ConfigError."""
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(plan.folder / LOCK)
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            f"Another sweep is at work in {plan.folder}.",
            remedy=f"{command('watch', plan.folder)}, or another --runs-dir",
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{plan.folder} cannot hold runs.", cause=str(error), remedy="--runs-dir DIR"
        ) from error
    record = {
        "format": 1,
        "suite": plan.suite.name,
        "file": str(plan.file.resolve()),
        "runs": len(plan.estimates),
        "started": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
    }
    try:
        write_whole(plan.folder / SWEEP, tomlkit.dumps(record))
        yield
    finally:
        lock.release()
