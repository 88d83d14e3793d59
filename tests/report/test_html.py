"""The HTML report: what it holds, that it names what it leaves out, and that it stays small."""

import base64
import json
import os
import re
import shutil
import zlib
from hashlib import sha256
from html.parser import HTMLParser

import pytest
from calling import call
from hypothesis import given
from hypothesis import strategies as st

from harness.base.errors import ConfigError
from harness.base.text import visible
from harness.report.drawing.curves import Point, best_so_far, curve_of_runs, quantile
from harness.report.drawing.plots import AxisScale, curve_plot, label
from harness.report.drawing.untrusted import cut, text_of
from harness.report.html import page as pages
from harness.report.html.pool import Pool
from harness.store.index import entries
from harness.store.recording import Recording
from report import made
from report.made import HOSTILE, made_run, rewrite_journal


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    where = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        # The functions before its first class are enough, and are read in a third of the time.
        patch.setattr(made, "BASE", made.BASE.partition("\nclass ")[0])
        made_run(where, nodes=12, seed=1, name="a")
        made_run(where, nodes=12, seed=2, name="b")
        made_run(where, nodes=12, seed=3, agent="other", calls=False, name="c")
    return where


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    """The report of all three runs, made once for all tests here."""
    return report(runs, out=tmp_path_factory.mktemp("page") / "r.html")[1]


def report(*places, out):
    said = pages.write(entries(list(places)), out)
    return said, out.read_text()


def payload(text):
    packed = re.search(r'id="payload">([^<]*)<', text)[1]
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def joined(lines, ranges):
    """Return a text from the pool's lines, as the page's script does."""
    pairs = zip(ranges[::2], ranges[1::2], strict=True)
    return "\n".join("\n".join(lines[start : start + count]) for start, count in pairs)


class Elements(HTMLParser):
    """Collects every tag of a page with its attributes."""

    def __init__(self, text):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


@pytest.mark.usefixtures("quick")
def test_every_text_of_every_node_comes_out_as_it_went_in(runs, tmp_path):
    said, text = report(runs / "a", out=tmp_path / "r.html")
    found = payload(text)
    lines = found["lines"]
    (run,) = found["runs"]
    assert len(run["nodes"]) == 12
    for node in run["nodes"]:
        folder = runs / f"a/nodes/{node['n']:04d}"
        assert joined(lines, node["files"]["train.py"]) == (folder / "train.py").read_text()
        assert joined(lines, node["prompt"]) == (folder / "prompt.md").read_text()
        assert joined(lines, node["answer"]) == (folder / "completion.md").read_text()
        assert joined(lines, node["log"]) == (folder / "stdout.log").read_text()
        assert node["evidence"]["audits"][0][0] == "equality"
    assert said["left_out"] == said["notes"] == []
    result = json.loads((runs / "a/result.json").read_text())
    assert f"{result['score']:.4f}" in text


