"""Follows the progress of a live run cheaply: only what is new in its journal is read.

Made for screens that look at hundreds of runs every second. Nothing is written, and what is read
is not trusted: a stranger may have written it.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from harness.base.errors import ConfigError
from harness.base.text import clean
from harness.core.asked import Asked
from harness.store import training
from harness.store.call_totals import CallFollower, CallTotals, totals_of
from harness.store.journal import Event, JournalReader
from harness.store.outcome import Outcome
from harness.store.reading import DAMAGE
from harness.store.rundir import FINAL, Run, Stamp, StopWhen, stamp
from harness.store.training import TrainingClaim

LiveState = Literal["running", "finished", "interrupted", "failed", "killed", "damaged"]

LONGEST = 1000
"""The most characters of a name that are kept: the name of a replay agent holds a path."""


@dataclass(slots=True)
class LiveRun:
    """The progress of one run. None means unknown; seconds are active time.

    ``step`` counts the scored nodes, ``steps`` the nodes that were asked for; ``best`` is a score
    on the search split, ``score`` on the test split. ``doing`` says what a running run does now.
    ``dollars`` is None where a price is unknown, 0 for agents without a model.
    """

    run: str
    state: LiveState = "damaged"
    doing: str = ""
    problem: str = ""
    task: str = ""
    profile: str = ""
    agent: str = ""
    policy: str = ""
    seed: int | None = None
    step: int = 0
    valid_nodes: int = 0
    steps: int | None = None
    best: float | None = None
    best_node: int | None = None
    valid: bool | None = None
    score: float | None = None
    seconds: float = 0.0
    time_s: float | None = None
    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    dollars: float | None = 0.0
    max_dollars: float | None = None
    gpu: str = ""
    training: list[TrainingClaim] = field(default_factory=list)
    """What its trainings under way report of themselves."""
    queued: bool = False
    """Whether all of its evaluations under way wait for a GPU."""
    stop: StopWhen | None = None
    pid: int | None = None


class Follower:
    """Follows one run directory.

    ``thorough``: also read and check the journal of a run that has ended.
    """

    def __init__(self, path: Path, *, thorough: bool = False) -> None:
        self.path, self._thorough = path, thorough
        self._broken: Stamp | None = None
        """The run's files when it was found damaged: other ones may be repaired."""
        self._begin()

    def _begin(self) -> None:
        self._run = Run(self.path)
        self.live = LiveRun(str(self.path))
        self._asked: Asked | None = None
        self._outcome: Outcome | None = None
        self._spending = CallFollower(self.path)
        # Nodes whose agent may still call its model, and nodes whose agent has just ended: the
        # calls of those are read once more, for the last one.
        self._writing: set[int] = set()
        self._written: set[int] = set()
        self._evaluating: set[str] = set()
        self._journal = JournalReader(self.path / "events.jsonl")
        self._elapsed_s = 0.0
        self._at = datetime.now(UTC)
        self._closed: Literal["", "failed", "interrupted"] = ""
        self._held = True  # until the first look finds out

    def look(self) -> LiveRun:
        """Read what is new and return the run's progress; damage is a state, never raised."""
        if self._broken is not None and self._broken == stamp(self.path):
            return self.live
        try:
            self._look()
            self._broken = None
        except DAMAGE as error:
            self._begin()
            self._broken = stamp(self.path)
            message = error.message if isinstance(error, ConfigError) else str(error)
            self.live.problem = clean(message, 300, keep="head") or type(error).__name__
        return self.live

    def _look(self) -> None:
        if self._asked is None:
            self._introduce()
        now = self.live
        ended = None if self._outcome is not None else self._run.outcome
        self._outcome = self._outcome or ended
        grown = self._follow() if self._outcome is None or self._thorough else False
        if ended is not None:
            self._conclude(ended)
        elif self._outcome is None:
            self._count(self._spending.look(self._writing | self._written))
            self._written.clear()
        # Where no process works on the run, check again only when its journal has grown: the check
        # locks the run for an instant, and somebody may want to resume it just then.
        if self._held or grown:
            self._held = self._run.is_held()
        now.stop = self._run.stop_asked
        now.state = self._state()
        now.seconds = self._elapsed_s
        if now.state == "running":
            now.seconds += max(0.0, (datetime.now(UTC) - self._at).total_seconds())
            noted = training.read(self.path)
            now.training = noted.trainings
            now.queued = bool(self._evaluating) and self._evaluating <= set(noted.queued)
        else:
            now.doing, now.training, now.queued = "", [], False

    def _conclude(self, outcome: Outcome) -> None:
        """Take the values from the result of a run that has ended; the journal is not needed."""
        now = self.live
        now.step, now.valid_nodes = outcome.nodes.scored, outcome.nodes.valid
        now.best, now.best_node = outcome.search_score, outcome.node
        now.valid, now.score = outcome.valid, outcome.score
        self._elapsed_s = outcome.seconds.get("total", 0.0)
        if outcome.spent is not None:
            self._count(totals_of(outcome.spent))
        else:
            self._count(self._spending.look(self._writing | self._written))

    def _count(self, spent: CallTotals) -> None:
        now = self.live
        now.calls, now.tokens_in, now.tokens_out = spent.calls, spent.tokens_in, spent.tokens_out
        now.dollars = None if spent.unpriced else spent.dollars

    def _introduce(self) -> None:
        asked, now = self._run.asked, self.live
        now.task, now.profile, now.agent, now.policy = (
            clean(text, LONGEST, keep="head")
            for text in (asked.task, asked.profile, asked.agent, asked.policy)
        )
        now.seed, now.steps, now.time_s = asked.seed, asked.steps, asked.time_s
        now.max_dollars = getattr(asked, "dollars", None)
        self._asked = asked

    def _state(self) -> LiveState:
        if self._held:
            return "running"
        if self._outcome is not None:
            return "finished"
        return self._closed or "killed"

    def _follow(self) -> bool:
        """Take in the new events. Return whether there are any."""
        before = self._journal.whole
        for event in self._journal.more():
            self._take(event)
        return self._journal.whole > before

    def _take(self, event: Event) -> None:
        now, data = self.live, event.data
        self._elapsed_s = float(event.elapsed_s)
        self._at = datetime.fromisoformat(event.at)
        self._closed = ""
        match event.kind:
            case "opened":
                now.pid, now.doing = int(data["pid"]), "starting"
                self._evaluating.clear()
            case "chosen":
                now.doing = "writing"
                self._writing.add(int(data["node"]))
            case "written":
                self._writing.discard(int(data["node"]))
                self._written.add(int(data["node"]))
            case "evaluating":
                now.doing = "evaluating"
                self._evaluating.add(str(data["node"]))
            case "ungraded":
                self._evaluating.discard(str(data["node"]))
            case "scored":
                self._evaluating.discard(str(data["node"]))
                now.step += 1
                score = _number(data["score"])
                now.valid_nodes += score is not None
                if score is not None and self._better(score):
                    now.best, now.best_node = score, int(data["node"])
            case "exhausted" | "stopped":
                now.doing = "ending"
                if "node" in data:
                    self._writing.discard(int(data["node"]))
                    self._written.add(int(data["node"]))
            case "finalizing" | "final":
                now.doing = "grading"
                self._evaluating = {FINAL} if event.kind == "finalizing" else set()
            case "closed":
                status = data["status"]
                self._closed = status if status in ("failed", "interrupted") else ""

    def _better(self, score: float) -> bool:
        best = self.live.best
        return best is None or (score > best if self._run.lock.maximize else score < best)


def _number(value: object) -> float | None:
    return None if value is None else float(value)  # type: ignore[arg-type]
