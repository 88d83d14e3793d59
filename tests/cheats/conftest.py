"""Fixtures of the cheat tests: benches that the tests share.

So the data are prepared once, and the same script is not scored twice.
"""

import pytest

from sandboxes.registry import BACKENDS

_benches = {}
"""Name of a backend -> its bench, kept until the test process ends."""


@pytest.fixture
def bench(isolating, tmp_path_factory):
    """The Bench of autoresearch at the ``test`` profile in the isolating sandbox."""
    pytest.importorskip("torch")
    pytest.importorskip("rustbpe", reason="pip install 'aira-harness[autoresearch]'")
    from cheats.corpus import Bench

    if isolating.name not in _benches:
        base = tmp_path_factory.getbasetemp()
        _benches[isolating.name] = Bench(base / "autoresearch", isolating, log=base / "log")
    return _benches[isolating.name]


@pytest.fixture
def unisolated():
    """The backend without isolation: it shows what a cheat gains without a sandbox."""
    return BACKENDS.ours["process"]


@pytest.fixture(scope="session")
def mechanisms(tmp_path_factory):
    """A function that returns the Bench of lra/listops, ``test`` profile, for a backend."""
    pytest.importorskip("torch")
    from cheats.corpus import Bench

    made: dict[str, Bench] = {}

    def bench(backend):
        if backend.name not in made:
            made[backend.name] = Bench(
                tmp_path_factory.mktemp("listops"),
                backend,
                task="lra/listops",
                settings={"steps": 60, "learning_rate": 5e-3},
            )
        return made[backend.name]

    return bench
