"""What a candidate may send: every frame is checked on arrival, whatever it is used for later."""

import json
import math
import pickle
import socket
import struct
import threading
import time
from contextlib import closing, suppress
from mmap import mmap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from harness.base.errors import Cancelled
from scorers import wire as judges
from scorers.candidate.candidate import FAIL, HEADER, LOGITS, PROGRESS, READY, Link
from scorers.judge import Refused, ask, follow_training, raise_refusal, send_goodbye
from scorers.score import REPORTED, Reason
from scorers.wire import Frame, Gone, Late, Listener, LogitsBuffer, ProtocolError, Wire


@pytest.fixture
def ends():
    """The judge's wire and a candidate's link, over a real socket. Only a hang takes 60 s here."""
    ours, theirs = socket.socketpair()
    wire = Wire(ours, lambda: True, threading.Event())
    yield wire, Link(theirs, mmap(-1, 4096))
    wire.close()
    theirs.close()


PROGRESS_REFUSED = {
    "a loss of 401 digits": b'{"step": 1, "total": 2, "loss": 1' + b"0" * 400 + b"}",
    "a loss of 5,000 digits": b'{"step": 1, "total": 2, "loss": ' + b"9" * 5000 + b"}",
    "NaN": b'{"step": 1, "total": 2, "loss": NaN}',
    "a float beyond the largest": b'{"step": 1, "total": 2, "loss": 1e999}',
    "a loss in words": b'{"step": 1, "total": 2, "loss": "0.1"}',
    "a loss that is true": b'{"step": 1, "total": 2, "loss": true}',
    "a step below 0": b'{"step": -1, "total": 2, "loss": 1}',
    "more steps than there are": b'{"step": 3, "total": 2, "loss": 1}',
    "half a step": b'{"step": 0.5, "total": 2, "loss": 1}',
    "a total that no clock reaches": b'{"step": 1, "total": 9999999999999999999, "loss": 1}',
    "no step": b'{"total": 2, "loss": 1}',
    "a list": b"[1, 2, 0.5]",
    "nested without end": b'{"step": 1, "total": 2, "loss": 1, "x": ' + b"[" * 9000,
    "nested deeply": b'{"step": 1, "total": 2, "x": ' + b"[" * 900 + b"]" * 900 + b"}",
    "half a character": b'{"step": 1, "total": 2, "loss": 1, "x": "\\ud800"}',
    "bytes that are no text": b'{"step": 1, "total": 2, "loss": 1, "x": "\xed\xa0\x80"}',
}


@pytest.mark.parametrize("name", PROGRESS_REFUSED)
def test_progress_that_breaks_the_rules_is_a_protocol_error_and_seen_by_nobody(ends, name):
    wire, link = ends
    seen = []
    link._send(PROGRESS, 0, PROGRESS_REFUSED[name])
    with pytest.raises(ProtocolError):
        follow_training(wire, time.monotonic() + 60, lambda *told: seen.append(told))
    assert seen == []


def test_honest_progress_arrives_and_a_loss_that_diverged_is_not_known(ends):
    wire, link = ends
    seen = []
    for step, loss in ((0, 2.5), (1, math.nan), (2, -math.inf), (3, math.inf), (4, 1)):
        link.progress(step, 4, loss, every_s=0)
    link._send(READY, 0, b"{}")
    follow_training(wire, time.monotonic() + 60, lambda what, told: seen.append(told))
    assert [told["loss"] for told in seen] == [2.5, None, None, None, 1.0]
    assert {tuple(told) for told in seen} == {("step", "total", "loss")}


@pytest.mark.parametrize(
    "claim", [b"1" + b"0" * 400, b"-1e999", b"[" * 20 + b"]" * 20, b'"\\udfff"', b"NaN"]
)
def test_claims_that_could_not_be_written_down_are_refused_when_it_is_ready(ends, claim):
    wire, link = ends
    link._send(READY, 0, b'{"batch_size": 4, "frozen": {"bytes": ' + claim + b"}}")
    with pytest.raises(ProtocolError):
        follow_training(wire, time.monotonic() + 60, lambda *_: None)


