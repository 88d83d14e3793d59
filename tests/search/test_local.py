"""The local executor: leases of GPUs, turns of several runs, batches, stops and failures."""

import json
import shutil
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
from judging import answering
from observing import PATIENCE_S, interrupting, quiet, until
from slow_agents import Scripted

from harness.agents import AGENTS
from harness.base.errors import Cancelled, InfrastructureError, JudgeError
from harness.base.seeds import derive
from harness.core.asked import Asked
from harness.launch.run import resume, start
from harness.report.usage import describe_spent
from harness.report.watching import Watch, lines
from harness.search import host, local, loop
from harness.search.executors import EXECUTORS
from harness.search.local import LocalEvaluator
from harness.store.journal import read
from sandboxes import gpu_locks
from sandboxes.gpu_pool import GpuPool
from sandboxes.gpus import Gpu, Listing
from scorers import conditions
from scorers.evaluate import evaluate
from scorers.request import Evaluated
from scorers.submission import hash_files
from tasks.kinds import KINDS, Kind
from tasks.spec import find_task

ASKED = Asked(task="toy", profile="test", sandbox="process")
QUESTION = {"split": "search", "training_seed": 0, "audit_seed": "a"}


@pytest.fixture(autouse=True)
def world(tmp_path, changed_toy, monkeypatch):
    """A fake judge and fake GPUs, none until ``gpus`` is set; the toy uses one if there is one."""
    toml = changed_toy(('device = "cpu"', 'device = "any"')) / "task.toml"
    monkeypatch.setenv(gpu_locks.ENVIRONMENT, str(tmp_path / "locks"))
    found = SimpleNamespace(gpus=(), toml=toml, folder=tmp_path, judged=[])
    monkeypatch.setattr(host, "GpuPool", lambda: pool(found.gpus))
    models = lambda: {gpu.uuid: gpu.name for gpu in found.gpus}  # noqa: E731
    monkeypatch.setattr(conditions, "gpu_models", models)
    monkeypatch.setattr(host.self_test, "passed", lambda request: True)  # tested elsewhere
    monkeypatch.setattr(host.self_test, "require", lambda *_, **__: None)

    def judge(evaluation, request):
        """Call the test's ``meanwhile``, then answer with a copy of a real score."""
        found.judged.append((evaluation.job.label, request.gpus))
        found.meanwhile(evaluation, request)
        if evaluation.stopped.is_set():
            raise Cancelled("stopped")
        made = {"hardware": conditions.hardware(request.gpus)}
        score = pattern.score.conditions.model_copy(update=made)
        like = pattern.score.model_copy(update={"conditions": score})
        return answering(evaluation.job, like, b"said")

    found.meanwhile = lambda evaluation, request: None
    pattern = real()
    monkeypatch.setattr(local, "judge", judge)
    return found


@cache
def real() -> Evaluated:
    """Return the real judge's evaluation of a design, on a machine without GPUs."""
    evaluator = LocalEvaluator(1)
    job = jobs(evaluator, "a")[0]
    (evaluation,) = evaluator.submit([job], quiet)
    evaluated = evaluation.result(PATIENCE_S)
    evaluator.close()
    return evaluated


def some(n: int) -> tuple[Gpu, ...]:
    return tuple(Gpu(f"GPU-fake-{i}", i, "Fake H100") for i in range(n))


def pool(gpus) -> GpuPool:
    return GpuPool(lambda: Listing(gpus, "" if gpus else "none here"), lambda uuid: ())


def free(world) -> int:
    return sum(use.free for use in pool(world.gpus).usage())


def jobs(evaluator, labels: str, **question) -> list:
    how = {"trusted": True, "hardware": None, "progress": quiet, "observe": quiet}
    place = evaluator.get_ready(ASKED, **how)
    files = find_task(ASKED.task).designs()[0].files
    question = {**QUESTION, **question}
    return [place.job(ASKED, label, files, **question) for label in labels]


def run(world, name: str, script, *, observe=quiet, **more):
    """Make a run whose agent calls ``script`` each time it writes."""
    agent = Scripted(script)
    AGENTS.ours[f"scripted-{name}"] = lambda: agent
    try:
        asked = ASKED.model_copy(
            update={"agent": f"scripted-{name}", "policy": "greedy", "steps": 3, **more}
        )
        return start(asked, world.folder / "runs", name=name, progress=quiet, observe=observe)
    finally:
        del AGENTS.ours[f"scripted-{name}"]


