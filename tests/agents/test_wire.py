"""Both clients through their real SDKs and HTTP stacks, against a provider on loopback."""

import random
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from agents.conftest import KEY, PROMPT
from agents.provider_server import (
    HANGS_S,
    QUICK,
    after,
    answer,
    as_it_comes,
    endless,
    error_in_stream,
    model_on,
    raw,
    silent,
    status,
)
from harness.agents.clients import make_client
from harness.base.errors import Cancelled, ConfigError, ProviderError
from harness.core.model import Prompt, Turn, Usage
from harness.core.writing import Writing


def test_an_answer_comes_whole_with_its_usage_and_without_its_reasoning(provider, client, ask):
    provider.script(
        answer(
            "def f():\n    return '</think>'\n",
            thinking="let me see",
            input_tokens=30,
            cached=1000,
            cache_write=200,
            output_tokens=90,
            reasoning_tokens=40,
        )
    )
    reply = ask(client)
    assert reply.text == "def f():\n    return '</think>'\n"
    assert reply.usage == Usage(30, 1000, 200, 90, 40)
    assert (reply.stop, reply.model_id) == ("end", "model-that-answered")
    assert (reply.lost_tries, ask.said) == (0, [])


@pytest.mark.parametrize("stop", ["length", "refusal"])
def test_truncation_and_refusal_are_outcomes_not_errors(provider, client, ask, stop):
    provider.script(answer("half a", stop=stop))
    assert (ask(client).stop, len(provider.requests)) == (stop, 1)


def test_an_empty_answer_is_a_reply(provider, client, ask):
    provider.script(answer("", output_tokens=0))
    reply = ask(client)
    assert (reply.text, reply.stop, len(provider.requests)) == ("", "end", 1)


def test_a_context_that_is_full_is_a_matter_of_length(provider, ask):
    provider.script(answer("a", stop="model_context_window_exceeded"))
    client = make_client(model_on(provider, "anthropic"), patience=QUICK)
    assert ask(client).stop == "length"


def test_thoughts_that_gemini_leaves_out_of_the_completion_are_counted(provider, ask):
    provider.script(
        raw(
            b'data: {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]}'
            b'\n\ndata: {"choices": [], "usage": {"prompt_tokens": 20, "completion_tokens": 5, '
            b'"total_tokens": 125}}\n\ndata: [DONE]\n\n'
        )
    )
    client = make_client(model_on(provider, "openai"), patience=QUICK)
    assert ask(client).usage == Usage(20, 0, 0, 105, 0)


def test_what_is_sent_caches_the_constant_part_and_a_conversation_that_goes_on(provider, ask):
    client = make_client(model_on(provider, "anthropic"), patience=QUICK)
    ask(client)
    ask(client, Prompt("S", (Turn("user", "a"), Turn("assistant", ""), Turn("user", "b"))))
    first, second = (r.body for r in provider.requests)
    marked = {"cache_control": {"type": "ephemeral"}}
    assert first["system"] == [{"type": "text", "text": PROMPT.system} | marked]
    assert first["messages"][0]["content"] == [{"type": "text", "text": "Improve this."}]
    assert second["messages"][2]["content"] == [{"type": "text", "text": "b"} | marked]
    # Anthropic refuses an empty message with status 400.
    assert second["messages"][1]["content"][0]["text"] == "(empty)"
    assert (first["max_tokens"], first["stream"]) == (4_000, True)
    assert "temperature" not in first
    assert provider.requests[0].headers["anthropic-version"] == "2026-10-21"
    assert provider.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_the_quirks_of_a_model_are_obeyed(provider, ask):
    settings = Writing(effort="on", temperature=0.6, max_answer_tokens=77)
    entry = model_on(
        provider,
        "openai",
        max_tokens_field="max_tokens",
        system_role="user",
        system_prefix="Think first.",
        stream_usage=False,
        effort={"field": "chat_template_kwargs.enable_thinking", "values": {"on": True}},
        extra_body={"top_k": 20},
        extra_headers={"x-flavour": "mild"},
    )
    client = make_client(entry, settings, patience=QUICK)
    ask(client)
    request = provider.requests[0]
    assert request.body == {
        "model": "the-model",
        "stream": True,
        "max_tokens": 77,
        "temperature": 0.6,
        "top_k": 20,
        "chat_template_kwargs": {"enable_thinking": True},
        "messages": [{"role": "user", "content": "Think first.\n\nWrite models.\n\nImprove this."}],
    }
    assert request.headers["x-flavour"] == "mild"
    described = client.describe()
    assert described["options"] == {
        "top_k": 20,
        "temperature": 0.6,
        "chat_template_kwargs": {"enable_thinking": True},
    }
    assert described["server"] == "local"


