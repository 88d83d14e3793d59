"""The search loop: choose, write, score, record, until the budget is spent.

    choose ──► write (a thread asks the agent) ──► evaluate (the evaluator's threads) ──► record
      ▲                                                                                     │
      └──────────────────────── wait for the first that finishes ◄──────────────────────────┘

One loop for every policy and any number of slots; a node holds a slot from its choice to its
score. Only the main thread decides, and only it writes to the journal. Each step is journalled
before the next begins. ``RunState`` changes only by events that are also written, so a resumed run
cannot differ from one that was never killed.
"""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from harness.agents.calls import Calls
from harness.base.digests import digest
from harness.base.errors import JudgeError
from harness.base.files import write_whole
from harness.base.seeds import derive, stream
from harness.base.watching import unbreakable
from harness.core.agent import Agent, Answer, Ask, Exhausted
from harness.core.budget import Budget, RunProgress
from harness.core.jobs import Evaluation, JobSpec, ObserveJobs, Place
from harness.core.model import BudgetSpent
from harness.core.policy import Decision
from harness.policies.base import BasePolicy
from harness.search.evaluator import Evaluator
from harness.store.journal import Journal
from harness.store.reading import read_as
from harness.store.recording import Recording
from harness.store.rundir import FINAL, Run
from harness.store.state import how_far, rebuild
from scorers.request import Evaluated
from scorers.score import Score
from tasks.spec import Task

POLL_S = 1.0
"""Seconds after which a run, while steps are running, looks again for a request to stop now."""

STOPPED = "Stopped by the user."

UNGRADED_IN_A_ROW = 3
"""After this many nodes in a row that the judge failed on, the judge is taken to be broken.

One failure may be due to one odd submission.
"""

GRACE_S = 1.0
"""Seconds to wait for a cancelled agent; then its thread is left to end with the process."""


