"""Odd files from somebody else, which no reader waits for or follows; and files written whole."""

import os
import socket
from pathlib import Path

import pytest

from harness.agents.catalogue import load_agents
from harness.base.errors import ConfigError
from harness.base.files import open_plain, read_json, read_plain, read_text, replacing, write_whole
from harness.launch.by_hand import read_submission
from harness.operators.literature import load as load_notes
from harness.operators.templates import Templates, prompts_hash
from harness.report.bundle.unpack import unpack
from harness.store.index import read as read_entry
from harness.store.journal import read as read_journal
from harness.store.rundir import Run
from harness.store.state import load_files
from harness.sweeps.suite import load as load_suite
from tasks.spec import find_task

SECRET = "the hidden key"


pytestmark = pytest.mark.timeout(60)  # a reader that waits for a pipe stops one test, not the suite


@pytest.fixture
def secret(tmp_path):
    file = tmp_path / "secret"
    file.write_text(SECRET)
    return file


def pipe(place: Path, secret: Path) -> None:
    os.mkfifo(place)


def endless(place: Path, secret: Path) -> None:
    place.symlink_to("/dev/zero")


def link(place: Path, secret: Path) -> None:
    place.symlink_to(secret)


def plug(place: Path, secret: Path) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        folder = os.open(place.parent, os.O_PATH)
        opened.bind(f"/proc/self/fd/{folder}/{place.name}")
        os.close(folder)


def folder(place: Path, secret: Path) -> None:
    place.mkdir()


def large(place: Path, secret: Path) -> None:
    with place.open("wb") as file:
        file.truncate(2 << 30)  # sparse: it takes no disk space, but reading it takes memory


ODD = [pipe, endless, link, plug, folder, large]

READERS = {
    "a submission": ("model.py", lambda f: read_submission(f.parent, find_task("toy"))),
    "a run's question": ("run.toml", lambda f: Run(f.parent).asked),
    "a run's result": ("result.json", lambda f: Run(f.parent).result or read_json(f)),
    "a journal": ("events.jsonl", lambda f: read_journal(f)),
    "a node's file": ("model.py", lambda f: load_files(f.parent, {"model.py": "0" * 64})),
    "a note on a paper": ("paper.md", lambda f: load_notes(f.parent)),
    "a template": ("draft.md", lambda f: Templates(f.parent)),
    "a template's hash": ("draft.md", lambda f: prompts_hash(f.parent)),
}


@pytest.mark.parametrize("odd", ODD, ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_plain_file_of_a_folder_is_refused_and_none_of_it_is_told(
    tmp_path, secret, name, odd
):
    file, reader = READERS[name]
    place = tmp_path / "given"
    place.mkdir()
    odd(place / file, secret)
    with pytest.raises(ConfigError) as caught:
        reader(place / file)
    assert file in str(caught.value)
    assert SECRET not in str(caught.value)
    assert ("it is a link" in str(caught.value)) == (place / file).is_symlink()


NAMED = {
    "a submission": lambda f: read_submission(f, find_task("toy")),
    "a suite": load_suite,
    "a table of agents": load_agents,
    "a bundle": lambda f: unpack(f, f.parent / "out"),
}


@pytest.mark.parametrize("odd", [pipe, endless, plug, folder], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", NAMED)
def test_what_a_user_names_need_not_be_in_a_folder_but_must_be_a_file(tmp_path, secret, name, odd):
    odd(tmp_path / "named.toml", secret)
    with pytest.raises(ConfigError, match=r"named\.toml"):
        NAMED[name](tmp_path / "named.toml")


def test_a_link_that_the_user_names_is_followed_and_a_folder_may_be_one(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "model.py").write_bytes(b"a = 1\r\nb = 2\r")
    (tmp_path / "file").symlink_to(folder / "model.py")
    (tmp_path / "folder").symlink_to(folder)
    for path in (folder, tmp_path / "file", tmp_path / "folder"):
        assert read_submission(path, find_task("toy")) == {"model.py": "a = 1\nb = 2\n"}


def test_a_journal_or_a_word_to_stop_that_is_a_pipe_stops_nobody(tmp_path):
    run = Run(tmp_path)
    os.mkfifo(tmp_path / "stop")
    assert run.stop_asked is None
    run.node_dir(0).mkdir(parents=True)
    os.mkfifo(run.node_dir(0) / "stdout.log")
    assert run.log(0) == ""


def test_the_index_names_a_run_whose_file_is_a_link(tmp_path, secret):
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.toml").symlink_to(secret)
    entry = read_entry(run)
    assert (entry.state, "it is a link" in entry.problem) == ("skipped", True)


def test_a_file_that_does_not_know_its_size_is_read_and_held_to_its_limit():
    assert read_plain(Path("/proc/self/stat")).startswith(f"{os.getpid()} ".encode())
    with pytest.raises(OSError, match="larger than 10 bytes"):
        read_plain(Path("/proc/self/stat"), most=10)


def test_nothing_stays_open_of_what_is_refused(tmp_path):
    pipe = tmp_path.resolve() / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="no regular file"):
        open_plain(pipe)
    assert pipe not in [opened.resolve() for opened in Path("/proc/self/fd").iterdir()]


def test_a_text_that_is_no_utf_8_is_refused(tmp_path):
    (tmp_path / "text").write_bytes(b"\xff")
    with pytest.raises(UnicodeDecodeError):
        read_text(tmp_path / "text")


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_a_file_is_replaced_whole_or_stays_as_it_was(tmp_path):
    path = tmp_path / "report.html"
    write_whole(path, "old")

    def interrupted():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["report.html"]
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["report.html"]


def test_an_error_of_replacing_names_the_file_that_was_asked_for(tmp_path):
    taken, nowhere = tmp_path / "taken", tmp_path / "none" / "x"
    (taken / "inside").mkdir(parents=True)
    for path in (taken, nowhere):
        with pytest.raises(OSError, match="taken|none") as caught, replacing(path) as temporary:
            temporary.write_text("new")
        assert (caught.value.filename, caught.value.filename2) == (str(path), None)
    assert names(tmp_path) == ["taken"]
    with pytest.raises(OSError, match="other") as caught, replacing(nowhere):
        raise FileNotFoundError(2, "No such file", "other")
    assert caught.value.filename == "other"
