"""No false alarm: the gallery through the real sandbox, shell and judge, under the task's cap."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.lra import gallery

TWO = ("gated_recurrence", "tree")
"""With the most of its own in it, and with the least usual: in every run of the tests."""


@pytest.mark.parametrize(
    "name",
    [n if n in TWO else pytest.param(n, marks=pytest.mark.slow) for n in gallery.NAMES],
)
def test_the_judge_finds_no_fault(name: str, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(gallery.source_of(name).read_text())
    done = subprocess.run(
        [sys.executable, "-m", "harness", "score", "model.py", "--task", "lra/listops",
         "--profile", "test", "--json"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    score = json.loads(done.stdout)
    assert score["valid"], score
    assert {audit["name"] for audit in score["audits"]} >= {"finiteness", "statelessness"}
    assert all(audit["passed"] for audit in score["audits"]), score["audits"]