@dataclass(eq=False)
class Search:
    """One run, continued from the state that its journal records up to its final score."""

    run: Run
    task: Task
    agent: Agent
    policy: BasePolicy
    evaluator: Evaluator
    place: Place
    journal: Journal
    observe: ObserveJobs
    budget: Budget
    calls: Calls | None = None
    recording: Recording | None = None

    def __post_init__(self) -> None:
        self.asked = self.run.asked
        self.state = rebuild(
            self.journal.events, self.run.path / "nodes", maximize=self.run.lock.maximize
        )
        # Nodes by future: the agent's answer while the node is "chosen", later an evaluation.
        self._running: dict[Future[Any], int] = {}
        self._failure: BaseException | None = None
        self._ungraded_in_a_row = 0
        self._cancel = threading.Event()

    def search(self) -> None:
        """Fill the tree until the budget is spent or there is nothing more to do.

        If a step fails for good, no new node begins. Steps under way are finished and kept, then
        the failure is raised. If the judge fails on a node, the node stays ungraded and the search
        goes on; each resume lets the judge try it again.
        """
        begun = [] if self.run.stop_asked else list(self.state.tree)
        for node in begun:  # nodes that the last process left unfinished
            if node.state == "chosen":
                self._write(node.number)
            elif node.state != "scored":
                self._evaluate(node.number)
        while True:
            while len(self._running) < self.asked.workers and self._choose():
                pass
            if not self._running:
                break
            done, _ = wait(self._running, timeout=POLL_S, return_when=FIRST_COMPLETED)
            if self.run.stop_asked == "now":
                self._abandon()
                break
            # In order of node numbers: the journal must not depend on the order of a set.
            for future in sorted(done, key=self._running.__getitem__):
                self._finish(self._running.pop(future), future)
        if self._failure is not None:
            raise self._failure

    def _abandon(self) -> None:
        """Drop all steps under way; only evaluations that have just ended are recorded."""
        evaluated = self._evaluations()
        self._cancel.set()
        for evaluation in evaluated:
            evaluation.stop()
        wait(evaluated)
        wait(self._running, timeout=GRACE_S)
        for future in sorted(evaluated, key=self._running.__getitem__):
            if future.exception() is None:
                self._evaluated(self._running[future], future)
        self._running.clear()
        self._stopped()

    def cancel(self) -> None:
        """Stop all that runs. No evaluation process is alive when this returns. Idempotent."""
        self._cancel.set()
        self.evaluator.close()
        state = self.state.tree
        wait([f for f, n in self._running.items() if state[n].state == "chosen"], timeout=GRACE_S)

    def finalize(self) -> Score | None:
        """Retrain the best node once, in a fresh sandbox, and score it on the test split.

        Returns None if no node is valid. Raises JudgeError if none is valid but the judge failed on
        some, which may be valid: such a run must not count as one without a valid node.
        """
        best = self.state.tree.best()
        if best is None:
            self._refuse_ungraded()
            return None
        folder = self.run.path / FINAL
        job = self._job(FINAL, best.files, "test", derive(self.asked.seed, FINAL))
        score, queued_s = _adopt(folder, job), 0.0
        if score is None:
            self._record("finalizing", node=best.number, seed=job.training_seed)
            self.observe("finalizing", FINAL, {"node": best.number})
            for name, text in best.files.items():
                write_whole(folder / name, text)
            (evaluation,) = self.evaluator.submit([job], self.observe)
            evaluated, queued_s = evaluation.result(), evaluation.queued_s
            score = evaluated.score
            _keep(folder, evaluated)
        if self.state.final is None:
            self._record("final", node=best.number, **_summary(score), queued_s=queued_s)
        self.observe("final", FINAL, {"score": score, "node": best.number})
        return score

    @property
    def progress(self) -> RunProgress:
        """How far the run is; its budgets are checked against this."""
        waiting_s = sum(evaluation.queued_s for evaluation in self._evaluations())
        return how_far(self.journal.events, self.state.tree, self.journal.elapsed_s, waiting_s)

    @property
    def ended(self) -> str:
        """Why the search begins no more nodes, in words."""
        spent = self.budget.spent(self.progress)
        return self.state.exhausted or spent or "the policy has nothing more to do"

    def _stopped(self) -> bool:
        """Return whether the search was stopped or exhausted; record a request to stop first."""
        if not self.state.exhausted and self.run.stop_asked:
            self._record("stopped", message=STOPPED)
            self.observe("exhausted", "", {"message": STOPPED})
        return bool(self.state.exhausted)

    def _choose(self) -> bool:
        """Begin one more node if budgets and policy allow it; return whether one was begun."""
        if self._failure or self._stopped() or self.budget.spent(self.progress):
            return False
        number = len(self.state.tree)
        decision: Decision | None
        recorded = self.recording.node(number) if self.recording is not None else None
        if recorded is not None:
            decision = Decision(recorded.operator, recorded.parents)
            left = dict(recorded.left)
        else:
            rng = stream(self.asked.seed, "choose", number)
            decision = self.policy.choose(self.state.tree, rng)
            left = self.budget.left(self.progress)
        if decision is None:
            return False
        self._record(
            "chosen",
            node=number,
            operator=decision.operator,
            parents=list(decision.parents),
            left=left,
        )
        self._write(number)
        return True

    def _write(self, number: int) -> None:
        """Ask the agent for a node's files, in a thread."""
        tree = self.state.shown[number]
        node = tree[number]
        self.observe(
            "writing", str(number), {"operator": node.operator, "parents": list(node.parents)}
        )
        ask = Ask(
            task=self.task,
            profile=self.asked.profile,
            operator=node.operator,
            node=number,
            parents=tuple(tree[p] for p in node.parents),
            tree=tree,
            seed=derive(self.asked.seed, "agent", number),
            run_seed=self.asked.seed,
            cancel=self._cancel,
            steps=self.asked.steps,
            log=self.run.log,
            model=self.calls.bind(number, self._cancel) if self.calls is not None else None,
        )
        self._running[_in_thread(lambda: self.agent.write(ask), f"write-{number}")] = number

    def _finish(self, number: int, future: Future[Any]) -> None:
        """Record the outcome of a step, and begin the node's next step."""
        error = future.exception()
        if isinstance(error, Exhausted | BudgetSpent):
            self._record("exhausted", node=number, message=str(error))
            self.observe("exhausted", str(number), {"message": str(error)})
        elif isinstance(error, JudgeError) and isinstance(future, Evaluation):
            self._not_graded(number, error, future.queued_s)
        elif error is not None:
            self._failure = self._failure or error
            if self._running:
                self.observe("failing", str(number), {"cause": str(error)})
        elif isinstance(future, Evaluation):
            self._evaluated(number, future)
        else:
            self._written(number, future.result())
            if self._failure is None:
                self._evaluate(number)

    def _written(self, number: int, answer: Answer) -> None:
        folder = self.run.node_dir(number)
        for name, text in answer.files.items():
            write_whole(folder / name, text)
        for name, text in (("prompt.md", answer.prompt), ("completion.md", answer.completion)):
            if text:  # for people to read; the recorded calls hold both
                write_whole(folder / name, text, sync=False)
        self._record(
            "written",
            node=number,
            files={n: sha256(t.encode()).hexdigest() for n, t in answer.files.items()},
            note=answer.note,
            knobs=answer.knobs,
            **({"analyses": dict(answer.analyses)} if answer.analyses else {}),
        )

    def _evaluate(self, number: int) -> None:
        node, paired = self.state.tree[number], self.task.paired
        seed = derive(self.asked.seed, *(("search",) if paired else ("node", number)))
        job = self._job(str(number), node.files, "search", seed, shared=paired)
        finished = _adopt(self.run.node_dir(number), job) or self._taken_over(number, job)
        if finished is not None:
            self._scored(number, finished, 0.0)
            return
        self._record("evaluating", node=number)
        self.observe("evaluating", str(number), {"note": node.note})
        (evaluation,) = self.evaluator.submit([job], self.observe)
        self._running[evaluation] = number

    def _taken_over(self, number: int, job: JobSpec) -> Score | None:
        """Return the score of an earlier node that asked for the same, and keep it as this one's.

        There is one only where all nodes share their seeds (``Task.paired``).
        """
        for node in self.state.tree.scored() if self.task.paired else ():
            # The files first: a score would be read from disk.
            if node.files == job.files and (old := _adopt(self.run.node_dir(node.number), job)):
                score = old.model_copy(update={"seconds": {"total": 0.0}})
                said = f"The same as node {node.number}, whose score it takes over.\n"
                _keep(self.run.node_dir(number), Evaluated(score, said.encode()))
                return score
        return None

    def _evaluated(self, number: int, evaluation: Evaluation) -> None:
        evaluated = evaluation.result()
        _keep(self.run.node_dir(number), evaluated)
        self._scored(number, evaluated.score, evaluation.queued_s)

    def _scored(self, number: int, score: Score, queued_s: float) -> None:
        self._ungraded_in_a_row = 0
        self._record("scored", node=number, **_summary(score), queued_s=queued_s)
        self.observe("scored", str(number), {"node": self.state.tree[number]})

    def _not_graded(self, number: int, error: JudgeError, queued_s: float) -> None:
        """Record that the judge failed on a node; after several in a row no new node begins."""
        # A failure that an earlier process recorded is not counted: it must not end this process.
        again = self.state.tree[number].state == "ungraded"
        self._record("ungraded", node=number, message=str(error)[:2000], queued_s=queued_s)
        self.observe("ungraded", str(number), {"cause": str(error)})
        self._ungraded_in_a_row += not again
        if self._ungraded_in_a_row >= UNGRADED_IN_A_ROW:
            self._failure = self._failure or error

    def _refuse_ungraded(self) -> None:
        ungraded = self.state.tree.ungraded()
        if ungraded:
            numbers = ", ".join(str(node.number) for node in ungraded)
            raise JudgeError(
                f"No node is valid, and the judge failed on {numbers}: the run is not graded.",
                cause=ungraded[0].message,
                remedy=f"harness resume {self.run.path} judges them again; please report it",
            )

    def _evaluations(self) -> list[Evaluation]:
        return [future for future in self._running if isinstance(future, Evaluation)]

    def _job(
        self,
        label: str,
        files: Mapping[str, str],
        split: Literal["search", "test"],
        seed: int,
        *,
        shared: bool = False,
    ) -> JobSpec:
        """Return an evaluation. ``shared``: the audit seed, too, is that of all nodes."""
        audit_seed = digest(f"{self.run.lock.audit_key}/{split if shared else label}")
        return self.place.job(
            self.asked, label, files, split=split, training_seed=seed, audit_seed=audit_seed
        )

    def _record(self, kind: str, **data: Any) -> None:  # noqa: ANN401 (JSON values)
        self.state.apply(self.journal.append(kind, **data), self.run.path / "nodes")


def _in_thread(work: Callable[[], Answer], name: str) -> Future[Answer]:
    """Start ``work`` in a daemon thread, which the process does not wait for when it ends.

    A thread pool would wait at exit for an agent that ignores its cancellation.
    """
    future: Future[Answer] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 (raised where the result is read)
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


def _keep(folder: Path, evaluated: Evaluated) -> None:
    """Write an evaluation's log and score. The score marks it as finished, so it comes last."""
    unbreakable(write_whole)(folder / "stdout.log", evaluated.log, sync=False)
    write_whole(folder / "score.json", evaluated.score.model_dump_json(indent=2) + "\n")


def _adopt(folder: Path, job: JobSpec) -> Score | None:
    """Return a job's score if it is on disk: a kill came before it was journalled."""
    file = folder / "score.json"
    if not file.exists():
        return None
    score = read_as(Score, file)
    return score if job.asks_for(score) else None


def _summary(score: Score) -> dict[str, Any]:
    return {
        "valid": score.valid,
        "score": score.score,
        "reason": score.reason,
        "message": score.message[:2000],
        "seconds": score.seconds["total"],
    }