# ---- GPUs


def test_a_gpu_is_held_while_a_submission_is_evaluated_and_never_while_one_is_written(world):
    world.gpus, seen = some(2), []
    world.meanwhile = lambda *_: seen.append(("evaluating", free(world)))
    result = run(world, "a", lambda ask: seen.append(("writing", free(world))))
    assert seen == [("writing", 2), ("evaluating", 1)] * 3 + [("evaluating", 1)]
    assert result["conditions"]["hardware"]["gpu"] == "Fake H100"
    assert free(world) == 2


def test_two_runs_share_a_gpu_one_writes_while_the_other_trains(world):
    """Each run writes one node only while the other run is evaluated. If a run held the GPU all the
    time, neither could go on."""
    world.gpus = some(1)
    evaluated = {name: threading.Event() for name in "ab"}
    written = {name: threading.Event() for name in "ab"}

    def meanwhile(evaluation, request):
        name = "b" if evaluation.job.training_seed in seeds["b"] else "a"
        other = {"a": "b", "b": "a"}[name]
        assert free(world) == 0
        if evaluation.job.label == {"a": "0", "b": "1"}[name]:
            evaluated[name].set()
            assert written[other].wait(PATIENCE_S)

    def script(name, other, node):
        def work(ask):
            if ask.node == node:
                assert evaluated[other].wait(PATIENCE_S), "the other one is never evaluated"
                written[name].set()

        return work

    seeds = {name: {derive(s, "node", n) for n in range(3)} for name, s in (("a", 1), ("b", 2))}
    world.meanwhile = meanwhile
    with ThreadPoolExecutor(2) as threads:
        results = [
            threads.submit(run, world, name, script(name, other, node), seed=seed)
            for name, other, node, seed in (("a", "b", 1, 1), ("b", "a", 0, 2))
        ]
    assert [result.result()["nodes"]["scored"] for result in results] == [3, 3]


@pytest.mark.parametrize(("slots", "gpus"), [(3, 3), (3, 2), (1, 4)])
def test_each_evaluation_has_a_gpu_of_its_own(world, slots, gpus):
    world.gpus, at_once = some(gpus), min(slots, gpus)
    together, held, most = threading.Barrier(at_once), Counter(), []

    def meanwhile(evaluation, request):
        held.update(request.gpus)
        most.append(max(held.values()))
        together.wait(PATIENCE_S)  # as many at once, or the barrier breaks
        held.subtract(request.gpus)

    world.meanwhile = meanwhile
    evaluator = LocalEvaluator(slots)
    begun = evaluator.submit(jobs(evaluator, "0123456789ab"), quiet)
    assert all(evaluation.result(PATIENCE_S).score.valid for evaluation in begun)
    evaluator.close()
    assert set(most) == {1}
    assert {len(taken) for _, taken in world.judged} == {1}
    assert free(world) == gpus


def test_what_is_waited_for_a_gpu_is_recorded_and_charged_to_nobody(world, monkeypatch):
    world.gpus, said, wrote, written = some(1), [], [], []
    monkeypatch.setattr(gpu_locks, "recorded_owner", lambda uuid: gpu_locks.Owner(1, "somebody"))
    strangers = [pool(world.gpus).lease(1)]

    def observe(what, label, details):
        said.append((what, label, details.get("message")))
        if what == "waiting":
            written.append(list(wrote))
            threading.Timer(1.0, release).start()
        if (what, label) == ("scored", "0"):
            strangers.append(pool(world.gpus).lease(1))

    def release():
        shown.append(state())
        strangers.pop().close()

    def meanwhile(evaluation, request):
        evaluation.observe("training", {"limit_s": 9.0})
        shown.append(state())

    def state():
        (line,) = [s for s in watch.look() if Path(s.run).name == "a"]
        return lines([line], width=120)[-1].split("  ")[-1].strip()

    world.meanwhile, shown, watch = meanwhile, [], Watch([world.folder / "runs"])
    result = run(world, "a", lambda ask: wrote.append(ask.node), observe=observe, steps=2)
    assert written == [[0], [0, 1]], "each is written before it waits for a GPU"
    assert shown == ["waiting for a GPU", "evaluating"] * 2 + ["grading"]
    told, second = [one for one in said if one[0] == "waiting"]
    assert (told[1], second[1]) == ("0", "1")
    assert told[2] == "waiting for 1 GPU: GPU 0 is leased by pid 1 (somebody)"
    assert said.index(("queued", "0", None)) < said.index(told)
    assert result["nodes"]["scored"] == 2
    assert 2.0 <= result["spent"]["queued_s"] < result["seconds"]["total"]
    assert result["spent"]["time_s"] <= result["seconds"]["total"] - 2.0
    (line,) = [one for one in describe_spent(result["spent"]) if one.startswith("waited for GPUs")]
    assert line.endswith("s, all nodes together")
    events = read(world.folder / "runs" / "a" / "events.jsonl")
    waited = [e.data["queued_s"] for e in events if e.kind in ("scored", "final")]
    assert min(waited[:2]) >= 1.0
    assert len(waited) == 3
    assert result["spent"]["queued_s"] == pytest.approx(sum(waited[:2]), abs=0.01)


