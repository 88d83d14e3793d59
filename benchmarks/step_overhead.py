"""Measures what the harness itself costs per step, against aideml with the same fake model.

    python -m venv /tmp/aide && /tmp/aide/bin/pip install aideml
    python benchmarks/step_overhead.py --aide-python /tmp/aide/bin/python [--steps 500]

The model responds at once, and so does the evaluation: the time left is choosing nodes, building
prompts, reading responses and recording. Both searches are greedy with their own defaults, and both
write all that they write in a real run. aideml calls its model twice per step, to write code and to
judge its output; the harness calls it once, because the judge decides. Steps are timed one by one,
because both keep a memory that grows.
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
TASK = "Classify rows of tokens. Write predict(tokens), which returns logits."
LINES = 120
"""Lines of code in each response, as many as a small training script has."""


def answer(number: int) -> str:
    body = "\n".join(f"    x{i} = tokens.sum() * {number + i}" for i in range(LINES))
    return (
        f"Idea {number}: another weight for the first token, because it helps.\n\n"
        f"```python model.py\nimport numpy as np\n\n\ndef predict(tokens):\n{body}\n"
        "    return np.eye(4, dtype=np.float32)[tokens[:, 0] - 1]\n```\n"
    )


def report(seconds: list[float]) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mb": peak, "torch": "torch" in sys.modules}))


def ours(steps: int) -> None:
    """Run our search loop on the toy task."""
    os.environ["HARNESS_TASKS_DIR"] = str(ROOT / "tests" / "toys")
    sys.path.insert(0, str(ROOT))
    from harness.agents.calls import Calls
    from harness.core.asked import Asked, Lockfile
    from harness.core.budget import Budget
    from harness.core.jobs import Evaluation, Expected, JobSpec, ObserveJobs, Place
    from harness.core.model import Endpoint, Reply, Usage
    from harness.operators.model_agent import ModelAgent
    from harness.policies import make_policy
    from harness.search.loop import Search
    from harness.store.rundir import Run
    from scorers.request import Evaluated
    from scorers.score import Conditions, Reason, Score
    from scorers.submission import hash_files
    from tasks.spec import find_task

    class Model:
        asked = 0

        def describe(self) -> dict[str, object]:
            return {"model": "fake"}

        def check(self) -> None:
            pass

        def worst_tokens(self, prompt: object) -> tuple[int, int]:
            return 1000, 1000

        def send(self, prompt: object, **_: object) -> Reply:
            self.asked += 1
            return Reply(answer(self.asked), "end", Usage(1000, output_tokens=500), "fake", 0.0)

    class Instant:
        """Replaces the evaluator: a fifth of the scores are invalid, the others random."""

        def get_ready(self, asked: Asked, **_: object) -> Place:
            return place

        def submit(self, jobs: Sequence[JobSpec], observe: ObserveJobs) -> list[Evaluation]:
            return [self.evaluate(job, observe) for job in jobs]

        def evaluate(self, job: JobSpec, observe: ObserveJobs) -> Evaluation:
            rng = random.Random(job.label)
            valid = rng.random() > 0.2
            score = Score(
                valid=valid, standard_error=None, peak_memory_mb=None, metric="accuracy",
                score=rng.random() if valid else None, rows=100,
                reason=None if valid else Reason.RUNTIME_ERROR,
                message="" if valid else "NameError: x", audits=(), claim={},
                submission=hash_files(job.files), seconds={"total": 0.0},
                conditions=Conditions(
                    **hashes, profile="test", ranked=False, split=job.split,
                    sandbox=job.sandbox, isolated=False, unenforced=(), judge_uid=0,
                    candidate_uid=None, hardware={}, versions={}, training_seed=job.training_seed,
                    audit_seed=job.audit_seed,
                ),
            )  # fmt: skip
            done = Evaluation(job, observe)
            done.set_result(Evaluated(score, b"step 1 loss 0.5\n" * 40))
            return done

        def close(self) -> None:
            pass

    hashes: dict[str, Any] = {"task_hash": "t", "data_hash": "d", "scorer": "s"}
    place = Place(
        sandbox="none", data="", expected=Expected(**hashes, hidden_key="", image=""), hardware={},
        versions={},
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        asked = Asked(
            task="toy", profile="test", agent="fake", policy="greedy", steps=steps, time_s=1e6,
            seed=0, sandbox="process",
        )  # fmt: skip
        lock = Lockfile(
            harness="0", **hashes, data="", sandbox="process",
            policy={}, versions={}, hardware={}, audit_key="k",
        )  # fmt: skip
        run = Run.create(Path(folder), asked, lock)
        ends = [time.perf_counter()]

        def observe(what: str, label: str, details: object) -> None:
            if what == "scored":
                ends.append(time.perf_counter())

        journal = run.journal()
        budget = Budget(asked.limits)
        endpoint = Endpoint(Model(), lambda usage: 0.01, lambda i, o: 0.01, lambda i, o: True)
        Search(
            run, task=find_task("toy"), agent=ModelAgent("fake"), policy=make_policy("greedy", []),
            evaluator=Instant(), place=place, journal=journal, observe=observe, budget=budget,
            calls=Calls(run.path, budget=budget, endpoint=endpoint, say=print),
        ).search()  # fmt: skip
        journal.close()
        report([after - before for before, after in zip(ends, ends[1:], strict=False)])


def theirs(steps: int) -> None:
    """Run aideml's loop, as its ``Experiment.run`` does, with its own recording."""
    import aide
    import aide.agent
    from aide.interpreter import ExecutionResult
    from aide.utils.config import save_run

    asked = [0]

    def query(system_message: object, user_message: object, func_spec: object = None, **_: object):
        from aide.backend import compile_prompt_to_md

        compile_prompt_to_md(system_message)
        asked[0] += 1
        if func_spec is None:
            return answer(asked[0])
        rng = random.Random(asked[0])
        return {
            "is_bug": rng.random() < 0.2, "summary": "It ran, and the loss fell as hoped.",
            "metric": rng.random(), "lower_is_better": False,
        }  # fmt: skip

    aide.agent.query = query
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        Path("data").mkdir()
        Path("data", "readme.txt").write_text("rows of tokens\n")
        experiment = aide.Experiment("data", TASK, "accuracy")
        result = ExecutionResult(["step 1 loss 0.5\n"] * 40, 0.0, None)
        seconds = []
        for _ in range(steps):
            began = time.perf_counter()
            experiment.agent.step(exec_callback=lambda *_: result)
            save_run(experiment.cfg, experiment.journal)
            seconds.append(time.perf_counter() - began)
        report(seconds)


