"""Architectures in the HTML report: bars, the best of all runs, and what they have in common."""

import re
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.report.drawing.bars import bar, share_chart
from harness.report.html import architectures
from harness.report.html import page as pages
from harness.report.html.traces import trace
from harness.store.index import entries
from report.made import HOSTILE
from report.made_runs import BITS, make_run

THREE = ("A", "M", "Mb")
STYLE = Path(pages.__file__).parents[1] / "drawing/static/style.css"

pytestmark = pytest.mark.usefixtures("quick")


def run(folder, seed, nodes, test=None, task="compose/mad", **changed):
    """Write a run whose ``nodes`` are (architecture, search score)."""
    texts, scores = zip(*nodes, strict=True)
    same = {"profile": "short", "metric": "token_accuracy", "sandbox": "none", "name": ""}
    return make_run(folder, seed, test, task=task, nodes=scores, texts=texts, **{**same, **changed})


def built(folder):
    found = entries([folder])
    tables, notes = architectures.tables(list(map(trace, found)), architectures.alphabets(found))
    return tables, notes


def seen(table):
    return [
        (row.bar.words, round(row.search, 6), row.runs, row.test, row.agents) for row in table.rows
    ]


def strokes_as_layers(strokes, primitives, layers):
    """Return the names that a bar's paths draw, which checks that each cell is drawn once."""
    drawn = [None] * layers
    for stroke in strokes:
        for at, length in re.findall(r"M(\d+) \.5h(\d+)", stroke.path):
            for place in range(int(at), int(at) + int(length)):
                assert drawn[place] is None
                drawn[place] = primitives[stroke.colour]
    return drawn


@given(st.lists(st.sampled_from(THREE), min_size=1, max_size=64))
def test_a_bar_draws_each_layer_once_in_the_colour_of_its_primitive(layers):
    drawn = bar(layers, THREE)
    assert strokes_as_layers(drawn.strokes, THREE, len(layers)) == layers
    assert [letters for _, letters in drawn.cells] == layers
    assert drawn.words == " ".join(layers)
    assert sum(len(s.path) for s in drawn.strokes) <= 8 * len(layers)  # MOST_CELLS counts on it


def test_the_shares_of_a_layer_fill_its_column_in_the_order_of_the_primitives():
    chart = share_chart([("A", "M"), ("A", "Mb"), ("M", "M"), ("Mb", "M")], THREE)
    columns = {0: [], 1: []}
    for stroke in chart.strokes:
        for x, low, high in re.findall(r"M([\d.]+) ([\d.]+)V([\d.]+)", stroke.path):
            columns[int(float(x))].append((stroke.colour, float(low), float(high)))
    assert columns[0] == [(0, 1.0, 0.5), (1, 0.5, 0.25), (2, 0.25, 0.0)]
    assert columns[1] == [(1, 1.0, 0.25), (2, 0.25, 0.0)]
    assert chart.words == "layer 1: A 50%, M 25%, Mb 25%; layer 2: M 75%, Mb 25%"
    assert [t.label for t in share_chart([("A",) * 64], THREE).ticks] == [
        str(n) for n in range(8, 65, 8)
    ]


def test_no_two_colours_are_alike_in_grey():
    named = dict(re.findall(r"--(p\d): #([0-9a-f]{6})", STYLE.read_text()))
    assert len(named) == 8

    def linear(channel):
        return channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4

    def lightness(colour):  # CIE 1976
        red, green, blue = (linear(int(colour[i : i + 2], 16) / 255) for i in (0, 2, 4))
        return 116 * (0.2126 * red + 0.7152 * green + 0.0722 * blue) ** (1 / 3) - 16

    light = {name: lightness(colour) for name, colour in named.items()}
    assert min(abs(light[a] - light[b]) for a, b in combinations(light, 2)) > 6
    assert min(abs(light[a] - light[b]) for a, b in combinations(("p0", "p1", "p2"), 2)) > 18


