"""What all tests share: the toy task, data and caches of their own, no stray environment."""

import contextlib
import os
import signal
from functools import cache
from pathlib import Path

import pytest
import typer.main
import typer.testing
from hypothesis import HealthCheck, settings

from harness.cli import app
from harness.report.diagnosis import REGISTRIES
from sandboxes.registry import BACKENDS

TOYS = Path(__file__).parent / "toys"

# A shell that starts the suite in the background has it ignore Ctrl-C, and every harness of it too.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Rows as published, for fixtures of any scope: the tests' numbers are of those.
os.environ["HARNESS_HIDDEN_KEY"] = "public"
# Or each process of ours would compile every module anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# A command line that is built once is the same each time.
typer.main.get_command = typer.testing._get_command = cache(typer.main.get_command)
app.load = cache(app.load)
# What an example costs is the machine's affair. `make nightly` looks for longer.
settings.register_profile("often", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("nightly", settings.get_profile("often"), max_examples=1000)
settings.load_profile("often")


def pytest_collection_finish(session):
    """Keep the default suite off an engine that happens to run: it is written for bubblewrap."""
    if not any(item.get_closest_marker("docker") for item in session.items):
        os.environ["DOCKER_HOST"] = "unix:///nowhere/docker.sock"


def tables() -> dict[str, list[str]]:
    """Return the names in each registry, in their order."""
    return {registry.word: list(registry.ours) for registry in REGISTRIES}


TABLES = tables()


@pytest.fixture
def _same_tables():
    """Hold each test to leave the registries as they were: `auto` goes by their order."""
    yield
    assert tables() == TABLES


@pytest.fixture(autouse=True)
def _own_world(_same_tables, monkeypatch, tmp_path_factory):
    """Keep tests off the user's cache, and show them the toy task."""
    shared = tmp_path_factory.getbasetemp() / "data"
    monkeypatch.setenv("HARNESS_DATA", str(shared))
    monkeypatch.setenv("HARNESS_TASKS_DIR", str(TOYS))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.fixture
def isolating():
    """The isolating backend of this machine; skips loudly without one."""
    for backend in BACKENDS.ours.values():
        with contextlib.suppress(Exception):
            if backend.isolates and backend.probe().available:
                return backend
    pytest.skip("no isolating sandbox on this machine: apt-get install bubblewrap")
