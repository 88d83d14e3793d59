"""Fixtures of the sandbox tests: a state folder for each test, a sandbox, Python source in it."""

import pytest
from hostview import PATIENCE_S, python

from sandboxes.base import SandboxSpec


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "wall(*names): skipped where an isolating backend lists one as unenforced"
    )
    config.addinivalue_line(
        "markers", "elsewhere: docker shares the code, or holds it in another test: nightly there"
    )


@pytest.hookimpl(tryfirst=True)  # before pytest selects tests by their markers
def pytest_collection_modifyitems(items):
    """On Docker, run tests marked ``elsewhere`` only nightly: each start costs a container."""
    for item in items:
        if item.get_closest_marker("elsewhere") and item.get_closest_marker("docker"):
            item.add_marker(pytest.mark.nightly)


@pytest.fixture(autouse=True)
def state_folder(monkeypatch, tmp_path_factory):
    """Give each test its own state folder, so that it can check that nothing is left in it."""
    place = tmp_path_factory.mktemp("state")
    place.chmod(0o700)
    monkeypatch.setenv("HARNESS_STATE", str(place))
    return place


@pytest.fixture
def box(backend):
    """A sandbox made by the fixture ``backend`` of the test's module."""
    with backend.open(SandboxSpec(memory_bytes=512 << 20, pids=64, disk_bytes=64 << 20)) as opened:
        yield opened


@pytest.fixture
def run_python():
    """Run Python source in a sandbox; returns its ExecResult."""

    def run(box, source, *args, timeout=PATIENCE_S, **options):
        return box.exec(python(box, source, *args), timeout=timeout, **options)

    return run
