"""Tests of the tutorials: their commands are run, at the profile for test suites."""

import re
import signal
import subprocess
from pathlib import Path

import pytest
from calling import HARNESS, call, start

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial"
CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def commands(page: str) -> list[list[str]]:
    """Return the commands of a page, each as its words after `harness`, at the smallest profile."""
    code = "".join(CONSOLE.findall((TUTORIAL / page).read_text()))
    calls = [line.split() for line in re.findall(r"^\$ harness (.*)$", code, re.MULTILINE)]
    return [[*call, "--profile", "test"] if "--task" in call else call for call in calls]


def interrupted(words: list[str], folder: Path) -> str:
    """Run a search, press Ctrl-C when its first node has a score, and return what it printed."""
    child = subprocess.Popen(
        [*HARNESS, *words], cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert child.stdout
    with child:
        lines = []
        for line in child.stdout:
            lines.append(line)
            if line.startswith("node 0  "):
                child.send_signal(signal.SIGINT)
    assert child.returncode == 130
    return "".join(lines)


def test_a_search_from_start_to_claim(tmp_path: Path, isolating) -> None:
    page = (TUTORIAL / "search.md").read_text()
    (suite,) = re.findall(r"`mine.toml`:\n\n```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert 'tasks = ["lra/listops"]\n' in suite
    small = suite.replace("lra/listops", "toy") + 'profile = "test"\n'
    (tmp_path / "mine.toml").write_text(small)
    said: list[str] = []
    for call_of_page in commands("search.md"):
        words = [word.replace("lra/listops", "toy") for word in call_of_page]
        if "second" in words:
            said.append(interrupted(words, tmp_path))
        else:
            said.append(start(*words, cwd=tmp_path).said)
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
