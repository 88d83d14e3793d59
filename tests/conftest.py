"""What all tests share: the toy task, a data folder of their own, and a fixed environment."""

import contextlib
import os
import signal
from functools import cache
from pathlib import Path

import pytest
import typer.main
import typer.testing
from hypothesis import HealthCheck, settings
from toy_task import TOYS, copy_toy

from harness.cli import app
from harness.report.diagnosis import REGISTRIES
from sandboxes.registry import BACKENDS

# A shell makes its background processes ignore Ctrl-C, and child processes inherit that: undo it.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Set here for fixtures of any scope: the numbers in tests belong to the published rows.
os.environ["HARNESS_HIDDEN_KEY"] = "public"
# Child processes import this checkout, too, even if another one is installed.
ROOT = str(Path(__file__).parents[1])
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (ROOT, os.environ.get("PYTHONPATH"))))
# If this were set, every child process would compile every module again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Build the command line only once: it is the same for every test.
typer.main.get_command = typer.testing._get_command = cache(typer.main.get_command)
app.load = cache(app.load)
# No deadline: how long an example takes depends on the machine. `make nightly` tries more examples.
settings.register_profile("often", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("nightly", settings.get_profile("often"), max_examples=1000)
settings.load_profile("often")


def pytest_collection_finish(session):
    """Hide a running Docker engine unless a chosen test needs it: the others expect bubblewrap."""
    if not any(item.get_closest_marker("docker") for item in session.items):
        patch = pytest.MonkeyPatch()
        session.config.add_cleanup(patch.undo)
        patch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")


def tables() -> dict[str, list[str]]:
    """Return the names in each registry, in their order."""
    return {registry.word: list(registry.ours) for registry in REGISTRIES}


TABLES = tables()


@pytest.fixture
def _same_tables():
    """Assert that each test leaves the registries as they were: `auto` depends on their order."""
    yield
    assert tables() == TABLES


@pytest.fixture(autouse=True)
def _own_world(_same_tables, monkeypatch, tmp_path_factory):
    """Show tests the toy task, and keep them off the user's data folder and terminal settings."""
    shared = tmp_path_factory.getbasetemp() / "data"
    monkeypatch.setenv("HARNESS_DATA", str(shared))
    monkeypatch.setenv("HARNESS_TASKS_DIR", str(TOYS))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.fixture
def changed_toy(tmp_path, monkeypatch):
    """A function that hides the toy task behind a copy with changes; it returns the copy's folder.

    Several copies, with other names, stand side by side in tmp_path/tasks.
    """

    def change(*changes, name="toy"):
        monkeypatch.setenv("HARNESS_TASKS_DIR", str(tmp_path / "tasks"))
        return copy_toy(tmp_path / "tasks" / name, *changes)

    return change


@pytest.fixture
def isolating():
    """The first isolating backend that works here; without one, the test is skipped with a hint."""
    for backend in BACKENDS.ours.values():
        with contextlib.suppress(Exception):
            if backend.isolates and backend.probe().available:
                return backend
    pytest.skip("no isolating sandbox on this machine: apt-get install bubblewrap")