def test_the_policy_names_the_script_and_the_style_that_are_there(page):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1].replace("&#39;", "'")
    assert policy.startswith("default-src 'none';")
    for name, content in (
        ("script", re.findall(r"<script>(.*?)</script>", page, re.S)),
        ("style", re.findall(r"<style>(.*?)</style>", page, re.S)),
    ):
        assert len(content) == 1
        digest = base64.b64encode(sha256(content[0].encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy


def test_the_page_names_no_address_and_has_no_inline_style_or_handler(tmp_path):
    run = made_run(tmp_path, nodes=8, agent=HOSTILE, words=HOSTILE, name="hostile")
    _, text = report(run, out=tmp_path / "r.html")
    tags = Elements(text).tags
    for tag, attributes in tags:
        assert tag not in ("img", "iframe", "object", "embed", "form", "base")
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name != "style"
            if name in ("href", "src"):
                assert value.startswith("#") or value == "data:,"
    assert sum(tag == "script" for tag, _ in tags) == 2
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "<script>window.hit" not in text


@pytest.mark.usefixtures("quick")
def test_damaged_half_written_and_foreign_runs_are_named(runs, tmp_path):
    broken = made_run(tmp_path / "runs", nodes=8, name="broken")
    journal = broken / "events.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b'"node": 3', b'"node": 4', 1))
    changed = made_run(tmp_path / "runs", nodes=8, name="changed")
    (changed / "nodes/0002/train.py").write_text("other")
    (tmp_path / "runs/foreign").mkdir()
    future = made_run(tmp_path / "runs", nodes=8, name="future")
    toml = future / "run.toml"
    toml.write_text(toml.read_text().replace("format = 1", "format = 9"))
    said, text = report(tmp_path / "runs", runs, out=tmp_path / "r.html")
    left = {row["run"].rpartition("/")[2]: row["why"] for row in said["left_out"]}
    assert left.keys() == {"broken", "changed", "foreign", "future"}
    assert "line" in left["broken"]
    assert "not what the journal recorded" in left["changed"]
    assert "format 9" in left["future"]
    for name in left:
        assert f"/{name}</code>" in text
    assert len(payload(text)["runs"]) == 3


@pytest.mark.usefixtures("quick")
def test_a_link_in_a_run_carries_no_file_of_this_machine_into_the_report(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("the key of the house")
    run = made_run(tmp_path, nodes=6, name="run")
    (run / "nodes/0002/stdout.log").unlink()
    (run / "nodes/0002/stdout.log").symlink_to(secret)
    (run / "nodes/0003/prompt.md").unlink()
    os.mkfifo(run / "nodes/0003/prompt.md")
    call = run / "nodes/0004/calls/000.json"
    call.unlink()
    os.mkfifo(call)
    said, text = report(run, out=tmp_path / "r.html")
    assert "000.json cannot be read" in said["notes"][0]
    assert "it is no regular file" in said["notes"][0]
    assert "the key of the house" not in "\n".join(payload(text)["lines"])
    assert text_of(run, "nodes/0002/stdout.log") is None
    assert text_of(run, "../secret") is None
    (run / "nodes/0002/circle").symlink_to("circle")
    assert text_of(run, "nodes/0002/circle") is None
    (run / "nodes/0005/train.py").unlink()
    os.mkfifo(run / "nodes/0005/train.py")
    said, _ = report(run, out=tmp_path / "r.html")
    assert "it is no regular file" in said["left_out"][0]["why"]


ODD = [
    ("scored", {"score": "0.5"}), ("scored", {"score": 1e999}), ("scored", {"score": [1]}),
    ("scored", {"score": True}), ("scored", {"seconds": "long"}), ("scored", {"seconds": 1e999}),
    ("scored", {"reason": 7}), ("scored", {"node": 10**40}), ("scored", {"node": "3"}),
    ("chosen", {"parents": [3]}), ("chosen", {"parents": [99]}), ("chosen", {"parents": None}),
    ("chosen", {"operator": "<b>"}), ("chosen", {"operator": None}), ("chosen", {"node": -1}),
    ("written", {"note": {"a": 1}}), ("written", {"knobs": [1]}), ("written", {"files": 3}),
    ("written", {"files": {"/dev/zero": "0" * 64}}), ("written", {"analyses": {"x": 1}}),
    ("finalizing", {"node": {}}), ("scored", {"valid": "yes"}), ("scored", {"elapsed_s": None}),
    ("scored", {"elapsed_s": 1e999}), ("scored", {"score": -1e308}), ("scored", {"at": "then"}),
    ("opened", {"queued_s": "long"}), ("opened", {"at": None}), ("final", {"score": "0.5"}),
    ("final", {"seconds": None}), ("final", {"message": 7}), ("final", {"queued_s": "long"}),
    ("scored", {"queued_s": 1e999}), ("scored", {"queued_s": None}),
]  # fmt: skip


def test_journals_with_odd_values_are_left_out_by_name_and_crash_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "MOST_TREES", 99)
    folder = tmp_path / "runs"
    good = made_run(folder, nodes=6, name="good", calls=False)
    for number, (event, values) in enumerate(ODD):
        run = folder / f"odd-{number:02d}"
        shutil.copytree(good, run)

        def change(found, event=event, values=values):
            if found["event"] == event and (event == "final" or found.get("node", 0) in (0, 3)):
                found.update(values)

        rewrite_journal(run, change)
        with pytest.raises(ConfigError, match=r"what no run writes|is no file|cannot be read"):
            Recording.open(str(run))
    said, text = report(folder, out=tmp_path / "r.html")
    left = {row["run"].rpartition("/")[2] for row in said["left_out"]}
    assert left == {f"odd-{number:02d}" for number in range(len(ODD))}
    assert len(payload(text)["runs"]) == 1
    assert call("features", folder, "--json", code=None).returncode in (0, 1)
    done = call("export", folder, "--to", "inspect", "-o", tmp_path / "logs", "--json")
    assert len(done.json["skipped"]) == len(ODD)


@pytest.mark.usefixtures("quick")
def test_a_report_that_would_be_too_large_says_what_it_cut(runs, tmp_path, monkeypatch):
    whole = len(report(runs, out=tmp_path / "w.html")[1])
    monkeypatch.setattr(pages, "MOST_BYTES", whole - 2_000)
    said, text = report(runs, out=tmp_path / "r.html")
    assert len(text) <= whole - 2_000
    assert any("cut to" in note for note in said["notes"])
    assert "are cut to" in text
    assert "characters left out of this report" in "\n".join(payload(text)["lines"])
    monkeypatch.setattr(pages, "MOST_TREES", 2)
    said, text = report(runs, out=tmp_path / "r.html")
    # The best run of each agent comes first.
    assert [r["title"].split(",")[1].split()[0] for r in payload(text)["runs"]] == ["made", "other"]
    assert any("trees of 2 of 3 runs" in note for note in said["notes"])


@pytest.mark.usefixtures("quick")
def test_runs_under_other_conditions_share_no_plot(runs, tmp_path):
    folder = tmp_path / "runs"
    shutil.copytree(runs, folder)
    file = folder / "b/result.json"
    file.write_text(file.read_text().replace("NVIDIA H200", "NVIDIA H100"))
    said, text = report(folder, out=tmp_path / "r.html")
    heads = re.findall(r"<h3>(autoresearch paper[^<]*)</h3>", text)
    assert sum("(hardware AMD EPYC 16 NVIDIA H100)" in h for h in heads) == 2
    assert (
        sum("(hardware AMD EPYC 16 NVIDIA H200)" in h for h in heads) == 3
    )  # curves, picks, scores
    assert "Table 2 of 2" in text
    assert said["left_out"] == []


@pytest.mark.usefixtures("quick")
def test_a_tree_that_is_too_large_is_left_out_and_its_run_still_counts(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "MOST_NODES", 11)
    said, text = report(runs, out=tmp_path / "r.html")
    assert payload(text)["runs"] == []
    assert any("trees of 0 of 3 runs" in note for note in said["notes"])
    assert said["runs"] == 3


@pytest.mark.usefixtures("quick")
def test_a_run_that_has_not_ended_is_shown_as_far_as_it_is(runs, tmp_path):
    run = tmp_path / "cut"
    shutil.copytree(runs / "a", run)
    (run / "result.json").unlink()
    lines = (run / "events.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) > 20
    for kept in (1, 2, 3, 20):
        (run / "events.jsonl").write_bytes(b"".join(lines[:kept]))
        said, text = report(run, out=tmp_path / "r.html")
        assert "<strong>unfinished</strong>" in text
        assert said["left_out"] == []


@pytest.mark.nightly
def test_a_run_of_500_nodes_stays_under_two_megabytes(tmp_path):
    said, text = report(made_run(tmp_path, nodes=500), out=tmp_path / "r.html")
    assert said["bytes"] == len(text.encode()) < 2_000_000
    assert said["notes"] == []
    assert len(payload(text)["runs"][0]["nodes"]) == 500


@pytest.mark.nightly
def test_noise_that_nothing_can_compress_is_cut_until_it_fits(tmp_path):
    run = made_run(tmp_path, nodes=200)
    for file in run.glob("nodes/*/stdout.log"):
        file.write_bytes(os.urandom(100_000).hex().encode())
    said, text = report(run, out=tmp_path / "r.html")
    assert len(text.encode()) < 2_000_000
    assert any("cut to" in note for note in said["notes"])


def test_the_command_writes_one_file_of_the_same_bytes_and_refuses_what_is_no_run(
    runs, page, tmp_path
):
    out = tmp_path / "r.html"
    assert call("report", runs, "-o", out, "--json").json["runs"] == 3
    assert page.startswith("<!doctype html>")
    assert out.read_text() == page
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]
    (tmp_path / "empty").mkdir()
    call("report", tmp_path / "empty", "-o", out, code=2)
    with pytest.raises(ConfigError, match="cannot be written"):
        pages.write(entries([runs]), tmp_path / "nowhere/r.html")


def points(*scores):
    return [Point(i, s, 10.0 * (i + 1), 100 * (i + 1), None) for i, s in enumerate(scores)]


def test_best_so_far_of_one_run():
    run = points(None, 0.3, 0.2, 0.5)
    assert best_so_far(run, "steps", 1) == ([(2, 0.3), (4, 0.5)], 4)
    assert best_so_far(run, "time", -1) == ([(20.0, 0.3), (30.0, 0.2)], 40.0)
    assert best_so_far(run, "tokens", 1) == ([(200, 0.3), (400, 0.5)], 400)
    assert best_so_far(run, "dollars", 1) is None


def test_the_median_over_runs_begins_where_more_than_half_have_a_score():
    runs = [([(1.0, 0.1)], 4.0), ([(2.0, 0.3)], 4.0), ([(3.0, 0.5)], 4.0)]
    curve = curve_of_runs(runs, 1)
    assert curve.xs == (1.0, 2.0, 3.0, 4.0)
    assert curve.middle == (None, 0.1, 0.3, 0.3)
    assert curve.high[-1] == pytest.approx(0.4)
    assert curve.low[-1] == pytest.approx(0.2)
    # Where lower is better, the worse quartile of the same runs is the larger one.
    other = curve_of_runs(runs, -1)
    assert other.middle[-1] == 0.3
    assert other.low[-1] == pytest.approx(0.4)
    assert quantile([None, None, 0.3], 0.5) is None


def test_a_poor_start_does_not_flatten_the_plot():
    curve = ("a", 0, curve_of_runs([([(0.0, 1.85), (2.0, 1.02), (30.0, 1.00)], 100.0)], -1))
    plot = curve_plot("steps", [curve], maximize=False, dots=[(1.0, 1.85)])
    assert plot.notes == ("1 node far worse than the rest: on the edge.",)
    assert float(plot.y_ticks[-1].label) < 1.1
    inside = [float(v) for v in re.findall(r"V([\d.]+)", plot.lines[0].path)]
    assert all(plot.top <= y <= plot.bottom for y in inside)


def test_ticks_are_round():
    def labels(low, high, most):
        return [tick.label for tick in AxisScale(low, high, 0, 1).ticks(most)]

    assert labels(0, 500, 5) == ["0", "100", "200", "300", "400", "500"]
    assert labels(0, 4.2e6, 5) == ["0", "1M", "2M", "3M", "4M"]
    assert labels(0.981, 1.02, 4) == ["0.99", "1.00", "1.01", "1.02"]
    assert label(0.5, 0.1, "$") == "$0.5"


@given(st.lists(st.lists(st.sampled_from(["a", "b", "c", "", "dd"]), max_size=12), max_size=8))
def test_a_pool_gives_every_text_back(texts):
    pool = Pool()
    whole = ["\n".join(lines) for lines in texts]
    kept = [pool.add(text) for text in whole]
    assert [joined(pool.lines, ranges) for ranges in kept] == whole


def test_what_cannot_be_seen_is_made_visible():
    assert visible("a\x1b[2Jb\u202ec\r\nd\ud800") == "a\ufffd[2Jb\ufffdc\nd\ufffd"
    assert visible("\tπ — ok\n") == "\tπ — ok\n"
    assert cut("abcdef", 2) == "ab\n[4 characters left out of this report]"
    assert cut("abcdef", 2, keep_end=True) == "[4 characters left out of this report]\nef"
