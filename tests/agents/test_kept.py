"""Paid answers are kept: without a stop reason, in another form, or cut off after their end."""

import json

import pytest

from agents.conftest import PROMPT
from agents.provider_server import QUICK, Response, answer, event, model_on, raw
from harness.agents.clients import make_client
from harness.base.errors import ProviderError
from harness.core.model import Usage

TEXT = "```python model.py\nX = 1\n```\n"


def openai(*chunks: dict, done: bool = True) -> bytes:
    events = [f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks]
    return b"".join([*events, b"data: [DONE]\n\n" if done else b""])


def said(text: str = TEXT, finish: str | None = None, **more) -> dict:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish} | more]}


def anthropic(finish: str | None = None, *, stopped: bool = True) -> bytes:
    start = {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 9}}}
    piece = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": TEXT}}
    last = {
        "type": "message_delta",
        "delta": {"stop_reason": finish},
        "usage": {"output_tokens": 8},
    }
    events = [start, piece, last, *([{"type": "message_stop"}] if stopped else [])]
    return b"".join(map(event, events))


COUNTED = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 8}}


@pytest.mark.parametrize(
    ("protocol", "body", "stop"),
    [
        ("openai", openai(said(), COUNTED), "end"),
        ("openai", openai(said()), "end"),
        ("openai", openai(said(), COUNTED, done=False), "end"),
        # The server just stopped: the answer may be cut, so it may be continued.
        ("openai", openai(said(), done=False), "length"),
        ("anthropic", anthropic(), "end"),
        ("anthropic", anthropic(stopped=False), "length"),
    ],
)
def test_a_whole_answer_without_a_reason_is_kept_and_said(provider, ask, protocol, body, stop):
    provider.script(raw(body))
    reply = ask(make_client(model_on(provider, protocol), patience=QUICK))
    assert (reply.text, reply.stop, reply.lost_tries) == (TEXT, stop, 0)
    assert any("does not say why its answer ended; what came is kept" in s for s in ask.said)
    assert len(provider.requests) == 1


def test_an_answer_without_a_reason_that_is_as_long_as_allowed_was_cut(provider, ask):
    usage = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4_000}}
    provider.script(raw(openai(said(), usage)))
    assert ask(make_client(model_on(provider, "openai"), patience=QUICK)).stop == "length"


def whole(protocol: str, finish: str | None) -> bytes:
    if protocol == "anthropic":
        blocks = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": TEXT}]
        value = {"type": "message", "model": "m", "content": blocks, "stop_reason": finish}
        return json.dumps(value | {"usage": {"input_tokens": 9, "output_tokens": 8}}).encode()
    message = {"role": "assistant", "content": TEXT, "reasoning_content": "hm"}
    value = {"object": "chat.completion", "model": "m", "usage": COUNTED["usage"]}
    choices = [{"index": 0, "message": message, "finish_reason": finish}]
    return json.dumps(value | {"choices": choices}, indent=2).encode()


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
@pytest.mark.parametrize("finish", [None, "stop"])
def test_one_whole_answer_instead_of_a_stream_is_an_answer(
    provider, protocol, client, ask, kind, finish
):
    provider.script(raw(whole(protocol, finish), content_type=kind))
    reply = ask(client)
    assert (reply.text, reply.stop, reply.model_id) == (TEXT, "end", "m")
    assert reply.usage == Usage(9, 0, 0, 8, 0)
    assert len(provider.requests) == 1


def test_a_cut_after_the_reason_to_end_takes_nothing_away(provider, protocol, client, ask):
    # The last event (and with OpenAI the usage before it) never comes.
    provider.script(answer("short", cut_after=6 if protocol == "anthropic" else 3))
    reply = ask(client)
    assert (reply.text, reply.stop, reply.lost_tries) == ("short", "end", 0)
    assert reply.usage.estimated == (protocol == "openai")
    assert len(provider.requests) == 1


@pytest.mark.parametrize("finish", ["abort", "error", "cancelled"])
def test_an_answer_that_the_server_broke_off_is_lost_and_asked_for_again(
    provider, protocol, client, ask, finish
):
    body = anthropic(finish) if protocol == "anthropic" else openai(said(finish=finish), COUNTED)
    provider.script(raw(body), answer("whole"))
    reply = ask(client)
    assert (reply.text, reply.lost_tries) == ("whole", 1)
    assert f"broke its answer off ({finish})" in ask.said[0]


@pytest.mark.parametrize(
    ("finish", "stop"),
    [
        ("content_filter", "refusal"),
        ("SAFETY", "refusal"),
        ("MAX_TOKENS", "length"),
        ("model_length", "length"),
        ("eos_token", "end"),
    ],
)
def test_other_servers_words_for_the_end_are_understood(provider, ask, finish, stop):
    provider.script(raw(openai(said(finish=finish), COUNTED)))
    assert ask(make_client(model_on(provider, "openai"), patience=QUICK)).stop == stop


def test_no_answer_is_paid_for_more_than_five_times(provider, client, ask):
    provider.otherwise = raw(b"")
    lost = []
    with pytest.raises(ProviderError, match="an empty answer"):
        ask(client, lost=lost.append)
    # Called after each lost try, with whether another try follows.
    assert lost == [True, True, True, True, False]
    assert len(provider.requests) == 5


# ---- tokens, if the server reports none or an impossible number

THOUGHT = "hm " * 5000


@pytest.mark.parametrize("told", ["nothing", "zeros", "too few"])
def test_reasoning_counts_where_the_server_counts_nothing(provider, protocol, client, ask, told):
    counts = {"input_tokens": 10, "output_tokens": 3} if told == "too few" else {}
    counts = {"input_tokens": 0, "output_tokens": 0} if told == "zeros" else counts
    provider.script(answer(TEXT, thinking=THOUGHT, usage=told != "nothing", **counts))
    times = {"anthropic": 1, "openai": 2}[protocol]  # sent twice, under two names
    wrote = len(TEXT) + times * len(THOUGHT)
    read = 10 if told == "too few" else client.worst_tokens(PROMPT)[0]
    assert ask(client).usage == Usage(read, 0, 0, wrote, 0, estimated=True)
    assert "bytes are counted instead" in ask.said[0]


def test_what_a_server_counts_is_believed(provider, client, ask):
    provider.script(answer(TEXT, thinking=THOUGHT, output_tokens=1800))
    assert ask(client).usage == Usage(10, 0, 0, 1800, 0)
    assert ask.said == []


def test_the_first_count_of_anthropics_is_not_the_last(provider, ask):
    """``message_start`` reports one output token; without a later count it is not believed."""
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 9, "output_tokens": 1}}}
    piece = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "x" * 900}}
    last = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
    provider.script(raw(b"".join(map(event, [start, piece, last, {"type": "message_stop"}]))))
    usage = ask(make_client(model_on(provider, "anthropic"), patience=QUICK)).usage
    assert usage == Usage(9, 0, 0, 900, 0, estimated=True)


@pytest.mark.parametrize(
    "response", [answer("", thinking=THOUGHT, stop="length"), answer(" \n", stop="length")]
)
def test_an_answer_that_is_all_reasoning_names_the_limit_and_its_option(
    provider, client, ask, response: Response
):
    provider.script(response)
    assert ask(client).stop == "length"
    assert "within 4,000 tokens; --max-answer-tokens raises that limit" in ask.said[-1]
