"""Tests the hidden key: when it is made, which rows it changes, and that nothing reveals it."""

import contextlib
import gzip
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from calling import call, start
from test_listops import rows as listops_rows
from test_listops import value_of

from harness.base.errors import ConfigError
from harness.report import diagnosis
from harness.report.bundle.pack import pack
from tasks import hidden
from tasks.definition import Manifest
from tasks.lra.pathfinder import snakes
from tasks.shared import SPLITS
from tasks.spec import find_task

ROOT = Path(__file__).parents[2]
ONE, TWO = "1f" * 32, "2e" * 32
GENERATED = (
    "lra/listops", "lra/text", "lra/retrieval", "lra/image", "lra/image-fashion",
    "lra/pathfinder", "lra/pathfinder-gen", "lra/pathx", "lra/pathx-gen",
)  # fmt: skip
SAME_ROAD = ("lra/pathfinder", "lra/pathfinder-gen", "lra/pathx-gen")
"""Tasks that draw rows with lra/pathx's code: by default a test of lra/pathx is enough."""
FEW = {"train": 96, "search": 48, "test": 48}
PUBLISHED = {
    "lra/listops": ("lra-listops-test-3451248d5b908524", "5a07b2d11448f431"),
    "lra/text": ("lra-text-test-54724d6e124b9252", "90541859b0f1e89a"),
    "lra/retrieval": ("lra-retrieval-test-e0f35f0faafa48ac", "8cddb73115536240"),
    "lra/image": ("lra-image-test-c69b0a706836d0a8", "aa3ec1a1256ae161"),
    "lra/pathfinder-gen": ("lra-pathfinder-gen-test-f39f3d2e0ec278d7", "8e48015de23508b5"),
}
"""Name and hash of the ``test`` profile's data as they were before the hidden key existed."""


@pytest.fixture
def private(monkeypatch):
    """The default: the variable is unset, so the key is that of the data root."""
    monkeypatch.delenv("HARNESS_HIDDEN_KEY")


def prepare(name: str, root: Path, key: str, monkeypatch, **rows: int) -> tuple[Path, Manifest]:
    monkeypatch.setenv("HARNESS_HIDDEN_KEY", key)
    return find_task(name).prepare("test", root, lambda *_: None, rows)


def rows(folder: Path) -> dict[str, list[bytes]]:
    return {s: [row.tobytes() for row in np.load(folder / s / "tokens.npy")] for s in SPLITS}


def test_the_first_preparation_makes_a_key_for_its_owner_only(private, tmp_path):
    before = os.umask(0)
    try:
        path, manifest = find_task("lra/listops").prepare("test", tmp_path, lambda *_: None)
    finally:
        os.umask(before)
    file = tmp_path / "hidden.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    text = file.read_text()
    assert len(bytes.fromhex(text)) == 32
    key = hidden.hidden_key(tmp_path)
    assert key is not None
    assert manifest.parameters["hidden_key"] == key.fingerprint
    assert find_task("lra/listops").prepare("test", tmp_path, lambda *_: None) == (path, manifest)
    # Another root has another key. No file of the folder that sandboxes mount holds the key.
    other = hidden.hidden_key(tmp_path / "other")
    assert other != key
    prepared = [f.read_bytes() for f in path.rglob("*") if f.is_file()]
    assert len(prepared) > 6
    for secret in (text.strip().encode(), key.secret):
        assert not [content for content in prepared if secret in content]
    assert not [f for f in tmp_path.iterdir() if f.name.startswith(".hidden")]


