"""Tests a data folder shared by several users. They are real users, so only root can run this."""

import json
import os
import select
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.report import diagnosis
from sandboxes.base import SandboxSpec
from tasks import hidden, shared
from tasks.download import Remote, fetch

ROOT = Path(__file__).parents[2]
ANNA, BERT, CARL, TEAM = 12001, 12002, 12003, 12100
"""Ids of three users and a group. Carl is not in the group."""

USERS = """
import json, os, sys, tempfile
from pathlib import Path
from harness.base.errors import HarnessError
from tasks.hidden import known_key
from tasks.lra.listops import data
from tasks.shared import set_modes
from tasks.spec import find_task
quiet = lambda *_: None
values = find_task("lra/listops").profile("test").data
with tempfile.TemporaryDirectory() as other:  # what is imported late may be root's alone to read
    for _ in range(2):
        data.prepare("test", values, Path(other), quiet)
for line in sys.stdin:
    uid, group, root, seed = json.loads(line)
    if not os.fork():
        os.umask(0o077)
        os.setgroups([group])
        os.setgid(uid)
        os.setuid(uid)
        try:
            folder = data.prepare("test", {**values, "seed": seed}, Path(root), quiet)
            set_modes(folder)
            said = [str(folder), known_key(Path(root)).fingerprint]
        except HarnessError as error:
            said = ["refused", str(error)]
        print(json.dumps(said), flush=True)
        os._exit(0)
    if os.wait()[1]:
        print(json.dumps(["failed", "see standard error"]), flush=True)
"""
"""Runs as root. For each input line it forks a child that becomes the user: imports are slow."""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become two users")

Prepare = Callable[..., tuple[str, str]]


