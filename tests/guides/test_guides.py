"""Tests of the guides: the package on each page is installed by pip, and its commands are run.

The toy task replaces a page's task if that task trains too long for a test of the page.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from agents.provider_server import agents_file, answer, provider, raw, status
from calling import Done
from pages import DOCS, ROOT, consoles, named_files, numbered_files
from toy_task import TOYS, copy_toy

__all__ = ["provider"]

GUIDES = DOCS / "guides"
PAGES = sorted(GUIDES.glob("add-*.md"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Stranger:
    """The package of a page: a folder with its files, and a folder where pip installs it."""

    def __init__(self, page: str, folder: Path) -> None:
        self.text = (GUIDES / f"add-{page}.md").read_text()
        self.folder, self.site = folder / "package", folder / "site"
        for name, text in named_files(self.text).items():
            self.write(name, text)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(text)

    def read(self, name: str) -> str:
        return (self.folder / name).read_text()

    def call(self, command: str, code: int = 0, **env: str) -> Done:
        """Run a command of the page; pip installs into ``self.site``, without a package index."""
        words = command.split()
        if words[0] == "pip":
            words[1:2] = [words[1], "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
            words += ["--target", str(self.site)]
            shutil.rmtree(self.site, ignore_errors=True)
        words = [sys.executable, "-m", *words]
        path = f"{ROOT}{os.pathsep}{self.site}"
        env = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200", **env}
        done = subprocess.run(
            words, capture_output=True, text=True, cwd=self.folder, env=env, timeout=300
        )
        assert done.returncode == code, f"{command}: {done.stdout}\n{done.stderr}"
        return Done(words, code, done.stdout, done.stderr)

    def follow(self, task: str = "lra/listops") -> list[str]:
        """Run the commands of the page; return the output of each.

        ``task`` replaces lra/listops, which trains too long for tests of most pages.
        """
        (commands,) = consoles(self.text)
        return [self.call(line.replace("lra/listops", task)).said for line in commands]

    def run(self) -> Path:
        """Return the folder of the only run."""
        (run,) = [path for path in (self.folder / "runs").iterdir() if (path / "run.toml").exists()]
        return run

    def lock(self) -> dict:
        return json.loads((self.run() / "lock.json").read_text())

    def scores(self) -> list[dict]:
        """Return the scores of its nodes."""
        files = sorted(self.run().glob("nodes/*/score.json"))
        return [json.loads(file.read_text()) for file in files]


@pytest.fixture
def stranger(tmp_path: Path):
    return lambda page: Stranger(page, tmp_path)


def test_each_page_has_a_test() -> None:
    tests = Path(__file__).read_text()
    assert len(PAGES) == 9
    for page in PAGES:
        assert f'stranger("{page.stem.removeprefix("add-")}")' in tests
        assert page.name in (GUIDES / "extending.md").read_text()


def test_a_policy(stranger) -> None:
    own = stranger("a-policy")
    _, listed, ran = own.follow("toy")
    assert "alternate  Drafts, improves the best node some times" in listed
    assert "of the package harness-alternate 1.0" in listed
    assert "alternate.improvements=2" in listed
    assert "on the hidden test split" in ran
    lock = own.lock()
    assert lock["policy"] == {"improvements": 1}
    assert lock["versions"]["harness-alternate"] == "1.0"
    events = [json.loads(line) for line in (own.run() / "events.jsonl").read_text().splitlines()]
    chosen = [e["operator"] for e in events if e.get("event", e.get("type")) == "chosen"]
    assert chosen == ["draft", "improve"]
    same = "--policy alternate --set alternate.improvements=1 --runs-dir again"
    again = own.call(f"harness run --task toy --profile test --agent replay:{own.run()} {same}")
    assert "on the hidden test split" in again.said
    typo = own.call("harness run --task toy --policy alternat", code=2).said
    assert "'alternate'" in typo
    # A run is not resumed with another version of its policy.
    (own.run() / "result.json").unlink()
    own.write("pyproject.toml", own.read("pyproject.toml").replace('"1.0"', '"1.1"'))
    own.call("pip install .")
    said = own.call(f"harness resume {own.run()}", code=2).said
    assert "versions.harness-alternate: then '1.0', now '1.1'" in " ".join(said.split())


def test_an_agent(stranger) -> None:
    own = stranger("an-agent")
    own.write("designs/bag.py", (TOYS / "toy/designs/half.py").read_text())
    _, listed, ran = own.follow("toy")
    assert "reference, random, tpe, evolution, local, gp, prior, folder" in " ".join(listed.split())
    assert "on the hidden test split" in ran
    assert [score["valid"] for score in own.scores()] == [True]
    assert own.lock()["versions"]["harness-folder"] == "1.0"
    # An error in the agent is reported as the package's, and its submissions never run unisolated.
    file = "harness_folder.py"
    broken = own.read(file).replace("trusted = False", "trusted = True")
    own.write(file, broken.replace("file = files[ask.node]", "file = {}[ask.node]"))
    own.call("pip install .")
    said = own.call("harness run --task toy --profile test --agent folder", code=2).said
    assert "The package harness-folder 1.0 failed: KeyError: 0" in said
    assert "please report" not in said
    said = own.call(
        "harness run --task toy --profile test --agent folder --policy one_shot",
        code=2,
        PATH="/nowhere",
    ).said
    assert "No sandbox that isolates works here" in said


def test_a_provider(stranger, provider) -> None:
    own = stranger("a-provider")
    table = own.read("models.toml")
    there = provider.base_url("openai")
    own.write("models.toml", table.replace("http://127.0.0.1:8000/v1", there))
    text = f"An idea.\n```python\n{(TOYS / 'toy/designs/half.py').read_text()}```\n"
    begins = {"text": text[:40], "finish_reason": None}
    ends = {"text": text[40:], "finish_reason": "stop"}
    used = {"prompt_tokens": 700, "completion_tokens": 300}
    events = [{"choices": [begins]}, {"choices": [ends]}, {"choices": [], "usage": used}]
    stream = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    # The harness tries again by itself: the package only sends a request and reads its answer.
    provider.script(status(429, headers={"retry-after": "0"}), raw(stream.encode()))
    _, found, listed, ran = own.follow("toy")
    assert "ok    provider completions: of the package harness-completions 1.0" in found
    assert "base-model" in listed
    assert "rate limit (429)" in ran
    assert "on the hidden test split" in ran
    first, second = provider.requests
    assert first.path == second.path == "/v1/completions"
    assert first.body["prompt"] == second.body["prompt"]
    assert "Name the first token" in first.body["prompt"]
    assert own.lock()["versions"]["harness-completions"] == "1.0"
    spent = json.loads((own.run() / "result.json").read_text())["spent"]["model"]
    assert (spent["input_tokens"], spent["output_tokens"]) == (700, 300)
    # A wrong address is told with the likely one, which the package's own paths give.
    bad = own.read("models.toml").replace(f'"{there}"', f'"{there}/completions"')
    own.write("bad.toml", bad)
    said = own.call("harness agents --agents-file bad.toml", code=2).said
    assert "it is the address of one call (/completions), not of the API" in " ".join(said.split())
    # Without the package, its runs can be read, and the table says what is missing.
    shutil.rmtree(own.site)
    assert "final: node 0 retrained" in own.call(f"harness show {own.run()}").stdout
    said = own.call("harness agents --agents-file models.toml", code=2).said
    assert "provider: there is no such provider; wanted: 'anthropic' or 'openai'" in said


def test_a_sandbox(stranger) -> None:
    own = stranger("a-sandbox")
    _, found, ran = own.follow("toy")
    assert "ok    sandbox noted: of the package harness-noted 1.0" in found
    assert "packages in noted: numpy, torch can be imported" in found
    assert "sandbox noted" in ran
    # A line for node 0, and one for the final evaluation.
    assert (own.folder / "sandboxes.log").read_text().count("\n") >= 2
    assert own.lock()["sandbox"] == "noted"
    assert own.scores()[0]["conditions"]["isolated"] is True
    told = own.call("harness run --help").stdout
    assert "<auto|docker|bubblewrap|process|noted>" in "".join(told.split())
    typo = own.call("harness run --task toy --sandbox note", code=2).said
    assert "'noted'" in typo
    # Without the package, its runs can still be read.
    shutil.rmtree(own.site)
    assert "final: node 0 retrained" in own.call(f"harness show {own.run()}").stdout
    assert "NOT ISOLATED" not in own.call("harness leaderboard runs").stdout


def test_an_executor(stranger) -> None:
    own = stranger("an-executor")
    _, found, ran = own.follow("toy")
    assert "ok    executor apart: of the package harness-apart 1.0" in found
    assert "on the hidden test split" in ran
    apart, run = own.scores(), own.run()
    assert len(apart) == 2
    assert (run / "run.toml").read_text().count('executor = "apart"') == 1
    assert own.lock()["versions"]["harness-apart"] == "1.0"
    own.call("harness run --task toy --profile test --steps 2 --runs-dir here --name here")
    here = [
        json.loads(f.read_text()) for f in sorted(own.folder.glob("here/here/nodes/*/score.json"))
    ]
    assert [score["score"] for score in apart] == [score["score"] for score in here]
    log = "nodes/0000/stdout.log"
    assert (run / log).read_bytes() == (own.folder / "here" / "here" / log).read_bytes()
    assert "<local|apart>" in "".join(own.call("harness run --help").stdout.split())
    assert "'apart'" in own.call("harness run --task toy --executor aprt", code=2).said
    # A result that belongs to another job is rejected.
    file, right = "harness_apart.py", own.read("harness_apart.py")
    asked = "evaluation.job.model_dump_json()"
    other = f'{asked}.replace(\'"split":"search"\', \'"split":"test"\')'
    own.write(file, right.replace(asked, other))
    own.call("pip install .")
    submission = own.run() / "nodes/0000"
    said = own.call(
        f"harness score {submission} --task toy --profile test --executor apart", code=3
    )
    assert "What came back for submission is the answer to another question" in said.said
    # Without the package, its run can be read and rescored on this machine, but not resumed.
    shutil.rmtree(own.site)
    assert "final: node" in own.call(f"harness show {run}").stdout
    assert "now:  accuracy" in own.call(f"harness rescore {run}").stdout
    (run / "result.json").unlink()
    assert "There is no executor 'apart'" in own.call(f"harness resume {run}", code=2).said


def test_a_family_of_tasks(stranger) -> None:
    own = stranger("a-task-family")
    for name, text in numbered_files((GUIDES / "tasks-own.md").read_text()).items():
        own.write(f"harness_marks/tasks/{name}", text)
    own.write("harness_marks/__init__.py", "raise AssertionError('nobody is to import this')\n")
    _, shown, scored = own.follow()
    assert "Which of four marks stands last" in shown
    assert "0.4200  the commonest mark" in shown
    assert re.search(r"accuracy 0\.\d{4}", scored)


def test_a_metric(stranger) -> None:
    own = stranger("a-metric")
    # This task replaces the page's task, which trains longer.
    name, metric = ('"toy"', '"last-mark"'), ('"accuracy"', '"balanced_accuracy"')
    task = copy_toy(own.folder / "last-mark", name, metric)
    data = task / "toy_data.py"
    data.write_text(data.read_text().replace("toy", "last-mark"))
    toml = own.read("last-mark/task.toml")
    balanced = toml.replace('"classification"', '"balanced_classification"')
    own.write("last-mark/task.toml", balanced)
    _, shown, ran, table = own.follow()
    assert "balanced_accuracy" in shown
    assert "balanced_accuracy 0." in ran
    assert "balanced_accuracy" in table
    (score,) = own.scores()
    assert score["metric"] == "balanced_accuracy"
    assert {"statelessness", "trend"} <= {audit["name"] for audit in score["audits"]}
    # The package that measures is part of the conditions that must agree.
    assert re.search(r" by harness-balanced 1\.0 [0-9a-f]{12}$", score["conditions"]["scorer"])
    own.call(f"harness report {own.run()}")
    # Without the package, the run is left out of tables, and the reason is given.
    shutil.rmtree(own.site)
    said = " ".join(own.call("harness leaderboard runs").said.split())
    assert "there is no metric 'balanced_accuracy'" in said
    own.write("last-mark/task.toml", toml)
    broken = own.call("harness tasks --tasks-dir .").said
    assert "there is no metric 'balanced_accuracy'" in " ".join(broken.split())


def test_a_kind_of_task(stranger) -> None:
    own = stranger("a-kind")
    _, tried, ran = own.follow()
    assert re.search(r"sums, profile test, design mean: [34567]\.\d{4}", tried)
    assert "mean_absolute_error" in ran
    (score,) = own.scores()
    assert " by harness-regression 1.0 " in score["conditions"]["scorer"]
    # Its submissions are audited: a predictor that counts its calls is found to be stateful.
    counting = own.read("sums/designs/mean.py") + (
        "\nasked = [0]\n\n\ndef predict(tokens):\n    asked[0] += 1\n"
        "    return np.full((len(tokens), 1), asked[0], np.float32)\n"
    )
    own.write("model.py", counting)
    said = own.call("harness score model.py --task sums --profile test --tasks-dir .", code=1).said
    assert "stateful" in said
    # What its data check finds is reported like the findings of our own checks.
    short = own.read("sums/data.py").replace("tokens.sum(axis=1)", "tokens.sum(axis=1)[1:]")
    own.write("sums/data.py", short.replace("sums-1", "sums-2"))
    said = own.call("harness prepare sums --profile test --tasks-dir .", code=2).said
    assert "as manifest.json says" in said


def test_a_sort_of_submission(stranger, provider) -> None:
    own = stranger("a-submission")
    _, scored = own.follow()
    assert "accuracy 1.0000" in scored
    own.write("mine/layers.txt", "AXAMAMAM\n")
    command = "harness score mine --task letters --profile test --tasks-dir ."
    said = own.call(command, code=1).said
    assert "interface_error" in said
    assert "Eight letters A or M are wanted." in said
    # The package parses a model's answer, and the model is told what is wrong with an answer.
    provider.script(answer("I would take attention first."), answer("So: MMMMMMMM or AMAMAMAM."))
    mine = {
        "title": "A model for tests", "provider": "openai", "model": "the-model",
        "base_url": provider.base_url("openai"), "context_tokens": 100_000,
        "max_output_tokens": 4_000, "answer_tokens": 4_000,
    }  # fmt: skip
    agents_file(own.folder / "agents.toml", mine=mine)
    own.call(
        "harness run --task letters --profile test --tasks-dir . --policy one_shot "
        "--agent mine --agents-file agents.toml"
    )
    assert (own.run() / "nodes" / "0000" / "layers.txt").read_text() == "AMAMAMAM\n"
    assert [score["score"] for score in own.scores()] == [1.0]
    told = "There is no line of eight letters A or M in it."
    asked = [told in request.text for request in provider.requests if request.body]
    assert asked == [False, True]