def test_processes_that_race_end_with_one_key(private, tmp_path):
    code = (
        "import sys; from pathlib import Path; from tasks.hidden import hidden_key\n"
        "for root in sys.argv[1:]:\n"
        "    print('ready', flush=True)\n"
        "    sys.stdin.readline()\n"
        "    print(hidden_key(Path(root)).fingerprint, flush=True)"
    )
    environ = {k: v for k, v in os.environ.items() if k != "HARNESS_HIDDEN_KEY"}
    roots = [tmp_path / str(attempt) for attempt in range(5)]
    with contextlib.ExitStack() as stack:
        racing = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", code, *map(str, roots)],
                    cwd=ROOT, env=environ, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                )
            )
            for _ in range(6)
        ]  # fmt: skip
        for root in roots:
            assert {process.stdout.readline() for process in racing} == {"ready\n"}
            for process in racing:
                process.stdin.write("go\n")
                process.stdin.flush()
            (found,) = {process.stdout.readline() for process in racing}
            assert found == f"{hidden.hidden_key(root).fingerprint}\n"
            assert [f.name for f in root.iterdir()] == ["hidden.key"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_public_means_the_rows_and_names_of_before(name, tmp_path, monkeypatch):
    path, manifest = prepare(name, tmp_path, "public", monkeypatch)
    assert (path.name, manifest.hash) == PUBLISHED[name]
    assert "hidden_key" not in manifest.parameters
    assert not (tmp_path / "hidden.key").exists()


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.nightly) if n in SAME_ROAD else n for n in GENERATED],
)
def test_a_key_moves_the_hidden_rows_and_no_others(name, tmp_path, monkeypatch):
    # Smaller batches: the generator draws no fewer images at once.
    monkeypatch.setattr(snakes, "LAYOUTS_AT_ONCE_PIXELS", 100_000)
    public, _ = prepare(name, tmp_path, "public", monkeypatch, **FEW)
    one, first = prepare(name, tmp_path, ONE, monkeypatch, **FEW)
    two, second = prepare(name, tmp_path, TWO, monkeypatch, **FEW)
    assert len({public, one, two}) == 3
    assert first.hash != second.hash
    for what in ("tokens", "labels"):
        published = (public / "train" / f"{what}.npy").read_bytes()
        assert (one / "train" / f"{what}.npy").read_bytes() == published
        assert (two / "train" / f"{what}.npy").read_bytes() == published
    known, mine, others = rows(public), rows(one), rows(two)
    assert first.rows == second.rows
    assert mine["search"] != others["search"]
    assert mine["test"] != others["test"]
    for found in (mine, others):
        every = [row for split in SPLITS for row in found[split]]
        assert len(every) == len(set(every))
        published = {row for split in SPLITS for row in known[split]}
        assert not published & {*found["search"], *found["test"]}
    # The same key gives the same rows on every machine.
    again, manifest = prepare(name, tmp_path / "elsewhere", ONE.upper(), monkeypatch, **FEW)
    assert (again.name, manifest) == (one.name, first)


def test_hidden_labels_are_right_and_as_hard(tmp_path, monkeypatch):
    from tasks.lra.listops import data as listops

    big = {"train": 4000, "search": 1000, "test": 1000, "max_length": 64}
    task, quiet = find_task("lra/listops"), lambda *_: None
    lengths = {}
    for key in ("public", ONE):
        monkeypatch.setenv("HARNESS_HIDDEN_KEY", key)
        path, _ = task.prepare("smoke", tmp_path, quiet, big)
        lengths[key] = [(np.load(path / s / "tokens.npy") > 0).sum(1).mean() for s in SPLITS]
        for split in ("search", "test"):
            rows = list(listops_rows(path, split))
            assert len(rows) == big[split]
            assert all(value_of(ids) == label for ids, label in rows)
    assert lengths["public"][0] == lengths[ONE][0]
    # There are few short expressions, and the published ones may not be drawn again.
    assert abs(lengths[ONE][1] - lengths["public"][1]) < 2.5
    assert abs(lengths[ONE][1] - lengths[ONE][2]) < 1.5
    assert listops.ListopsParameters.model_validate(task.profile("smoke").data).seed == 1


@pytest.mark.parametrize("content", ["", "1f" * 31, "zz" * 32, ONE + ONE, f" {ONE}", "\udcff"])
def test_a_damaged_key_is_named_and_not_shown(private, tmp_path, monkeypatch, content):
    # No wait: no other process will complete the file.
    monkeypatch.setattr(hidden, "time", SimpleNamespace(sleep=lambda _: None))
    (tmp_path / "hidden.key").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match="damaged") as caught:
        find_task("lra/listops").prepare("test", tmp_path, lambda *_: None)
    said = str(caught.value)
    assert str(tmp_path / "hidden.key") in said
    assert "HARNESS_HIDDEN_KEY=public" in said
    assert "1f1f" not in said
    assert "zzzz" not in said


def test_a_key_that_is_a_folder_or_cannot_be_made_is_a_config_error(private, tmp_path):
    (tmp_path / "a" / "hidden.key").mkdir(parents=True)
    with pytest.raises(ConfigError, match="cannot be read"):
        hidden.hidden_key(tmp_path / "a")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be made"):
        hidden.hidden_key(tmp_path / "file" / "below")


def test_real_data_need_no_key(private, tmp_path):
    with pytest.raises(ConfigError):
        find_task("lra/text").prepare("short", tmp_path, lambda *_: None, {"source": "/nowhere"})
    assert not (tmp_path / "hidden.key").exists()


def test_a_key_shows_in_no_text_made_of_it():
    key = hidden.HiddenKey(bytes.fromhex(ONE))
    assert "1f1f" not in f"{key} {key!r} {key.fingerprint}"
    assert len({key.seed("a", 1), key.seed("b", 1), key.seed("a", 2)}) == 3
    assert 2**100 < key.seed("a", 1) < 2**128