OUT_OF_TURN = {
    "a pickle": (lambda link: link._sock.send(pickle.dumps(print)), "a frame starts with"),
    "more than a frame holds": (
        lambda link: link._sock.send(HEADER.pack(b"AIRA", READY, 0, 0, 2**32 - 1)),
        "announces 4294967295 bytes",
    ),
    "an answer to nothing": (lambda link: link._send(LOGITS, 0, bytes(8)), "out of turn"),
}


@pytest.mark.parametrize("name", OUT_OF_TURN)
def test_what_no_honest_training_says_is_a_protocol_error(ends, name):
    wire, link = ends
    say, words = OUT_OF_TURN[name]
    say(link)
    with pytest.raises(ProtocolError, match=words):
        follow_training(wire, time.monotonic() + 60, lambda *_: None)


@pytest.mark.parametrize(
    ("sequence", "shape", "words"),
    [
        (99, (64, 1, 4), "answer 99 came for request 7"),
        (7, (64, 1, 3), r"logits \(64, 3\) where \(64, 4\) were asked for"),
        (7, (63, 1, 4), r"logits \(63, 4\) where \(64, 4\) were asked for"),
        (7, (0, 0, 0), r"logits \(0, 0\) where \(64, 4\) were asked for"),
        (7, (64, 4), "expected logits, got kind 5, 8 bytes"),
    ],
)
def test_an_answer_to_something_else_is_a_protocol_error(ends, sequence, shape, words):
    wire, link = ends
    link._send(LOGITS, sequence, struct.pack(f"<{len(shape)}I", *shape))
    with pytest.raises(ProtocolError, match=words):
        ask(wire, 7, np.zeros((64, 8), np.int32), (64, 1, 4), time.monotonic() + 60)


@pytest.mark.parametrize("flat", [np.zeros(256), np.zeros((64, 1, 4, 1))])
def test_a_candidate_tells_that_what_it_made_has_no_shape(ends, flat):
    _, link = ends
    assert link._write(flat) == (0, 0, 0)


def test_an_honest_error_that_names_a_file_of_odd_bytes_arrives(ends):
    wire, link = ends
    link.fail("runtime_error", b"no such file: caf\xe9".decode(errors="surrogateescape"))
    with pytest.raises(Refused, match="no such file: caf"):
        raise_refusal(wire.receive(time.monotonic() + 60))


def fail(kind: object, text: object = "x") -> Refused:
    with pytest.raises(Refused) as caught:
        raise_refusal(Frame(FAIL, 0, json.dumps({"kind": kind, "text": text}).encode()))
    return caught.value


@pytest.mark.parametrize("reason", [r.value for r in Reason if r not in REPORTED])
def test_a_reason_that_is_the_judges_is_not_taken_from_inside(reason):
    assert fail(reason).reason is Reason.RUNTIME_ERROR


@pytest.mark.parametrize("kind", [None, ["stateful"], {"a": 1}, 7, "", "STATEFUL"])
def test_a_reason_that_is_none_is_a_runtime_error(kind):
    assert fail(kind).reason is Reason.RUNTIME_ERROR


def test_what_a_runner_reports_keeps_its_reason():
    assert {fail(reason.value).reason for reason in REPORTED} == REPORTED


def test_words_from_inside_always_begin_as_such_however_long_they_are():
    said = "Logits depend on more than their row: row 3."
    assert fail("runtime_error", said).text == f"In the sandbox: {said}"
    assert fail("runtime_error", "x" * 16_000 + said).text.startswith("In the sandbox: …")


def test_a_candidate_that_dies_before_it_is_greeted_is_gone(ends):
    wire, link = ends
    link._sock.close()
    with closing(LogitsBuffer(64)) as buffer, pytest.raises(Gone):
        wire.greet(buffer)


