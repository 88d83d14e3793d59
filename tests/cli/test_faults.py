"""Tests that a refusal of the file system, at any moment of any command, is a message, not a crash.

Faults are injected where Python calls the operating system: an audit hook sees every open, rename,
removal and listing below the test's folder, in any thread, and raises an OSError instead.
"""

import errno
import json
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import pytest
from toy_task import TOY, TOYS

from harness.cli.app import COMMANDS, app, load
from harness.cli.edge import run_and_report
from harness.report import diagnosis
from harness.store.journal import read
from scorers import self_test

NUMBERS = (errno.EACCES, errno.EROFS, errno.ENOSPC, errno.ENOENT)
EVENTS = {
    "open", "os.listdir", "os.scandir", "os.mkdir", "os.rename", "os.remove", "os.rmdir",
    "os.truncate", "os.chmod", "os.utime", "os.link", "os.symlink", "shutil.rmtree",
}  # fmt: skip

SUITE = """
format = 1
name = "mini"
[[groups]]
agents = ["reference"]
tasks = ["toy"]
profile = "test"
steps = 1
sandbox = "process"
"""

QUICK = {
    "agents": (),
    "baseline": ("runs",),
    "bench mechanisms": ("no-such-mechanism",),
    "bundle": ("runs/a", "-o", "out.tar.gz"),
    "check": ("runs", "--baseline", "baseline.json", "--junit", "junit.xml"),
    "compare": ("runs/a", "runs/b"),
    "doctor": (),
    "export": ("runs", "--to", "inspect", "-o", "logs"),
    "features": ("runs",),
    "gc": ("--runs-beyond", "1KB", "--yes"),
    "image build": ("--help",),
    "leaderboard": ("runs", "--format", "html"),
    "ls": ("runs",),
    "new": ("idea", *TOY),
    "policies": (),
    "prepare": ("toy", "--profile", "test"),
    "report": ("runs", "-o", "report.html"),
    "show": ("runs/a", "--node", "0"),
    "stop": ("runs/u", "--no-wait"),
    "sweep": ("suite.toml", "--dry-run"),
    "tasks": (),
    "tasks show": ("toy",),
    "verify": ("kept.tar.gz", "--no-rescore"),
    "watch": ("runs", "--once"),
}
"""Commands that train nothing, and the arguments that they are called with here."""

TOUCH_NOTHING = {"bench mechanisms", "image build", "policies"}

AGENTS = """
format = 1
[agents.mine]
title = "Mine"
provider = "openai"
model = "m"
base_url = "http://127.0.0.1:9/v1"
context_tokens = 1000
max_output_tokens = 500
"""
TRAINING = {
    "run": (*TOY, "--steps", "1", "--sandbox", "process", "--name", "new"),
    "resume": ("runs/u",),
    "rescore": ("runs/a",),
    "score": ("model.py", *TOY, "--sandbox", "process", "--log", "out.log"),
    "tasks check": ("tasks",),
}


class Border:
    """The audit hook. Python cannot remove hooks, so there is only one; between tests it is off."""

    def __init__(self) -> None:
        self.place, self.at, self.number, self.seen = "", 0, 0, 0
        self._lock = threading.Lock()
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.place and event in EVENTS:
            self.meet(arguments[0])

    def meet(self, path: object) -> None:
        """Count an operation on a path below ``place``; raise OSError if it is the ``at``-th."""
        if not self.place or not isinstance(path, str | bytes | os.PathLike):
            return
        if not str(Path.cwd() / os.fsdecode(path)).startswith(self.place):
            return
        with self._lock:
            self.seen += 1
            turn = self.seen == self.at
        if turn:
            raise OSError(self.number, os.strerror(self.number), os.fsdecode(path))

    @contextmanager
    def refusing(self, place: Path, at: int, number: int) -> Iterator[None]:
        """Refuse the ``at``-th operation below ``place`` with errno ``number``; 0 only counts."""
        self.at, self.number, self.seen = at, number, 0
        self.place = f"{place}/"
        try:
            yield
        finally:
            self.place = ""


@pytest.fixture(scope="module")
def border():
    return Border()


def call(name: str, *arguments: str) -> int:
    return run_and_report(lambda: app([*name.split(), *arguments]))


