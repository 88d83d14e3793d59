"""The leaderboard: which runs share a table, what a row counts, and every output format."""

import base64
import csv
import hashlib
import html
import io
import json
import math
import random
import re
import shutil
import subprocess
from statistics import mean, median

import pytest
from calling import call

from harness.report.grid import PADDING, Grid, GridRow
from harness.report.leaderboard import HUMAN, build
from harness.store.index import entries
from tasks.spec import find_task

from .made_runs import BITS, HARDWARE, make_run, make_runs

GOOD = {0: 0.60, 1: 0.62, 2: 0.61}
BAD = {0: 0.30, 1: 0.33, 2: 0.31}


def board(*places, **how):
    return build(entries(places), **how).as_json()


def printed(*args, width=100):
    return call("leaderboard", *args, COLUMNS=str(width))


def test_rows_count_what_was_planned_graded_and_valid(tmp_path):
    make_runs(tmp_path, {**GOOD, 3: None})
    make_run(tmp_path, 4, closed="failed", message="the engine went away")
    make_run(tmp_path, 5, closed="")
    (table,) = (found := board(tmp_path))["tables"]
    (row,) = table["rows"]
    assert (row["planned"], row["graded"], row["valid"]) == (6, 4, 3)
    assert row["vsr"]["share"] == 0.75
    cell = row["cells"]["lra/listops"]
    # An infrastructure failure does not count as 0; medians leave out invalid runs.
    assert cell["median"] == median(GOOD.values())
    assert cell["best"] == 0.62
    assert {r["state"]: r["message"] for r in found["not_graded"]} == {
        "failed": "the engine went away",
        "unfinished": "",
    }
    # Where a line is wrapped depends on the length of the folder's name.
    assert "the engine went away" in " ".join(printed(tmp_path).stdout.split())


def test_normalised_score_counts_an_invalid_run_as_nothing(tmp_path):
    make_runs(tmp_path, {0: 0.6379, 1: None})
    (row,) = board(tmp_path)["tables"][0]["rows"]
    assert row["normalized"] == pytest.approx(0.5)  # mean of 1 (the human's score) and 0 (invalid)


def test_a_seed_that_was_run_twice_is_one_draw(tmp_path):
    make_runs(tmp_path, {0: 0.5, 1: 0.7, 2: 0.6})
    for again in range(3):
        make_run(tmp_path, 0, 0.5, name=f"again{again}")
    (row,) = board(tmp_path)["tables"][0]["rows"]
    cell = row["cells"]["lra/listops"]
    assert (cell["graded"], cell["mean"]) == (6, pytest.approx(0.6))
    half = 4.3027 * 0.1 / math.sqrt(3)
    assert cell["interval"]["high"] - cell["mean"] == pytest.approx(half, rel=1e-3)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"hardware": {**HARDWARE, "gpu": "H100"}}, "hardware EPYC 2 H100 instead of EPYC 2"),
        ({"scorer": "3+abc"}, "scorer 3+abc instead of 2+abc"),
        ({"sandbox": "process"}, "isolation NOT ISOLATED instead of isolated"),
        ({"profile": "short"}, "profile short instead of paper"),
        ({"data_hash": "e" * 16}, "lra/listops has other data"),
        (
            {"data_hash": "e" * 16, "hidden_key": "ab" * 8},
            "lra/listops has other data (the hidden key abababababababab instead of no hidden key)",
        ),
        ({"task_hash": "u" * 16}, "lra/listops has another definition"),
    ],
)
def test_other_conditions_get_a_table_of_their_own_with_the_reason(tmp_path, other, reason):
    make_runs(tmp_path, GOOD)
    make_run(tmp_path, 3, 0.9, name="other", **other)
    first, second = board(tmp_path)["tables"]
    assert [len(first["rows"]), len(second["rows"])] == [1, 1]
    assert (first["reason"], second["reason"]) == ("", reason)
    assert first["rows"][0]["cells"]["lra/listops"]["best"] == 0.62
    assert reason.split()[0] in printed(tmp_path).stdout


def test_an_invalid_run_stays_with_the_runs_of_its_conditions(tmp_path):
    """Its final submission was never scored, so its conditions are read from its lock."""
    make_runs(tmp_path, GOOD)
    path = make_run(tmp_path, 3, None)
    result = json.loads((path / "result.json").read_text())
    (path / "result.json").write_text(json.dumps({**result, "key": None, "conditions": None}))
    (table,) = board(tmp_path)["tables"]
    assert table["rows"][0]["graded"] == 4


