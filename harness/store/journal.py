"""The journal: append-only, fsynced, and chained, so that damage and gaps are detected.

One JSON object a line. ``chain`` is a hash over the line and the previous line's ``chain``. A torn
last line (the harness was killed while writing) is dropped on load; any other line that cannot be
read back is damage, and is never overwritten.
"""

import errno
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from harness.base.digests import digest
from harness.base.errors import ConfigError
from harness.base.faults import naming
from harness.base.files import open_plain, read_plain
from harness.base.validation import sensible
from harness.core.asked import FORMAT
from harness.store.reading import other_format

MOST_BYTES = 256 << 20
CHUNK = 16 << 20
"""Bytes read at a time; a longer line is damage."""

_DERIVED = ("written", "evaluating", "scored")
"""Events that are not fsynced: a power failure may lose them until an event of another kind is
written. They are found again in files that are then on disk: the model's answer, the submission,
score.json."""


@dataclass(frozen=True, slots=True)
class Event:
    """One line. ``elapsed_s`` is the run's active time, over all its processes."""

    kind: str
    elapsed_s: float
    at: str
    """When it was written: UTC, ISO 8601."""
    data: dict[str, Any]


class Journal:
    """``events.jsonl`` of one run, open for appending."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events: list[Event] = []
        # (chain, size) in one attribute, set last: an interrupt cannot come between the two.
        self._end = ("", 0)
        self._load()
        self._before_s = self.events[-1].elapsed_s if self.events else 0.0
        self._opened = time.monotonic()
        # Unbuffered: one write a line, so that a kill tears at most the last one.
        self._file = path.open("ab", buffering=0)

    @property
    def elapsed_s(self) -> float:
        """Seconds this run has been active, earlier processes included."""
        return self._before_s + time.monotonic() - self._opened

    def append(self, kind: str, **data: Any) -> Event:  # noqa: ANN401 (JSON values)
        """Write one event. After that a kill cannot lose it; for power failures see ``_DERIVED``.

        Ctrl-C or a full disk may end this anywhere: the next line then continues from what was
        really written.
        """
        if self.path.stat().st_size != self._end[1]:
            self._load()
        chain, whole = self._end
        # Convert to what will be read back, where an enum is a text: a resumed run must not differ.
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        event = Event(kind, round(self.elapsed_s, 3), at, json.loads(json.dumps(data)))
        body = {
            "format": FORMAT,
            "at": event.at,
            "elapsed_s": event.elapsed_s,
            "event": kind,
            **event.data,
        }
        chain = _link(chain, body)
        line = (json.dumps({**body, "chain": chain}) + "\n").encode()
        with naming(self.path):
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, "only a part of a line could be written")
            if kind not in _DERIVED:
                os.fsync(self._file.fileno())
        self.events.append(event)
        self._end = (chain, whole + len(line))
        return event

    def _load(self) -> None:
        """Read what is on disk, and cut off a torn last line."""
        reader = JournalReader(self.path)
        self.events = list(reader.more())
        if self.path.exists() and self.path.stat().st_size > reader.whole:
            os.truncate(self.path, reader.whole)
        self._end = (reader.chain, reader.whole)

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._file.close()


class JournalReader:
    """Reads a journal, and later what was added since: whole lines only, each checked.

    ``chain`` is that of the last line read, ``whole`` the number of bytes of all lines so far.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.chain, self.whole, self._lines = "", 0, 0

    def more(self) -> Iterator[Event]:
        """Yield the events that are new; none if there is no journal yet.

        Raises ConfigError where a whole line is damaged or of another format, where a line before
        it is missing, or where the file has become shorter or is too large.
        """
        try:
            with open_plain(self.path) as file:
                size = os.fstat(file.fileno()).st_size
                if size < self.whole or size > MOST_BYTES:
                    what = "shorter than it was" if size < self.whole else "too large"
                    raise ConfigError(f"{self.path} is {what}: {size:,} bytes.")
                while lines := self._whole_lines(file):
                    yield from map(self._checked, lines)
        except FileNotFoundError:
            return
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be read.", cause=str(error)) from error

    def _whole_lines(self, file: BinaryIO) -> list[bytes]:
        file.seek(self.whole)
        text = file.read(CHUNK)
        *lines, _torn = text.split(b"\n")
        if not lines and len(text) == CHUNK:
            raise self._damaged("it is too long")
        return lines

    def _checked(self, line: bytes) -> Event:
        try:
            body = json.loads(line)
            found = body.pop("chain")
            version = body["format"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise self._damaged("it is not a journal line") from None
        if version != FORMAT:
            raise other_format(f"{self.path}, line {self._lines + 1}", version)
        if found != _link(self.chain, body):
            raise self._damaged("it or the line before it was changed or removed")
        try:
            event = _event(body)
        except (KeyError, ValueError, TypeError):
            raise self._damaged("it holds what no run writes") from None
        self.chain = found
        self.whole += len(line) + 1
        self._lines += 1
        return event

    def _damaged(self, what: str) -> ConfigError:
        name = self.path.name
        return ConfigError(
            f"{self.path}, line {self._lines + 1} is damaged: {what}.",
            remedy=(
                f"restore it from a copy, or keep what came before: "
                f"head -n {self._lines} {name} > kept.jsonl && mv kept.jsonl {name}"
            ),
        )


def read(path: Path) -> list[Event]:
    """Return all events. Raises ConfigError as ``JournalReader.more`` does."""
    return list(JournalReader(path).more())


def unchecked(path: Path, *kinds: str) -> Iterator[dict[str, Any]]:
    """Yield the lines of these kinds only: of 240,000 nodes no more can be read within seconds.

    Neither chain nor values are checked. Raises OSError, ValueError, RecursionError.
    """
    marks = [f'"event": "{kind}"'.encode() for kind in kinds]
    for line in read_plain(path, most=MOST_BYTES).split(b"\n")[:-1]:
        if any(mark in line for mark in marks):
            body = json.loads(line)
            if body["event"] in kinds:  # else the words are part of another text
                yield body


def _event(body: dict[str, Any]) -> Event:
    del body["format"]
    event = Event(body.pop("event"), body.pop("elapsed_s"), body.pop("at"), body)
    datetime.fromisoformat(event.at)
    if not sensible(event.elapsed_s):
        raise ValueError(event.elapsed_s)
    return event


def _link(chain: str, body: dict[str, Any]) -> str:
    return digest(chain + json.dumps(body))
