"""Architectures before the judge: trained together, stopped singly, by a process that may die."""

import math
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from observing import quiet, until

from harness.base.errors import (
    Cancelled,
    ConfigError,
    InfrastructureError,
    JudgeError,
    SandboxStartError,
)
from harness.core.asked import Asked
from harness.search.host import find_host
from sandboxes import registry
from sandboxes.base import SandboxSpec
from scorers import self_test
from scorers.proxies import judge
from scorers.proxies.judge import train_together
from scorers.proxies.protocol import Done, Measured
from scorers.request import Evaluated, Request, Trial
from scorers.score import Reason
from tasks.kinds import KINDS
from tasks.spec import Task

ROUNDING = 0.02
"""How far a score may move with its companions: a token or two of 320 change in rounding."""


def request_for(text: str, **changes: object) -> Request:
    """Return the request that asks for an architecture, of MAD unless ``task`` names another."""
    asked = Asked(task=str(changes.pop("task", "compose/mad")), profile="test", sandbox="docker")
    host = find_host(asked, trusted=False, hardware=None, progress=quiet)
    return replace(host.template, files={"architecture.txt": text}, **changes)


def endlessly(request: Request) -> Request:
    """Return a request for a training that does not end while a test runs."""
    return with_settings(request, epochs=10**6)


def with_settings(request: Request, **settings: object) -> Request:
    profile = request.task.profile("test")
    settings = {**profile.settings, **settings}
    profiles = {"test": profile.model_copy(update={"settings": settings})}
    definition = request.task.definition.model_copy(update={"profiles": profiles})
    return replace(request, task=Task(request.task.folder, definition, "fixed"))


def trial(request: Request, observe=quiet) -> Trial:
    return Trial(request, observe, threading.Event())


def at_progress(do):
    """Return an observer that calls ``do`` at the first report of progress."""
    waiting = [do]

    def observe(what, details):
        if what == "progress" and waiting:
            waiting.pop()()

    return observe


def workers() -> list[psutil.Process]:
    return [p for p in psutil.Process().children() if "scorers.proxies.worker" in p.cmdline()]


def test_kernels_without_a_compiler_are_refused_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    (end,) = train_together([trial(with_settings(request_for("AMAM"), kernels="triton"))])
    assert isinstance(end, InfrastructureError)
    assert "gcc" in (end.remedy or "")
    assert isinstance(train_together([trial(request_for("AMAM"))])[0], Evaluated)


def test_architectures_are_trained_together_and_each_has_its_score():
    texts = ["A M A M", "M M M M\n", "AAAA", "A M A M"]
    seen = []
    ends = train_together([trial(request_for(t), lambda *what: seen.append(what)) for t in texts])
    first, blind, _, again = [end.score for end in ends]
    assert all(end.score.valid for end in ends)
    assert first.score == again.score
    assert first.score > blind.score
    parts = [first.measures[name] for name in ("memorization", "selective_copying")]
    assert first.score == pytest.approx(sum(parts) / 2, abs=1e-6)
    assert 0 < first.measures["macro"] < 1
    assert first.companions == tuple(end.score.submission[:12] for end in ends[1:])
    assert first.conditions.sandbox == "none"
    assert first.conditions.isolated
    assert first.conditions.unenforced == ()
    assert first.seconds["together"] == pytest.approx(4 * first.seconds["total"], abs=0.01)
    assert ("progress", {"step": 8, "total": 8, "loss": None}) not in seen  # 2 parts, 2 and 4 steps
    assert ("progress", {"step": 6, "total": 6, "loss": None}) in seen
    log = ends[0].log.decode()
    assert log.startswith("A M A M: trained by the judge's own code, together with 3 others\n")
    assert f"memorization: accuracy {first.measures['memorization']:.4f}" in log


def test_companions_change_a_score_by_rounding_only():
    alone = train_together([trial(request_for("A M A M"))])[0].score
    beside = train_together([trial(request_for(t)) for t in ("M M M M", "A M A M")])[1].score
    assert alone.companions == ()
    assert len(beside.companions) == 1
    assert beside.score == pytest.approx(alone.score, abs=ROUNDING)


