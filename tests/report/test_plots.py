"""The report's plots of irregular runs: the SVG parses, and marks and labels are in their place."""

import json
import math
import re
from itertools import count, pairwise
from xml.etree import ElementTree as ET

import pytest

from harness.report.baselines import baselines, by_display_name
from harness.report.drawing.plots import shortened
from harness.report.html import page as pages
from harness.store.index import entries
from harness.store.rundir import Run
from report.made import made_run

from .made import rewrite_journal
from .made_runs import make_run

GLYPH = 6.6
"""Width of a character of a label in DejaVu Sans, 11 px."""
LONG = "a-model-of-a-very-long-name-that-somebody-serves-at-home-and-nobody-can-tell-from-another"

RAGGED = {
    "one run": {"a": [(0.3, 0.5)]},
    "one node": {"a": [(0.5,)], "b": [(0.4,), (0.45,)]},
    "no valid node": {"a": [(None, None)], "b": [(None,), (None,)]},
    "half of the runs": {"a": [(0.3, 0.5, 0.6), (None, None)], "b": [(0.2, 0.4)]},
    "a run without a judged node": {"a": [(0.3, 0.5), ()], "b": [(), (0.2, 0.4)]},
    "other lengths": {"a": [(0.3,), (0.2, 0.4, 0.45, 0.5, 0.51, 0.6)], LONG: [(0.1, 0.2)]},
    "all equal": {"a": [(0.5, 0.5), (0.5, 0.5)], "b": [(0.5,), (0.5,)]},
    "equal but for the last digit": {"a": [(0.5,)], "b": [(math.nextafter(0.5, 1),)]},
    "nothing but zeros": {"a": [(0.0, 0.0)], "b": [(0.0,)]},
    "one far below": {**{n: [(0.9, 0.91)] * 3 for n in "abcdefg"}, "poor": [(0.1, 0.1)]},
    "one out of all bounds": {**{n: [(0.9, 0.91, 0.9)] for n in "abc"}, "odd": [(9e8, 1e9)]},
    "tiny": {"a": [(1e-9, 2e-9)], "b": [(3e-9,)]},
}


pytestmark = pytest.mark.usefixtures("quick")


def drawn(folder):
    """Return (caption, SVG element) for each plot in the report of a folder of runs."""
    text, _ = pages.render(entries([folder]))
    found = re.findall(r"<figcaption>(.*?)</figcaption>\s*(<svg.*?</svg>)", text, re.DOTALL)
    return [(caption, ET.fromstring(svg)) for caption, svg in found]


def walk(path):
    """Return the points of an SVG path with the commands M, H, V, L, l and z."""
    at, places = (0.0, 0.0), []
    for letter, rest in re.findall(r"([MHVLlzZ])([^MHVLlzZ]*)", path):
        values = [float(v) for v in rest.split()]
        match letter:
            case "M" | "L":
                at = (values[0], values[1])
            case "H":
                at = (values[0], at[1])
            case "V":
                at = (at[0], values[0])
            case "l":
                at = (at[0] + values[0], at[1] + values[1])
        places.append(at)
    return places


def check(svg):
    """Assert that all marks and labels are within the view box, and all numbers are finite."""
    _, _, width, height = (float(v) for v in svg.get("viewBox").split())
    for element in svg.iter():
        assert not re.search(r"nan|inf", " ".join(element.attrib.values()))
        places = walk(element.get("d", ""))
        if element.tag == "circle":
            places = [(float(element.get("cx")), float(element.get("cy")))]
        if element.tag == "text":
            x, y, half = float(element.get("x")), float(element.get("y")), 0.0
            half = len(element.text or "") * GLYPH / 2
            middle = x + {"middle": 0.0, "end": -half}.get(element.get("text-anchor"), half)
            places = [(middle - half, y - 8), (middle + half, y)]
            assert not re.search(r"nan|inf", element.text or "")
        for x, y in places:
            assert 0 <= x <= width, (ET.tostring(element), width)
            assert 0 <= y <= height, (ET.tostring(element), height)


@pytest.mark.parametrize(
    ("case", "direction"),
    [
        # By default each case runs in one direction only, alternating; nightly runs both.
        pytest.param(case, direction, marks=[pytest.mark.nightly] * ((number + other) % 2))
        for number, case in enumerate(RAGGED)
        for other, direction in enumerate(("maximize", "minimize"))
    ],
)
def test_whatever_the_runs_look_like_each_scored_one_has_its_curve(tmp_path, case, direction):
    for agent, runs in RAGGED[case].items():
        for seed, nodes in enumerate(runs):
            known = [n for n in nodes if n is not None]
            make_run(
                tmp_path, seed, max(known, default=None), agent=agent, direction=direction,
                metric="accuracy" if max(known, default=0) < 1 else "bits_per_byte",
                nodes=nodes, name=f"{agent}-{seed}", closed="finished" if nodes else "",
            )  # fmt: skip
    plots = drawn(tmp_path)
    for _, svg in plots:
        check(svg)
    scored = {a for a, runs in RAGGED[case].items() if any(v is not None for r in runs for v in r)}
    against = {caption: svg for caption, svg in plots if caption.startswith("against")}
    assert bool(against) == bool(scored)
    for svg in against.values():
        curves = {
            group.find("title").text.removesuffix(" x greedy"): group for group in svg.iter("g")
        }
        assert set(curves) == scored
        for group in curves.values():
            marks = [e for e in group if e.get("class") == "end"]
            assert len(marks) == 1
            paths = [e.get("d") for e in group if e.get("class") in ("line", "line alone")]
            assert paths or marks[0].tag == "path", "neither a curve nor a mark on the edge"
            for path in paths:
                places = walk(path)
                heights = [y for _, y in places]
                assert heights == sorted(heights, reverse=direction == "maximize")
                assert [x for x, _ in places] == sorted(x for x, _ in places)
        ticks = [e.text for e in svg.iter("text") if e.get("text-anchor") == "end"]
        assert len(ticks) == len(set(ticks)) > 1


