"""One bench for all cheats: the data are prepared once, and no text is scored twice."""

from functools import cache

import pytest

from sandboxes.registry import BACKENDS


@pytest.fixture
def bench(isolating, tmp_path_factory):
    """A Bench at the ``test`` profile in the isolating sandbox."""
    pytest.importorskip("torch")
    pytest.importorskip("rustbpe", reason="pip install 'aira-harness[autoresearch]'")
    return _bench(isolating, tmp_path_factory)


@cache
def _bench(backend, tmp_path_factory):
    from cheats.corpus import Bench

    base = tmp_path_factory.getbasetemp()
    return Bench(base / "autoresearch-data", backend, log=base / "log")


@pytest.fixture
def unisolated():
    """The backend that walls nothing off: it shows what a wall is for."""
    return BACKENDS["process"]