def test_the_best_of_all_runs_are_ranked_by_their_mean_with_who_found_them(tmp_path):
    run(tmp_path, 0, [("A M A M\n", 0.5), ("M M M M\n", 0.3), ("A A A A\n", None)], 0.48)
    # The same layers in another writing are the same architecture; the repeat is not counted twice.
    run(tmp_path, 1, [("# mine\nAMAM", 0.4), ("A A M M\n", 0.41), ("A M A M\n", 0.4)], 0.39,
        agent="two")  # fmt: skip
    ((table,), notes) = built(tmp_path)
    assert notes == []
    assert seen(table) == [
        ("A M A M", 0.45, 2, 0.48, "one x greedy, two x greedy"),
        ("A A M M", 0.41, 1, 0.39, "two x greedy"),
        ("M M M M", 0.3, 1, None, "one x greedy"),
    ]
    assert (table.distinct, table.runs) == (3, 2)
    assert table.legend == (("A", 0), ("M", 1))
    shares = {who: chart for who, chart in table.shares}
    assert shares.keys() == {"all agents", "one x greedy", "two x greedy"}
    assert shares["two x greedy"].words.startswith("layer 1: A 100%")


def test_where_less_is_better_the_least_is_first(tmp_path):
    less = {**BITS, "task": "compose/stories", "metric": "cross_entropy"}
    run(tmp_path, 0, [("A A M M\n", 1.9), ("A M A M\n", 1.5)], 1.6, **less)
    ((table,), _) = built(tmp_path)
    assert [row.bar.words for row in table.rows] == ["A M A M", "A A M M"]
    assert "lower is better" in table.better


def test_runs_under_other_conditions_and_replays_share_no_table(tmp_path):
    run(tmp_path, 0, [("A M\n", 0.5)], 0.5)
    run(tmp_path, 1, [("A M\n", 0.5)], 0.5, task_hash="u" * 16)
    run(tmp_path, 2, [("M M\n", 0.9)], 0.9, agent="replay:/nowhere")
    tables, _ = built(tmp_path)
    assert [t.runs for t in tables] == [1, 1]
    assert {row.bar.words for t in tables for row in t.rows} == {"A M"}


def test_a_text_that_is_not_what_the_journal_recorded_is_left_out(tmp_path):
    path = run(tmp_path, 0, [("A M\n", 0.5), ("M A\n", 0.4), ("A A\n", 0.3)], 0.5)
    (path / "nodes/0000/architecture.txt").write_text("M M\n")
    (path / "nodes/0001/architecture.txt").unlink()
    ((table,), _) = built(tmp_path)
    assert [row.bar.words for row in table.rows] == ["A A"]


def test_what_is_not_read_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(architectures, "MOST_READ", 1)
    run(tmp_path, 0, [("A M\n", 0.5), ("M A\n", 0.4)], 0.5)
    ((table,), notes) = built(tmp_path)
    assert [row.bar.words for row in table.rows] == ["A M"]
    assert notes == ["compose/mad short: of 2 different submissions the 1 best were read for the "
                     "table of architectures."]  # fmt: skip


@pytest.mark.parametrize("layers", [4, 16, 64])
def test_the_page_has_a_bar_at_each_valid_node_and_hostile_names_do_nothing(tmp_path, layers):
    nodes = [(f"{'A ' * n}{'M ' * (layers - n)}\n", 0.3 + n / 100) for n in range(1, 4)]
    run(tmp_path, 0, [*nodes, ("Q\n", None)], 0.3, agent=HOSTILE, name="hostile")
    said = pages.write(entries([tmp_path]), tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert said["left_out"] == said["notes"] == []
    assert "<script>window.hit" not in text
    assert not re.search(r"\sstyle=|\son\w+=\"", re.sub(r"<(script|style)>.*?</\1>", "", text))
    assert '<section id="architectures">' in text
    assert text.count('<svg class="bar"') == 3
    assert text.count('<svg class="cells"') == 3
    words = " ".join(["A"] * 3 + ["M"] * (layers - 3))
    assert f'aria-label="{words}"' in text


def test_bars_beside_nodes_have_a_limit_that_the_page_names(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "MOST_CELLS", 5)
    for seed in range(2):
        run(tmp_path, seed, [("A M A\n", 0.5)], 0.5)
    said = pages.write(entries([tmp_path]), tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text().count('<svg class="bar"') == 1
    assert said["notes"] == ["The nodes of 1 run have no bars beside them: at most 5 layers are "
                             "drawn there."]  # fmt: skip


def test_a_task_of_code_or_one_that_is_not_here_has_no_such_section(tmp_path):
    make_run(tmp_path, 0)
    run(tmp_path, 0, [("A M\n", 0.5)], 0.5, task="compose/gone")
    pages.write(entries([tmp_path]), tmp_path / "r.html")
    assert 'id="architectures"' not in (tmp_path / "r.html").read_text()