@pytest.mark.parametrize(
    ("failed", "named"),
    [
        (status(429, "rate_limit_error"), "rate limit (429)"),
        (status(500, "api_error"), "server error (500)"),
        (status(529, "overloaded_error"), "overloaded (529)"),
        (error_in_stream("overloaded_error"), "overloaded (529)"),
        (error_in_stream("server_error"), "server error (500)"),
        (answer("lost", cut_after=2), "the connection was lost"),
        (silent(0), "the connection was lost"),
        (raw(b""), "an empty answer"),
        (raw(b"\n \r\n", content_type="application/json"), "an empty answer"),
        (raw(b"data: {oops\n\n"), "no answer"),
        (raw(b"event: message_start\ndata: {oops\n\n"), "no answer"),
        (raw(b'event: message_delta\ndata: {"type": "message_delta"}\n\n'), "no answer"),
        (raw(b"\xff\xfe\n\n"), "an error instead of an answer"),
        (raw(b"data: " + b"[" * 100_000 + b"\n\n"), "no answer"),
    ],
)
def test_what_may_pass_is_asked_again(provider, client, ask, failed, named):
    provider.script(failed, answer("at last"))
    assert ask(client).text == "at last"
    assert len(provider.requests) == 2
    assert len(ask.said) == 1
    assert ask.said[0].startswith("test-model: ")
    assert named in ask.said[0]
    assert "(attempt 2)" in ask.said[0]


def test_tries_that_were_lost_on_the_way_are_told(provider, client, ask):
    provider.script(answer("x", cut_after=2), status(429), answer("x", cut_after=1), answer("y"))
    reply = ask(client)
    # The refusal cost nothing.
    assert (reply.text, reply.lost_tries, reply.usage.output_tokens) == ("y", 2, 5)


def test_waiting_is_told_apart_from_the_call_and_as_long_as_asked(provider, client, ask):
    provider.script(status(429, headers={"retry-after": "0.2"}), answer(delay_s=0.02))
    began = time.monotonic()
    reply = ask(client)
    assert reply.waited_s >= 0.2
    assert reply.seconds > 0.08
    assert reply.waited_s + reply.seconds <= time.monotonic() - began


@pytest.mark.parametrize(
    "refused",
    [
        status(400, "invalid_request_error", "prompt is too long"),
        status(404, "not_found_error", "model: the-model"),
        status(413, "request_too_large"),
        error_in_stream("invalid_request_error"),
        status(302, headers={"location": "http://elsewhere.invalid/"}),
    ],
)
def test_a_request_that_is_wrong_is_not_sent_again(provider, client, ask, refused):
    provider.script(refused)
    with pytest.raises(ConfigError, match="refused the request"):
        ask(client)
    assert len(provider.requests) == 1


@pytest.mark.parametrize(
    "refused",
    [
        status(429, "insufficient_quota", error_code="insufficient_quota"),
        status(429, "rate_limit_error", error_code="enforced_spend_limit_reached"),
        status(402, "billing_error"),
    ],
)
def test_an_account_without_money_is_not_asked_again(provider, client, ask, refused):
    provider.script(refused)
    with pytest.raises(ProviderError, match="no money or quota") as caught:
        ask(client)
    assert "harness resume" in caught.value.remedy
    assert len(provider.requests) == 1


