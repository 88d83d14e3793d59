"""OpenAI's chat completions, also on compatible servers, through its SDK (3.x), streamed.

``client.py`` does the retries.
"""

from collections.abc import Mapping
from typing import Any

import httpx2

from harness.agents.catalogue import ModelEntry
from harness.agents.clients.client import (
    RawReply,
    answer_tokens,
    base_url,
    options,
    system_text,
    turn_text,
)
from harness.agents.clients.events import Draft, Events
from harness.agents.clients.fields import get_count, get_list, get_object, get_text
from harness.agents.clients.wire import open_http, timeouts
from harness.core.model import Prompt, Usage
from harness.core.writing import Settings


class OpenAiAdapter:
    """Sends requests with ``chat.completions.create(stream=True)``."""

    models = "/models"

    def __init__(self, entry: ModelEntry, settings: Settings, *, key: str, idle_s: float) -> None:
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

    def list_models(self, at: str = "") -> str:
        """Request the list of models. See ``client.Adapter``."""
        got = self._sdk.get(f"{at}{self.models}", cast_to=httpx2.Response)
        return got.headers.get("content-type", "")

    def probe(self) -> str:
        """Send an empty request, which an API refuses at no cost."""
        got = self._sdk.post("/chat/completions", body={}, cast_to=httpx2.Response)
        return got.headers.get("content-type", "")

    def complete(self, prompt: Prompt) -> RawReply:
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


def _read(events: Events) -> RawReply:
    draft = Draft()
    refused = False
    for chunk in draft.objects(events):
        draft.model_id = get_text(chunk, "model") or draft.model_id
        draft.usage = _usage(get_object(chunk, "usage")) or draft.usage
        for choice in get_list(chunk, "choices")[:1]:
            # A whole answer has a message; a piece of a stream has a delta.
            for said in (get_object(choice, "delta"), get_object(choice, "message")):
                draft.pieces.append(get_text(said, "content"))
                # Some servers send their reasoning under both names.
                draft.add_reasoning(
                    get_text(said, "reasoning_content") or get_text(said, "reasoning")
                )
                if refusal := get_text(said, "refusal"):
                    refused = True
                    draft.pieces.append(refusal)
            draft.finish_reason = get_text(choice, "finish_reason") or draft.finish_reason
    stop = draft.stop(events)
    return RawReply.of(draft, "refusal" if refused else stop)


def _usage(usage: Mapping[str, Any]) -> Usage | None:
    prompt, completion = get_count(usage, "prompt_tokens"), get_count(usage, "completion_tokens")
    if prompt is None or completion is None:
        return None
    details = get_object(usage, "prompt_tokens_details")
    cached = min(get_count(details, "cached_tokens") or 0, prompt)
    written = min(get_count(details, "cache_write_tokens") or 0, prompt - cached)
    reasoning = get_count(get_object(usage, "completion_tokens_details"), "reasoning_tokens") or 0
    # Gemini leaves reasoning out of completion_tokens but counts it in the total (and the bill).
    output = max(completion, (get_count(usage, "total_tokens") or 0) - prompt)
    return Usage(
        input_tokens=prompt - cached - written,
        cached_tokens=cached,
        cache_write_tokens=written,
        output_tokens=output,
        reasoning_tokens=min(reasoning, output),
    )