def measure(python: str, which: str, steps: int) -> dict:
    done = subprocess.run(
        [python, __file__, f"--{which}", "--steps", str(steps)], capture_output=True, text=True
    )
    if done.returncode != 0:
        sys.exit(f"{which} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--aide-python")
    parser.add_argument("--ours", action="store_true")
    parser.add_argument("--theirs", action="store_true")
    asked = parser.parse_args()
    if asked.ours:
        return ours(asked.steps)
    if asked.theirs:
        return theirs(asked.steps)
    plans = [("harness", sys.executable, "ours")]
    if asked.aide_python:
        plans.append(("aideml", asked.aide_python, "theirs"))
    tenth = max(1, asked.steps // 10)
    print(f"{'ms a step':<12}{'median':>9}{'first tenth':>13}{'last tenth':>12}{'peak MB':>9}")
    rows = {}
    for name, python, which in plans:
        found = measure(python, which, asked.steps)
        seconds = found["seconds"]
        parts = [seconds, seconds[:tenth], seconds[-tenth:]]
        middle, early, late = (1e3 * statistics.median(part) for part in parts)
        rows[name] = middle
        print(f"{name:<12}{middle:>9.1f}{early:>13.1f}{late:>12.1f}{found['peak_mb']:>9.0f}")
        assert not found["torch"] or name != "harness", "torch was imported into the parent"
    if "aideml" in rows:
        ratio = rows["harness"] / rows["aideml"]
        print(f"a step of ours takes {ratio:.2f} x that of aideml (goal 0.5)")
    return None


if __name__ == "__main__":
    main()
