"""OpenAI's chat completions, and every server that speaks them, by the SDK (3.x), streamed."""

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


class Speaker:
    """Asks by ``chat.completions.create(stream=True)``."""

    models = "/models"

    def __init__(self, entry: Entry, settings: Settings, *, key: str, idle_s: float) -> None:
        import openai  # seconds

        self._entry = entry
        self._settings = settings
        self._sdk = openai.OpenAI(
            api_key=key,
            base_url=base_url(entry, settings),
            max_retries=0,
            timeout=timeouts(idle_s),
            http_client=open_http(idle_s),
            default_headers=dict(entry.extra_headers),
        )

    def knock(self, at: str = "") -> str:
        """Ask for the list of models."""
        got = self._sdk.get(f"{at}{self.models}", cast_to=httpx2.Response)
        return got.headers.get("content-type", "")

    def touch(self) -> str:
        """Ask for nothing: a server refuses that at no cost, where there is one."""
        got = self._sdk.post("/chat/completions", body={}, cast_to=httpx2.Response)
        return got.headers.get("content-type", "")

    def hear(self, prompt: Prompt) -> Heard:
        """Ask, and read the answer to its end."""
        body = options(self._entry, self._settings)
        body[self._entry.max_tokens_field] = answer_tokens(self._entry, self._settings)
        if self._entry.stream_usage:
            body["stream_options"] = {"include_usage": True}
        ask: Any = self._sdk.chat.completions.create  # plain dicts in, as on the wire
        stream = ask(
            model=self._entry.model,
            messages=self._messages(prompt),
            stream=True,
            extra_body=body,
        )
        with stream:
            return _read(stream, wants_usage=self._entry.stream_usage)

    def _messages(self, prompt: Prompt) -> list[dict[str, str]]:
        system = system_text(self._entry, prompt)
        turns = [{"role": t.role, "content": turn_text(t)} for t in prompt.turns]
        if not system:
            return turns
        if self._entry.system_role == "user" and turns:
            turns[0]["content"] = f"{system}\n\n{turns[0]['content']}"
            return turns
        return [{"role": self._entry.system_role, "content": system}, *turns]


def _read(stream: Any, *, wants_usage: bool) -> Heard:  # noqa: ANN401 (constructed unchecked)
    pieces: list[str] = []
    model_id = finish = ""
    refused = False
    usage: Usage | None = None
    for chunk in stream:
        model_id = word(chunk, "model") or model_id
        usage = _usage(getattr(chunk, "usage", None)) or usage
        choices = getattr(chunk, "choices", None)
        if not isinstance(choices, list) or not choices:
            continue
        # Reasoning comes in fields of its own (reasoning, reasoning_content): not read.
        delta = getattr(choices[0], "delta", None)
        pieces.append(word(delta, "content"))
        if refusal := word(delta, "refusal"):
            refused = True
            pieces.append(refusal)
        finish = word(choices[0], "finish_reason") or finish
    if not finish:
        raise Malformed
    stop: Stop = "end"
    if refused or finish.startswith("content_filter"):
        stop = "refusal"
    elif finish == "length":
        stop = "length"
    return Heard("".join(pieces), stop, usage, model_id)


def _usage(told: object) -> Usage | None:
    prompt, completion = count(told, "prompt_tokens"), count(told, "completion_tokens")
    if prompt is None or completion is None:
        return None
    inside = getattr(told, "prompt_tokens_details", None)
    cached = min(count(inside, "cached_tokens") or 0, prompt)
    written = min(count(inside, "cache_write_tokens") or 0, prompt - cached)
    thought = count(getattr(told, "completion_tokens_details", None), "reasoning_tokens") or 0
    # Gemini leaves its thoughts out of completion_tokens, not out of the total (or the bill).
    output = max(completion, (count(told, "total_tokens") or 0) - prompt)
    return Usage(
        input_tokens=prompt - cached - written,
        cached_tokens=cached,
        cache_write_tokens=written,
        output_tokens=output,
        reasoning_tokens=min(thought, output),
    )
