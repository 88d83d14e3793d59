"""Tests of `harness policies`, of `--parallel`, and of the live table of a run with many nodes."""

import io
import threading
from itertools import accumulate
from pathlib import Path

import pytest
from calling import call
from rich.console import Console
from toy_task import TOY

from harness.cli.screen import OTHER_LINES, Screen
from harness.core.tree import Node
from harness.policies import POLICIES, make_policy
from harness.store.journal import read

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "policies"


def test_policies_lists_every_parameter_and_each_default_can_be_set(tmp_path):
    listed = call("policies", "--json", cwd=tmp_path).json["policies"]
    assert [p["name"] for p in listed] == POLICIES.names()
    text = call("policies", cwd=tmp_path).stdout
    for policy in listed:
        name = policy["name"]
        settings = [f"{name}.{p['name']}={p['default']}" for p in policy["parameters"]]
        assert make_policy(name, settings) == POLICIES.ours[name]()
        assert all(setting in text for setting in settings)


@pytest.mark.parametrize("name", POLICIES.ours)
def test_each_policy_has_a_page_that_names_its_parameters_with_their_defaults(name):
    page = (DOCS / f"{name}.md").read_text()
    for p in POLICIES.ours[name].describe():
        assert f"| `{p['name']}` | {p['default']} |" in page


def test_parallel_runs_as_many_at_once_and_refuses_nonsense(tmp_path, judged):
    args = ("run", *TOY, "--agent", "random")
    together = threading.Barrier(3, timeout=100)
    judged.first = lambda node: node == "final" or together.wait()
    result = call(*args, "--steps", 6, "--parallel", 3, "--json", cwd=tmp_path).json
    assert result["nodes"] == {"scored": 6, "valid": 6}
    assert "workers = 3" in (tmp_path / result["run"] / "run.toml").read_text()
    kinds = [event.kind for event in read(tmp_path / result["run"] / "events.jsonl")]
    under_way = accumulate((kind == "chosen") - (kind == "scored") for kind in kinds)
    assert max(under_way) == 3
    call(*args, "--parallel", 0, cwd=tmp_path, code=2)
    call(*args, "--parallel", 65, cwd=tmp_path, code=2)


def shown(screen: Screen) -> list[str]:
    """Return the labels of the rows of the table as it is drawn now."""
    out = io.StringIO()
    screen.console = Console(file=out, force_terminal=True, width=100, height=16, color_system=None)
    screen.console.print(screen._table())
    rows = [line.split("│")[1].strip() for line in out.getvalue().splitlines() if "│" in line]
    assert len(rows) + OTHER_LINES <= 16 or screen._ended
    return rows


def test_on_a_low_terminal_all_that_runs_is_shown_and_in_the_end_everything():
    screen = Screen()
    screen.console.quiet = True
    for number in range(20):
        screen.observe("writing", str(number), {"operator": "draft", "parents": []})
    for number in (n for n in range(20) if n not in (1, 12, 19)):
        score = 0.9 if number == 3 else 0.5
        node = Node(number, "draft", (), state="scored", valid=True, score=score, seconds=1.0)
        screen.observe("scored", str(number), {"node": node})
    # Nine rows fit: the three running nodes, the best node, and the newest of the others.
    assert shown(screen) == ["1", "3", "12", "14", "15", "16", "17", "18", "19"]
    with screen:
        pass
    assert shown(screen) == [str(n) for n in range(20)]