def test_the_command_refuses_a_bad_variable_and_says_the_fingerprint(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    monkeypatch.setenv("HARNESS_HIDDEN_KEY", ONE[:-1])
    prepare_it = ("prepare", "lra/listops", "--profile", "test")
    refused = call(*prepare_it, code=2)
    assert "HARNESS_HIDDEN_KEY holds no key" in refused.stderr
    assert "1f1f" not in refused.said
    monkeypatch.setenv("HARNESS_HIDDEN_KEY", ONE)
    done = call(*prepare_it)
    print_of = hidden.HiddenKey(bytes.fromhex(ONE)).fingerprint
    assert f"hidden key     {print_of}" in done.stdout
    assert "1f1f" not in done.said


def test_doctor_says_what_is_known_of_the_key(private, tmp_path, monkeypatch):
    # No sandboxes: what they can import does not matter here.
    monkeypatch.setattr(diagnosis.BACKENDS, "ours", {})

    def line():
        (found,) = (f for f in diagnosis.diagnose() if f.what == "hidden key")
        return found

    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    assert "none yet" in line().detail
    assert not list(tmp_path.iterdir())
    key = hidden.hidden_key(tmp_path)
    assert key is not None
    assert (line().good, key.fingerprint in line().detail) == (True, True)
    (tmp_path / "hidden.key").chmod(0o644)
    assert (line().good, line().remedy) == (False, f"chmod 600 {tmp_path / 'hidden.key'}")
    (tmp_path / "hidden.key").write_text("x")
    assert "damaged" in line().detail
    monkeypatch.setenv("HARNESS_HIDDEN_KEY", "public")
    assert "as published" in line().detail


SPY = """

import os, pathlib
from torch import nn


def look():
    print("LOOKING", sorted(os.environ), flush=True)
    for top in ("/data", "/work", "/task", "/runner", "/submission", "/link", "/tmp"):
        for file in pathlib.Path(top).rglob("*"):
            print("FILE", file, flush=True)
    for file in pathlib.Path("/proc").glob("[0-9]*/environ"):
        try:
            print("ENVIRON", file.read_bytes(), flush=True)
        except OSError:
            pass


class CustomEncoder(nn.Module):
    def __init__(self, *, vocabulary, classes, length, dim, depth, heads, mlp_dim, dropout):
        super().__init__()
        look()
        self.embed = nn.Embedding(vocabulary, dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, tokens, mask):
        x = self.embed(tokens) * mask[..., None]
        return self.head(x.sum(1) / mask.sum(1, keepdim=True))
"""


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_the_key_is_in_no_sandbox_run_or_log(private, isolating, tmp_path, monkeypatch):
    """Run a submission that prints what it can see; search all files and output for the key."""
    pytest.importorskip("torch")
    from scorers.evaluate import evaluate
    from scorers.request import Request

    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "data"))
    key = hidden.hidden_key(tmp_path / "data")
    assert key is not None
    monkeypatch.setenv("HARNESS_HIDDEN_KEY", key.secret.hex())
    task = find_task("lra/listops")
    data, manifest = task.prepare("test", tmp_path / "data", lambda *_: None)
    unread = task.definition.model_copy(update={"writes": "program"})
    task = type(task)(task.folder, unread, task.variant)
    request = Request(
        task=task, profile="test", split="search", files={"model.py": SPY}, data=data,
        manifest=manifest, training_seed=3, audit_seed="a1b2", backend=isolating, gpus=(),
    )  # fmt: skip
    evaluated = evaluate(request)
    score, log = evaluated.score, evaluated.log.decode()
    assert score.valid, score.message
    assert "/data/train/tokens.npy" in log
    assert "HARNESS" not in log
    assert "hidden" not in log
    told = ("--task", "lra/listops", "--profile", "test", "--steps", 1)
    ran = start("run", *told, cwd=tmp_path)
    seed = key.seed("lra/listops", 1)
    secrets = [key.secret.hex(), key.secret.hex().upper(), key.secret, f"{seed}", f"{seed:x}"]
    texts = {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()}
    texts |= {
        "stdout": ran.stdout.encode(),
        "stderr": ran.stderr.encode(),
        "score": repr(score).encode(),
    }
    texts.pop(tmp_path / "data" / "hidden.key")
    assert len(texts) > 20
    for name, content in texts.items():
        for secret in secrets:
            needle = secret if isinstance(secret, bytes) else secret.encode()
            assert needle not in content, name
    (run,) = (tmp_path / "runs").iterdir()
    assert json.loads((run / "lock.json").read_text())["hidden_key"] == key.fingerprint
    # A user with another key is told what differs; the key is not in the bundle.
    archive = tmp_path / "run.tar.gz"
    pack(run, archive)
    assert key.secret.hex().encode() not in gzip.decompress(archive.read_bytes())
    verified = start("verify", archive, cwd=tmp_path, code=None, HARNESS_HIDDEN_KEY=TWO)
    assert verified.returncode in (0, 5), verified.stderr
    assert f"Other hidden rows: the hidden key {key.fingerprint} there" in verified.stdout
    assert "HARNESS_HIDDEN_KEY=KEY" in verified.stdout
    # Without that key the run is not resumed, and the command says why.
    (run / "result.json").unlink()
    resumed = start("resume", run, cwd=tmp_path, code=2, HARNESS_HIDDEN_KEY="public")
    assert f"then the hidden key {key.fingerprint}, now no hidden key" in resumed.stderr