@pytest.mark.parametrize("code", [401, 403])
def test_a_wrong_key_names_the_variable(provider, client, ask, code):
    refusal = status(code, "authentication_error", f"Incorrect API key provided: {KEY}")
    provider.script(refusal)
    provider.models = refusal
    for call in (client.check, lambda: ask(client)):
        with pytest.raises(ConfigError) as caught:
            call()
        assert "TEST_KEY" in caught.value.remedy
        assert KEY not in str(caught.value)


@pytest.mark.parametrize("code", [404, 405, 429, 503])
def test_the_check_of_a_key_takes_servers_that_cannot_tell(provider, client, code):
    provider.models = status(code)
    client.check()
    # If the list of models is missing, only empty requests, which are free, look for the API.
    assert all(request.body == {} for request in provider.requests)
    assert bool(provider.requests) == (code in (404, 405))


def test_the_check_says_at_once_that_nothing_answers(provider, protocol):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        client = make_client(model_on(provider, protocol), Writing(base_url=url))
        with pytest.raises(ProviderError, match="nothing answers at http"):
            client.check()


def test_patience_ends(provider, client, ask, protocol):
    provider.otherwise = status(503)
    brief = replace(QUICK, outage_s=0.3)
    with pytest.raises(ProviderError, match="patience is at its end") as caught:
        ask(make_client(model_on(provider, protocol), patience=brief))
    assert "harness resume" in caught.value.remedy
    assert 1 < len(provider.requests) < 40


def test_the_time_of_a_try_that_fails_first_is_no_part_of_an_outage(provider, protocol, ask):
    """Even an answer that is cut off after an hour is requested again."""
    provider.script(answer("slow " * 9, delay_s=0.03, cut_after=8), answer("whole"))
    client = make_client(model_on(provider, protocol), patience=replace(QUICK, outage_s=0.1))
    assert ask(client).text == "whole"


def test_a_server_in_plain_words_is_quoted(provider, ask):
    provider.script(raw(b'{"error": "no such template"}', 400, "application/json"))
    with pytest.raises(ConfigError) as caught:
        ask(make_client(model_on(provider, "openai"), patience=QUICK))
    assert caught.value.cause == "no such template"


def test_a_wait_longer_than_patience_is_not_begun(provider, client, ask):
    provider.script(status(429, headers={"retry-after": "3600"}))
    with pytest.raises(ProviderError, match="rate limit"):
        ask(client)
    assert ask.said == []  # nothing is tried again
    assert len(provider.requests) == 1


def test_silence_ends_a_try(provider, protocol, ask):
    provider.script(silent())
    provider.otherwise = answer("at last")
    client = make_client(model_on(provider, protocol), patience=replace(QUICK, idle_s=0.5))
    assert ask(client).text == "at last"
    assert "went silent" in ask.said[0]


class Clock:
    """Replaces ``time``: only ``sleep`` moves it on, and returns when the time was looked at."""

    def __init__(self) -> None:
        self.now = 0.0
        self.looked = threading.Event()

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.looked.clear()
        assert self.looked.wait(HANGS_S), "nobody looked at the clock"

    def monotonic(self) -> float:
        self.looked.set()
        return self.now


def test_slowness_does_not_end_a_try(provider, ask, monkeypatch):
    """The whole answer takes longer than a silence may last."""
    clock = Clock()
    for user in ("agents.provider_server", "harness.agents.clients.wire"):
        monkeypatch.setattr(f"{user}.time", clock)
    patience = replace(QUICK, total_s=10 * QUICK.idle_s)
    provider.script(answer("slow but sure, and surely slow", delay_s=QUICK.idle_s / 2))
    reply = ask(make_client(model_on(provider, "openai"), patience=patience))
    assert reply.text == "slow but sure, and surely slow"
    assert QUICK.idle_s < clock.now < patience.total_s
    assert ask.said == []


