"""Tables on narrow terminals and in pipes: no name, no number and no line of code is ever cut."""

import hashlib
import os
import pty
import re
import select
import subprocess
import sys

import pytest
from calling import call

from harness.report.terminal import name_column

from . import made_runs
from .made_runs import make_run

LONG = "20261129-0904_lra-text-configurable_gpt-oss-120b-at-home_greedy_12"
CODE = f"def f(x):\n\treturn {' + '.join(f'x * {i}.5' for i in range(60))}  # to the end\n"


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Runs with a short name, with a long name, and damaged; sources and a log have long lines."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(made_runs, "SOURCE", CODE)
    for name in ("short", LONG, "broken"):
        make_run(tmp_path / "runs", 0, 0.5, name=name, nodes=(0.1234, None))
    (tmp_path / "runs/broken/result.json").write_text("")
    (tmp_path / "runs/short/nodes/0000/stdout.log").write_text(f"{'loss 1.5 ' * 40}END\n")
    return tmp_path / "runs"


def said(*args, columns=None):
    """Return what a command prints into a pipe, or on a screen of ``columns`` characters."""
    return call(*args, COLUMNS=columns and str(columns)).stdout


@pytest.mark.parametrize("width", [None, 40, 60, 80, 120])
@pytest.mark.parametrize("command", ["ls", "watch"])
def test_names_stand_whole_at_any_width_and_a_reason_below_the_table(runs, command, width):
    lines = said(command, "runs", columns=width).splitlines()
    text = "\n".join(lines)
    whole = LONG if command == "ls" else "lra/listops"
    assert any(whole in line for line in lines)
    assert "…" not in text
    for number in ("0.1234", "0.5000"):
        assert number in text
    reasons = [line for line in lines if line.startswith("damaged: runs/broken: ")]
    assert len(reasons) == 1
    assert reasons[0].endswith("cannot be read.")
    assert lines.index(reasons[0]) > max(i for i, x in enumerate(lines) if "finished" in x)
    rest = [x for x in lines if x not in reasons and not x.endswith(LONG)]
    if width and width >= 60:
        assert max(map(len, rest)) <= width


def test_a_name_has_a_line_of_its_own_only_where_it_must(runs):
    narrow, wide = (said("ls", "runs", columns=width) for width in (80, 140))
    assert f"\nruns/{LONG}\n" in narrow
    assert re.search(r"^runs/short +finished", narrow, re.MULTILINE)
    assert re.search(rf"^runs/{LONG}  finished", wide, re.MULTILINE)
    columns = [line.index("finished") for line in narrow.splitlines() if "finished" in line]
    assert len(set(columns)) == 1


def test_characters_of_two_cells_keep_the_columns_apart():
    blocks = name_column(("name", "n"), [("模型", ("1",)), ("ab", ("22",))], 80)
    assert blocks == [["name   n"], ["模型   1"], ["ab    22"]]
    assert name_column(("name", "n"), [("abcdefgh", ("1",))], 8)[1] == ["abcdefgh", "      1"]


def test_code_in_a_pipe_is_the_file_to_the_letter(runs):
    text = said("show", "runs/short", "--node", 0, "--files")
    assert CODE in text
    assert f"{'loss 1.5 ' * 40}END\n" in text
    assert CODE in said("show", "runs/short", "--node", 0, "--files", columns=60)


def test_a_diff_in_a_pipe_is_whole(runs):
    # Both sides of the diff have a line that is longer than any screen.
    run = runs / "short"
    other = CODE.replace("0.5", "0.25")
    text = (run / "events.jsonl").read_text()
    before, after = (hashlib.sha256(t.encode()).hexdigest() for t in (CODE, other))
    assert before in text
    (run / "nodes/0001/model.py").write_text(other)
    from .made import rewrite_journal

    def change(event):
        if event.get("node") == 1 and event["event"] == "written":
            event["files"] = {"model.py": after}
        if event.get("node") == 1 and event["event"] == "chosen":
            event["parents"] = [0]

    rewrite_journal(run, change)
    shown = said("show", "runs/short", "--node", 1)
    assert "-" + CODE.splitlines()[1] + "\n" in shown
    assert "+" + other.splitlines()[1] + "\n" in shown


RUNS_EACH = """
import sys
from harness.cli.app import app
for line in sys.argv[1:]:
    app(line.split(), standalone_mode=False)
"""


def on_a_terminal(*commands, width, cwd):
    """Run commands one after another on a pseudo-terminal of this width; return their output."""
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    subprocess.run(["stty", "cols", str(width), "rows", "40"], stdin=theirs, check=True)
    environ = {k: v for k, v in os.environ.items() if k != "COLUMNS"} | {"TERM": "xterm"}
    child = subprocess.Popen(
        [sys.executable, "-c", RUNS_EACH, *commands],
        stdout=theirs, stdin=theirs, stderr=theirs, cwd=cwd, env=environ,
    )  # fmt: skip
    os.close(theirs)
    text = b""
    try:
        while select.select([ours], [], [], 60)[0]:
            try:
                found = os.read(ours, 65536)
            except OSError:
                break
            if not found:
                break
            text += found
        assert child.wait(60) == 0, text
    finally:
        child.kill()
        child.wait()
        os.close(ours)
    return re.sub(r"\x1b\[[0-9;]*m", "", text.decode()).replace("\r\n", "\n")


def test_on_a_narrow_terminal_code_and_names_are_whole_too(runs):
    commands = ("show runs/short --node 0 --files", "ls runs")
    text = on_a_terminal(*commands, width=60, cwd=runs.parent)
    assert CODE.splitlines()[1].lstrip() in text
    assert f"\nruns/{LONG}\n" in text


@pytest.mark.parametrize(
    "width", [None, 40, 80, *(pytest.param(n, marks=pytest.mark.nightly) for n in (60, 120))]
)
def test_tables_of_tasks_models_and_scores_cut_no_name_and_no_number(runs, width):
    make_run(runs, 1, 0.61, agent="gpt-oss-120b-quantised-to-four-bits-at-home", name="quantised")
    for args, needed in (
        (("tasks",), ("lra/image-fashion-configurable", "0.6774", "0.8307")),
        (("agents",), ("gemini-3.1-pro", "1.25/0.125/10", "devstral-small")),
        (("leaderboard", "runs"), ("gpt-oss-120b-quantised-to-four-bits-at-home", "0.6100")),
    ):
        text = said(*args, columns=width)
        assert "…" not in text
        for word in needed:
            assert word in text, (args, word)


def test_in_a_pipe_a_leaderboard_is_one_table(runs):
    text = said("leaderboard", "runs")
    assert "part 1 of" not in text
    assert re.search(r"agent +policy +valid .*median", text)
