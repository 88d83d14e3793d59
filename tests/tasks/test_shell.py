"""Tests shell.py: as a real process with a fake judge, and its failures in this process.

What the shell gives a model, counts and refuses is tested in test_shell_inputs.py.
"""

import json
import mmap
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from shell_here import no_trace

from scorers.candidate import candidate
from tasks.spec import find_task

pytestmark = pytest.mark.usefixtures("_few_objects")

GOOD = (find_task("lra/listops").folder / "designs" / "softmax.py").read_text()
HEAD = """
import torch
class CustomEncoder(torch.nn.Module):
    def __init__(self, **sizes):
        super().__init__()
        self.embed = torch.nn.EmbeddingBag(16, 10)
"""
PATIENCE_S = 200
CHEAP = HEAD + "    def forward(self, tokens, mask):\n        return {}\n"


@dataclass
class Outcome:
    """What the fake judge saw of one run."""

    code: int
    stderr: str
    claim: dict[str, Any] = field(default_factory=dict)
    failure: dict[str, Any] = field(default_factory=dict)
    progress: list[dict[str, Any]] = field(default_factory=list)
    logits: list[Any] = field(default_factory=list)


def frame(kind: int, sequence: int, size: int) -> bytes:
    return candidate.HEADER.pack(candidate.MAGIC, kind, 0, sequence, size)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    return find_task("lra/listops").prepare("test", root, lambda *_: None)[0]


class Judge:
    """Runs a submission with shell.py, and plays the judge to it."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder, self.data = folder, data
        task = find_task("lra/listops")
        self.runner = folder / "runner"
        self.runner.mkdir()
        files = {**task.runner_files(), "candidate.py": Path(candidate.__file__)}
        for name, path in files.items():
            (self.runner / name).write_bytes(path.read_bytes())
        self.profile = task.profile("test")

    def write(self, model: str) -> dict[str, Any]:
        """Write ``model`` and its config, and return the config."""
        (self.folder / "submission").mkdir(exist_ok=True)
        (self.folder / "submission" / "model.py").write_text(model)
        config: dict[str, Any] = {
            "task": "lra/listops", "profile": "test", "variant": "fixed", "seed": 1,
            "settings": dict(self.profile.settings),
            "shape": {"length": 16, "vocabulary": 16, "classes": 10},
            "cpus": 1, "device": "cpu", "max_parameters": 20_000,
            "paths": {"train": str(self.data / "train"), "socket": str(self.folder / "socket"),
                      "submission": str(self.folder / "submission"),
                      "scratch": str(self.folder)},
        }  # fmt: skip
        (self.folder / "config.json").write_text(json.dumps(config))
        return config

    def run(self, model: str, batches: tuple[Any, ...] = ()) -> Outcome:
        """Train ``model``, send ``batches`` once it is trained, and end the connection."""
        name = Path(self.write(model)["paths"]["socket"])
        name.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(name))
            listener.listen()
            listener.settimeout(PATIENCE_S)
            command = [sys.executable, "-I", "-B", str(self.runner / "shell.py")]
            command.append(str(self.folder / "config.json"))
            with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
                try:
                    with listener.accept()[0] as sock:
                        sock.settimeout(PATIENCE_S)
                        outcome = self._talk(sock, list(batches))
                    outcome.stderr = process.communicate(timeout=PATIENCE_S)[1]
                finally:
                    process.kill()
            outcome.code = process.returncode
        return outcome

    def _talk(self, sock: socket.socket, batches: list[Any]) -> Outcome:
        fd = os.memfd_create("logits")
        os.ftruncate(fd, 1 << 20)
        buffer = mmap.mmap(fd, 1 << 20)
        socket.send_fds(sock, [frame(candidate.HELLO, 0, 0)], [fd])
        os.close(fd)
        outcome = Outcome(-1, "")
        sent = 0
        while head := sock.recv(candidate.HEADER.size, socket.MSG_WAITALL):
            magic, kind, _, _, size = candidate.HEADER.unpack(head)
            body = sock.recv(size, socket.MSG_WAITALL)
            assert magic == candidate.MAGIC
            if kind == candidate.PROGRESS:
                outcome.progress.append(json.loads(body))
                continue
            if kind == candidate.FAIL:
                outcome.failure = json.loads(body)
                continue
            if kind == candidate.READY:
                outcome.claim = json.loads(body)
            elif kind == candidate.LOGITS:
                shape = (len(batches[sent - 1]), 10)
                count = shape[0] * shape[1]
                outcome.logits.append(
                    np.frombuffer(buffer, np.float32, count).reshape(shape).copy()
                )
            if sent == len(batches):
                sock.sendall(frame(candidate.BYE, 0, 0))
                continue
            tokens = np.ascontiguousarray(batches[sent], np.int32)
            body = candidate.BATCH_HEAD.pack(*tokens.shape, 10) + tokens.tobytes()
            sent += 1
            sock.sendall(frame(candidate.BATCH, sent, len(body)) + body)
        return outcome


@pytest.fixture
def judge(tmp_path: Path, data: Path) -> Judge:
    return Judge(tmp_path, data)


@pytest.fixture
def shell() -> Iterator[Any]:
    """The shell's module in this process; afterwards what it set here is undone."""
    from tasks.lra import shell

    with no_trace():
        yield shell