def test_an_answer_without_end_is_cut_by_time(provider, protocol, ask):
    provider.script(endless(pause_s=0.02))
    client = make_client(model_on(provider, protocol), patience=replace(QUICK, total_s=0.4))
    with pytest.raises(ProviderError, match="no whole answer"):
        ask(client)
    assert len(provider.requests) <= 1  # a busy machine may not even send it in time
    assert ask.said == []


@pytest.mark.parametrize("flood", [endless(), raw(b"data: " + b"x" * 7_000_000)])
def test_an_answer_without_end_is_cut_by_size(provider, client, ask, flood):
    provider.script(flood)
    with pytest.raises(ProviderError, match="the server sent more than"):
        ask(client)
    assert len(provider.requests) == 1


@pytest.mark.parametrize("busy", [silent(), endless(pause_s=0.05)])
def test_cancelling_wakes_a_read(provider, client, ask, busy):
    cancel = threading.Event()
    provider.script(as_it_comes(cancel, busy))
    began = time.monotonic()
    with pytest.raises(Cancelled):
        ask(client, cancel=cancel)
    assert time.monotonic() - began < HANGS_S
    assert len(provider.requests) == 1


def test_cancelling_wakes_the_wait_for_another_try(provider, client):
    provider.script(status(429, headers={"retry-after": str(HANGS_S / 2)}))
    cancel = threading.Event()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        client.send(PROMPT, say=lambda _: cancel.set(), cancel=cancel)
    assert time.monotonic() - began < HANGS_S / 2
    assert len(provider.requests) == 1


def test_cancelling_wakes_the_queue_and_sends_nothing(provider, protocol, ask):
    answers, cancel = threading.Event(), threading.Event()
    provider.script(after(answers, answer("ok")))
    client = make_client(model_on(provider, protocol, concurrency=1), patience=QUICK)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, client)
        provider.until(under_way=1)

        def say(line):
            assert "1 calls are under way" in line
            cancel.set()

        with pytest.raises(Cancelled):
            client.send(PROMPT, say=say, cancel=cancel)
        assert len(provider.requests) == 1
        answers.set()
        assert first.result().text == "ok"
    assert len(provider.requests) == 1


def test_no_more_calls_are_under_way_than_allowed(provider, protocol, ask):
    answers = threading.Event()
    provider.otherwise = after(answers, answer("ok"))
    # Two clients of one server share its limit.
    clients = [
        make_client(model_on(provider, protocol, concurrency=3), patience=QUICK) for _ in "ab"
    ]
    with ThreadPoolExecutor(8) as pool:
        replies = pool.map(ask, clients * 8)
        provider.until(under_way=3)
        answers.set()
        assert [r.text for r in replies] == ["ok"] * 16
    assert provider.most_at_once == 3


def test_a_provider_that_fails_at_random_loses_no_call_and_charges_none_twice(
    provider, client, ask
):
    rng = random.Random(7)
    good: list[str] = []

    def respond(request):
        if rng.random() < 0.3:
            return rng.choice(
                [
                    status(429, "rate_limit_error"),
                    status(500),
                    status(529, "overloaded_error"),
                    error_in_stream("overloaded_error"),
                    answer("half", cut_after=2),
                    raw(b"data: {oops\n\n"),
                ]
            )
        number = request.body["messages"][-1]["content"]
        number = number if isinstance(number, str) else number[0]["text"]
        good.append(number)
        return answer(f"answer {number}")

    provider.otherwise = respond
    prompts = [Prompt("S", (Turn("user", str(n)),)) for n in range(60)]
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda p: ask(client, p), prompts))
    assert [r.text for r in replies] == [f"answer {n}" for n in range(60)]
    assert sorted(good, key=int) == [str(n) for n in range(60)]
    assert len(ask.said) == len(provider.requests) - 60 > 5