def test_what_an_evaluation_has_waited_so_far_is_left_out_of_the_time_at_once(world, monkeypatch):
    """Not only once it is scored: until then, its wait could keep other nodes from beginning."""
    world.gpus, queued, seen = some(1), [], []
    how_far = loop.how_far

    def noted(events, tree, active_s, waiting_s):
        found = how_far(events, tree, active_s, waiting_s)
        seen.append((len(tree.scored()), waiting_s, found.queued_s))
        return found

    def meanwhile(evaluation, request):
        if len(world.judged) == 1:
            until(lambda: len(queued) == 2, "the other one waits")
            time.sleep(0.3)
        elif len(world.judged) == 2:
            until(lambda: any(scored for scored, _, _ in seen), "the first is recorded")

    def observe(what, label, details):
        if what == "queued":
            queued.append(label)

    monkeypatch.setattr(loop, "how_far", noted)
    world.meanwhile = meanwhile
    run(world, "a", quiet, observe=observe, workers=2, steps=4)
    assert max(waiting for scored, waiting, _ in seen if scored == 1) >= 0.3
    assert seen[-1][1] == 0.0
    assert seen[-1][2] >= 0.3, "what was recorded takes its place"


def test_of_two_runs_the_one_with_many_slots_does_not_keep_the_other_waiting(world, monkeypatch):
    """One run queues eight jobs, another run one: that one is evaluated third, not ninth."""
    world.gpus = some(1)
    order, go, queue = [], threading.Event(), []

    def meanwhile(evaluation, request):
        order.append(evaluation.job.label)
        assert go.wait(PATIENCE_S)

    class Ticket(gpu_locks.Ticket):
        def __init__(self):
            super().__init__()
            queue.append(self)

    monkeypatch.setattr(gpu_locks, "Ticket", Ticket)
    world.meanwhile = meanwhile
    many, one = LocalEvaluator(8), LocalEvaluator(1)
    begun = many.submit(jobs(many, "abcdefgh"), quiet)
    until(lambda: order, "the first is evaluated")
    until(lambda: len(queue) == 2, "the second of many stands in the queue")
    mine = one.submit(jobs(one, "X"), quiet)
    until(lambda: len(queue) == 3, "the other run does")
    go.set()
    wait([*begun, *mine], timeout=PATIENCE_S)
    assert order.index("X") == 2, order
    many.close()
    one.close()


def test_gpus_of_one_model_serve_a_run_and_it_goes_on_with_those_it_began_with(world):
    odd = (Gpu("GPU-odd", 9, "Fake A100"),)
    world.gpus = (*odd, *some(2))
    with pytest.raises(Cancelled):
        run(world, "a", quiet, observe=interrupting("scored", "0"), agent="reference")
    assert {taken for _, taken in world.judged} == {("GPU-fake-0",)}
    world.judged.clear()
    # Another machine, or the same with new GPUs: now most are of the other model.
    world.gpus = (*some(2), *(Gpu(f"GPU-odd-{i}", 10 + i, "Fake A100") for i in range(4)))
    resume(world.folder / "runs" / "a", progress=quiet, observe=quiet)
    assert world.judged == [(label, ("GPU-fake-0",)) for label in ("1", "2", "final")]


