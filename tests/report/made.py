"""Builds runs of any size with the real classes. Their texts are like those a model might write.

Scores are random, and no code of a submission is run. made_runs.py builds small runs with given
scores.
"""

import json
import os
import random
import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from harness.base.seeds import derive
from harness.core.asked import Asked
from harness.core.budget import Budget
from harness.core.model import Prompt, Reply, Turn, Usage
from harness.launch.result import write_result
from harness.store.journal import Journal, _link
from harness.store.rundir import Run
from harness.store.state import how_far, rebuild
from harness.store.tape import CallRecord, Tape, request_hash, system_hash
from scorers.score import Audit, Score

from .made_runs import judged, make_lock

ROOT = Path(__file__).parents[2]
BASE = (ROOT / "tasks/autoresearch/designs/best.py").read_text()
HARDWARE: dict[str, str | int] = {"cpu": "AMD EPYC", "cores": 16, "gpu": "NVIDIA H200"}
WORDS = ("gate", "scale", "mixer", "residual", "rotate", "embed", "window", "decay", "state")
HOSTILE = (
    "</script><script>window.hit=1</script><img src=x onerror=window.hit=1>"
    "<svg onload=window.hit=1>{{7*7}}{% raw %}\x1b[31m\u202eevil\u2066'\"`&amp;]]>--><!--"
)


