"""A fault of the machine is reported before a run, and is never blamed on a submission."""

import os
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from judging import limited
from toy_task import TOYS

from harness.base.errors import ConfigError, InfrastructureError
from sandboxes.registry import BACKENDS
from scorers import evaluate, self_test
from scorers.request import Request
from scorers.score import Reason
from tasks.spec import Task, all_tasks, find_task

REPO = Path(__file__).parents[2]
TOY = TOYS / "toy"
FAIL = "link.fail"
HONEST = (TOY / "designs" / "whole.py").read_text()


@pytest.fixture(autouse=True)
def state_folder(monkeypatch, tmp_path):
    """An empty state folder, in which no sandbox counts as tested."""
    place = tmp_path / "state"
    place.mkdir(mode=0o700)
    monkeypatch.setenv("HARNESS_STATE", str(place))
    return place


@pytest.fixture
def ask(tmp_path, isolating, monkeypatch):
    """Return a function that makes a request for the toy with changes and long time limits."""
    monkeypatch.setattr(evaluate, "GRACE_S", 60)

    def make(source=HONEST, *, folder=None, limits=None, backend=isolating, **changes):
        toy = find_task("toy")
        task = limited(toy, "test", {"train_s": 120, **(limits or {})}, **changes)
        task = Task(folder or toy.folder, task.definition, task.variant)
        data, manifest = toy.prepare("test", tmp_path / "data", lambda *_: None)
        return Request(
            task=task, profile="test", split="search", files={"model.py": source}, data=data,
            manifest=manifest, training_seed=1, audit_seed="a", backend=backend,
        )  # fmt: skip

    return make


@pytest.fixture
def tests_well(monkeypatch):
    """Let every test of a sandbox pass at once; return the list of the requests tested."""
    tested = []

    def tried(request, *_):
        tested.append(request)
        return SimpleNamespace(measured=1.0, reason=None)

    monkeypatch.setattr(self_test, "imports", lambda *_: None)
    monkeypatch.setattr(self_test, "_tried", tried)
    return tested


def test_a_sandbox_is_tested_once_and_again_where_something_changed(ask, tests_well):
    said = []
    for request in (ask(), ask(), ask("nonsense(")):  # a submission's files do not matter
        self_test.require(request, say=said.append)
    assert len(said) == len(tests_well) == 1
    self_test.require(ask(backend=BACKENDS.ours["process"]), say=said.append)
    self_test.require(ask(limits={"memory_mb": 500}), say=said.append)
    assert len(said) == len(tests_well) == 3


def test_of_many_at_once_one_tests_and_the_others_wait_for_it(ask, tests_well, monkeypatch):
    """All four see that nothing was tested yet; only then the first tests, which takes 0.2 s."""
    said, looked = [], threading.local()
    all_have, good = threading.Barrier(4), self_test._good

    def looks(passed):
        found = good(passed)
        if not hasattr(looked, "once"):
            looked.once = True
            all_have.wait(120)
        return found

    monkeypatch.setattr(self_test, "_good", looks)
    monkeypatch.setattr(self_test, "imports", lambda *_: time.sleep(0.2))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: self_test.require(ask(), say=said.append), range(4)))
    assert len(said) == len(tests_well) == 1


def test_a_memory_that_cannot_be_kept_is_none(ask, tests_well, state_folder):
    (state_folder / "self-tests").write_text("no folder")
    said = []
    for _ in range(2):
        self_test.require(ask(), say=said.append)
    assert len(said) == len(tests_well) == 2


def test_a_package_that_is_not_there_is_named_with_the_command(ask):
    with pytest.raises(ConfigError) as raised:
        self_test.require(ask(needs=("torch_of_tomorrow",)), say=str)
    assert "no torch_of_tomorrow" in raised.value.message
    assert raised.value.remedy == f"{sys.executable} -m pip install torch_of_tomorrow"


def test_a_package_that_is_broken_is_infrastructure(ask):
    with pytest.raises(InfrastructureError, match="cannot be imported") as raised:
        self_test.require(ask(needs=("encodings.oem",)), say=str)  # it imports on Windows only
    assert "cannot import name" in raised.value.cause


def test_too_little_memory_for_an_interpreter_is_infrastructure(ask):
    with pytest.raises(InfrastructureError):
        self_test.require(ask(limits={"memory_mb": 12}), say=str)