def test_a_score_of_another_node_that_lies_in_ones_folder_is_not_taken_over(world):
    """After a kill, a score in a node's folder is taken over only if it is that node's own."""
    with pytest.raises(Cancelled):
        run(world, "a", quiet, observe=interrupting("evaluating", "1"), agent="reference")
    nodes = world.folder / "runs" / "a" / "nodes"
    shutil.copy(nodes / "0000" / "score.json", nodes / "0001" / "score.json")
    assert resume(nodes.parent, progress=quiet, observe=quiet)["nodes"]["scored"] == 3
    made = [json.loads((nodes / n / "score.json").read_text()) for n in ("0000", "0001")]
    assert [score["conditions"]["training_seed"] for score in made] == [
        derive(0, "node", 0),
        derive(0, "node", 1),
    ]


# ---- turns and ends


def test_one_that_waits_can_be_stopped_and_ends_at_once_alone(world):
    world.gpus, go = some(1), threading.Event()
    world.meanwhile = lambda *_: go.wait(PATIENCE_S)
    evaluator = LocalEvaluator(2)  # one is evaluated, one waits for the GPU, the rest behind it
    begun = evaluator.submit(jobs(evaluator, "abcdef"), quiet)
    until(lambda: world.judged, "the first is evaluated")
    begun[4].stop()
    wait([begun[4]], timeout=PATIENCE_S)
    begun[1].stop()
    for stopped in (begun[1], begun[4]):
        assert isinstance(stopped.exception(PATIENCE_S), Cancelled)
    assert not any(begun[i].done() for i in (0, 2, 3, 5))
    go.set()
    assert all(begun[i].result(PATIENCE_S).score.valid for i in (0, 2, 3, 5))
    evaluator.close()
    assert [label for label, _ in world.judged] == list("acdf")


def test_closing_ends_what_runs_and_what_waits_and_keeps_no_gpu(world):
    world.gpus = some(1)
    world.meanwhile = lambda evaluation, _: evaluation.stopped.wait(PATIENCE_S)
    evaluator = LocalEvaluator(2)
    begun = evaluator.submit(jobs(evaluator, "abcd"), quiet)
    until(lambda: world.judged, "the first is evaluated")
    evaluator.close()
    evaluator.close()
    assert [type(evaluation.exception(0)) for evaluation in begun] == [Cancelled] * 4
    assert free(world) == 1
    assert len(world.judged) == 1


@pytest.mark.parametrize("starts", [True, False])
def test_an_interrupt_while_a_thread_starts_leaves_nothing_alive(world, monkeypatch, starts):
    ended = []

    class Interrupted(local.ThreadPoolExecutor):
        def submit(self, work):
            if starts:  # in a thread that the pool does not know
                threading.Thread(target=work).start()
                until(lambda: world.judged, "it is evaluated")
            raise KeyboardInterrupt

    def meanwhile(evaluation, request):
        evaluation.stopped.wait(PATIENCE_S)
        time.sleep(0.1)
        ended.append(evaluation.job.label)

    monkeypatch.setattr(local, "ThreadPoolExecutor", Interrupted)
    world.meanwhile = meanwhile
    evaluator = LocalEvaluator(2)
    with pytest.raises(KeyboardInterrupt):
        evaluator.submit(jobs(evaluator, "ab"), quiet)
    evaluator.close()
    assert ended == (["a"] if starts else [])


def test_whatever_breaks_ends_an_evaluation_and_hangs_none(world, monkeypatch):
    """An observer that is interrupted in a retry, and exceptions that are not HarnessErrors."""
    monkeypatch.setattr(local, "BACK_OFF_S", 0.0)
    errors = {"a": [InfrastructureError("lost")], "b": [SystemExit(3)], "c": [RecursionError()] * 2}

    def meanwhile(evaluation, request):
        if errors[evaluation.job.label]:
            raise errors[evaluation.job.label].pop()

    def observe(what, label, details):
        if what == "retry" and label == "a":
            raise KeyboardInterrupt

    world.meanwhile = meanwhile
    evaluator = LocalEvaluator(3)
    a, b, c = evaluator.submit(jobs(evaluator, "abc"), observe)
    assert isinstance(a.exception(PATIENCE_S), KeyboardInterrupt)
    assert isinstance(b.exception(PATIENCE_S), SystemExit)
    told = c.exception(PATIENCE_S)
    assert isinstance(told, JudgeError)
    assert (told.message, told.cause) == ("The judge failed on c.", "RecursionError: ")
    evaluator.close()