def test_another_seed_gives_another_score():
    one, two = (
        train_together([trial(request_for("A M A M", training_seed=seed))])[0].score
        for seed in (1, 2)
    )
    assert one.score != two.score
    assert (one.conditions.training_seed, two.conditions.training_seed) == (1, 2)


def test_what_is_no_architecture_is_invalid_and_spoils_no_other():
    texts = ["A M A", "A M A M", "attention", "", "A M A Mb"]
    short, sound, lower, empty, other = (
        end.score for end in train_together([trial(request_for(t)) for t in texts])
    )
    assert sound.valid
    assert sound.companions == ()
    for score in (short, lower, empty, other):
        assert (score.valid, score.score, score.reason) == (False, None, Reason.INTERFACE_ERROR)
    assert "architecture.txt: 4 layers are wanted, and it has 3" in short.message
    assert "line 1, column 1: 'attention' is not a primitive" in lower.message
    assert "'Mb' is not a primitive; there are A and M" in other.message
    assert "it is empty" in empty.message
    missing = replace(request_for(""), files={})
    (end,) = train_together([trial(missing)])
    assert end.score.reason is Reason.MISSING_FILE
    (end,) = train_together([trial(request_for("# A\n" * 5000))])
    assert end.score.reason is Reason.TOO_LARGE


def test_one_of_several_is_stopped_and_the_others_go_on():
    stopped = trial(request_for("A M A M"))
    going = trial(request_for("A A M M"), at_progress(stopped.cancel.set))
    ends = train_together([stopped, going])
    assert isinstance(ends[0], Cancelled)
    assert isinstance(ends[1], Evaluated)


def test_if_all_are_stopped_the_training_ends():
    trials = []
    stop = at_progress(lambda: [one.cancel.set() for one in trials])
    trials += [
        trial(endlessly(request_for("A M A M")), stop),
        trial(endlessly(request_for("A A M M"))),
    ]
    ends = train_together(trials)
    assert [type(end) for end in ends] == [Cancelled, Cancelled]
    assert not workers()


def test_a_process_that_dies_is_the_machines_fault_and_the_next_is_another():
    def kill():
        (worker,) = workers()
        worker.kill()

    (end,) = train_together([trial(endlessly(request_for("A M A M")), at_progress(kill))])
    assert isinstance(end, InfrastructureError)
    assert "The process that trains proxies died." in str(end)
    assert train_together([trial(request_for("A M A M"))])[0].score.valid


def kill_training():
    """Kill as the kernel does if memory is short: the training, not the process that began it."""
    (worker,) = workers()
    (training,) = worker.children()
    training.kill()


def test_a_training_that_is_killed_for_its_memory_says_so():
    (end,) = train_together([trial(endlessly(request_for("A M A M")), at_progress(kill_training))])
    assert isinstance(end, InfrastructureError)
    assert "not enough memory to train one architecture" in str(end)


def test_ctrl_c_at_a_terminal_reaches_no_process_of_the_judge():
    """It goes to all of a terminal's session; only the harness is to answer it."""
    with judge._worker() as worker:
        assert os.getsid(worker._process.pid) != os.getsid(0)


def test_where_memory_is_short_fewer_are_trained_together():
    """The training of all three is killed; then the first is trained alone, then two together."""
    trials = [trial(request_for(text)) for text in ("A M A M", "A A M M", "M M A A")]
    trials[0] = replace(trials[0], observe=at_progress(kill_training))
    scores = [end.score for end in train_together(trials)]
    assert all(score.valid for score in scores)
    assert [len(score.companions) for score in scores] == [0, 1, 1]


@pytest.mark.parametrize(
    ("program", "error", "said"),
    [
        ("print('hello', flush=True)", JudgeError, "reported nonsense"),
        (
            """print('{"kind": "failed", "message": "a bug"}', flush=True)""",
            JudgeError,
            "Cause: a bug",
        ),
        ("import no_such_thing", InfrastructureError, "ModuleNotFoundError: No module named"),
    ],
)
def test_a_process_that_talks_nonsense_is_not_believed(program, error, said, monkeypatch):
    judge._close_idle()
    program = f"import sys; sys.stdin.readline()\n{program}\nsys.stdin.read()"
    monkeypatch.setattr(judge, "PROGRAM", ("-c", program))
    (end,) = train_together([trial(request_for("A M A M"))])
    assert type(end) is error
    assert said in str(end)
    assert not workers()


