"""Upper bounds of tokens before a call; text that cannot be encoded; JSON of a wrong shape."""

import json
from contextlib import suppress
from dataclasses import replace

import pytest

from agents.provider_server import QUICK, model_on, raw
from harness.agents.clients import make_client
from harness.base.errors import ConfigError, ProviderError
from harness.core.model import Prompt, Turn
from harness.core.writing import Settings


def test_the_bound_counts_bytes_and_the_frame_around_messages(provider, protocol):
    entry = model_on(provider, protocol, system_prefix="é" * 10)
    client = make_client(entry, Settings(max_answer_tokens=123))
    short = client.worst_tokens(Prompt("S" * 100, (Turn("user", "ü" * 50),)))
    longer = client.worst_tokens(
        Prompt("S" * 100, (Turn("user", "ü" * 50), Turn("assistant", "🙂")))
    )
    assert short[0] > 20 + 100 + 100
    assert longer[0] >= short[0] + 4 + 8
    assert short[1] == 123


@pytest.mark.parametrize("text", ["\ud83d", "a\x00b", "\u202e\ufeff", "🙂" * 3])
def test_strange_text_goes_out_and_comes_back_as_utf8(provider, protocol, client, ask, text):
    escaped = json.dumps(text)
    if protocol == "anthropic":
        body = (
            'event: message_start\ndata: {"type": "message_start", "message": {"model": "m"}}\n\n'
            'event: content_block_delta\ndata: {"type": "content_block_delta", "delta": '
            f'{{"type": "text_delta", "text": {escaped}}}}}\n\n'
            'event: message_delta\ndata: {"type": "message_delta", "delta": '
            '{"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}}\n\n'
            'event: message_stop\ndata: {"type": "message_stop"}\n\n'
        )
    else:
        body = (
            f'data: {{"choices": [{{"delta": {{"content": {escaped}}}, '
            '"finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
        )
    provider.script(raw(body.encode()))
    reply = ask(client, Prompt(text, (Turn("user", text),)))
    assert reply.text == text.replace("\ud83d", "\ufffd")
    assert len(provider.requests) == 1


SHAPES = ["null", "5", '"x"', "[]", "{}", "[null]", '{"a": 1}', "true", "1e999"]
ANTHROPIC = [
    ("message_start", '{"type": "message_start", "message": @}'),
    ("message_start", '{"type": "message_start", "message": {"usage": @}}'),
    ("content_block_start", '{"type": "content_block_start", "content_block": @}'),
    ("content_block_delta", '{"type": "content_block_delta", "delta": @}'),
    (
        "content_block_delta",
        '{"type": "content_block_delta", "delta": {"type": "text_delta", "text": @}}',
    ),
    ("message_delta", '{"type": "message_delta", "delta": @, "usage": @}'),
    ("error", '{"error": @}'),
    ("ping", "@"),
    ("message_delta", "@"),
]
OPENAI = [
    "@",
    '{"choices": @}',
    '{"choices": [@]}',
    '{"choices": [{"delta": @, "finish_reason": @}]}',
    '{"choices": [{"delta": {"content": @}}]}',
    '{"choices": [], "usage": @, "model": @}',
    '{"choices": [], "usage": {"prompt_tokens": @, "completion_tokens": @}}',
    '{"error": @}',
]


@pytest.mark.parametrize("shape", SHAPES)
def test_any_json_in_any_place_is_an_answer_or_an_error_of_ours(provider, protocol, ask, shape):
    """Valid JSON of the wrong shape may raise only our own errors."""
    client = make_client(model_on(provider, protocol), patience=replace(QUICK, outage_s=0))
    if protocol == "anthropic":
        bodies = [f"event: {kind}\ndata: {data}\n\n" for kind, data in ANTHROPIC]
    else:
        bodies = [f"data: {data}\n\n" for data in OPENAI]
    for body in bodies:
        provider.script(raw(body.replace("@", shape).encode()))
        with suppress(ProviderError, ConfigError):
            # '"x"' is a valid text, and an unknown but accepted reason to finish.
            assert ask(client).text in ("", "x")
    assert len(provider.requests) == len(bodies)
