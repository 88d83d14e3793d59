"""Which runs share a row: the settings, the server and the texts of the notes decide.

A port of this machine or the path of a folder does not matter.
"""

from pathlib import Path

import pytest

from harness.agents.catalogue import find_agent
from harness.agents.clients import make_client
from harness.core.writing import Writing
from harness.operators.model_agent import ModelAgent
from harness.report.gate import make_baseline
from harness.report.leaderboard import build
from harness.store.index import entries

from .made_runs import make_run

HERE = "http://127.0.0.1:8000/v1"


class Endpoint:
    """An agent's endpoint with a client that the lock describes, and that sends no requests."""

    def __init__(self, writing: Writing) -> None:
        self.client = make_client(find_agent("gpt-oss-20b"), writing)


def rows(folder: Path, *writings: Writing, first: int = 0) -> list[str]:
    """Write a run for each of ``writings``, with seeds from ``first`` on; return the rows' set-ups.

    Also assert that the gate's baseline has the same set-ups as the leaderboard.
    """
    for seed, writing in enumerate(writings, start=first):
        agent = ModelAgent("gpt-oss-20b", writing, Endpoint(writing)).describe()
        make_run(folder, seed, 0.5, agent="gpt-oss-20b", writing=writing, described=agent)
    found = entries([folder])
    (table,) = build(found).tables
    groups = make_baseline(found, "0")[0].groups
    assert sorted(g.setup for g in groups) == sorted(r.setup for r in table.rows)
    return sorted(row.setup for row in table.rows)


def notes(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "note.md").write_text(f"# A note\n\n{text}\n")
    return folder


@pytest.mark.parametrize("other", ["http://127.0.0.1:8001/v1", "http://localhost/v1",
                                   "http://[::1]:8000/v1/", "http://0.0.0.0:9000/v1"])  # fmt: skip
def test_a_model_on_another_port_of_this_machine_is_the_same_row(tmp_path, other):
    assert rows(tmp_path, Writing(base_url=HERE), Writing(base_url=other)) == [""]


def test_the_same_notes_in_another_folder_are_the_same_row_and_others_are_not(tmp_path):
    same = [notes(tmp_path / name, "gates") for name in ("a", "b")]
    both = [Writing(base_url=HERE, literature=folder) for folder in same]
    assert rows(tmp_path / "runs", *both) == [""]
    # The same folder, but its note has changed.
    (same[1] / "note.md").write_text("# A note\n\nno gates\n")
    old, new = rows(tmp_path / "runs", both[1], first=2)
    assert old.startswith("literature=")
    assert new.startswith("literature=")


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (Writing(base_url="http://10.0.0.5:8000/v1"), "10.0.0.5:8000"),
        (Writing(base_url=HERE, complexity=True), "complexity=true"),
        (Writing(base_url=HERE, temperature=0.5), "temperature=0.5"),
    ],
)
def test_another_server_or_another_way_to_ask_is_another_row(tmp_path, other, named):
    found = rows(tmp_path, Writing(base_url=HERE), other)
    assert len(found) == 2
    assert any(named in setup for setup in found)
