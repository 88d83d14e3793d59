"""Each live sandbox has a user of its own: claimed for the whole host, freed by the kernel."""

import os
import shutil
import subprocess
import sys
import textwrap

import pytest
from hostview import REPO

from harness.base.errors import SandboxStartError
from sandboxes import state
from sandboxes.base import SandboxSpec
from sandboxes.bubblewrap import Bubblewrap

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may choose users")

HOLDER = """
    import sys
    from pathlib import Path
    from sandboxes import state
    state.USERS, state._CLAIMS = range(60_600, 60_602), Path(sys.argv[1])
    print(state.StateDir("bwrap", own_user=True).user, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def two_users(monkeypatch, tmp_path):
    """Allow two users in all, claimed in a folder that no other harness uses; return the folder."""
    place = tmp_path / "claims"
    monkeypatch.setattr(state, "USERS", range(60_600, 60_602))
    monkeypatch.setattr(state, "_CLAIMS", place)
    return place


def test_no_two_live_sandboxes_of_a_host_have_the_same_user(two_users):
    argv = [sys.executable, "-c", textwrap.dedent(HOLDER), two_users]
    with subprocess.Popen(
        argv, cwd=REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as another:
        theirs = int(another.stdout.readline())
        ours = state.StateDir("bwrap", own_user=True)
        assert {theirs, ours.user} == {60_600, 60_601}
        with pytest.raises(SandboxStartError, match="Every user"):
            state.StateDir("bwrap", own_user=True)
        another.kill()  # it cannot clean up: the kernel frees its claim
    again = state.StateDir("bwrap", own_user=True)
    assert again.user == theirs
    again.remove()
    ours.remove()
    last = state.StateDir("bwrap", own_user=True)
    assert last.user in state.USERS
    last.remove()


def test_a_sandbox_that_cannot_be_made_gives_its_user_back(two_users, monkeypatch):
    def broken(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr("sandboxes.bubblewrap.write_etc", broken)
    for _ in range(3):  # more often than there are users
        with pytest.raises(OSError, match="no space"):
            Bubblewrap().open(SandboxSpec())


def test_a_place_for_claims_that_somebody_else_made_is_refused(two_users):
    two_users.mkdir(mode=0o777)
    os.chown(two_users, 65534, 65534)
    with pytest.raises(SandboxStartError, match="not ours alone"):
        state.StateDir("bwrap", own_user=True)


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs util-linux")
def test_root_of_a_user_namespace_has_no_other_users_and_says_so(state_folder):
    source = """
        from sandboxes.base import SandboxSpec
        from sandboxes.bubblewrap import Bubblewrap
        backend = Bubblewrap()
        print(backend.probe().available, backend.probe().detail)
        print(*backend.unenforced(SandboxSpec()))
    """
    argv = ["unshare", "--user", "--map-root-user", sys.executable, "-c", textwrap.dedent(source)]
    done = subprocess.run(argv, cwd=REPO, capture_output=True, text=True, timeout=60)
    if "Operation not permitted" in done.stderr:
        pytest.skip("this kernel forbids user namespaces")
    probe, missing = done.stdout.splitlines()
    assert probe.startswith("True"), probe
    assert {"separate-user", "user-quotas", "disk"} <= set(missing.split())