def test_a_training_that_diverged_is_invalid_and_says_where(monkeypatch):
    judge._close_idle()
    good = Measured(
        accuracy=0.5, row_error=0.03, macro=0.4, loss=1.0, loss_error=0.01, curve=((1, 2.0),)
    )
    bad = replace(good, accuracy=0.0, loss=math.nan, curve=())
    done = Done(results={"memorization": (good, good), "selective_copying": (bad, good)})
    line = done.model_dump_json()
    program = f"import sys; sys.stdin.readline(); print({line!r}, flush=True); sys.stdin.read()"
    monkeypatch.setattr(judge, "PROGRAM", ("-c", program))
    trials = [trial(request_for(text)) for text in ("A A A A", "A M A M")]
    diverged, sound = (end.score for end in train_together(trials))
    judge._close_idle()
    assert (diverged.valid, diverged.score, diverged.standard_error) == (False, None, None)
    assert (diverged.reason, diverged.measured) == (Reason.NOT_FINITE, 0.25)
    assert "diverged on selective_copying: the loss is not finite" in diverged.message
    assert "selective_copying.loss" not in diverged.measures
    assert sound.score == 0.5
    assert sound.standard_error == pytest.approx(0.03 * 2**0.5 / 2)


def test_a_task_of_loss_is_scored_by_it_and_says_how_far_it_is_from_the_source():
    texts = ("A M A M", "M M M M", "A M A Q")
    ends = train_together([trial(request_for(t, task="compose/stories")) for t in texts])
    sound, blind, invalid = (end.score for end in ends)
    known = request_for("", task="compose/stories").manifest.baselines
    for score in (sound, blind):
        assert score.metric == "cross_entropy"
        assert score.valid
        assert score.score == score.measured
        assert score.measures["stories"] == pytest.approx(score.score, abs=1e-6)
        assert score.measures["excess"] == pytest.approx(score.score - known["entropy"], abs=2e-6)
        assert score.measures["perplexity"] == pytest.approx(math.exp(score.score), rel=1e-5)
        assert set(score.measures) == {
            "macro", "accuracy", "perplexity", "excess",
            "stories", "stories.accuracy", "stories.macro",
        }  # fmt: skip
        assert known["entropy"] < score.score < known["uniform"]
        assert 0 < score.standard_error < 0.1
        assert 0 < score.measures["accuracy"] < 1
    assert (invalid.score, invalid.reason) == (None, Reason.INTERFACE_ERROR)
    log = ends[0].log.decode()
    assert f"the best possible loss, of the source itself: {known['entropy']:.4f} nats\n" in log
    # Of the test split its own entropy.
    there = request_for("A M A M", task="compose/stories", split="test")
    score = train_together([trial(there)])[0].score
    assert score.measures["excess"] == pytest.approx(score.score - known["entropy_test"], abs=2e-6)


def test_a_loss_that_is_not_finite_is_no_score_and_no_measure(monkeypatch):
    judge._close_idle()
    good = Measured(0.5, 0.03, 0.4, 2.0, 0.05, ((1, 2.0),))
    huge = replace(good, loss=1e4)
    bad = replace(good, accuracy=0.0, loss=math.nan, loss_error=math.nan, curve=())
    line = Done(results={"stories": (bad, huge, good)}).model_dump_json()
    program = f"import sys; sys.stdin.readline(); print({line!r}, flush=True); sys.stdin.read()"
    monkeypatch.setattr(judge, "PROGRAM", ("-c", program))
    texts = ("A A A A", "M M M M", "A M A M")
    ends = train_together([trial(request_for(t, task="compose/stories")) for t in texts])
    judge._close_idle()
    diverged, far, sound = (end.score for end in ends)
    assert (diverged.valid, diverged.score, diverged.standard_error) == (False, None, None)
    assert (diverged.reason, diverged.measured) == (Reason.NOT_FINITE, None)
    assert "diverged on stories: the loss is not finite" in diverged.message
    assert set(diverged.measures) == {"macro", "accuracy", "stories.accuracy", "stories.macro"}
    assert (far.valid, far.score) == (True, 1e4)
    assert "perplexity" not in far.measures  # e to the ten-thousandth is no number
    assert (sound.score, sound.standard_error) == (2.0, 0.05)


