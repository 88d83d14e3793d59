"""The record of a run's model calls on disk: one file a call, written whole or not at all.

    nodes/0007/calls/000.json   what was asked, what came back, what it cost
    prompts/<sha256>.txt        a system text, kept once for all calls that use it

The files never hold an API key or a header: a client's ``describe`` holds settings only, and a
failure is kept as its kind, without its message. ``harness.agents.calls`` makes the calls.
"""

import json
from collections.abc import Iterator
from hashlib import sha256
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from harness.base.errors import ConfigError
from harness.base.files import read_json, read_plain, write_whole
from harness.base.strict import Strict
from harness.base.text import clean, visible
from harness.base.validation import problems
from harness.core.asked import FORMAT
from harness.core.model import Prompt, Reply, Turn, Usage
from harness.store.reading import other_format

SHOWN = 160
"""The most characters that are shown of a line in which two prompts differ."""


class Divergence(ConfigError):
    """A prompt, or what was made of its answer, differs from what was recorded in that place."""


class LostCall(Strict):
    """A try whose answer was cut off, or not on disk at a kill: charged at its worst case."""

    sent: str
    worst: Usage
    worst_dollars: float | None


class CallFailure(Strict):
    """A call that failed in the end. ``error`` is the name of the exception's class."""

    sent: str
    seconds: float
    error: str


class CallRecord(Strict):
    """One call of one node. Times are UTC, ISO 8601."""

    format: int = FORMAT
    node: int
    call: int
    purpose: str
    hash: str
    describe: dict[str, Any]
    """The client's settings when the call was made."""
    system: str
    """The name of the system text's file under prompts/, without ``.txt``."""
    turns: tuple[Turn, ...]
    fits: tuple[bool, ...] = ()
    """What ``Model.fits`` returned between the previous call and this one, in order."""
    status: Literal["sent", "answered", "failed"]
    sent: str
    worst: Usage
    worst_dollars: float | None
    reply: Reply | None = None
    dollars: float | None = None
    """What the answer cost, by the price at that time; None where the price is unknown."""
    answered: str = ""
    replayed: bool = False
    """Whether the answer was read from another run; ``dollars`` is then what it cost there."""
    divergence: str = ""
    """In a replay that went on live: where and how it had diverged."""
    lost: tuple[LostCall, ...] = ()
    failures: tuple[CallFailure, ...] = ()

    @property
    def unanswered(self) -> tuple[LostCall, ...]:
        """The tries whose answers never arrived: those lost, and one that is still "sent"."""
        if self.status != "sent":
            return self.lost
        now = LostCall(sent=self.sent, worst=self.worst, worst_dollars=self.worst_dollars)
        return (*self.lost, now)


class Tape:
    """The recorded calls of one run."""

    def __init__(self, run: Path) -> None:
        self.run = run

    def __iter__(self) -> Iterator[CallRecord]:
        """Yield every call. Raises ConfigError naming the file that is damaged."""
        for file in sorted(self.run.glob("nodes/[0-9]*/calls/[0-9]*.json")):
            yield read_record(file)

    def read(self, node: int, call: int) -> CallRecord | None:
        """Return a call, or None if there is none. Raises ConfigError naming a damaged file."""
        file = self._file(node, call)
        return read_record(file) if file.exists() else None

    def write(self, record: CallRecord, prompt: Prompt) -> None:
        """Write a call. After that no kill can lose it; once answered, no power failure either."""
        text = self.run / "prompts" / f"{record.system}.txt"
        if not text.exists():
            write_whole(text, prompt.system)
        body = record.model_dump(mode="json")
        answered = record.status == "answered"
        sealed = {**body, "seal": json_hash(body)}
        write_whole(
            self._file(record.node, record.call), json.dumps(sealed, indent=1) + "\n", sync=answered
        )

    def prompt(self, record: CallRecord) -> Prompt:
        """Return the prompt of a call. Raises ConfigError where its system text is damaged."""
        file = self.run / "prompts" / f"{record.system}.txt"
        try:
            text = read_plain(file)
        except OSError as error:
            raise ConfigError(f"{file} cannot be read.", cause=str(error)) from error
        if sha256(text).hexdigest() != record.system:
            raise ConfigError(f"{file} is damaged.", remedy="restore the file from a copy")
        return Prompt(text.decode(), record.turns)

    def _file(self, node: int, call: int) -> Path:
        return self.run / "nodes" / f"{node:04d}" / "calls" / f"{call:03d}.json"


def read_record(file: Path) -> CallRecord:
    """Return a call from its file. Raises ConfigError where it is damaged."""
    body = read_json(file)
    if body.get("format") not in (FORMAT, None):
        raise other_format(file, body["format"])
    seal = body.pop("seal", None)
    try:
        record = CallRecord.model_validate(body)
    except ValidationError as error:
        raise _damaged(file, problems(error, CallRecord)) from error
    if seal != json_hash(body):
        raise _damaged(file, "it was changed since it was written")
    if (f"{record.node:04d}", f"{record.call:03d}") != (file.parent.parent.name, file.stem):
        raise _damaged(file, f"it belongs to call {record.call} of node {record.node}")
    return record


def _damaged(file: Path, cause: str) -> ConfigError:
    return ConfigError(
        f"{file} is damaged.", cause=cause, remedy="restore the file from a copy of the run"
    )


def json_hash(value: object) -> str:
    """Return the SHA-256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return sha256(text.encode()).hexdigest()


def request_hash(describe: dict[str, Any], prompt: Prompt) -> str:
    """Return the hash of all that decides an answer: the client's settings and the prompt."""
    turns = [[turn.role, turn.text] for turn in prompt.turns]
    return json_hash({"describe": describe, "system": prompt.system, "turns": turns})


def system_hash(prompt: Prompt) -> str:
    """Return the name under which a prompt's system text is kept."""
    return sha256(prompt.system.encode()).hexdigest()


def difference(before: tuple[dict[str, Any], Prompt], now: tuple[dict[str, Any], Prompt]) -> str:
    """Return the first lines in which two requests differ, for people; empty if none do."""
    old, new = _lines(*before), _lines(*now)
    for number, (a, b) in enumerate(zip_longest(old, new)):
        if a != b:
            start = max(0, number - 1)
            same = [f"  {_cut(line, 0)}" for line in old[start:number]]
            at = _common(a or "", b or "")
            gone = [] if a is None else [f"- {_cut(a, at)}"]
            came = [] if b is None else [f"+ {_cut(b, at)}"]
            return "\n".join([f"line {number + 1} of the request:", *same, *gone, *came])
    return ""


def _lines(describe: dict[str, Any], prompt: Prompt) -> list[str]:
    text = [json.dumps(describe, sort_keys=True, indent=1), "[system]", prompt.system]
    for turn in prompt.turns:
        text += [f"[{turn.role}]", turn.text]
    return "\n".join(text).split("\n")


def _common(a: str, b: str) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), 0)


def _cut(line: str, at: int) -> str:
    start = max(0, at - SHOWN // 2)
    return ("…" if start else "") + clean(visible(line[start:]), SHOWN, keep="head")
