"""Reads a response with status 200 as JSON objects: a stream of events, or one whole answer.

The SDKs' own readers are not used. Each knows one form of an error and treats everything else as
an answer or its end: a web page, another server's error, one whole answer to a request for a
stream. Here the first line decides what a response is, because content types are often wrong.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import httpx2

from harness.core.model import Stop, Usage

MOST_WORDS = 64 << 10
"""Bytes kept of a response that is plain text or a web page."""

_FIELDS = (b"data", b"event", b"id", b"retry", b"")  # "" begins a comment
_ENDS: dict[str, Stop] = {
    "length": "length",
    "max_tokens": "length",
    "max_new_tokens": "length",
    "model_length": "length",
    "model_context_window_exceeded": "length",
    "refusal": "refusal",
    "safety": "refusal",
    "recitation": "refusal",
    "blocklist": "refusal",
    "prohibited_content": "refusal",
}
_BROKEN = {"abort", "aborted", "error", "failed", "cancelled", "canceled", "timeout"}


class ServerError(Exception):
    """The server sent an error or a web page instead of an answer. ``body``: JSON, or text."""

    def __init__(self, body: object, response: httpx2.Response, *, begun: bool) -> None:
        super().__init__()
        self.body = body
        self.response = response
        self.begun = begun
        """Whether part of an answer had come before."""


class Malformed(Exception):
    """The response is not a valid answer, or is incomplete; the text says what is wrong."""


class Events:
    """The objects of one response, read once."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response
        self._begun = False
        self.marked = False
        """Whether the server marked the end: [DONE], ``message_stop``, or one whole JSON answer."""

    @property
    def framed(self) -> bool:
        """Whether HTTP itself reports a response that is cut off (by its length or its chunks)."""
        return not {"content-length", "transfer-encoding"}.isdisjoint(self._response.headers)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        """Yield the objects. Raises ServerError, Malformed, and the transport's errors."""
        lines = self._lines()
        first = next((line for line in lines if line.strip()), b"")
        start = first.lstrip()
        if not start:
            raise Malformed("the server sent an empty answer")
        if start[:1] in (b"{", b"["):
            yield from self._checked(_json(b"\n".join([first, *lines])))
            self.marked = True
        elif first.partition(b":")[0] in _FIELDS:
            yield from self._events(chain([first], lines))
        else:
            raise self._server_error(_words(chain([first], lines)))

    def _events(self, lines: Iterable[bytes]) -> Iterator[Mapping[str, Any]]:
        kind: bytes = b""
        data: list[bytes] = []
        for line in chain(lines, [b""]):  # some servers leave out the last blank line
            name, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if name == b"data":
                data.append(value)
            elif name == b"event":
                kind = value
            if line:
                continue
            text, event = b"\n".join(data).strip(), kind
            kind, data = b"", []
            if text.startswith(b"[DONE]"):
                self.marked = True
                return
            if event == b"error" and text:
                raise self._server_error(json_or_words(text))
            if text:
                yield from self._checked(_json(text))

    def _checked(self, value: object) -> Iterator[Mapping[str, Any]]:
        """Yield a value if it may be part of an answer. Raises ServerError if it is an error."""
        one = value[0] if isinstance(value, list) and value else value  # Gemini lists its errors
        if isinstance(one, Mapping):
            if _is_error(one):
                raise self._server_error(one)
            self._begun = True
            yield one

    def _server_error(self, body: object) -> ServerError:
        return ServerError(body, self._response, begun=self._begun)

    def _lines(self) -> Iterator[bytes]:
        """Yield the lines without their line ends. ``wire.py`` bounds their total size."""
        pieces: list[bytes] = []
        for chunk in self._response.iter_bytes():
            *ended, last = chunk.split(b"\n")
            for line in ended:
                yield b"".join([*pieces, line]).removesuffix(b"\r")
                pieces = []
            pieces.append(last)
        yield b"".join(pieces).removesuffix(b"\r")


@dataclass
class RawReply:
    """The answer of one try, as far as it has arrived; ``end`` completes it."""

    pieces: list[str] = field(default_factory=list)
    reasoning_bytes: int = 0
    """Bytes of reasoning."""
    finish_reason: str = ""
    """Why the answer ended, in the server's word; empty if the server gave no reason."""
    usage: Usage | None = None
    """None if the server does not report it."""
    model_id: str = ""
    stop: Stop = "end"

    @property
    def text(self) -> str:
        """The text so far, without reasoning."""
        return "".join(self.pieces)

    def add_reasoning(self, text: str) -> None:
        """Count reasoning; its text is not kept."""
        self.reasoning_bytes += len(text.encode("utf-8", "replace"))

    def objects(self, events: Events) -> Iterator[Mapping[str, Any]]:
        """Yield the objects; ignore a lost connection after the answer's end."""
        try:
            yield from events
        except (httpx2.TransportError, httpx2.StreamError):
            if not self.finish_reason:
                raise

    def end(self, events: Events) -> None:
        """Set why the answer ended. Raises Malformed if it did not end, or was broken off.

        Text that was paid for is kept. If the server gives no reason, its mark or the usage shows
        the end. Text without either, in a complete HTTP response, counts as cut off at the length
        limit, so that it can be continued.
        """
        reason = self.finish_reason.lower()
        if reason in _BROKEN:
            raise Malformed(f"the server broke its answer off ({reason})")
        text = any(self.pieces)
        if reason:
            refused = reason.startswith("content_filter")
            self.stop = "refusal" if refused else _ENDS.get(reason, "end")
        elif (text or self.reasoning_bytes) and (events.marked or self.usage is not None):
            self.stop = "end"
        elif text and events.framed:
            self.stop = "length"
        else:
            raise Malformed("the server sent what is no answer")


def _is_error(value: Mapping[str, Any]) -> bool:
    if value.get("error") or "error" in (value.get("type"), value.get("object")):
        return True
    bare = not {"choices", "content", "delta"} & value.keys()
    return bare and any(
        isinstance(value.get(name), str | list) for name in ("detail", "message", "errors", "msg")
    )


def _json(text: bytes) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Malformed("the server sent what is no answer") from None


def json_or_words(text: bytes) -> object:
    """Return a body parsed if it is JSON, else as text."""
    try:
        return _json(text)
    except Malformed:
        return _words([text])


def _words(lines: Iterable[bytes]) -> str:
    kept = b""
    for line in lines:
        if len(kept) < MOST_WORDS:
            kept += line + b"\n"
    return kept[:MOST_WORDS].decode("utf-8", "replace")