def test_whoever_cannot_be_told_from_the_leader_is_marked(tmp_path):
    make_runs(tmp_path, GOOD, agent="first")
    make_runs(tmp_path, {s: v - 0.02 + 0.03 * (s == 1) for s, v in GOOD.items()}, agent="near")
    make_runs(tmp_path, BAD, agent="far")
    make_run(tmp_path, 7, 0.1, agent="elsewhere")  # no seed in common
    (table,) = board(tmp_path)["tables"]
    told = {r["agent"]: r["against_leader"] for r in table["rows"]}
    assert table["rows"][0]["agent"] == "first"
    assert [told["near"]["same"], told["far"]["same"], told["elsewhere"]["same"]] == [
        True, False, True,
    ]  # fmt: skip
    assert told["elsewhere"]["pairs"] == 0
    assert printed(tmp_path, width=200).stdout.count("≈1") == 2 + 1  # two rows and the legend


def test_elo_has_the_human_reference_as_a_player(tmp_path):
    make_runs(tmp_path, GOOD, agent="a")
    make_runs(tmp_path, BAD, agent="b")
    (table,) = board(tmp_path, metric="elo")["tables"]
    elo = {r["agent"]: r["elo"]["elo"] for r in table["rows"]}
    assert table["human"]["elo"] > elo["a"] > elo["b"]  # the human's 0.6379 beats both
    assert HUMAN in printed(tmp_path, "--metric", "elo").stdout


def test_lower_is_better_where_the_task_says_so(tmp_path):
    make_runs(tmp_path, {0: 1.00, 1: 1.01}, agent="good", **BITS)
    make_runs(tmp_path, {0: 1.20, 1: 1.21}, agent="bad", **BITS)
    make_runs(tmp_path, {0: None, 1: 0.99}, agent="half", **BITS)
    (table,) = board(tmp_path)["tables"]
    assert [r["agent"] for r in table["rows"]] == ["good", "bad", "half"]  # invalid: 8 bits
    assert table["rows"][0]["cells"]["autoresearch"]["best"] == 1.00
    assert "†" in printed(tmp_path).stdout  # marks a disputed reference


def test_references_stand_in_rows_of_their_own_with_their_source(tmp_path):
    make_runs(tmp_path, GOOD)
    text = " ".join(printed(tmp_path).stdout.split())
    references = find_task("lra/listops").definition.references
    assert references
    for reference in references:
        if reference.profile == "paper":
            assert f"{reference.value:.4f}" in text
            assert reference.source.split()[0] in text


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("agent", {"a greedy", "a mcts", "b greedy"}),
        ("model", {"a", "b"}),
        ("policy", {"greedy", "mcts"}),
    ],
)
def test_a_row_is_what_was_asked_for(tmp_path, by, names):
    make_runs(tmp_path, GOOD, agent="a")
    make_runs(tmp_path, BAD, agent="a", policy="mcts")
    make_runs(tmp_path, BAD, agent="b")
    (table,) = board(tmp_path, by=by)["tables"]
    assert {f"{r['agent']} {r['policy']}".strip() for r in table["rows"]} == names
    assert sum(r["graded"] for r in table["rows"]) == 9


def test_another_setup_is_another_contender_and_says_what_differs(tmp_path):
    make_runs(tmp_path, GOOD, steps=5)
    make_runs(tmp_path, BAD, steps=500)
    (table,) = board(tmp_path)["tables"]
    assert {r["setup"] for r in table["rows"]} == {"steps=5", "steps=500"}


def test_the_order_in_which_runs_are_read_changes_nothing(four_tasks, tmp_path):
    make_runs(tmp_path, GOOD, agent="b", sandbox="process")
    make_runs(tmp_path, {0: 0.5, 1: None}, agent="b", steps=7)
    runs = entries([four_tasks, tmp_path])
    found = random.Random(0).sample(runs, len(runs))
    for by in ("agent", "policy"):
        wanted, shuffled = (build(some, by=by).tables for some in (runs, found))
        assert shuffled == wanted


def test_a_replay_does_not_rank(tmp_path):
    make_runs(tmp_path, GOOD)
    make_run(tmp_path, 0, 0.99, agent="replay:/somewhere", name="replayed")
    found = board(tmp_path)
    assert [r["agent"] for r in found["tables"][0]["rows"]] == ["one"]
    assert len(found["replays"]) == 1