def test_good_submission_is_trained_and_served_the_same_way_twice(
    judge: Judge, shell: Any, data: Path
) -> None:
    rows = np.load(data / "search" / "tokens.npy")
    outcome = judge.run(GOOD, (rows[:50], rows[:1]))
    assert outcome.code == 0, outcome.stderr
    assert outcome.failure == {}
    assert outcome.claim["steps"] == 10
    assert 1000 < outcome.claim["parameters"] < 20_000
    assert outcome.progress[0]["step"] == 1
    assert outcome.progress[0]["total"] == 10
    assert np.isfinite(outcome.logits[0]).all()
    assert np.allclose(outcome.logits[0][:1], outcome.logits[1], atol=1e-4)
    predict, claim = shell.trained(judge.write(GOOD))
    assert claim["final_loss"] == outcome.claim["final_loss"]
    assert (predict(rows[:50]) == outcome.logits[0]).all()


FAILURES = {
    "syntax_error": "def broken(:\n    pass\n",
    "import_error": "import a_module_that_is_not_there\n",
    "interface_error": "class Encoder: ...\n",
    "wrong_shape": CHEAP.format("self.embed(tokens)[:, : 10 if self.training else 9]"),
    "not_finite": CHEAP.format("self.embed(tokens) / 0"),
    "too_large": CHEAP.format("self.embed(tokens)").replace("(16, 10)", "(16_000, 10)"),
    "out_of_memory": CHEAP.format("torch.empty(1 << 50)"),
    "runtime_error": CHEAP.format("tokens.undefined_thing"),
}


@pytest.mark.slow
def test_failure_is_told_to_the_judge_and_by_the_exit_code(judge: Judge, data: Path) -> None:
    outcome = judge.run(FAILURES["runtime_error"], (np.load(data / "search" / "tokens.npy")[:4],))
    assert outcome.failure["kind"] == "runtime_error"
    assert outcome.code == 1
    assert "Traceback" in outcome.stderr
    assert "shell.py" not in outcome.failure["text"]
    assert str(judge.folder) not in outcome.failure["text"]
    assert 'File "model.py", line 8, in forward' in outcome.failure["text"]
    assert "tokens.undefined_thing" in outcome.failure["text"]
    assert "AttributeError" in outcome.failure["text"]


# More submissions that fail; the first word of a name is the kind of failure.
VARIANTS = {
    **FAILURES,
    "import_error while running": "1 / 0",
    "interface_error constructor": GOOD.replace("dropout: float,\n    ) ->", "p: float,\n    ) ->"),
    "interface_error forward": CHEAP.format("1").replace("tokens, mask", "tokens"),
    "interface_error no parameters": CHEAP.format("torch.zeros(len(tokens), 10)").replace(
        "torch.nn.EmbeddingBag(16, 10)", "None"
    ),
    "wrong_shape one row": CHEAP.format("self.embed(tokens).squeeze()"),
    "wrong_shape type": CHEAP.format("self.embed(tokens).argmax(1)"),
    "wrong_shape none": CHEAP.format("None"),
    "not_finite in training": CHEAP.format(
        "self.embed(tokens) * (torch.inf if torch.is_grad_enabled() else 1)"
    ),
    "runtime_error exit": "raise SystemExit(0)",
    "runtime_error detached": CHEAP.format("self.embed(tokens).detach()"),
    "runtime_error constructor": CHEAP.format("1").replace(
        "torch.nn.EmbeddingBag(16, 10)", "1 / 0"
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_failure_keeps_its_kind_however_it_comes_about(judge: Judge, shell: Any, name: str) -> None:
    """In this process: with one process per submission this would take a minute."""
    config = judge.write(VARIANTS[name])
    willing = SimpleNamespace(progress=lambda *_: None, serve=lambda *_, **__: None)
    with pytest.raises((Exception, SystemExit)) as raised:
        shell.train_and_serve(config, willing)
    kind, text = shell.explain(raised.value, Path(config["paths"]["submission"]))
    assert kind == name.split()[0]
    assert "shell.py" not in text
    assert str(judge.folder) not in text


def test_schedules_have_their_shapes() -> None:
    from tasks.lra.schedule import learning_rate

    base = {"learning_rate": 0.5, "warmup": 10, "steps": 40}
    for schedule, last in (("constant", 0.5), ("cosine", 0.0), ("rsqrt", 0.25)):
        settings = {**base, "schedule": schedule}
        rates = [learning_rate(done, settings) for done in range(41)]
        assert rates[0] == pytest.approx(0.05)
        assert rates[9] == rates[10] == 0.5
        assert rates[40] == pytest.approx(last)
    assert learning_rate(0, {**base, "schedule": "rsqrt", "warmup": 0}) == 0.5
