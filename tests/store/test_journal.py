"""The journal under kills and damage: a torn last line is dropped, other damage is refused."""

import json
import sys
from types import SimpleNamespace

import pytest

from harness.base.errors import ConfigError
from harness.store import journal as journals
from harness.store.journal import Journal, JournalReader, read
from scorers.score import Reason

KEPT = (
    '{"format": 1, "at": "2026-01-02T03:04:05.678+00:00", "elapsed_s": 0.0, '
    '"event": "opened", "agent": "reference", "chain": "dc2ef828444c4bc9"}\n'
    '{"format": 1, "at": "2026-01-02T03:04:18.178+00:00", "elapsed_s": 12.5, '
    '"event": "scored", "node": 0, "score": 0.5, "chain": "00a0689f3296e561"}\n'
)
"""Two lines of format 1, as the harness wrote them when this test was written."""


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "events.jsonl"
    journal = Journal(path)
    for number in range(5):
        journal.append("chosen", node=number, operator="draft", parents=[])
    journal.close()
    return path


def test_truncated_at_any_byte_it_reads_back_as_a_prefix(written, tmp_path):
    whole = written.read_bytes()
    copy = tmp_path / "copy.jsonl"
    for size in range(len(whole) + 1):
        copy.write_bytes(whole[:size])
        events = read(copy)
        assert [e.data["node"] for e in events] == list(range(whole[:size].count(b"\n")))


def test_a_torn_line_is_cut_off_and_the_chain_goes_on(written):
    written.write_bytes(written.read_bytes()[:-7])
    journal = Journal(written)
    journal.append("chosen", node=9, operator="draft", parents=[])
    journal.close()
    assert [e.data["node"] for e in read(written)] == [0, 1, 2, 3, 9]


@pytest.mark.parametrize("damage", ["flip", "drop", "swap", "garbage"])
def test_damage_before_the_end_is_refused_by_line_and_nothing_is_overwritten(written, damage):
    lines = written.read_bytes().splitlines(keepends=True)
    if damage == "flip":
        lines[2] = lines[2].replace(b'"node": 2', b'"node": 3')
    elif damage == "drop":
        del lines[2]
    elif damage == "swap":
        lines[2], lines[3] = lines[3], lines[2]
    else:
        lines[2] = b"\x00\xff not json\n"
    written.write_bytes(b"".join(lines))
    before = written.read_bytes()
    with pytest.raises(ConfigError, match=r"line 3 is damaged") as caught:
        Journal(written)
    assert "head -n 2" in caught.value.remedy
    assert written.read_bytes() == before


def test_a_newer_format_is_refused_not_misread(written):
    lines = written.read_text().splitlines()
    newer = json.loads(lines[1])
    newer["format"] = 2
    lines[1] = json.dumps(newer)
    written.write_text("\n".join(lines) + "\n")
    with pytest.raises(ConfigError, match="format 2"):
        read(written)


def test_an_event_is_the_same_now_as_when_it_is_read_back(tmp_path):
    journal = Journal(tmp_path / "events.jsonl")
    given = {"reason": Reason.CRASHED, "parents": (1, 2), "score": 0.1, "files": {"model.py": "x"}}
    event = journal.append("scored", **given)
    journal.close()
    (again,) = read(journal.path)
    assert repr(event) == repr(again)


def test_a_journal_of_this_format_reads_as_long_as_there_is_a_harness(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text(KEPT)
    reader = JournalReader(path)
    opened, scored = reader.more()
    assert (opened.kind, opened.elapsed_s, opened.data) == ("opened", 0.0, {"agent": "reference"})
    assert (scored.kind, scored.elapsed_s, scored.data) == (
        "scored",
        12.5,
        {"node": 0, "score": 0.5},
    )
    assert (opened.at, scored.at) == (
        "2026-01-02T03:04:05.678+00:00",
        "2026-01-02T03:04:18.178+00:00",
    )
    chain = json.loads(KEPT.splitlines()[1])["chain"]
    assert (reader.chain, reader.whole) == (chain, len(KEPT))


def test_what_is_no_journal_line_is_said_to_be_none_in_the_first_line_too(tmp_path):
    path = tmp_path / "events.jsonl"
    for line in ("{", "[]", "7", "null", '{"event": "opened"}', '{"chain": "0"}'):
        path.write_text(line + "\n")
        with pytest.raises(ConfigError, match=r"line 1 is damaged: it is not a journal line"):
            Journal(path)


def test_a_journal_that_is_no_file_is_an_error_with_its_cause(tmp_path):
    (tmp_path / "events.jsonl").mkdir()
    with pytest.raises(ConfigError, match=r"events\.jsonl cannot be read") as caught:
        Journal(tmp_path / "events.jsonl")
    assert caught.value.cause


def test_active_time_adds_up_over_processes_and_what_lies_between_is_not_counted(
    tmp_path, monkeypatch
):
    now = 100.0
    monkeypatch.setattr(journals, "time", SimpleNamespace(monotonic=lambda: now))
    path = tmp_path / "timed.jsonl"
    for opened, elapsed in ((100.0, 5.0), (1000.0, 10.0), (3.0, 15.0)):
        now = opened
        journal = Journal(path)
        assert journal.elapsed_s == pytest.approx(elapsed - 5)
        now = opened + 2.5
        journal.append("chosen", node=0)
        now = opened + 5
        assert journal.append("closed").elapsed_s == elapsed
        now = opened + 50
        journal.close()
    assert [e.elapsed_s for e in read(path)] == [2.5, 5.0, 7.5, 10.0, 12.5, 15.0]


def interrupt_at(line: int):
    """Return a tracer that raises KeyboardInterrupt at the ``line``-th line run in ``append``."""
    seen = 0

    def lines(frame, event, _arg):
        nonlocal seen
        if event == "line":
            seen += 1
            if seen == line:
                raise KeyboardInterrupt
        return lines

    return lambda frame, *_: lines if frame.f_code is Journal.append.__code__ else None


def test_ctrl_c_at_any_line_of_append_leaves_a_journal_that_goes_on(tmp_path):
    kept = []
    for line in range(1, 40):
        journal = Journal(tmp_path / f"{line}.jsonl")
        journal.append("opened")
        before = sys.gettrace()
        sys.settrace(interrupt_at(line))
        try:
            journal.append("chosen", node=0)
            done = True
        except KeyboardInterrupt:
            done = False
        finally:
            sys.settrace(before)
        journal.append("closed")
        kinds = [e.kind for e in read(journal.path)]
        assert kinds == [e.kind for e in journal.events]
        assert kinds in (["opened", "closed"], ["opened", "chosen", "closed"])
        journal.close()
        kept.append(len(kinds))
        if done:
            break
    # Appends were interrupted before the write and after it, and the last one not at all.
    assert done
    assert set(kept) == {2, 3}
    assert kept.count(3) >= 3


def test_a_line_that_a_full_disk_cut_short_is_an_error_and_is_not_built_upon(written):
    journal = Journal(written)
    whole, file = written.read_bytes(), journal._file

    class Full:
        """A file on a disk with room for only ten more bytes."""

        fileno = file.fileno

        def write(self, data):
            return file.write(data[:10])

    journal._file = Full()
    with pytest.raises(OSError, match="only a part"):
        journal.append("chosen", node=5)
    assert len(written.read_bytes()) == len(whole) + 10
    journal._file = file
    journal.append("closed")
    journal.close()
    assert [e.kind for e in read(written)] == ["chosen"] * 5 + ["closed"]
