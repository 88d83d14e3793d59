"""Anthropic's Messages API, by its SDK (2.x), streamed."""

from typing import Any

import httpx2

from harness.agents.catalogue import Entry, Settings
from harness.agents.clients.client import (
    Heard,
    answer_tokens,
    base_url,
    options,
    system_text,
    turn_text,
)
from harness.agents.clients.failures import Malformed
from harness.agents.clients.fields import count, word
from harness.agents.clients.wire import open_http, timeouts
from harness.agents.model import Prompt, Stop, Usage

VERSION = "2026-10-21"
"""The API version is ours to choose, not the installed SDK's: it decides what is accepted."""

_STOPS: dict[str, Stop] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "refusal",
}
_CACHED = {"type": "ephemeral"}


class Speaker:
    """Asks by ``messages.create(stream=True)`` and reads the events itself.

    The SDK's own accumulator is not used: it trusts the order of what comes.
    """

    models = "/v1/models"

    def __init__(self, entry: Entry, settings: Settings, *, key: str, idle_s: float) -> None:
        import anthropic  # seconds

        self._entry = entry
        self._settings = settings
        self._sdk = anthropic.Anthropic(
            api_key=key,
            base_url=base_url(entry, settings),
            max_retries=0,
            timeout=timeouts(idle_s),
            http_client=open_http(idle_s),
            default_headers={"anthropic-version": VERSION, **entry.extra_headers},
        )

    def knock(self, at: str = "") -> str:
        """Ask for the list of models."""
        got = self._sdk.get(f"{at}{self.models}", cast_to=httpx2.Response)
        return got.headers.get("content-type", "")

    def touch(self) -> str:
        """Ask for nothing: a server refuses that at no cost, where there is one."""
        got = self._sdk.post("/v1/messages", body={}, cast_to=httpx2.Response)
        return got.headers.get("content-type", "")

    def hear(self, prompt: Prompt) -> Heard:
        """Ask, and read the answer to its ``message_stop``."""
        body = options(self._entry, self._settings)
        if system := system_text(self._entry, prompt):
            body["system"] = [self._block(system, cached=True)]
        last = len(prompt.turns) - 1
        messages = [
            # A lone turn differs from call to call: writing it into the cache would cost a
            # quarter more than reading it once. A conversation that goes on is read again.
            {"role": t.role, "content": [self._block(turn_text(t), cached=0 < i == last)]}
            for i, t in enumerate(prompt.turns)
        ]
        ask: Any = self._sdk.messages.create  # plain dicts in, as on the wire
        stream = ask(
            model=self._entry.model,
            max_tokens=answer_tokens(self._entry, self._settings),
            messages=messages,
            stream=True,
            extra_body=body,
        )
        with stream:
            return _read(stream)

    def _block(self, text: str, *, cached: bool) -> dict[str, Any]:
        marked = cached and self._entry.cache_control
        return {"type": "text", "text": text} | ({"cache_control": _CACHED} if marked else {})


def _read(stream: Any) -> Heard:  # noqa: ANN401 (events are constructed unchecked)
    pieces: list[str] = []
    model_id = stop = ""
    used: dict[str, int] = {}
    ended = False
    for event in stream:
        kind = getattr(event, "type", None)
        if kind == "message_start":
            message = getattr(event, "message", None)
            model_id = word(message, "model")
            _add_usage(used, message)
        elif kind == "content_block_start":
            # Usually empty; a compatible server may send all it has at once.
            block = getattr(event, "content_block", None)
            if word(block, "type") == "text":
                pieces.append(word(block, "text"))
        elif kind == "content_block_delta":
            delta = getattr(event, "delta", None)
            if word(delta, "type") == "text_delta":
                pieces.append(word(delta, "text"))
        elif kind == "message_delta":
            stop = word(getattr(event, "delta", None), "stop_reason") or stop
            _add_usage(used, event)
        elif kind == "message_stop":
            ended = True
    if not ended or not stop:
        raise Malformed
    usage = None
    if "output_tokens" in used:
        usage = Usage(
            input_tokens=used.get("input_tokens", 0),
            cached_tokens=used.get("cache_read_input_tokens", 0),
            cache_write_tokens=used.get("cache_creation_input_tokens", 0),
            output_tokens=used["output_tokens"],
            reasoning_tokens=used.get("thinking_tokens", 0),
        )
    return Heard("".join(pieces), _STOPS.get(stop, "end"), usage, model_id)


def _add_usage(used: dict[str, int], holder: object) -> None:
    """Take over what is told; the later counts include the earlier ones."""
    usage = getattr(holder, "usage", None)
    details = getattr(usage, "output_tokens_details", None)
    for place, name in (
        (usage, "input_tokens"),
        (usage, "cache_read_input_tokens"),
        (usage, "cache_creation_input_tokens"),
        (usage, "output_tokens"),
        (details, "thinking_tokens"),
    ):
        told = count(place, name)
        if told is not None:
            used[name] = told