def test_what_is_no_readable_run_is_named_and_skipped(tmp_path):
    make_runs(tmp_path, GOOD)
    broken = {
        "future": lambda p: (p / "result.json").write_text('{"format": 99}'),
        "damaged": lambda p: (p / "lock.json").write_text("{"),
        "halfway": lambda p: (p / "run.toml").unlink(),
        "nan": lambda p: (p / "result.json").write_text(
            (p / "result.json").read_text().replace('"score": 0.5', '"score": NaN')
        ),
    }
    for name, damage in broken.items():
        damage(make_run(tmp_path, 9, name=name))
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "notes.txt").write_text("mine")
    found = board(tmp_path)
    skipped = {path.rpartition("/")[2]: why for path, why in found["skipped"].items()}
    assert skipped.keys() == {*broken, "foreign"}
    assert "format 99" in skipped["future"]
    assert found["tables"][0]["rows"][0]["graded"] == 3
    for form in ("table", "md", "latex", "html"):
        text = printed(tmp_path, "--format", form).stdout
        assert all(name in text for name in skipped)
    # CSV has no place for messages, so they go to stderr.
    done = printed(tmp_path, "--format", "csv")
    assert all(name in done.stderr for name in skipped)
    assert "foreign" not in done.stdout


def test_csv_and_json_hold_the_raw_points(tmp_path):
    make_runs(tmp_path, {**GOOD, 3: None})
    (line,) = csv.DictReader(io.StringIO(printed(tmp_path, "--format", "csv").stdout))
    assert float(line["mean"]) == pytest.approx(mean(GOOD.values()))
    assert line["scores_by_seed"] == "0:0.6; 1:0.62; 2:0.61; 3:invalid"
    found = printed(tmp_path, "--format", "json").json
    cell = found["tables"][0]["rows"][0]["cells"]["lra/listops"]
    assert cell["scores"] == {"0": [0.6], "1": [0.62], "2": [0.61], "3": [None]}


KEYS = {
    "board": "format metric by tables not_graded replays skipped",
    "not graded": "run state message",
    "replay": "run agent",
    "table": "conditions reason ranked tasks rows human",
    "task": "task metric direction task_hash data_hash baselines references marks",
    "reference": "name value source profile note disputed",
    "marks": "task profile worst best human source disputed",
    "row": "agent policy setup planned graded valid vsr cells worth normalized elo cost "
    "against_leader value",
    "against": "same p pairs",
    "rating": "elo interval",
    "share": "share interval",
    "cell": "planned graded valid vsr median mean best interval scores normalized cost",
    "interval": "low high of method",
    "cost": "runs input_tokens output_tokens dollars dollars_known gpu_hours",
}


def test_json_has_these_keys_in_this_order(tmp_path):
    make_runs(tmp_path, GOOD, agent="a")
    make_runs(tmp_path, BAD, agent="b")
    make_run(tmp_path, 3, agent="a", closed="")
    make_run(tmp_path, 0, agent="replay:/somewhere", name="replayed")
    found = printed(tmp_path, "--json").json
    (table,) = found["tables"]
    (task,) = table["tasks"]
    row = table["rows"][1]
    (cell,) = row["cells"].values()
    objects = {
        "board": found, "not graded": found["not_graded"][0], "replay": found["replays"][0],
        "table": table, "task": task, "reference": task["references"][0], "marks": task["marks"],
        "row": row, "against": row["against_leader"], "rating": row["elo"], "share": row["vsr"],
        "cell": cell, "interval": cell["interval"], "cost": cell["cost"],
    }  # fmt: skip
    assert {name: " ".join(values) for name, values in objects.items()} == KEYS


HOSTILE = "<script>alert(1)</script>\x1b[31m\\write18{x}|=1"


@pytest.mark.parametrize("form", ["table", "md", "csv", "latex", "html"])
def test_a_hostile_name_acts_in_no_format(tmp_path, form):
    make_run(tmp_path, agent=HOSTILE, name="x")
    make_run(tmp_path, 1, agent="=cmd()", name="y")
    text = printed(tmp_path, "--format", form, width=200).stdout
    assert "\x1b[31m" not in text
    if form == "html":
        assert "<script" not in text
    if form == "md":
        assert "\\<script" in text
        assert "\\|=1" in text
    if form == "latex":
        assert "\\write18" not in text
    if form == "csv":
        assert {r["agent"] for r in csv.DictReader(io.StringIO(text))} >= {"'=cmd()"}