def settle_in(here: Path, patch: pytest.MonkeyPatch) -> None:
    """Make commands read and write below the folder ``here`` only."""
    patch.chdir(here)
    patch.setenv("HARNESS_DATA", str(here / "data"))
    patch.setenv("HARNESS_TASKS_DIR", str(here / "tasks"))
    patch.setenv("HARNESS_AGENTS", str(here / "agents.toml"))


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A folder with two finished runs, an unfinished one, a bundle, a baseline, a suite."""
    here = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch:
        settle_in(here, patch)
        shutil.copytree(TOYS, "tasks")
        Path("agents.toml").write_text(AGENTS)
        for seed, name in enumerate("ab"):
            more = ("--steps", "2", "--seed", str(seed), "--name", name)
            assert call("run", *TOY, *more, "--sandbox", "process") == 0
        shutil.copytree("runs/a", "runs/u")
        shutil.rmtree("runs/u/final")
        Path("runs/u/result.json").unlink()
        journal = Path("runs/u/events.jsonl")
        lines = journal.read_bytes().splitlines(keepends=True)
        scored = next(n for n, line in enumerate(lines) if b'"scored"' in line)
        journal.write_bytes(b"".join(lines[: scored + 1]))
        assert call("bundle", "runs/a", "-o", "kept.tar.gz") == 0
        with Path("baseline.json").open("w") as file, redirect_stdout(file):
            assert call("baseline", "runs/a", "runs/b") == 0
        Path("suite.toml").write_text(SUITE)
        shutil.copy("runs/a/nodes/0000/model.py", "model.py")
    return here


@pytest.fixture
def world(template, tmp_path, monkeypatch):
    """A function that makes a fresh copy of the template and changes into it."""

    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))

    def make(number: int) -> Path:
        here = tmp_path / str(number)
        shutil.copytree(template, here)
        settle_in(here, monkeypatch)
        return here

    return make


@pytest.fixture
def seen_stat(border, monkeypatch):
    """Report ``stat`` and ``lstat`` to the border: they raise no audit event."""

    def watched(ask):
        def stat(path, **options):
            border.meet(path)
            return ask(path, **options)

        return stat

    for name in ("stat", "lstat"):
        monkeypatch.setattr(os, name, watched(getattr(os, name)))


def moments(count: int, most: int) -> list[int]:
    """Return at most ``most`` numbers of operations: the first ones, and some up to the last."""
    if count <= most:
        return list(range(1, count + 1))
    first = most // 2
    step = (count - first) / (most - first)
    return [*range(1, first + 1), *(first + round(step * n) for n in range(1, most - first + 1))]


def evidence(run: Path) -> dict[str, bytes]:
    """Return the recorded files of a run, except its journal: path -> content."""
    names = ("run.toml", "lock.json", "result.json", "nodes", "final")
    files = (f for name in names for f in (run / name, *(run / name).rglob("*")) if f.is_file())
    return {str(f.relative_to(run)): f.read_bytes() for f in files}


def refuse(border, world, capfd, name, arguments, most):
    """Call a command once for each fault, in a fresh folder each time; yield that folder."""
    with border.refusing(world(0).parent, 0, 0):
        call(name, *arguments)
        count = border.seen
    assert bool(count) == (name not in TOUCH_NOTHING)
    capfd.readouterr()
    faults = 0
    for turn, at in enumerate(moments(count, most)):
        number, here = NUMBERS[turn % len(NUMBERS)], world(at)
        with border.refusing(here.parent, at, number):
            code = call(name, *arguments)
            met = border.seen >= at
        faults += met
        told = "".join(capfd.readouterr())
        which = f"{name}, operation {at} of {count}, {errno.errorcode[number]}: {code}\n{told}"
        assert code in (0, 1, 2, 3, 5), which
        assert "most recent call last" not in told, which
        # The command line parser itself checks that folders exist, with its own message.
        if met and code in (2, 3) and "Invalid value for '" not in told:
            assert "error: " in told or name == "doctor", which
            named = (os.strerror(number), str(here.parent), "runs")
            assert any(words in told for words in named), which
        yield here
        shutil.rmtree(here)
    assert bool(faults) == (name not in TOUCH_NOTHING)


def whole(here, template, *, gone=()):
    """Assert that nothing recorded is lost; the runs in ``gone`` may be deleted completely."""
    for name in "ab":
        run = here / "runs" / name
        if run.exists() or name not in gone:
            assert evidence(run).items() >= evidence(template / "runs" / name).items()
    before, now = (read(p / "runs/u/events.jsonl") for p in (template, here))
    assert now[: len(before)] == before


def leaves(commands, before=""):
    """Yield the names of all commands, and of groups that are commands themselves."""
    for name, command in commands.items():
        if not hasattr(command, "commands") or command.invoke_without_command:
            yield f"{before}{name}"
        if hasattr(command, "commands"):
            yield from leaves(command.commands, f"{before}{name} ")


def test_every_command_is_tried():
    assert set(leaves({name: load(name) for name in COMMANDS})) == {*QUICK, *TRAINING}


def cases(commands, few, many):
    """Return parameters: ``few`` faults for each command by default, ``many`` in nightly tests."""
    return [
        *(pytest.param(n, few, id=n) for n in commands),
        *(pytest.param(n, many, id=f"{n}, often", marks=pytest.mark.nightly) for n in commands),
    ]


@pytest.mark.parametrize(("name", "most"), cases(QUICK, 4, 32))
def test_what_the_disk_refuses_a_command_is_told_and_loses_nothing(
    border, world, template, seen_stat, monkeypatch, capfd, name, most
):
    monkeypatch.setattr(diagnosis, "PACKAGES", ("numpy",))  # doctor imports these in each sandbox
    for here in refuse(border, world, capfd, name, QUICK[name], most):
        whole(here, template, gone="ab" if name == "gc" else "")


@pytest.mark.parametrize(("name", "most"), cases(TRAINING, 2, 24))
def test_what_the_disk_refuses_a_training_is_told_and_it_goes_on_later(
    border, world, template, seen_stat, isolating, monkeypatch, capfd, name, most
):
    if most == 2:  # only the nightly cases refuse operations of the self-test
        monkeypatch.setattr(self_test, "require", lambda *_, **__: None)
    for here in refuse(border, world, capfd, name, TRAINING[name], most):
        whole(here, template)
        run = here / "runs" / {"run": "new", "resume": "u"}.get(name, "a")
        if run.exists():  # a run that was started can be finished when the disk works again
            assert call("resume", str(run)) == 0
            assert json.loads((run / "result.json").read_text())["valid"]
