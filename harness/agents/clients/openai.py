"""OpenAI's chat completions, also on compatible servers, through its SDK (3.x), streamed.

``client.py`` does the retries.
"""

from collections.abc import Mapping
from typing import Any

import httpx2

from harness.agents.catalogue import Entry
from harness.agents.clients.client import (
    Heard,
    answer_tokens,
    base_url,
    options,
    system_text,
    turn_text,
)
from harness.agents.clients.events import Draft, Events
from harness.agents.clients.fields import count, inside, items, word
from harness.agents.clients.wire import open_http, timeouts
from harness.core.model import Prompt, Usage
from harness.core.writing import Settings


class Speaker:
    """Sends requests with ``chat.completions.create(stream=True)``."""

    models = "/models"

    def __init__(self, entry: Entry, settings: Settings, *, key: str, idle_s: float) -> None:
        import openai  # takes seconds

        self._entry = entry
        self._settings = settings
        self._sdk = openai.OpenAI(
            api_key=key,
            base_url=base_url(entry, settings),
            max_retries=0,
            timeout=timeouts(idle_s),
            http_client=open_http(base_url(entry, settings), idle_s),
            default_headers=dict(entry.extra_headers),
        )

    def knock(self, at: str = "") -> str:
        """Request the list of models. See ``client.Speaker``."""
        got = self._sdk.get(f"{at}{self.models}", cast_to=httpx2.Response)
        return got.headers.get("content-type", "")

    def touch(self) -> str:
        """Send an empty request, which an API refuses at no cost."""
        got = self._sdk.post("/chat/completions", body={}, cast_to=httpx2.Response)
        return got.headers.get("content-type", "")

    def hear(self, prompt: Prompt) -> Heard:
        """Send the prompt and read the answer to its end."""
        body = options(self._entry, self._settings)
        body[self._entry.max_tokens_field] = answer_tokens(self._entry, self._settings)
        if self._entry.stream_usage:
            body["stream_options"] = {"include_usage": True}
        ask: Any = self._sdk.chat.completions.with_streaming_response.create  # for plain dicts
        with ask(
            model=self._entry.model,
            messages=self._messages(prompt),
            stream=True,
            extra_body=body,
        ) as response:
            return _read(Events(response.http_response))

    def _messages(self, prompt: Prompt) -> list[dict[str, str]]:
        system = system_text(self._entry, prompt)
        turns = [{"role": t.role, "content": turn_text(t)} for t in prompt.turns]
        if not system:
            return turns
        if self._entry.system_role == "user" and turns:
            turns[0]["content"] = f"{system}\n\n{turns[0]['content']}"
            return turns
        return [{"role": self._entry.system_role, "content": system}, *turns]


def _read(events: Events) -> Heard:
    draft = Draft()
    refused = False
    for chunk in draft.follow(events):
        draft.model_id = word(chunk, "model") or draft.model_id
        draft.usage = _usage(inside(chunk, "usage")) or draft.usage
        for choice in items(chunk, "choices")[:1]:
            # A whole answer has a message; a piece of a stream has a delta.
            for said in (inside(choice, "delta"), inside(choice, "message")):
                draft.pieces.append(word(said, "content"))
                # Some servers send their reasoning under both names.
                draft.think(word(said, "reasoning_content") or word(said, "reasoning"))
                if refusal := word(said, "refusal"):
                    refused = True
                    draft.pieces.append(refusal)
            draft.finish = word(choice, "finish_reason") or draft.finish
    stop = draft.stop(events)
    return Heard.of(draft, "refusal" if refused else stop)


def _usage(told: Mapping[str, Any]) -> Usage | None:
    prompt, completion = count(told, "prompt_tokens"), count(told, "completion_tokens")
    if prompt is None or completion is None:
        return None
    details = inside(told, "prompt_tokens_details")
    cached = min(count(details, "cached_tokens") or 0, prompt)
    written = min(count(details, "cache_write_tokens") or 0, prompt - cached)
    thought = count(inside(told, "completion_tokens_details"), "reasoning_tokens") or 0
    # Gemini leaves reasoning out of completion_tokens but counts it in the total (and the bill).
    output = max(completion, (count(told, "total_tokens") or 0) - prompt)
    return Usage(
        input_tokens=prompt - cached - written,
        cached_tokens=cached,
        cache_write_tokens=written,
        output_tokens=output,
        reasoning_tokens=min(thought, output),
    )