@pytest.fixture(scope="module")
def four_tasks(tmp_path_factory):
    here = tmp_path_factory.mktemp("four")
    for task in ("lra/listops", "lra/text", "lra/retrieval", "lra/image-configurable"):
        make_runs(here, GOOD, agent="a-rather-long-name-of-a-model", task=task)
        make_runs(here, BAD, agent="b", task=task)
    return here


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("metric", ["score", "normalized", "vsr", "elo", "cost"])
def test_a_table_fits_the_terminal_and_keeps_its_numbers_whole(four_tasks, metric, width):
    text = printed(four_tasks, "--metric", metric, width=width).stdout
    alone = printed(*four_tasks.glob("*listops*"), "--metric", metric, width=width).stdout
    assert max(len(line) for line in (text + alone).splitlines()) <= width
    if metric == "score":
        assert text.count("0.6100 ±") == 4
        assert "part 2 of" in text
        assert "[0.5852, 0.6348]" in alone


def test_a_wide_character_takes_two_places_of_a_terminal():
    for name, places in (("model", 5), ("大规模", 6), ("e\u0301", 1)):
        grid = Grid("", ("", ""), frozenset(), (GridRow(("1", name)),), ())
        assert grid.width == 1 + PADDING + places


def test_nothing_finished_says_how_to_start(tmp_path):
    make_run(tmp_path, closed="")
    assert "harness run" in printed(tmp_path).stdout


def latex(*places, columns=""):
    asked = ["--columns", columns] if columns else []
    return printed(*places, "--format", "latex", *asked).stdout


def cells(line):
    return [cell.strip() for cell in line.removesuffix(r" \\").split(" & ")]


def test_latex_has_label_caption_the_best_in_bold_and_no_empty_column(tmp_path):
    make_runs(tmp_path, GOOD, agent="good_one")
    make_runs(tmp_path, BAD, agent="bad")
    text = latex(tmp_path)
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")].splitlines()
    head = cells(body[1])
    rows = [cells(line) for line in body[3:]]
    assert all(len(row) == len(head) for row in rows)
    for place, name in enumerate(head):
        assert any(row[place] not in ("", "--", "0") for row in rows), name
    assert "dollars" not in head
    median = head.index("median")
    assert [row[median] for row in rows[:2]] == [r"\textbf{0.6100}", "0.3100"]
    assert r"\label{tab:leaderboard-1}" in text
    assert re.search(r"\\caption\{lra/listops .*Best in bold\.\}", text)
    # A row that is alone is not marked as the best.
    assert "textbf" not in latex(next(p for p in tmp_path.iterdir() if "good" in p.name))


def test_the_best_is_the_least_where_less_is_better(tmp_path):
    make_runs(tmp_path, {0: 1.1, 1: 1.2}, agent="worse", **BITS)
    make_runs(tmp_path, {0: 1.0, 1: 1.05}, agent="better", **BITS)
    text = latex(tmp_path, columns="agent,median")
    assert r"better & \textbf{1.0250} \\" in text
    assert r"worse & 1.1500 \\" in text


HARD = [r"a_b%c&d#e$f{g}h~i^j\k", "[x]", "*", '<a|b>"c"', "naïve é 模型 → ±", "a\nb"]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no LaTeX here")
def test_latex_of_hard_names_compiles(tmp_path):
    for seed, name in enumerate(HARD):
        make_runs(tmp_path / "runs", {0: 0.1 + seed / 10, 1: 0.2}, agent=name)
    head = r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage{booktabs}"
    text = rf"{head}\begin{{document}}{latex(tmp_path / 'runs')}\ref{{tab:leaderboard-1}}"
    (tmp_path / "t.tex").write_text(text + r"\end{document}")
    done = subprocess.run(
        ["pdflatex", "-draftmode", "-interaction=nonstopmode", "-halt-on-error", "t.tex"],
        cwd=tmp_path, capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]


def test_what_latex_would_take_for_its_own_is_escaped(tmp_path):
    for seed, name in enumerate(HARD):
        make_run(tmp_path, seed, agent=name, name=f"r{seed}")
    rows = latex(tmp_path, columns="agent").splitlines()
    assert (
        r"a\_b\%c\&d\#e\$f\{g\}h\textasciitilde{}i\textasciicircum{}j\textbackslash{}k \\" in rows
    )
    assert r"{[}x{]} \\" in rows  # bare, it would be an argument of the \\ before it
    assert r"{*} \\" in rows
    assert r"na\"ive" not in "".join(rows)
    assert any("naïve é" in row and r"\texttt{U+6A21}" in row for row in rows)