def test_a_design_of_the_task_that_is_broken_by_itself_is_not_the_machines_fault(ask):
    self_test.require(ask(designs=("broken",)), say=str)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (HONEST, None),
        ("import os\nprint('File \"/runner/runner.py\"')\nos._exit(3)", Reason.EXITED_EARLY),
        (f"{FAIL}('import_error', 'No module named numpy')", Reason.IMPORT_ERROR),
        (f"{FAIL}('runtime_error', 'no line of mine')", Reason.RUNTIME_ERROR),
    ],
)
def test_what_only_looks_like_the_machines_fault_is_graded(ask, tests_well, source, reason):
    assert self_test.evaluate(ask(source)).score.reason == reason
    assert len(tests_well) == (reason is not None)


@pytest.mark.parametrize("connects_first", [True, False])
def test_what_breaks_on_the_way_is_nobodys_score(ask, tmp_path, monkeypatch, connects_first):
    """The training rows are damaged after the sandbox was tested."""
    monkeypatch.setattr(self_test, "imports", lambda *_: None)
    folder = tmp_path / "toy"
    shutil.copytree(TOY, folder)
    runner = folder / "runner.py"
    connect = '    link = Link.connect(config["paths"]["socket"])\n'
    read = '    import numpy\n    numpy.load(config["paths"]["train"] + "/tokens.npy")\n'
    both = connect + read if connects_first else read + connect
    runner.write_text(runner.read_text().replace(connect, both))
    request = ask(folder=folder)
    self_test.require(request, say=str)
    (request.data / "train" / "tokens.npy").write_bytes(b"")
    with pytest.raises(InfrastructureError, match="own half could not") as raised:
        self_test.evaluate(request)
    assert "No data left in file" in raised.value.cause
    with pytest.raises(InfrastructureError):  # the sandbox no longer counts as tested
        self_test.require(request, say=str)


def test_every_task_of_ours_says_that_it_needs_torch_where_its_runner_does():
    ours = {n: t for n, t in all_tasks().items() if REPO / "tasks" in t.folder.parents}
    assert len(ours) > 8
    for name, task in ours.items():
        if not task.runs_code:
            assert task.definition.needs == ("torch",), "our own trainer needs it"
            continue
        text = "".join(path.read_text() for path in task.runner_files().values())
        assert ("import torch" in text) == ("torch" in task.definition.needs), name


# ---- from another interpreter


@pytest.fixture
def bare(tmp_path):
    """Return a function that runs the harness from a virtual environment without packages.

    It finds packages elsewhere, through a ``.pth`` file or, without ``pth``, through PYTHONPATH.
    """
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    places = [sysconfig.get_path("purelib"), str(REPO)]

    def run(*words, pth=True):
        site = next(venv.glob("lib/python*/site-packages"))
        (site / "elsewhere.pth").write_text("\n".join(places) if pth else "")
        return subprocess.run(
            [venv / "bin" / "python", "-m", "harness", *words],
            env={**os.environ, "PYTHONPATH": "" if pth else os.pathsep.join(places)},
            cwd=tmp_path, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    run.venv = venv
    return run


@pytest.mark.parametrize(
    ("command", "pth"),
    [("score", True), pytest.param("run", False, marks=pytest.mark.slow)],
)
def test_packages_outside_the_interpreters_prefix_are_told_from_submissions_that_fail(
    bare, tmp_path, isolating, command, pth
):
    where = ["--task", "toy", "--profile", "test", "--sandbox", isolating.name]
    rest = {
        "score": [str(TOY / "designs" / "whole.py")],
        "run": ["--agent", "reference", "--runs-dir", "runs"],
    }
    done = bare(command, *where, *rest[command], pth=pth)
    assert done.returncode == 2, done.stderr
    told = f"numpy is in {sysconfig.get_path('purelib')}/numpy/__init__.py"
    assert told in " ".join(done.stderr.split())
    assert f"{bare.venv}/bin/python" in done.stderr
    assert "pip install numpy" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="our own user may read it")
def test_an_interpreter_that_the_sandboxs_user_may_not_read_is_infrastructure(bare, isolating):
    bare.venv.chmod(0o700)
    design = str(TOY / "designs" / "whole.py")
    where = ["--task", "toy", "--profile", "test", "--sandbox", isolating.name]
    done = bare("score", design, *where)
    assert done.returncode == 3, done.stderr
    assert "Permission denied" in done.stderr
    assert f"chmod -R a+rX {bare.venv}" in " ".join(done.stderr.split())