@pytest.mark.parametrize("begun", [b"", HEADER.pack(b"AIRA", PROGRESS, 0, 0, 9999)])
def test_a_drip_of_bytes_buys_no_time(monkeypatch, begun):
    """The judge's clock advances by 1 s with each byte, of a header or of the body after it."""
    now = 0
    ours, theirs = socket.socketpair()

    def alive():
        nonlocal now
        now += 1
        theirs.send(b" ")
        return True

    monkeypatch.setattr(judges, "time", SimpleNamespace(monotonic=lambda: now))
    with closing(theirs), closing(Wire(ours, alive, threading.Event())) as wire:
        theirs.send(begun)
        with pytest.raises(Late):
            wire.receive(10)
    assert now == 11


def test_an_answer_is_one_copy_and_the_next_one_must_be_written():
    with closing(LogitsBuffer(8)) as buffer, mmap(buffer.fileno(), 8) as candidates:
        candidates[:] = b"answered"
        copy = buffer.take(6)
        assert candidates[:] == bytes(6) + b"ed"
        candidates[:] = b"too late"
        assert copy == b"answer"


def test_a_frame_may_hold_as_many_values_as_fit_in_it(ends):
    # The size of a frame bounds the number of JSON values; hardly more than these fit.
    wire, link = ends
    body = b'{"x": [' + b"0," * 9900 + b"0]}"
    assert len(body) + HEADER.size < 20_480
    link._send(READY, 0, body)
    assert len(follow_training(wire, time.monotonic() + 60, lambda *_: None)["x"]) == 9901


def test_who_says_nothing_until_the_limit_is_late_for_training(ends):
    with pytest.raises(Late):
        follow_training(ends[0], time.monotonic() - 1, lambda *_: None)


def test_a_candidate_that_says_why_it_has_no_answer_is_refused_in_its_own_words(ends):
    wire, link = ends
    link.fail("runtime_error", "no memory left")
    with pytest.raises(Refused, match="In the sandbox: no memory left"):
        ask(wire, 0, np.zeros((1, 8), np.int32), (1, 1, 4), time.monotonic() + 60)


def test_a_whole_number_is_kept_up_to_the_largest_that_every_reader_keeps():
    for number, well in (
        (2**53, True),
        (2**53 + 1, False),
        (-(2**53), True),
        (-(2**53) - 1, False),
    ):
        frame = Frame(READY, 0, json.dumps({"x": number}).encode())
        if well:
            assert frame.json() == {"x": number}
        else:
            with pytest.raises(ProtocolError, match="too large"):
                frame.json()


def test_values_are_nested_as_deep_as_is_said_and_no_deeper():
    frame = Frame(READY, 0, b'{"x": ' + b"[" * 7 + b"1" + b"]" * 7 + b"}")
    assert frame.json()["x"] == [[[[[[[1]]]]]]]
    with pytest.raises(ProtocolError, match="too deeply"):
        Frame(READY, 0, b'{"x": ' + b"[" * 8 + b"1" + b"]" * 8 + b"}").json()


def test_the_largest_frame_is_taken_and_a_byte_more_is_not(ends):
    wire, link = ends
    link._sock.sendall(HEADER.pack(b"AIRA", READY, 0, 3, judges.MAX_BODY) + bytes(judges.MAX_BODY))
    assert wire.receive(time.monotonic() + 60) == Frame(READY, 3, bytes(judges.MAX_BODY))
    link._sock.sendall(HEADER.pack(b"AIRA", READY, 0, 0, judges.MAX_BODY + 1))
    with pytest.raises(ProtocolError, match="announces 20481 bytes, the limit is 20480"):
        wire.receive(time.monotonic() + 60)


class Moody(socket.socket):
    """A socket whose first call raises BlockingIOError, although it was reported as ready."""

    moods = 1

    def recv(self, *args):
        self._mood()
        return super().recv(*args)

    def send(self, *args):
        self._mood()
        return super().send(*args)

    def _mood(self):
        if self.moods:
            self.moods -= 1
            raise BlockingIOError


