"""The search loop: choose, write, score, record, until the budget is spent.

One loop for every policy and any number of workers. Each step is journalled before the next
begins; ``State`` is only ever advanced by the events that are also written, so a resumed run
cannot differ from one that was never killed.
"""

import json
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from hashlib import sha256
from pathlib import Path
from typing import Any

from harness.agents import Agent, Ask, Exhausted
from harness.policies import Policy
from harness.runs.rundir import Run, read_json, write_whole
from harness.search.evaluator import Evaluator, Job
from harness.search.journal import Journal
from harness.search.state import rebuild
from harness.seeds import derive, stream
from scorers.score import Score
from scorers.submission import hash_files
from tasks.spec import Task

Observe = Callable[[str, str, dict[str, Any]], None]
"""Called as ``observe(what, label, details)`` for whoever watches; from several threads."""

FINAL = "final"


class Search:
    """One run, from wherever its journal stands to its result."""

    def __init__(
        self,
        run: Run,
        *,
        task: Task,
        agent: Agent,
        policy: Policy,
        evaluator: Evaluator,
        journal: Journal,
        observe: Observe,
    ) -> None:
        self.run = run
        self.task = task
        self.agent = agent
        self.policy = policy
        self.evaluator = evaluator
        self.journal = journal
        self.observe = observe
        self.asked = run.asked
        self._audit_key = run.lock.audit_key
        self.state = rebuild(journal.events, run.path / "nodes", maximize=run.lock.maximize)
        self._running: dict[Future[Score], int] = {}

    def search(self) -> None:
        """Fill the tree until the budget is spent or there is nothing more to do."""
        for node in list(self.state.tree):
            if node.state == "chosen":
                self._write(node.number)
            if node.number in self.state.tree and self.state.tree[node.number].state == "written":
                self._evaluate(node.number)
        while True:
            while len(self._running) < self.asked.workers and self._choose():
                pass
            if not self._running:
                return
            done, _ = wait(self._running, return_when=FIRST_COMPLETED)
            # In order of their numbers: the journal must not depend on a set's order.
            for future in sorted(done, key=self._running.__getitem__):
                self._scored(self._running.pop(future), future.result())

    def finalize(self) -> Score | None:
        """Retrain the best node once, in a fresh sandbox, and serve it the test split.

        Returns None if no node is valid.
        """
        best = self.state.tree.best()
        if best is None:
            return None
        folder = self.run.path / FINAL
        seed = derive(self.asked.seed, FINAL)
        score = self._adopt(folder, best.files, seed)
        if score is None:
            self._record("finalizing", node=best.number, seed=seed)
            self.observe("finalizing", FINAL, {"node": best.number})
            for name, text in best.files.items():
                write_whole(folder / name, text)
            job = Job(
                FINAL, best.files, "test", seed, self._audit_seed(FINAL), folder / "stdout.log"
            )
            score = self.evaluator.submit(job).result()
            write_whole(folder / "score.json", score.model_dump_json(indent=2) + "\n")
        if self.state.final is None:
            self._record("final", node=best.number, **_summary(score))
        self.observe("final", FINAL, {"score": score, "node": best.number})
        return score

    def _choose(self) -> bool:
        """Take one more step if the budget and the policy allow it."""
        number = len(self.state.tree)
        if (
            self.state.exhausted
            or number >= self.asked.steps
            or self.journal.elapsed_s >= self.asked.time_s
        ):
            return False
        decision = self.policy.choose(self.state.tree, stream(self.asked.seed, "choose", number))
        if decision is None:
            return False
        self._record(
            "chosen", node=number, operator=decision.operator, parents=list(decision.parents)
        )
        if not self._write(number):
            return False
        self._evaluate(number)
        return True

    def _write(self, number: int) -> bool:
        """Ask the agent for a node's files and keep them. Returns False if it has no more."""
        node = self.state.tree[number]
        self.observe(
            "writing", str(number), {"operator": node.operator, "parents": list(node.parents)}
        )
        ask = Ask(
            task=self.task,
            profile=self.asked.profile,
            operator=node.operator,
            node=number,
            parents=tuple(self.state.tree[p] for p in node.parents),
            tree=self.state.tree,
            seed=derive(self.asked.seed, "agent", number),
        )
        try:
            answer = self.agent.write(ask)
        except Exhausted as end:
            self._record("exhausted", node=number, message=str(end))
            self.observe("exhausted", str(number), {"message": str(end)})
            return False
        folder = self.run.node_dir(number)
        for name, text in answer.files.items():
            write_whole(folder / name, text)
        for name, text in (("prompt.md", answer.prompt), ("completion.md", answer.completion)):
            if text:
                write_whole(folder / name, text)
        self._record(
            "written",
            node=number,
            files={n: sha256(t.encode()).hexdigest() for n, t in answer.files.items()},
            note=answer.note,
            knobs=answer.knobs,
        )
        return True

    def _evaluate(self, number: int) -> None:
        node = self.state.tree[number]
        folder = self.run.node_dir(number)
        seed = derive(self.asked.seed, "node", number)
        finished = self._adopt(folder, node.files, seed)
        if finished is not None:
            self._scored(number, finished)
            return
        self._record("evaluating", node=number)
        self.observe("evaluating", str(number), {"note": node.note})
        job = Job(
            f"{number}", node.files, "search", seed, self._audit_seed(number), folder / "stdout.log"
        )
        self._running[self.evaluator.submit(job)] = number

    def _scored(self, number: int, score: Score) -> None:
        file = self.run.node_dir(number) / "score.json"
        if not file.exists():
            write_whole(file, score.model_dump_json(indent=2) + "\n")
        self._record("scored", node=number, **_summary(score))
        self.observe("scored", str(number), {"node": self.state.tree[number]})

    def _adopt(self, folder: Path, files: dict[str, str], seed: int) -> Score | None:
        """Return a score that was finished but not journalled before a kill."""
        file = folder / "score.json"
        if not file.exists():
            return None
        score = Score.model_validate_json(json.dumps(read_json(file)))
        same = score.submission == hash_files(files)
        return score if same and score.conditions.training_seed == seed else None

    def _audit_seed(self, what: object) -> str:
        return sha256(f"{self._audit_key}/{what}".encode()).hexdigest()[:16]

    def _record(self, kind: str, **data: Any) -> None:  # noqa: ANN401 (JSON values)
        self.state.apply(self.journal.append(kind, **data), self.run.path / "nodes")


def _summary(score: Score) -> dict[str, Any]:
    return {
        "valid": score.valid,
        "score": score.score,
        "reason": score.reason,
        "message": score.message[:2000],
        "seconds": score.seconds["total"],
    }
