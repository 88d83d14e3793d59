"""Step, loss and time left of a training: computed, kept in the run's folder, and displayed."""

import json
import os
import time
from dataclasses import asdict
from functools import partial
from types import SimpleNamespace

import pytest
from rich.console import Console
from test_parallel import World

from harness.base.durations import short
from harness.cli import score_screen
from harness.cli import screen as screens
from harness.report.watching import lines
from harness.store.follower import Follower, LiveRun
from harness.store.training import FILE, Training, TrainingFile, TrainingNotes, read


def training(spent_s: float, limit_s: float = 300.0, **details) -> Training:
    made = Training(limit_s, began=time.monotonic() - spent_s)
    made.take({"step": 0, "total": 0, "loss": None, **details})
    return made


def tens(seconds: float) -> str:
    """Return seconds in words, rounded to tens, so that a busy machine does not change them."""
    return f"{round(seconds, -1):.0f} s"


@pytest.mark.parametrize(
    ("spent_s", "details", "words"),
    [
        (60, {"step": 300, "total": 600, "loss": 1.23456}, "step 300 of 600, loss 1.235, about 60"),
        (60, {"step": 1, "total": 600, "loss": 2}, "step 1 of 600, loss 2, at most 240"),
        (60, {"step": 12}, "step 12, at most 240"),
        (60, {"step": 12, "share": 0.5}, "step 12, about 60"),
        (60, {"step": 10, "total": 100}, "step 10 of 100, at most 240"),
        (400, {"step": 10, "total": 100}, "step 10 of 100, at most 0"),
        (60, {"step": 9, "total": 9, "loss": 1e300}, "step 9 of 9, loss 1e+300, about 0"),
    ],
)
def test_the_time_left_is_by_its_speed_and_never_more_than_its_limit(spent_s, details, words):
    claim = training(spent_s, **details).claim("3")
    assert claim.words(tens) == f"node 3: {words} s left"


def test_a_run_keeps_it_in_its_folder_for_watchers_and_removes_it(tmp_path):
    notes = TrainingFile(tmp_path)
    notes.observe("training", "3", {"limit_s": 300.0})
    notes.observe("training", "final", {"limit_s": 300.0})
    notes.observe("progress", "3", {"step": 3, "total": 20, "loss": 0.5})
    assert [c.node for c in read(tmp_path).trainings] == ["3", "final"]
    notes.observe("serving", "3", {"batches": 2})
    notes.observe("progress", "3", {"step": 4, "total": 20, "loss": 0.5})
    (claim,) = read(tmp_path).trainings
    assert claim.words(short) == "final: step 0, at most 5m left"
    notes.observe("queued", "4", {})
    notes.observe("queued", "5", {})
    notes.observe("waiting", "4", {"message": "waiting for 1 GPU"})
    assert read(tmp_path).queued == ["4", "5"]
    notes.observe("training", "4", {"limit_s": 300.0})
    assert read(tmp_path).queued == ["5"]
    notes.close()
    assert list(tmp_path.iterdir()) == []


CLAIM = {"node": "1", "step": 1, "total": 2, "loss": 1.0, "left_s": 9.0, "at_most": False}


@pytest.mark.parametrize(
    "text",
    [
        "", "[", "[]", "{}", "[" * 100_000, '{"at": 1e999, "trainings": []}',
        json.dumps({"at": 0, "trainings": [{**CLAIM, "step": -1}]}),
        json.dumps({"at": 0, "trainings": [{**CLAIM, "loss": 10**400}]}),
        json.dumps({"at": 0, "trainings": [{**CLAIM, "node": "x" * 99}]}),
        json.dumps({"at": 0, "trainings": [CLAIM] * 9999}),
        '{"at": 0, "trainings": [{"left_s": NaN}]}', '{"at": 0, "trainings": [3]}',
        '{"at": 0, "trainings": [], "queued": [3]}', '{"at": 0, "trainings": [], "queued": "3"}',
        json.dumps({"at": 0, "trainings": [], "queued": ["x" * 99]}),
    ],
)  # fmt: skip
def test_a_file_that_a_stranger_wrote_shows_nothing(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    assert read(tmp_path) == TrainingNotes()


def test_a_pipe_in_its_place_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / FILE)
    assert read(tmp_path) == TrainingNotes()