def test_a_socket_that_is_not_ready_after_all_is_waited_for():
    ours, theirs = socket.socketpair()
    theirs.sendall(HEADER.pack(b"AIRA", READY, 0, 0, 2) + b"{}")
    with (
        closing(theirs),
        closing(Wire(Moody(fileno=ours.detach()), lambda: True, threading.Event())) as wire,
    ):
        assert wire.receive(time.monotonic() + 60).json() == {}
        wire._socket.moods = 1
        wire.send(READY, 0, b"once", time.monotonic() + 60)
        assert theirs.recv(99) == HEADER.pack(b"AIRA", READY, 0, 0, 4) + b"once"


def test_who_hung_up_is_gone_whether_asked_or_listened_to():
    for unread in (b"", b"x"):  # unread data makes the next call an error instead of an end of file
        ours, theirs = socket.socketpair()
        with closing(Wire(ours, lambda: True, threading.Event())) as wire:
            ours.send(unread)
            theirs.close()
            with pytest.raises(Gone):
                wire.receive(time.monotonic() + 60)
            with pytest.raises(Gone):
                wire.send(READY, 0, b"{}", time.monotonic() + 60)


def test_the_last_words_of_who_died_are_read_and_then_it_is_gone():
    """Its end of the link is still open, since a child process may hold it."""
    ours, theirs = socket.socketpair()
    with closing(theirs), closing(Wire(ours, lambda: False, threading.Event())) as wire:
        theirs.sendall(HEADER.pack(b"AIRA", READY, 0, 0, 2) + b"{}")
        assert wire.receive(time.monotonic() + 60).json() == {}
        with pytest.raises(Gone):
            wire.receive(time.monotonic() + 60)


def test_a_cancelled_judge_waits_for_nobody(ends):
    wire, link = ends
    wire._cancel.set()
    link._send(READY, 0, b"{}")
    with pytest.raises(Cancelled):
        wire.receive(time.monotonic() + 60)


@pytest.mark.parametrize(
    ("living", "cancelled", "patience", "error"),
    [(False, False, 60, Gone), (True, True, 60, Cancelled), (True, False, -1, Late)],
)
def test_nobody_is_waited_for_in_vain_and_nothing_stays_open(
    tmp_path, living, cancelled, patience, error
):
    cancel = threading.Event()
    if cancelled:
        cancel.set()
    with closing(Listener(tmp_path / "judge.sock")) as listener:
        with pytest.raises(error):
            listener.accept(lambda: living, cancel, time.monotonic() + patience)
        with pytest.raises(OSError, match="in use"):
            Listener(tmp_path / "judge.sock")
    assert str(tmp_path) not in held_open().values()


def held_open():
    """Return the file names of this process's open descriptors, by descriptor number."""
    found = {}
    for fd in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # another thread closed it
            found[int(fd.name)] = str(fd.readlink())
    return found


def test_a_buffer_is_kept_as_far_as_is_said_and_closes(tmp_path):
    buffer = LogitsBuffer(4096)
    with mmap(buffer.fileno(), 4096) as candidates:
        candidates[:8] = b"exported"
    buffer.save(6, tmp_path / "kept")
    assert (tmp_path / "kept").read_bytes() == b"export"
    fd = buffer.fileno()
    assert held_open()[fd].startswith("/memfd:logits")
    buffer.close()
    assert buffer._map.closed
    assert not held_open().get(fd, "").startswith("/memfd:logits")


def test_a_candidate_that_does_not_listen_to_the_goodbye_was_judged_all_the_same(ends):
    wire, _ = ends
    with pytest.raises(Late):  # nothing more fits into the socket's buffer
        wire.send(PROGRESS, 0, bytes(100 << 20), time.monotonic() + 0.5)
    send_goodbye(wire, 0.5, time.monotonic())