def test_a_curve_far_below_the_others_is_not_drawn_flat_on_the_floor(tmp_path):
    for agent in "abcdefgh"[:7]:
        make_run(tmp_path, 0, 0.9, agent=agent, nodes=(0.9, 0.91, 0.92))
    make_run(tmp_path, 0, 0.1, agent="poor", nodes=(0.1, 0.2, 0.2))
    (svg,) = [svg for caption, svg in drawn(tmp_path) if caption == "against steps"]
    (poor,) = [g for g in svg.iter("g") if g.find("title").text.startswith("poor")]
    floor = max(
        y for e in svg.iter("path") if e.get("class") == "axis" for _, y in walk(e.get("d"))
    )
    (path,) = [walk(e.get("d")) for e in poor if e.get("class") == "line"]
    along = [y for (x, y), (x2, y2) in pairwise(path) if y == y2 and x != x2]
    assert float(poor.find("circle").get("cy")) < floor - 3
    assert along
    assert all(y < floor - 3 for y in along)


def test_one_out_of_all_bounds_stands_on_the_edge_and_is_named(tmp_path):
    for agent in "abcd":
        make_run(tmp_path, 0, 0.9, agent=agent, nodes=(0.95, 0.9), direction="minimize",
                 metric="bits_per_byte")  # fmt: skip
    make_run(tmp_path, 0, 7.0, agent="odd", nodes=(1e9,), direction="minimize",
             metric="bits_per_byte")  # fmt: skip
    text, _ = pages.render(entries([tmp_path]))
    assert "Beyond this plot, on its edge (▲): odd x greedy, which ends at 1e+09." in text


def test_a_run_without_a_judged_node_takes_no_curve_away_and_is_counted(tmp_path):
    make_run(tmp_path, 0, 0.5, agent="a", nodes=(0.3, 0.5))
    make_run(tmp_path, 1, agent="a", nodes=(), closed="", name="just begun")
    text, _ = pages.render(entries([tmp_path]))
    assert "Not in them: 1 run without a judged node." in text
    assert "Thin: the best run" not in text


def test_baselines_are_lines_and_what_is_no_number_among_them_is_none(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    known = {"chance": 0.1, "chance_test": 0.1, "majority": math.nan, "majority_test": "0.2",
             "first_token": 0.35, "first_token_test": 0.36, "unigram": math.inf}  # fmt: skip
    (data / "manifest.json").write_text(json.dumps({"baselines": known}))
    runs = tmp_path / "runs"
    for seed in range(2):
        run = make_run(runs, seed, 0.5, agent="a", nodes=(0.3, 0.5), data=str(data))
        seconds = count()  # one second between events, however fast they were written
        rewrite_journal(run, lambda event, s=seconds: event.update(elapsed_s=float(next(s))))
    text, _ = pages.render(entries([runs]))
    assert "Dashed: chance 0.1000, first token alone 0.3500." in text
    plots = drawn(runs)
    assert {caption for caption, _ in plots} >= {"against steps", "against time"}
    for caption, svg in plots:
        check(svg)
        marks = [e.find("title").text for e in svg.iter("path") if e.get("class") == "mark"]
        of_picks = caption.startswith("the shortfall of each pick")
        assert marks == (["as picked"] if of_picks else ["chance", "first token alone"]), caption


def test_scores_that_are_no_numbers_are_no_marks(tmp_path):
    seconds = count()  # one second between events, however fast they were written

    def change(event):
        event["elapsed_s"] = float(next(seconds))
        if event["event"] == "scored" and event["node"] != 2:
            event["score"] = math.nan if event["node"] == 0 else -math.inf

    rewrite_journal(make_run(tmp_path, 0, 0.5, nodes=(0.3, 0.4, 0.5)), change)
    make_run(tmp_path, 1, 0.5, nodes=(0.3, 0.4, 0.5))
    plots = drawn(tmp_path)
    scores, picks, *curves = [caption for caption, _ in plots]
    assert scores.startswith("hidden test split")
    assert picks.startswith("the shortfall of each pick")
    assert curves == ["against steps", "against time"]
    for _, svg in plots:
        check(svg)


def test_a_long_name_keeps_both_of_its_ends():
    name = f"{LONG} x greedy (steps=500)"
    short = shortened(name, 560)
    assert len(short) < len(name)
    assert short.startswith("a-model-of")
    assert short.endswith("(steps=500)")
    assert shortened("a x greedy", 560) == "a x greedy"


def test_baselines_have_their_tasks_words_and_strange_ones_act_on_nobody(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    run = Run(made_run(tmp_path, nodes=6, name="run"))
    run.lock = run.lock.model_copy(update={"data": str(data)})
    known = {"ngram_search": 2.0, "ngram_test": 1.9, "odd\x1b[2J\n": 3.0, "of_mine_test": 4.0}
    (data / "manifest.json").write_text(json.dumps({"baselines": known}))
    assert by_display_name("autoresearch", baselines(run)) == {"4-gram": 1.9, "of mine": 4.0}
    assert by_display_name("autoresearch", baselines(run, "search")) == {"4-gram": 2.0, "odd": 3.0}
    assert by_display_name("not here", {"first_token": 0.1}) == {"first token": 0.1}
    (data / "manifest.json").write_text(
        json.dumps({"baselines": dict.fromkeys(map(str, range(999)), 1)})
    )
    assert len(baselines(run, "search")) < 100
    (data / "manifest.json").write_text(json.dumps({"baselines": ["chance"]}))
    assert baselines(run) == {}