@pytest.fixture(scope="module")
def prepare() -> Iterator[Prepare]:
    """Return a function that prepares data as a user whose umask lets nobody else read."""
    environment = {k: v for k, v in os.environ.items() if k != hidden.VARIABLE}
    users = subprocess.Popen(
        [sys.executable, "-c", USERS], cwd=ROOT, env=environment,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert users.stdin
    assert users.stdout
    into, out = users.stdin, users.stdout

    def prepare(uid: int, root: Path, *, seed: int = 1, group: int = TEAM) -> tuple[str, str]:
        print(json.dumps([uid, group, str(root), seed]), file=into, flush=True)
        assert select.select([out], [], [], 120)[0], "no answer"
        where, what = json.loads(out.readline())
        assert where != "failed", what
        return where, what

    yield prepare
    into.close()
    users.wait(60)
    out.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user can reach: pytest's own are open to root only."""
    path = Path(tempfile.mkdtemp(prefix="shared-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def team(folder: Path) -> Path:
    """A shared data folder, made as docs/guides/shared-server.md tells an admin."""
    root = folder / "data"
    root.mkdir()
    os.chown(root, 0, TEAM)
    root.chmod(0o2770)
    return root


def rights(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode) & 0o777


def test_two_users_of_a_group_have_one_key_and_one_copy(prepare: Prepare, team: Path) -> None:
    annas = prepare(ANNA, team)
    assert prepare(BERT, team) == annas
    made = Path(annas[0])
    assert made.stat().st_uid == ANNA
    assert rights(team / "hidden.key") == 0o640
    for path in (team / "hidden.key", made, *made.rglob("*")):
        assert path.stat().st_gid == TEAM, path
        if "train" not in path.parts:
            assert not rights(path) & 0o007, path
    assert rights(made / "train") & 0o005 == 0o005  # the sandbox's user, who is in no group
    assert rights(made / "train" / "tokens.npy") & 0o004
    assert rights(made / "test" / "labels.npy") == 0o640


def test_who_is_not_of_the_group_is_told_so(prepare: Prepare, team: Path) -> None:
    prepare(ANNA, team)
    where, why = prepare(CARL, team, group=CARL)
    assert where == "refused"
    assert "Permission denied" in why
    assert str(team) in why


def test_one_mends_what_another_made(prepare: Prepare, team: Path) -> None:
    made = Path(prepare(ANNA, team)[0])
    (made / "test" / "labels.npy").write_bytes(b"")
    assert prepare(BERT, team)[0] == str(made)
    assert made.stat().st_uid == BERT
    assert not [p for p in team.iterdir() if p.name.endswith(".part")]
    left = team / f".{made.name}.part" / "search"  # left by a process that was killed
    left.mkdir(parents=True)
    (left / "tokens.npy").touch()
    for path in (left / "tokens.npy", left, left.parent):
        os.chown(path, ANNA, TEAM)
        path.chmod(0o700)
    shutil.rmtree(made)
    assert prepare(BERT, team)[0] == str(made)
    assert left.exists()


def test_who_may_only_read_uses_what_is_prepared(prepare: Prepare, team: Path) -> None:
    os.chown(team, ANNA, TEAM)
    team.chmod(0o2750)
    annas = prepare(ANNA, team)
    before = sorted(path.name for path in team.iterdir())
    assert prepare(BERT, team) == annas
    where, why = prepare(BERT, team, seed=2)
    assert where == "refused"
    assert "cannot be written" in why
    assert f"is user {ANNA}'s, mode 2750" in why
    assert "docs/guides/shared-server.md" in why
    assert sorted(path.name for path in team.iterdir()) == before
    assert Path(annas[0]).stat().st_uid == ANNA


def test_what_is_not_shared_stays_its_owners(prepare: Prepare, folder: Path) -> None:
    root = folder / "data"
    root.mkdir()
    os.chown(root, ANNA, TEAM)
    made = Path(prepare(ANNA, root)[0])
    assert rights(root / "hidden.key") == 0o600
    assert rights(made / "search") == 0o700
    root.chmod(0o755)
    where, why = prepare(BERT, root)
    assert where == "refused"
    assert f"hidden.key cannot be read.\nCause: Permission denied: it is user {ANNA}'s" in why
    (root / "hidden.key").chmod(0o644)  # by hand: the folder is still hers
    where, why = prepare(BERT, root)
    assert where == "refused"
    assert "cannot be read under" in why
    assert f"{made} is user {ANNA}'s, mode 700" in why
    assert made.stat().st_uid == ANNA


def test_a_key_that_cannot_be_linked_is_still_one(
    team: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.delenv(hidden.VARIABLE)
    monkeypatch.setattr(os, "link", no_links)
    key = hidden.hidden_key(team)
    assert key == hidden.hidden_key(team)
    assert rights(team / "hidden.key") == 0o640
    assert [p.name for p in team.iterdir()] == ["hidden.key"]


def test_downloads_are_the_groups_too(team: Path, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        shared.make_folder(team / "downloads" / "deep")
        (team / "downloads" / "whole.bin").write_bytes(b"1")
        shared.inherit_group(team / "downloads" / "whole.bin")
        shared.make_folder(tmp_path / "alone")
    finally:
        os.umask(before)
    assert rights(team / "downloads" / "deep") == 0o770
    assert rights(team / "downloads" / "whole.bin") == 0o640
    assert rights(tmp_path / "alone") == 0o700
    here = Remote("http://127.0.0.1:9/whole.bin", "whole.bin", size=1)
    assert fetch([here], team / "downloads", lambda *_: None)


def test_doctor_says_what_the_group_cannot_read(
    prepare: Prepare, team: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(hidden.VARIABLE)
    monkeypatch.setenv("HARNESS_DATA", str(team))
    monkeypatch.setattr(diagnosis.BACKENDS, "ours", {})  # each would import packages, which is slow
    made = Path(prepare(ANNA, team)[0])

    def said(what: str) -> tuple[bool, str]:
        found = next(f for f in diagnosis.diagnose() if f.what == what)
        return found.good, f"{found.detail} {found.remedy}"

    good, words = said("data shared")
    assert good
    assert f"with group {TEAM}, mode 2770" in words
    assert said("hidden key")[0]
    (made / "search").chmod(0o700)
    good, words = said("data shared")
    assert not good
    assert "cannot read 1 things there, search first" in words
    assert f"chgrp -R {TEAM} {team}" in words
    (team / "hidden.key").chmod(0o644)
    good, words = said("hidden key")
    assert not good
    assert "chmod 640" in words


def test_the_user_of_a_sandbox_is_of_no_group(isolating: object) -> None:
    before = os.getgroups()
    os.setgroups([*before, TEAM])
    try:
        with isolating.open(SandboxSpec()) as sandbox:  # type: ignore[attr-defined]
            done = sandbox.exec(["/usr/bin/id", "-G"], timeout=30)
    finally:
        os.setgroups(before)
    assert done.exit_code == 0
    assert str(TEAM) not in done.stdout.decode().split()
    assert "0" not in done.stdout.decode().split()