class Made:
    """Writes one run, node by node."""

    def __init__(self, folder: Path, *, agent: str, seed: int, nodes: int, words: str, calls: bool,
                 name: str, data: dict[str, str] | None = None) -> None:  # fmt: skip
        self.rng = random.Random(derive(agent, seed))
        self.words, self.calls = words, calls
        asked = Asked(task="autoresearch", profile="paper", agent=agent, policy="greedy",
                      steps=nodes, time_s=86_400.0, seed=seed, sandbox="auto",
                      data=data or {})  # fmt: skip
        self.lock = make_lock(
            task_hash="0123456789abcdef", data_hash="fedcba9876543210", scorer="2+0123456789ab",
            sandbox="docker", hardware=HARDWARE, direction="minimize",
        )  # fmt: skip
        self.run = Run.create(folder, asked, self.lock, name=name)
        self.journal = Journal(self.run.path / "events.jsonl")
        self.journal.append("opened", pid=1, harness="0.1.0", queued_s=0.0)
        self.sources: dict[int, str] = {}
        self.scores: dict[int, float | None] = {}

    def node(self, number: int) -> None:
        """Write a draft, a repair of the last node, or an improvement of the best one."""
        rng = self.rng
        valid = {n: s for n, s in self.scores.items() if s is not None}
        operator, parent = "draft", None
        if number >= 5 and valid:
            operator, parent = "improve", min(valid, key=lambda n: valid[n])
            if self.scores[number - 1] is None and rng.random() < 0.7:
                operator, parent = "debug", number - 1
        before = BASE if parent is None else self.sources[parent]
        start = min([1.02, *valid.values()])
        score = start + rng.gauss(0.003, 0.002) if rng.random() < 0.45 else None
        if number == 1:
            score = 1.85
        self.write(number, operator, parent, mutated(before, rng, self.words), score)

    def write(
        self, number: int, operator: str, parent: int | None, source: str, score: float | None
    ) -> None:
        """Write one node, its events and all its files, as the search loop does."""
        rng = self.rng
        before = BASE if parent is None else self.sources[parent]
        self.sources[number], self.scores[number] = source, score
        folder = self.run.node_dir(number)
        folder.mkdir()
        (folder / "train.py").write_text(source)
        self.journal.append("chosen", node=number, operator=operator,
                            parents=[] if parent is None else [parent],
                            left={"steps": 1, "time_s": 1.0})  # fmt: skip
        code = f"{self.words}\n```python\n{before}\n```\n"
        prompt = f"Improve this.\n{code}Ideas tried: {self._idea()}"
        answer = f"I will {self._idea()}.\n{self.words}\n```python\n{source}\n```\n"
        (folder / "prompt.md").write_text(prompt)
        (folder / "completion.md").write_text(answer)
        if self.calls:
            self._call(number, operator, prompt, answer)
        self.journal.append(
            "written", node=number, files={"train.py": sha256(source.encode()).hexdigest()},
            note=f"{self._idea()} {self.words}", knobs=None,
        )  # fmt: skip
        log = [
            f"step {i:05d} | loss {rng.uniform(2, 4):.6f} | {rng.uniform(90, 99):.2f} ms"
            for i in range(80)
        ]
        (folder / "stdout.log").write_text("\n".join([self.words, *log]))
        verdict = self.judged(score)
        (folder / "score.json").write_text(verdict.model_dump_json(indent=2))
        self.journal.append(
            "scored", node=number, valid=verdict.valid, score=score, seconds=330.0,
            reason=verdict.reason, message=verdict.message,
        )  # fmt: skip

    def finish(self) -> Path:
        """Write the final score and the result."""
        valid = {n: s for n, s in self.scores.items() if s is not None}
        best = min(valid, key=lambda n: valid[n])
        final = self.judged(valid[best] + self.rng.gauss(0, 0.001), "test")
        folder = self.run.path / "final"
        folder.mkdir()
        (folder / "train.py").write_text(self.sources[best])
        (folder / "score.json").write_text(final.model_dump_json(indent=2))
        self.journal.append("finalizing", node=best, seed=1)
        self.journal.append("final", node=best, valid=True, score=final.score, reason=None,
                            message="", seconds=330.0)  # fmt: skip
        state = rebuild(self.journal.events, self.run.path / "nodes", maximize=False)
        spent = Budget(self.run.asked.limits, gpus=1).to_json(
            how_far(self.journal.events, state.tree, self.journal.elapsed_s)
        )
        write_result(self.run, state, final, metric="bits_per_byte", elapsed_s=7.0,
                     ended="all steps are used", spent=spent, replay=None)  # fmt: skip
        self.journal.append("closed", status="finished", message="")
        self.journal.close()
        return self.run.path

    def _idea(self) -> str:
        return " ".join(self.rng.choices(WORDS, k=9))

    def _call(self, number: int, purpose: str, text: str, answer: str) -> None:
        prompt = Prompt("You write train.py.", (Turn("user", text),))
        usage = Usage(input_tokens=len(text) // 4, output_tokens=len(answer) // 4)
        record = CallRecord(
            node=number, call=0, purpose=purpose, hash=request_hash({}, prompt), describe={},
            system=system_hash(prompt), turns=prompt.turns, status="answered", sent="", worst=usage,
            worst_dollars=1.0, reply=Reply(answer, "end", usage, "made", 3.0), dollars=0.02,
        )  # fmt: skip
        Tape(self.run.path).write(record, prompt)

    def judged(self, score: float | None, split: str = "search") -> Score:
        """Return a Score as the judge writes it; with ``score`` None an invalid one."""
        audit = Audit(name="equality", passed=score is not None, value=0.0, threshold=0.02,
                      power=f"every row; {self.words}")  # fmt: skip
        return judged(
            score, "bits_per_byte", "paper", self.lock, split, audits=(audit,),
            standard_error=None if score is None else 0.0008, rows=4096,
            message="" if score is not None else f"Traceback: {self.words}",
            claim={"parameters": 1_000_000, self.words or "loss": self.words},
            seconds={"train": 300.0, "total": 330.0}, peak_memory_mb=60_000,
        )  # fmt: skip


def mutated(source: str, rng: random.Random, words: str) -> str:
    """Change a few constants and add a function, as a model that rewrites a whole file does."""
    lines = source.split("\n")
    for at in rng.sample(range(len(lines)), 6):
        lines[at] = re.sub(r"\b\d+\.\d+\b", lambda _: f"{rng.uniform(0, 1):.4f}", lines[at])
    name = f"{rng.choice(WORDS)}_{rng.choice(WORDS)}_{rng.randrange(1000)}"
    body = [
        f"    {rng.choice(WORDS)} = {rng.choice(WORDS)}({rng.uniform(0, 9):.3f}, x)"
        for _ in range(12)
    ]
    block = [f"def {name}(x):", f"    {words!r}", *body, "    return x", ""]
    kept = [i for i, line in enumerate(lines) if line.startswith("def ")]
    at = rng.choice(kept)
    return "\n".join([*lines[:at], *block, *lines[at:]][:700])


def made_run(
    folder: Path, *, nodes: int = 12, seed: int = 1, agent: str = "made", words: str = "",
    calls: bool = True, name: str = "", data: dict[str, str] | None = None,
) -> Path:  # fmt: skip
    """Write a finished run and return its path; every text in it contains ``words``."""
    made = Made(folder, agent=agent, seed=seed, nodes=nodes, words=words, calls=calls, name=name,
                data=data)  # fmt: skip
    sync, os.fsync = os.fsync, lambda _: None
    try:
        for number in range(nodes):
            made.node(number)
        return made.finish()
    finally:
        os.fsync = sync


def rewrite_journal(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Apply ``change`` to each event and recompute the hash chain, as a forger could do."""
    file = run / "events.jsonl"
    chain, lines = "", []
    for line in file.read_text().splitlines():
        body = json.loads(line)
        del body["chain"]
        change(body)
        chain = _link(chain, body)
        lines.append(json.dumps({**body, "chain": chain}))
    file.write_text("\n".join(lines) + "\n")