def test_data_of_an_unknown_source_have_no_excess():
    (end,) = train_together([trial(request_for("A M A M", task="compose/text"))])
    assert end.score.valid
    assert "excess" not in end.score.measures
    assert "best possible" not in end.log.decode()


def test_every_metric_of_a_task_judged_here_is_scored():
    kinds = {name: KINDS.find(name) for name in KINDS.ours}
    mine = [k.metric for k in kinds.values() if k.together.startswith(judge.__name__)]
    assert sorted(mine) == sorted(judge.SCORED)
    assert {field for pair in judge.SCORED.values() for field in pair} < set(Measured.__slots__)


def test_the_longest_rows_come_first_and_the_results_as_asked():
    """If memory is short, that is known at once."""
    steps = []
    with judge._worker() as worker:
        done = worker.train(judge._job([request_for("A M A M")]), steps.append, lambda: False)
    assert list(dict.fromkeys(step.part for step in steps)) == ["selective_copying", "memorization"]
    assert [step.step for step in steps] == sorted(step.step for step in steps)
    assert list(done.results) == ["memorization", "selective_copying"]


def test_a_silent_process_is_given_up(monkeypatch):
    judge._close_idle()
    monkeypatch.setattr(judge, "PROGRAM", ("-c", "import sys; sys.stdin.read()"))
    monkeypatch.setattr(judge, "SILENT_S", 0.0)
    (end,) = train_together([trial(request_for("A M A M"))])
    assert isinstance(end, JudgeError)
    assert "said nothing for 0 s" in str(end)


def test_no_training_outlives_a_killed_harness():
    """Its process reads that we have gone, and the training cannot report any more."""
    code = f"""
import sys, threading
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1])]!r}
import os
os.environ["HARNESS_DATA"] = {os.environ["HARNESS_DATA"]!r}
from test_proxies_judge import *
from scorers.proxies.judge import train_together
request = endlessly(request_for("A M A M"))
def say(what, details):
    if what == "progress":
        print(*[p.pid for w in workers() for p in (w, *w.children())], flush=True)
train_together([Trial(request, say, threading.Event())])
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as harness:
        line = harness.stdout.readline()
        harness.send_signal(signal.SIGKILL)
    pids = [int(pid) for pid in line.split()]
    assert len(pids) == 2
    until(lambda: not any(map(psutil.pid_exists, pids)), "the training ends")


def test_a_machine_without_torch_is_told_so_before_a_run(monkeypatch):
    monkeypatch.setattr(self_test.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as refused:
        self_test.require(request_for(""), say=quiet)
    assert "There is no numpy and no torch here" in str(refused.value)
    assert "aira-harness[torch]" in str(refused.value)


def test_a_sandbox_that_a_suite_names_is_not_used():
    """It is asked for in ``request_for``, and this machine has no engine."""
    assert request_for("").backend.name == "none"
    with pytest.raises(ConfigError, match="no sandbox 'dockre'"):
        find_host(
            Asked(task="compose/mad", profile="test", sandbox="dockre"),
            trusted=False, hardware=None, progress=quiet,
        )  # fmt: skip
    with pytest.raises(ConfigError, match="no sandbox 'none'"):
        find_host(
            Asked(task="toy", profile="test", sandbox="none"),
            trusted=True, hardware=None, progress=quiet,
        )  # fmt: skip


def test_nothing_can_be_run_where_no_code_is_to_run():
    request = request_for("A M A M")
    with pytest.raises(SandboxStartError):
        request.backend.open(SandboxSpec())
    assert not request.backend.probe().available
    assert registry.isolates("none")
    assert registry.walls("none", isolated=True) == "none: no code of a submission runs"
    assert registry.walls("docker", isolated=True) == "docker, isolated"
    assert registry.walls("process", isolated=False) == "process, NOT ISOLATED"
    assert "means something else" in registry._fault("none", request.backend)