def test_one_that_was_stopped_is_not_tried_again(world):
    told = []

    def meanwhile(evaluation, request):
        evaluation.stop()
        raise InfrastructureError("lost")

    world.meanwhile = meanwhile
    evaluator = LocalEvaluator(1)
    (one,) = evaluator.submit(jobs(evaluator, "a"), lambda *what: told.append(what))
    assert one.exception(PATIENCE_S) is not None
    evaluator.close()
    assert len(world.judged) == 1
    assert told == []


def test_what_it_waits_before_it_is_tried_again_is_waiting_too(world, monkeypatch):
    world.gpus, strangers = some(1), []
    monkeypatch.setattr(local, "BACK_OFF_S", 0.0)

    def meanwhile(evaluation, request):
        if len(world.judged) == 1:
            raise InfrastructureError("lost")

    def observe(what, label, details):
        if what == "retry":
            strangers.append(pool(world.gpus).lease(1))
            threading.Timer(0.5, strangers[0].close).start()

    world.meanwhile = meanwhile
    evaluator = LocalEvaluator(1)
    (one,) = evaluator.submit(jobs(evaluator, "a"), observe)
    assert one.result(PATIENCE_S).score.valid
    evaluator.close()
    assert one.queued_s >= 0.4
    waited_s = one.queued_s
    time.sleep(0.01)
    assert one.queued_s == waited_s, "it has begun, and waits no longer"


def test_the_sandbox_is_tested_on_a_gpu_that_is_leased_for_that_alone(world, monkeypatch):
    world.gpus, tested = some(2), []
    monkeypatch.setattr(host.self_test, "passed", lambda request: False)
    monkeypatch.setattr(
        host.self_test, "require", lambda request, say: tested.append((request.gpus, free(world)))
    )
    with pool(world.gpus).lease(1):
        evaluator = LocalEvaluator(1)
        jobs(evaluator, "")
        evaluator.close()
        assert tested == [(("GPU-fake-1",), 0)]
    assert free(world) == 2


# ---- batches