def test_a_watcher_of_a_run_sees_step_loss_and_time_left_within_80_columns(tmp_path, monkeypatch):
    world, shown = World(tmp_path, monkeypatch), []

    def look(what, label, details):
        if what == "progress" and not any("loss" in line for line in shown):
            live = Follower(world.run.path).look()
            shown[:] = lines([live], width=80, height=20)
            json.dumps(asdict(live))

    monkeypatch.setattr(world, "observe", look)
    monkeypatch.setattr("harness.store.training.EVERY_S", 0.0)
    world.start(slots=1, steps=1)
    (line,) = [line for line in shown if "step" in line and "loss" in line]
    assert line.startswith("  node 0: step ")
    assert " of 20, loss 1, " in line
    assert line.endswith(" left")
    assert max(map(len, shown)) <= 80
    assert not (world.run.path / FILE).exists()


def test_lines_with_trainings_fit_the_height_of_a_terminal():
    claims = [training(1, step=1, total=9).claim(str(n)) for n in range(3)]
    standings = [LiveRun(f"run{n}", state="running", training=claims) for n in range(9)]
    for height in range(4, 45):
        assert len(lines(standings, width=80, height=height)) <= max(height, 6)


def screen_of(width: int) -> screens.Screen:
    made = screens.Screen()
    made.console = Console(stderr=True, width=width, height=24, highlight=False)
    return made


def follow(screen, label: str, **details) -> None:
    screen.observe("writing", label, {"operator": "draft", "parents": []})
    screen.observe("evaluating", label, {"note": "n" * 100})
    screen.observe("training", label, {"limit_s": 300.0})
    screen.observe("progress", label, {"step": 120, "total": 600, "loss": 1.2345, **details})


def test_the_table_tells_of_each_training_at_80_columns():
    screen = screen_of(80)
    screen._run = SimpleNamespace(name="a-run")
    for label in ("0", "1"):
        follow(screen, label)
    text = "".join(part.text for part in screen.console.render(screen._render()))
    told = [line.strip() for line in text.splitlines() if "step 120 of 600, loss 1.234, " in line]
    assert [line.split(":")[0] for line in told] == ["node 0", "node 1"]
    assert "training 20 %" in text
    assert max(map(len, text.splitlines())) <= 80


def test_without_a_terminal_a_line_comes_now_and_then_and_none_too_early(monkeypatch, capsys):
    screen = screen_of(80)
    follow(screen, "0")
    assert "step" not in capsys.readouterr().err
    monkeypatch.setattr(screens, "SAY_EVERY_S", 0.0)
    follow(screen, "1", step=300)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "step" in line]
    assert line.startswith("node 1: step 300 of 600, loss 1.234, about 0:0")
    screen.observe("serving", "1", {"batches": 1})
    screen.observe("progress", "1", {"step": 301, "total": 600, "loss": 1.0})
    assert capsys.readouterr().err == ""


def test_a_score_by_hand_tells_it_too(monkeypatch, capsys):
    monkeypatch.setattr(score_screen, "SAY_EVERY_S", 0.0)
    # No time passes in the training, however slow the machine is.
    monkeypatch.setattr(score_screen, "Training", partial(Training, began=5.0))
    monkeypatch.setattr("harness.store.training.time", SimpleNamespace(monotonic=lambda: 5.0))
    with score_screen.ScoreScreen() as screen:
        screen.observe("training", "", {"limit_s": 20.0})
        screen.observe("progress", "", {"step": 1, "total": 0, "loss": None})
        screen.observe("serving", "", {"batches": 1})
        screen.observe("progress", "", {"step": 2, "total": 0, "loss": None})
    told = [line for line in capsys.readouterr().err.splitlines() if "step" in line]
    assert [line.split("s  ")[1] for line in told] == ["step 1, at most 0:20 left"]
