"""Tests of the tutorials: their commands are run, at the profile for test suites."""

import re
import sys
from pathlib import Path

import pytest
from calling import HARNESS, call, start
from pages import DOCS, consoles, named_files

TUTORIAL = DOCS / "tutorial"
INTERRUPTED = """
import os, signal, sys
from harness.cli import main
from harness.store.journal import Journal

append = Journal.append

def press(journal, kind, **data):
    event = append(journal, kind, **data)
    if kind == "scored" and data["node"] == 0:
        os.kill(os.getpid(), signal.SIGINT)
    return event

Journal.append = press
main(sys.argv[1:])
"""
"""Runs a command that gets Ctrl-C when its first node has a score, however fast it is."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def commands(page: str) -> list[list[str]]:
    """Return the commands of a page, each as its words after `harness`, at the smallest profile."""
    lines = sum(consoles((TUTORIAL / page).read_text()), start=[])
    calls = [line.removeprefix("harness ").split() for line in lines]
    return [[*call, "--profile", "test"] if "--task" in call else call for call in calls]


def test_a_search_from_start_to_claim(tmp_path: Path, isolating) -> None:
    suite = named_files((TUTORIAL / "search.md").read_text())["mine.toml"]
    assert 'tasks = ["lra/listops"]\n' in suite
    small = suite.replace("lra/listops", "toy") + 'profile = "test"\n'
    (tmp_path / "mine.toml").write_text(small)
    said: list[str] = []
    for call_of_page in commands("search.md"):
        words = [word.replace("lra/listops", "toy") for word in call_of_page]
        pressed = "second" in words
        how = [sys.executable, "-c", INTERRUPTED] if pressed else HARNESS
        code = 130 if pressed else 0
        # Without GPUs, which decide how many runs a sweep makes at once.
        done = start(*words, cwd=tmp_path, code=code, how=how, CUDA_VISIBLE_DEVICES="")
        said.append(done.said)
    expected = (
        r"ok +sandbox", r"3 of 3 nodes valid", r"everything that was finished is kept",
        r"runs/first +finished[\s\S]*runs/second +interrupted +1 valid of 1", r"3 of 3 nodes valid",
        r"3 of 3 nodes\n[\s\S]*final: node", r"^1 draft[\s\S]*def ", r"6 runs, 1 at once",
        r"(?s)(done .*){6}", r"random +greedy +3 of 3", r"accuracy \(maximize\)[\s\S]*3 pairs",
        r"check it anywhere: harness verify first.tar.gz", r"\+0\.0000: agrees",
        r"report\.html: 8 runs",
    )  # fmt: skip
    for printed, words in zip(said, expected, strict=True):
        assert re.search(words, printed), printed
    first, second = (
        call("show", f"runs/{name}", "--json", cwd=tmp_path).json for name in ("first", "second")
    )
    assert first["result"]["score"] == second["result"]["score"]  # an interruption changes nothing


def test_write_your_own_mechanism(tmp_path: Path, isolating) -> None:
    new, score = commands("mechanism.md")[:2]
    start(*new, cwd=tmp_path)
    model = tmp_path / "my_idea" / "model.py"
    assert (tmp_path / "my_idea" / "TASK.md").is_file()
    assert re.search(r"accuracy 0\.\d{4} ±", start(*score, cwd=tmp_path).stdout)
    # The mistake that the page shows, and what is said of it.
    text = model.read_text()
    assert "nn.Linear(dim, classes)" in text
    model.write_text(text.replace("nn.Linear(dim, classes)", "nn.Linear(dim, classes + 1)"))
    said = start(*score, cwd=tmp_path, code=1).said
    assert "wrong_shape" in said
    assert re.search(r"\((\d+), 11\), not a floating tensor of shape \(\1, 10\)", said)
