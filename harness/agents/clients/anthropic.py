"""Anthropic's Messages API through its SDK (2.x), streamed. ``client.py`` does the retries."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from harness.agents.catalogue import ModelEntry
from harness.agents.clients.client import Adapter, answer_tokens, options, system_text, turn_text
from harness.agents.clients.events import Events, RawReply
from harness.agents.clients.fields import get_count, get_list, get_object, get_text
from harness.core.model import Prompt, Usage
from harness.core.writing import Writing

VERSION = "2026-10-21"
"""The API version, which decides what is accepted. We set it; the installed SDK does not."""

_CACHED = {"type": "ephemeral"}


class AnthropicAdapter(Adapter):
    """Sends requests with ``messages.create(stream=True)``."""

    models = "/v1/models"
    answers = "/v1/messages"

    def __init__(self, entry: ModelEntry, writing: Writing, *, key: str, idle_s: float) -> None:
        from anthropic import Anthropic  # takes seconds

        headers = {"anthropic-version": VERSION, **entry.extra_headers}
        make = partial(Anthropic, default_headers=headers, open_telemetry=False)
        super().__init__(entry, writing, make, key=key, idle_s=idle_s)

    def complete(self, prompt: Prompt) -> RawReply:
        """Send the prompt and read the answer to its ``message_stop``."""
        body = options(self._entry, self._writing)
        if system := system_text(self._entry, prompt):
            body["system"] = [self._block(system, cached=True)]
        last = len(prompt.turns) - 1
        messages = [
            # A single turn differs from call to call: writing it into the cache would cost a
            # quarter more than plain input. A longer conversation is sent again, so it is cached.
            {"role": t.role, "content": [self._block(turn_text(t), cached=0 < i == last)]}
            for i, t in enumerate(prompt.turns)
        ]
        with self._sdk.messages.with_streaming_response.create(
            model=self._entry.model,
            max_tokens=answer_tokens(self._entry, self._writing),
            messages=messages,
            stream=True,
            extra_body=body,
        ) as response:
            return _read(Events(response.http_response))

    def _block(self, text: str, *, cached: bool) -> dict[str, Any]:
        marked = cached and self._entry.cache_control
        return {"type": "text", "text": text} | ({"cache_control": _CACHED} if marked else {})


def _read(events: Events) -> RawReply:
    raw = RawReply()
    used: dict[str, int] = {}
    for event in raw.objects(events):
        kind = event.get("type")
        if kind == "message_start":
            _take(raw, used, get_object(event, "message"))
        elif kind == "message":
            # One whole answer.
            for block in get_list(event, "content"):
                _block(raw, block)
            _take(raw, used, event)
            raw.finish_reason = get_text(event, "stop_reason")
        elif kind == "content_block_start":
            # Usually empty; a compatible server may send the whole block here.
            _block(raw, get_object(event, "content_block"))
        elif kind == "content_block_delta":
            _block(raw, get_object(event, "delta"))
        elif kind == "message_delta":
            raw.finish_reason = (
                get_text(get_object(event, "delta"), "stop_reason") or raw.finish_reason
            )
            _take(raw, used, event)
        elif kind == "message_stop":
            events.marked = True
    # Before raw.usage is set: the first event brings usage, so usage does not show the end.
    raw.end(events)
    if "output_tokens" in used:
        raw.usage = Usage(
            input_tokens=used.get("input_tokens", 0),
            cached_tokens=used.get("cache_read_input_tokens", 0),
            cache_write_tokens=used.get("cache_creation_input_tokens", 0),
            output_tokens=used["output_tokens"],
            reasoning_tokens=used.get("thinking_tokens", 0),
        )
    return raw


def _block(raw: RawReply, block: object) -> None:
    """Add a block, or a piece of one, to the answer; text and reasoning have separate fields."""
    raw.pieces.append(get_text(block, "text"))
    raw.add_reasoning(get_text(block, "thinking"))


def _take(raw: RawReply, used: dict[str, int], holder: Mapping[str, Any]) -> None:
    """Store the model's name and the usage; later counts include earlier ones and replace them."""
    raw.model_id = get_text(holder, "model") or raw.model_id
    usage = get_object(holder, "usage")
    for place, name in (
        (usage, "input_tokens"),
        (usage, "cache_read_input_tokens"),
        (usage, "cache_creation_input_tokens"),
        (usage, "output_tokens"),
        (get_object(usage, "output_tokens_details"), "thinking_tokens"),
    ):
        tokens = get_count(place, name)
        if tokens is not None:
            used[name] = tokens