class Trainer:
    """Evaluates the submissions of a batch one after the other, and records the batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gpus: list[tuple[str, ...]] = []
        self.ends: dict[int, list] = {}
        """By training seed: outcomes that replace the real one, each used once, the last first."""
        self.meanwhile = quiet
        self.odd = 0

    def __call__(self, trials) -> list:
        self.batches.append([trial.request.training_seed for trial in trials])
        self.gpus.append(trials[0].request.gpus)
        self.meanwhile()
        ends = [self._end(trial) for trial in trials]
        return ends[: len(ends) - self.odd]

    def _end(self, trial):
        ends = self.ends.get(trial.request.training_seed)
        if ends:
            return ends.pop()
        if trial.cancel.is_set():
            return Cancelled("stopped")
        request = trial.request
        score = evaluate(replace(request, gpus=())).score  # the fake GPUs do not exist
        trial.observe("trained", {"seed": request.training_seed})
        return Evaluated(score, f"seed {request.training_seed}".encode())


trainer = Trainer()


@pytest.fixture
def batches(world, monkeypatch):
    """Give the toy a kind whose candidates can be trained together; return the ``Trainer`` used."""
    global trainer
    trainer = Trainer()
    ours = KINDS.ours["classification"]
    address = f"{__name__}:trained_together"
    kind = Kind(ours.metric, ours.examiner, data_fault=ours.data_fault, together=address)
    monkeypatch.setitem(KINDS.ours, "together", kind)
    world.toml.write_text(
        world.toml.read_text().replace('kind = "classification"', 'kind = "together"')
    )
    monkeypatch.setattr(local, "BACK_OFF_S", 0.01)
    monkeypatch.setattr(local, "judge", lambda *_: pytest.fail("it was not trained together"))
    return trainer


def trained_together(trials):
    return trainer(trials)


def many(evaluator, seeds, **question) -> list:
    return [
        job for seed in seeds for job in jobs(evaluator, str(seed), training_seed=seed, **question)
    ]


def test_what_waits_together_is_trained_together_and_each_has_its_own_end(world, batches):
    seen, batches.ends = [], {
        1: [InfrastructureError("lost")],
        2: [JudgeError("ours"), JudgeError("ours")],
    }  # fmt: skip
    stopped = threading.Event()
    batches.meanwhile = lambda: stopped.wait(PATIENCE_S)
    evaluator = LocalEvaluator(2)
    tested = many(evaluator, [9], split="test")
    begun = evaluator.submit([*many(evaluator, range(5)), *tested], lambda *told: seen.append(told))
    begun[3].stop()
    stopped.set()
    wait(begun, timeout=PATIENCE_S)
    evaluator.close()
    assert sorted(batches.batches, key=len) == [[9], [1, 2], [0, 1, 2, 3, 4]]
    zero, one, two, three, four, test = begun
    for seed, evaluation in ((0, zero), (1, one), (4, four), (9, test)):
        assert evaluation.result().log == f"seed {seed}".encode()
        assert evaluation.result().score.conditions.training_seed == seed
    assert test.result().score.conditions.split == "test"
    assert isinstance(two.exception(), JudgeError)
    assert isinstance(three.exception(), Cancelled)
    assert {told[1] for told in seen if told[0] == "retry"} == {"1", "2"}
    assert {told[1]: told[2]["seed"] for told in seen if told[0] == "trained"} == {
        "0": 0, "1": 1, "4": 4, "9": 9,
    }  # fmt: skip


@pytest.mark.parametrize("gpus", [0, 1])
def test_the_nodes_of_a_run_gather_while_others_are_trained(world, batches, gpus, monkeypatch):
    world.gpus, evaluator = some(gpus), LocalEvaluator(4)
    monkeypatch.setitem(EXECUTORS.ours, "local", lambda slots: evaluator)

    def meanwhile():
        if len(batches.batches) == 1:
            until(lambda: len(evaluator._under_way) == 4, "all four slots have come so far")

    batches.meanwhile = meanwhile
    result = run(world, "a", quiet, workers=4, steps=4)
    sizes = [len(batch) for batch in batches.batches]
    assert sum(sizes) == 5
    assert len(sizes) <= 3, "the first, all others together, and the final one"
    assert result["nodes"] == {"scored": 4, "valid": 4}
    assert set(batches.gpus) == {("GPU-fake-0",) if gpus else ()}
    folder = world.folder / "runs" / "a" / "nodes"
    scores = {node: json.loads((node / "score.json").read_text()) for node in folder.iterdir()}
    for node, score in scores.items():
        assert score["submission"] == hash_files({"model.py": (node / "model.py").read_text()})
    assert len({score["submission"] for score in scores.values()}) == 4
    # They were trained with one seed: they differ by what was submitted.
    assert {score["conditions"]["training_seed"] for score in scores.values()} == {
        derive(result["seed"], "search")
    }


def test_what_is_tried_again_is_so_without_those_that_came_later(world, batches):
    """Those that came later have not been tried yet, and what failed may fail again."""
    later, batches.ends = threading.Event(), {1: [InfrastructureError("lost")]}
    batches.meanwhile = lambda: later.wait(PATIENCE_S)
    evaluator = LocalEvaluator(1)
    begun = evaluator.submit(many(evaluator, [0, 1]), quiet)
    until(lambda: batches.batches, "the first are trained")
    begun += evaluator.submit(many(evaluator, [5]), quiet)
    later.set()
    assert all(evaluation.result(PATIENCE_S).score.valid for evaluation in begun)
    evaluator.close()
    assert batches.batches == [[0, 1], [1], [5]]


def test_one_that_waits_for_the_cores_can_be_stopped_and_ends_at_once(world, batches):
    go = threading.Event()
    batches.meanwhile = lambda: go.wait(PATIENCE_S)
    evaluator = LocalEvaluator(2)
    (first,) = evaluator.submit(many(evaluator, [0]), quiet)
    until(lambda: batches.batches, "the first is trained")
    (second,) = evaluator.submit(many(evaluator, [1]), quiet)
    second.stop()
    assert isinstance(second.exception(PATIENCE_S), Cancelled)
    assert not first.done()
    go.set()
    evaluator.close()
    assert batches.batches == [[0]]


def test_a_trainer_that_loses_one_has_judged_none(world, batches):
    batches.odd = 1
    evaluator = LocalEvaluator(1)
    begun = evaluator.submit(many(evaluator, range(3)), quiet)
    for evaluation in begun:
        error = evaluation.exception(PATIENCE_S)
        assert isinstance(error, JudgeError)
        assert error.message == "3 submissions were judged, and 2 answers came."
    evaluator.close()
