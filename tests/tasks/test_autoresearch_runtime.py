"""Tests what runs inside the Autoresearch sandbox.

These are the loader (compared with a plain one), the public names of prepare.py, the runner and the
reference designs.
"""

import gc
import importlib
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scorers.candidate import candidate
from scorers.candidate.candidate import BATCH, BATCH_HEAD, BYE, FAIL, LOGITS, READY
from scorers.wire import Listener, LogitsBuffer
from tasks.spec import find_task

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")  # torch's own

LENGTH, VOCABULARY, BOS = 32, 264, 260
ROWS = np.random.default_rng(0).integers(0, VOCABULARY, (6, LENGTH)).astype(np.int32)
TEXT = "A naïve café — 日本語, 12345\n"


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A train folder as the data module writes it: 256 bytes, four pairs, four special tokens."""
    folder = tmp_path_factory.mktemp("train")
    rng = np.random.default_rng(1)
    for name, count in (("", 150), ("val_", 40)):
        sizes = np.minimum(rng.geometric(1 / 20, count) + 1, 200)
        tokens = rng.integers(0, BOS, sizes.sum()).astype(np.uint16)
        starts = np.concatenate([[0], np.cumsum(sizes)])
        tokens[starts[:-1]] = BOS
        np.save(folder / f"{name}tokens.npy", tokens)
        np.save(folder / f"{name}starts.npy", starts)
    merges = [bytes([i]) for i in range(256)] + [b"af", b"12", "é".encode(), b"34"]
    told = {
        "format": 1,
        "pattern": r"\p{N}{1,2}|\p{L}+|[^\p{L}\p{N}]+",
        "merges": [token.hex() for token in merges],
        "specials": [f"<|reserved_{i}|>" for i in range(4)],
    }
    (folder / "tokenizer.json").write_text(json.dumps(told))
    counts = [len(token) for token in merges] + [0] * 4
    np.save(folder / "token_bytes.npy", np.array(counts, np.int32))
    return folder


class FakeLink:
    """Stands in for the link to the judge; asks ``requests`` times for the logits of ROWS."""

    def __init__(self, score: float | None = 1.25, requests: int = 2) -> None:
        self.score, self.requests = score, requests
        self.claims: list[dict[str, Any]] = []
        self.answers: list[Any] = []
        self.failures: list[tuple[str, str]] = []

    @classmethod
    def connect(cls, path: str) -> "FakeLink":
        raise AssertionError("each test has its own")

    def serve(self, predict: Any, *, claim: dict[str, Any]) -> dict[str, Any]:
        self.claims.append(claim)
        for _ in range(self.requests):
            self.answers.append(predict(ROWS[: claim["batch_size"]].copy()))
        return {"score": self.score}

    def fail(self, kind: str, text: str) -> None:
        self.failures.append((kind, text))


class Sandbox:
    """The runner's files in a folder, a config, and a way to run a script in this process."""

    def __init__(self, folder: Path, train: Path) -> None:
        self.folder = folder
        for name in ("runner", "submission", "scratch"):
            (folder / name).mkdir()
        for name, path in find_task("autoresearch").runner_files().items():
            shutil.copyfile(path, folder / "runner" / name)
        shutil.copyfile(candidate.__file__, folder / "runner" / "candidate.py")
        self.names = [path.stem for path in (folder / "runner").iterdir()]
        self.script = folder / "submission" / "train.py"
        self.config = {
            "task": "autoresearch", "profile": "test", "seed": 77, "cpus": 1, "device": "cpu",
            "settings": {"time_budget": 1.5, "max_batch": 4},
            "shape": {"length": LENGTH, "vocabulary": VOCABULARY, "bos": BOS},
            "paths": {"train": str(train), "submission": str(folder / "submission"),
                      "socket": str(folder / "socket"), "scratch": str(folder / "scratch")},
        }  # fmt: skip
        self.write()

    def write(self) -> Path:
        path = self.folder / "config.json"
        path.write_text(json.dumps(self.config))
        return path

    def prepare(self, link: FakeLink | None = None) -> Any:
        module = importlib.import_module("prepare")
        module.connect(self.config, link or FakeLink())
        return module

    def run(self, source: str, link: FakeLink) -> int:
        self.script.write_text(source)
        sys.modules["candidate"] = type(sys)("candidate")
        sys.modules["candidate"].Link = type("Link", (), {"connect": lambda path: link})  # type: ignore[attr-defined]
        code: int = importlib.import_module("runner").main(str(self.write()))
        return code


