"""What all tests share: the toy task, data and caches of their own, no stray environment."""

import contextlib
from pathlib import Path

import pytest

from sandboxes.registry import BACKENDS

TOYS = Path(__file__).parent / "toys"


@pytest.fixture(autouse=True)
def _own_world(monkeypatch, tmp_path_factory):
    """Keep tests off the user's cache, and show them the toy task."""
    shared = tmp_path_factory.getbasetemp() / "data"
    monkeypatch.setenv("HARNESS_DATA", str(shared))
    monkeypatch.setenv("HARNESS_TASKS_DIR", str(TOYS))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.fixture
def isolating():
    """The isolating backend of this machine; skips loudly without one."""
    for backend in BACKENDS.values():
        with contextlib.suppress(Exception):
            if backend.isolates and backend.probe().available:
                return backend
    pytest.skip("no isolating sandbox on this machine: apt-get install bubblewrap")
