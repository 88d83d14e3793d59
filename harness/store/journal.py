"""The journal: append-only, fsynced, and chained, so that damage and gaps are seen.

One JSON object a line. ``chain`` is a hash over the line and the line before it. A last line
that is torn (the harness was killed while writing) is dropped on load; anything else that
does not read back is damage, and is never overwritten.
"""

import errno
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.base.digests import digest
from harness.base.errors import ConfigError
from harness.base.faults import naming
from harness.base.files import read_plain
from harness.core.asked import FORMAT

MOST_BYTES = 256 << 20

_DERIVED = ("written", "evaluating", "scored")
"""What a loss of power may take until the next other line: it follows from files that are on disk
by then (the answer of the model, the submission, score.json), and is found again in them."""


@dataclass(frozen=True, slots=True)
class Event:
    """One line. ``elapsed_s`` is the run's active time, over all its processes."""

    kind: str
    elapsed_s: float
    data: dict[str, Any]


class Journal:
    """``events.jsonl`` of one run, open for appending."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events: list[Event] = []
        # One attribute, set last: an interrupt cannot come between its parts.
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
        """Write one event; no kill can take it once this returns (``_DERIVED``).

        Ctrl-C or a full disk may end this anywhere: the next line then continues from what was
        really written.
        """
        if self.path.stat().st_size != self._end[1]:
            self._load()
        chain, whole = self._end
        # As it will be read back, where an enum is a text: a resumed run must not differ.
        event = Event(kind, round(self.elapsed_s, 3), json.loads(json.dumps(data)))
        body = {
            "format": FORMAT,
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
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
        self.events, chain, whole = read(self.path)
        if self.path.exists() and self.path.stat().st_size > whole:
            os.truncate(self.path, whole)
        self._end = (chain, whole)

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._file.close()


def read(path: Path) -> tuple[list[Event], str, int]:
    """Return the events, the last chain value, and how many bytes are whole lines.

    Raises ConfigError where a line before the last is damaged, missing or of a newer format.
    """
    events: list[Event] = []
    chain, whole = "", 0
    try:
        text = read_plain(path, most=MOST_BYTES)
    except FileNotFoundError:
        return events, chain, whole
    except OSError as error:
        raise ConfigError(f"{path} cannot be read.", cause=str(error)) from error
    for number, line in _whole_lines(text):
        try:
            body = json.loads(line)
            found = body.pop("chain")
            version = body["format"]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise _damaged(path, number, "it is not a journal line") from None
        if version != FORMAT:
            raise ConfigError(
                f"{path}, line {number} has format {version}; this harness reads {FORMAT}.",
                remedy="a newer version of the harness",
            )
        if found != _link(chain, body):
            raise _damaged(path, number, "it or the line before it was changed or removed")
        chain = found
        whole += len(line) + 1
        del body["format"], body["at"]
        events.append(Event(body.pop("event"), body.pop("elapsed_s"), body))
    return events, chain, whole


def _whole_lines(text: bytes) -> Iterator[tuple[int, bytes]]:
    *lines, _torn = text.split(b"\n")
    yield from enumerate(lines, start=1)


def _link(chain: str, body: dict[str, Any]) -> str:
    return digest(chain + json.dumps(body))


def _damaged(path: Path, number: int, what: str) -> ConfigError:
    return ConfigError(
        f"{path}, line {number} is damaged: {what}.",
        remedy=(
            f"restore it from a copy, or keep what came before: "
            f"head -n {number - 1} {path.name} > kept.jsonl && mv kept.jsonl {path.name}"
        ),
    )