@pytest.mark.parametrize("form", ["table", "md", "csv", "latex", "html"])
def test_columns_are_chosen_in_the_order_that_was_asked_for(tmp_path, form):
    make_runs(tmp_path, GOOD)
    text = printed(tmp_path, "--format", form, "--columns", "median, Agent").stdout
    line = next(x for x in text.splitlines() if "0.61" in x)
    assert line.index("0.61") < line.index("one")
    assert "greedy" not in line


@pytest.mark.parametrize(
    ("form", "wrong", "nearest"),
    [
        ("table", "medain", "median"),
        ("latex", "intreval", "interval"),
        ("csv", "intreval", "interval_of"),  # CSV has columns of its own
    ],
)
def test_an_unknown_column_names_the_nearest(tmp_path, form, wrong, nearest):
    make_runs(tmp_path, GOOD)
    asked = ("--format", form, "--columns", f"agent,{wrong}")
    said = call("leaderboard", tmp_path, *asked, code=2).said
    assert f"{wrong!r}" in said
    assert f"{nearest!r} (one of: agent, " in said
    assert "Traceback" not in said
    call("leaderboard", tmp_path, "--json", "--columns", "agent", code=2)  # JSON has all of them


def test_html_is_a_whole_page_in_the_reports_style_that_asks_for_nothing(tmp_path):
    make_runs(tmp_path, GOOD, agent="<b>good</b>")
    make_runs(tmp_path, BAD, agent="bad")
    text = printed(tmp_path, "--format", "html").stdout
    assert text.startswith("<!doctype html>")
    assert text.rstrip().endswith("</html>")
    assert "&lt;b&gt;good" in text
    assert "<b>" not in text
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    named = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1])
    assert f"style-src 'sha256-{named}'" in policy
    assert "script-src 'none'" in policy
    assert not re.search(r"https?://|style=|\son\w+=|<script|<link[^>]*href=\"(?!data:)", text)
    assert "<strong>0.6100</strong>" in text
    assert "--back: light-dark(" in style


TWO = {0: 0.5, 1: 0.9}
NEAR = {0: 0.99, 1: 0.999, 2: 0.96}


@pytest.mark.parametrize("form", ["table", "md", "csv", "latex", "html"])
def test_no_interval_leaves_its_scale_and_of_two_seeds_there_are_the_points(tmp_path, form):
    make_runs(tmp_path / "near", NEAR, agent="near")
    text = printed(tmp_path / "near", "--format", form, width=200).stdout
    text = text.partition("</style>")[2] or text
    numbers = [float(n) for n in re.findall(r"\b[01]\.\d+\b", text)]
    assert 1.0 in numbers
    assert max(n for n in numbers if n < 1.5) == 1.0
    make_runs(tmp_path / "two", TWO, agent="two")
    text = printed(tmp_path / "two", "--format", form, width=200).stdout
    assert "0.5" in text
    assert "0.9" in text
    assert "mean 0.7" not in text


def test_with_many_tasks_what_the_scale_cuts_is_no_half(four_tasks, tmp_path):
    for task in ("lra/listops", "lra/text", "lra/image", "lra/pathfinder"):
        make_runs(tmp_path, NEAR, task=task)
    text = printed(tmp_path, width=200).stdout
    assert "[0.932, 1.000]" in text
    assert "±" not in text.split("scorer")[0]


@pytest.mark.parametrize(
    ("scores", "metric", "low", "high"),
    [
        (NEAR, "accuracy", 0.0, 1.0),
        ({0: 0.0, 1: 0.01, 2: 0.001}, "accuracy", 0.0, 1.0),
        ({0: 0.1, 1: 0.9, 2: 4.0}, "bits_per_byte", 0.0, math.inf),
    ],
)
def test_an_interval_ends_where_the_metric_does(tmp_path, scores, metric, low, high):
    make_runs(tmp_path, scores, metric=metric)
    (row,) = board(tmp_path)["tables"][0]["rows"]
    found = row["cells"]["lra/listops"]["interval"]
    assert low <= found["low"] < found["high"] <= high
    assert low in (found["low"],) or high in (found["high"],)


def test_below_three_seeds_json_has_no_interval(tmp_path):
    make_runs(tmp_path, TWO)
    (row,) = board(tmp_path)["tables"][0]["rows"]
    assert row["cells"]["lra/listops"]["interval"] is None
