"""OpenAI's chat completions, also on compatible servers, through its SDK (3.x), streamed.

``client.py`` does the retries.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from harness.agents.catalogue import ModelEntry
from harness.agents.clients.client import Adapter, answer_tokens, options, system_text, turn_text
from harness.agents.clients.events import Events, RawReply
from harness.agents.clients.fields import get_count, get_list, get_object, get_text
from harness.core.model import Prompt, Usage
from harness.core.writing import Writing


class OpenAiAdapter(Adapter):
    """Sends requests with ``chat.completions.create(stream=True)``."""

    models = "/models"
    answers = "/chat/completions"

    def __init__(self, entry: ModelEntry, writing: Writing, *, key: str, idle_s: float) -> None:
        from openai import OpenAI  # takes seconds

        make = partial(OpenAI, default_headers=dict(entry.extra_headers))
        super().__init__(entry, writing, make, key=key, idle_s=idle_s)

    def complete(self, prompt: Prompt) -> RawReply:
        """Send the prompt and read the answer to its end."""
        body = options(self._entry, self._writing)
        body[self._entry.max_tokens_field] = answer_tokens(self._entry, self._writing)
        if self._entry.stream_usage:
            body["stream_options"] = {"include_usage": True}
        with self._sdk.chat.completions.with_streaming_response.create(
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
    raw = RawReply()
    refused = False
    for chunk in raw.objects(events):
        raw.model_id = get_text(chunk, "model") or raw.model_id
        raw.usage = _usage(get_object(chunk, "usage")) or raw.usage
        for choice in get_list(chunk, "choices")[:1]:
            # A whole answer has a message; a piece of a stream has a delta.
            for said in (get_object(choice, "delta"), get_object(choice, "message")):
                raw.pieces.append(get_text(said, "content"))
                # Some servers send their reasoning under both names.
                raw.add_reasoning(
                    get_text(said, "reasoning_content") or get_text(said, "reasoning")
                )
                if refusal := get_text(said, "refusal"):
                    refused = True
                    raw.pieces.append(refusal)
            raw.finish_reason = get_text(choice, "finish_reason") or raw.finish_reason
    raw.end(events)
    if refused:
        raw.stop = "refusal"
    return raw


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