@pytest.fixture
def sandbox(tmp_path: Path, train: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    box = Sandbox(tmp_path, train)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "runner"), *sys.path])
    monkeypatch.setattr(sys, "argv", sys.argv)
    for name in ("SEED", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that monkeypatch restores it afterwards
        monkeypatch.delenv(name)
    yield box
    if loader_threads():
        gc.collect()  # loaders that a test left open end here
    for name in box.names:
        sys.modules.pop(name, None)


# The loader


def plain_loader(folder: Path, split: str, rows: int, length: int, buffer_size: int) -> Any:
    """Yield batches by the public loader's rule, written as plainly as possible, and slowly."""
    name = "val_" if split == "val" else ""
    tokens = np.load(folder / f"{name}tokens.npy")
    starts = np.load(folder / f"{name}starts.npy").tolist()
    buffer: list[list[int]] = []
    epoch, document, count = 1, 0, len(starts) - 1
    while True:
        batch = []
        for _ in range(rows):
            row: list[int] = []
            while len(row) < length + 1:
                while len(buffer) < buffer_size:
                    for _ in range(128):
                        if document == count:
                            document, epoch = 0, epoch + 1
                        buffer.append(tokens[starts[document] : starts[document + 1]].tolist())
                        document += 1
                left = length + 1 - len(row)
                sizes = [len(d) for d in buffer]
                fitting = [s for s in sizes if s <= left]
                at = sizes.index(max(fitting) if fitting else min(sizes))
                row += buffer.pop(at)[:left]
            batch.append(row)
        found = torch.tensor(batch)
        yield found[:, :-1], found[:, 1:], epoch


@pytest.mark.parametrize(
    ("split", "rows", "length", "buffer_size"),
    [("train", 4, 32, 1000), ("train", 1, 7, 50), ("val", 3, 64, 1), ("train", 5, 300, 130)],
)
def test_batches_are_those_of_a_plain_loader_in_the_same_order(
    sandbox: Sandbox, train: Path, split: str, rows: int, length: int, buffer_size: int
) -> None:
    ours = sandbox.prepare().make_dataloader(None, rows, length, split, buffer_size)
    epochs = set()
    for want in islice(plain_loader(train, split, rows, length, buffer_size), 40):
        inputs, targets, epoch = next(ours)
        assert inputs.shape == targets.shape == (rows, length)
        assert inputs.dtype == targets.dtype == torch.int64
        assert torch.equal(inputs, want[0])
        assert torch.equal(targets, want[1])
        assert epoch == want[2]
        assert (inputs[:, 0] == BOS).all()
        epochs.add(epoch)
    assert len(epochs) > 1 or rows == 1


def test_another_default_device_of_the_script_changes_nothing(sandbox: Sandbox) -> None:
    link = FakeLink()
    prepare = sandbox.prepare(link)
    table = torch.nn.Embedding(VOCABULARY, VOCABULARY)
    with torch.device("meta"):  # stands for "cuda": tensors made there have no memory
        loader = prepare.make_dataloader(None, 2, 16, "train")
        x, y, _ = next(loader)
        assert torch.equal(x[:, 1:], y[:, :-1])
        loader.close()
        prepare.evaluate_bpb(table, None, 2)
    assert len(link.answers) == 2


def test_every_batch_comes_in_the_same_buffer(sandbox: Sandbox) -> None:
    loader = sandbox.prepare().make_dataloader(None, 2, 16, "train")
    first, targets, _ = next(loader)
    kept = first.clone()
    second, _, _ = next(loader)
    assert second.data_ptr() == first.data_ptr()
    assert targets.data_ptr() == first.data_ptr() + first.numel() * first.element_size()
    assert not torch.equal(first, kept)


def loader_threads() -> int:
    return sum(thread.name == "loader" for thread in threading.enumerate())


def test_the_thread_ends_when_the_iterator_is_closed_or_forgotten(sandbox: Sandbox) -> None:
    prepare = sandbox.prepare()
    before = loader_threads()
    loaders = [prepare.make_dataloader(None, 2, 16, "train") for _ in range(2)]
    for loader in loaders:
        next(loader)
    assert loader_threads() == before + 2
    loaders[0].close()
    assert loader_threads() == before + 1
    del loaders, loader
    gc.collect()
    assert loader_threads() == before


@pytest.mark.parametrize("used", [0, 1, 5])
def test_packing_runs_ahead_and_stops_when_the_ring_is_full(sandbox: Sandbox, used: int) -> None:
    sandbox.prepare()
    drawn: list[int] = []

    def source() -> Iterator[int]:
        for i in range(1000):
            drawn.append(i)
            yield i

    ahead = importlib.import_module("loader").Ahead(source(), lambda slot, item: item, 3)
    for i in range(used):
        slot, item = ahead.take()
        assert item == i
        ahead.give_back(slot)
    # It ends at the first item for which no slot is free, and not before: slots are taken in turn.
    ahead.close()
    # Three items fill the slots, and the thread holds a fourth.
    assert drawn == list(range(used + 4))


def test_what_goes_wrong_in_the_thread_is_raised_where_the_batch_is_asked_for(
    sandbox: Sandbox, tmp_path: Path, train: Path
) -> None:
    broken = tmp_path / "train"
    shutil.copytree(train, broken)
    np.save(broken / "starts.npy", np.array([0, 5, 5, 9]))  # an empty document
    sandbox.config["paths"]["train"] = str(broken)  # type: ignore[index]
    loader = sandbox.prepare().make_dataloader(None, 2, 16, "train")
    with pytest.raises(ValueError, match="document 1 has 0 tokens"):
        next(loader)


@pytest.mark.parametrize("wrong", [("test", 2, 16), ("train", 0, 16), ("train", 2, 0)])
def test_wrong_arguments_are_named_at_once(sandbox: Sandbox, wrong: Any) -> None:
    split, rows, length = wrong
    with pytest.raises(ValueError, match="make_dataloader"):
        sandbox.prepare().make_dataloader(None, rows, length, split)


# The public names


def test_the_sizes_are_the_profiles(sandbox: Sandbox) -> None:
    prepare = sandbox.prepare()
    assert prepare.MAX_SEQ_LEN == LENGTH
    assert prepare.TIME_BUDGET == 1.5
    assert prepare.EVAL_TOKENS > 0
    counts = prepare.get_token_bytes()
    assert counts.dtype == torch.int32
    assert counts.tolist()[256:] == [2, 2, 2, 2, 0, 0, 0, 0]


def test_tokenizer_speaks_the_tasks_merges(sandbox: Sandbox) -> None:
    pytest.importorskip("tiktoken")
    tokenizer = sandbox.prepare().Tokenizer.from_directory()
    assert tokenizer.get_vocab_size() == VOCABULARY
    assert tokenizer.get_bos_token_id() == BOS
    ids = tokenizer.encode(TEXT)
    assert tokenizer.decode(ids) == TEXT
    assert len(ids) < len(TEXT.encode())
    assert tokenizer.encode(TEXT, prepend=BOS) == [BOS, *ids]
    assert tokenizer.encode([TEXT, "a"], prepend="<|reserved_0|>") == [[BOS, *ids], [BOS, 97]]
    assert BOS not in tokenizer.encode("<|reserved_0|>")
    assert tokenizer.decode([BOS, 97]) == "<|reserved_0|>a"
    assert tokenizer.decode([0xC3]) == "\ufffd"
    with pytest.raises(TypeError, match="int"):
        tokenizer.encode(3)


class Table(torch.nn.Module):
    """An honest model: each token's logits depend on that token alone."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(VOCABULARY, VOCABULARY)
        self.seen: list[Any] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append((x.dtype, tuple(x.shape), torch.is_grad_enabled()))
        return self.table(x)


def test_evaluate_serves_the_models_logits_and_returns_the_judges_score(sandbox: Sandbox) -> None:
    link, model = FakeLink(), Table()
    prepare = sandbox.prepare(link)
    assert not prepare.served()
    assert prepare.evaluate_bpb(model, None, 3) == 1.25
    assert prepare.served()
    assert model.seen == [(torch.int64, (3, LENGTH), False)] * 2
    want = model.table.weight.detach()[torch.from_numpy(ROWS[:3]).long()]
    for answer in link.answers:
        assert answer.dtype == np.float32
        assert np.array_equal(answer, want.numpy())
    assert link.claims[0]["batch_size"] == 3
    assert link.claims[0]["parameters"] == VOCABULARY**2
    # Only the first call is judged: a second one returns the same score.
    assert prepare.evaluate_bpb(lambda x: 1 / 0, None, 2) == 1.25
    assert len(link.claims) == 1


def test_autocast_stays_in_force_and_sixteen_bits_are_served(sandbox: Sandbox) -> None:
    link, linear = FakeLink(), torch.nn.Linear(1, VOCABULARY)
    types = []

    def model(x: torch.Tensor) -> torch.Tensor:
        logits = linear(x[..., None].float())
        types.append(logits.dtype)
        return logits

    with torch.autocast("cpu", torch.bfloat16):
        sandbox.prepare(link).evaluate_bpb(model, None, 2)
    assert types == [torch.bfloat16] * 2
    assert link.answers[0].dtype == np.float32


def test_a_judge_that_keeps_the_score_gives_nan(sandbox: Sandbox) -> None:
    prepare = sandbox.prepare(FakeLink(score=None))
    score = prepare.evaluate_bpb(Table(), None, 2)
    assert score != score
    assert f"{score:.6f}" == "nan"
    assert prepare.served()


@pytest.mark.parametrize("batch_size", [0, 5, 2.0, "2", None])
def test_batch_sizes_that_cannot_be_are_named(sandbox: Sandbox, batch_size: Any) -> None:
    link = FakeLink()
    prepare = sandbox.prepare(link)
    with pytest.raises(prepare.Refused, match="a whole number from 1 to 4") as caught:
        prepare.evaluate_bpb(Table(), None, batch_size)
    assert caught.value.kind == "interface_error"
    assert link.claims == []


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("model.table(x)[:, :-1]", r"float32 of shape \(2, 31, 264\)"),
        ("model.table(x).mean()", r"float32 of shape \(\)"),
        ("model.table(x).argmax(-1, keepdim=True).expand(-1, -1, 264)", "int64"),
        ("(model.table(x), None)", "tuple"),
        ("None", "NoneType"),
    ],
)
def test_wrong_logits_are_named(sandbox: Sandbox, wrong: str, told: str) -> None:
    prepare, model = sandbox.prepare(), Table()
    with pytest.raises(prepare.Refused, match=told) as caught:
        prepare.evaluate_bpb(lambda x: eval(wrong, {"model": model, "x": x}), None, 2)
    assert caught.value.kind == "wrong_shape"
    assert "(2, 32, 264)" in str(caught.value)


# The runner

HEAD = "import torch, sys, os\nfrom prepare import *\nfrom prepare import evaluate_bpb\n"
SERVE = HEAD + "evaluate_bpb(torch.nn.Embedding(264, 264), Tokenizer.from_directory(), 2)\n"

FAILURES = {
    "syntax_error": "def broken(:\n    pass\n",
    "import_error": "import a_module_that_is_not_there\n",
    "interface_error no evaluation": "x = 1\n",
    "interface_error exit 0": "import sys\nsys.exit()\n",
    "interface_error batch": HEAD + "evaluate_bpb(None, None, 10_000)\n",
    "wrong_shape": HEAD + "evaluate_bpb(lambda x: x[0].float(), None, 2)\n",
    "runtime_error": "def step():\n    return undefined_thing\nstep()\n",
    "runtime_error exit 1": 'print("FAIL")\nexit(1)\n',
    "runtime_error in the model": HEAD + "evaluate_bpb(lambda x: 1 / 0, None, 2)\n",
    "runtime_error syntax elsewhere": "compile('1 +', 'elsewhere', 'exec')\n",
    "runtime_error swallowed": HEAD
    + "try:\n    evaluate_bpb(lambda x: 1 / 0, None, 2)\nexcept ArithmeticError:\n    exit(0)\n",
    "wrong_shape swallowed": HEAD
    + "try:\n    evaluate_bpb(lambda x: x, None, 2)\nexcept BaseException:\n    raise OSError\n",
    "out_of_memory": "import torch\ntorch.empty(1 << 50)\n",
    "out_of_memory python": "raise MemoryError\n",
    "out_of_memory cuda": "import torch\nraise torch.OutOfMemoryError('CUDA out of memory.')\n",
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_told_by_its_kind_with_the_scripts_own_lines(
    sandbox: Sandbox, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    link = FakeLink()
    assert sandbox.run(FAILURES[name], link) == 1
    ((kind, text),) = link.failures
    assert kind == name.split()[0]
    for private in (str(sandbox.folder), "runner.py", "prepare.py", "site-packages"):
        assert private not in text
    said = {
        "runtime_error": 'File "train.py", line 2, in step',
        "runtime_error exit 1": "train.py exited (1)",
        "runtime_error in the model": "ZeroDivisionError",
        "interface_error batch": 'File "train.py", line 4',
        "interface_error no evaluation": "without calling evaluate_bpb",
        "syntax_error": "def broken(:",
    }
    assert said.get(name, "") in text
    if name == "runtime_error":
        assert "Traceback" in capfd.readouterr().err


def test_a_script_that_serves_is_done_whatever_comes_after(
    sandbox: Sandbox, capfd: pytest.CaptureFixture[str]
) -> None:
    link = FakeLink()
    assert sandbox.run(SERVE + "print('---', MAX_SEQ_LEN)\n", link) == 0
    assert "--- 32" in capfd.readouterr().out
    again = FakeLink()
    sys.modules.pop("prepare")
    sys.modules.pop("runner")
    assert sandbox.run(SERVE + "raise RuntimeError('in the summary')\n", again) == 1
    assert link.failures == again.failures == []
    assert len(again.answers) == 2


WITNESS = """
import sys
assert "torch" not in sys.modules, "torch was imported before the script could set its environment"
import os
os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"
assert sys.argv == [__file__] and __name__ == "__main__" and os.environ["SEED"] == "77"
from dataclasses import dataclass, asdict
import torch
import prepare as p
from prepare import MAX_SEQ_LEN, TIME_BUDGET, Tokenizer, make_dataloader, evaluate_bpb
from kernels import get_kernel  # called by test_kernels.py: torch.compile takes seconds to import

@dataclass
class Config:
    vocabulary: int = Tokenizer.from_directory().get_vocab_size()

class Model(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embed = torch.nn.Embedding(config.vocabulary, 16)
        self.head = torch.nn.Linear(16, config.vocabulary)
    def forward(self, x, targets=None):
        return self.head(self.embed(x))

model = Model(Config(**asdict(Config())))
loader = make_dataloader(Tokenizer.from_directory(), 2, MAX_SEQ_LEN, "train")
x, y, epoch = next(loader)
torch.nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()
score = evaluate_bpb(model, None, 2)
print("---")
print(f"val_bpb:          {score:.6f}")
"""


@pytest.mark.slow
def test_in_a_process_of_its_own_over_the_real_wire(sandbox: Sandbox) -> None:
    sandbox.script.write_text(WITNESS)
    listener = Listener(sandbox.folder / "socket")
    buffer = LogitsBuffer(2 * LENGTH * VOCABULARY * 4)
    runner = sandbox.folder / "runner" / "runner.py"
    argv = [sys.executable, "-I", "-B", "-u", str(runner), str(sandbox.write())]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    try:
        wire = listener.accept(lambda: process.poll() is None, threading.Event(), deadline)
        wire.greet(buffer)
        frame = wire.receive(deadline)
        assert frame.kind != FAIL, frame.json()
        assert frame.kind == READY
        assert frame.json()["batch_size"] == 2
        head = BATCH_HEAD.pack(2, LENGTH, VOCABULARY)
        wire.send(BATCH, 5, head + ROWS[:2].tobytes(), deadline)
        frame = wire.receive(deadline)
        assert (frame.kind, frame.sequence) == (LOGITS, 5)
        assert frame.shape() == (2, LENGTH, VOCABULARY)
        logits = np.frombuffer(buffer.take(buffer.size), np.float32)
        assert np.isfinite(logits).all()
        assert logits.std() > 0
        wire.send(BYE, 0, b'{"score": 0.75}', deadline)
        out, err = process.communicate(timeout=60)
        wire.close()
    finally:
        process.kill()
        process.wait()
        buffer.close()
    assert process.returncode == 0, err
    judged, *rest = out.splitlines()
    assert judged.startswith("judged_seconds: ")
    assert rest == ["---", "val_bpb:          0.750000"]
    assert err == ""


# The reference designs


@pytest.fixture(scope="module")
def prepared(data_folder: Path) -> Any:
    return find_task("autoresearch").prepare("test", data_folder, lambda *_: None)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["searchable", *find_task("autoresearch").definition.designs])
def test_every_design_trains_serves_causal_logits_and_says_so(
    sandbox: Sandbox, prepared: Any, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, manifest = prepared
    sandbox.config |= {"shape": manifest.shape, "seed": 3}
    sandbox.config["settings"] = {"time_budget": 1.0, "max_batch": 64}
    sandbox.config["paths"]["train"] = str(folder / "train")  # type: ignore[index]
    rows = np.load(folder / "search" / "rows.npy")[:, :-1].astype(np.int32)
    changed = rows.copy()
    changed[:, 40:] = np.roll(changed[:, 40:], 1, axis=0)
    answers = []

    class Judge(FakeLink):
        def serve(self, predict: Any, *, claim: dict[str, Any]) -> dict[str, Any]:
            for asked in (rows, changed):
                answers.append(predict(asked[: claim["batch_size"]].copy()))
            return {"score": 2.5}

    link = Judge()
    source = (find_task("autoresearch").folder / "designs" / f"{name}.py").read_text()
    assert sandbox.run(source, link) == 0, link.failures
    assert np.isfinite(answers[0]).all()
    assert np.abs(answers[0][:, :40] - answers[1][:, :40]).max() < 1e-4
    assert np.abs(answers[0][:, 40:] - answers[1][:, 40:]).max() > 0
    summary = capfd.readouterr().out.split("---\n")[1]
    assert "val_bpb:          2.500000" in summary
    assert "training_seconds: " in summary
