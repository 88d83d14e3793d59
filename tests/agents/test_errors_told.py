"""Errors in every form that servers send, also with status 200; web pages in place of answers."""

import json

import pytest

from agents.provider_server import QUICK, answer, model_on, raw, status
from harness.agents.clients import make_client
from harness.base.errors import ConfigError, ProviderError

LONG = "This model's maximum context length is 4096 tokens."


def event(value, name: str = "") -> bytes:
    text = value if isinstance(value, str) else json.dumps(value)
    return f"{f'event: {name}' if name else ': x'}\ndata: {text}\n\n".encode()


def plain(value) -> bytes:
    return json.dumps(value, indent=1).encode()


WRONG = [
    # sglang, vLLM: numbers, and names of Python's exceptions
    {"error": {"message": LONG, "type": "BadRequestError", "param": None, "code": 400}},
    {"object": "error", "message": LONG, "type": "NotFoundError", "param": None, "code": 404},
    {
        "error": {
            "message": LONG,
            "type": "invalid_request_error",
            "code": "context_length_exceeded",
        }
    },
    # LiteLLM, llama.cpp, Gemini, Anthropic
    {"error": {"message": LONG, "type": None, "param": None, "code": "413"}},
    {"error": {"code": 400, "message": LONG, "type": "exceed_context_size_error"}},
    [{"error": {"code": 400, "message": LONG, "status": "INVALID_ARGUMENT"}}],
    {"error": {"message": LONG, "status": "FAILED_PRECONDITION"}},
    {"type": "error", "error": {"type": "not_found_error", "message": LONG}},
    # FastAPI, and servers that send only a message
    {"detail": LONG},
    {"detail": [{"type": "missing", "loc": ["body"], "msg": f"Field required. {LONG}"}]},
    {"message": LONG},
    {"error": LONG},
    {"status": 422, "message": LONG},
]


@pytest.mark.parametrize("form", [event, plain, lambda value: event(value, "error")])
@pytest.mark.parametrize("body", WRONG, ids=lambda body: json.dumps(body)[:60])
def test_a_request_that_is_wrong_ends_at_once_in_the_servers_words(
    provider, client, ask, body, form
):
    provider.script(raw(form(body)))
    with pytest.raises(ConfigError, match="refused the request") as caught:
        ask(client)
    assert LONG in caught.value.cause
    assert (len(provider.requests), ask.said) == (1, [])


def test_a_servers_own_error_is_no_wrong_request_for_a_word_in_it(provider, client, ask):
    provider.script(status(500, "server_error", "CUDA error: invalid argument"), answer("at last"))
    assert ask(client).text == "at last"


@pytest.mark.parametrize(("code", "named"), [(429, "rate limit"), (408, "time-out"), (503, "unav")])
def test_a_busy_server_that_is_not_to_be_asked_again_is_the_providers(
    provider, client, ask, code, named
):
    provider.script(status(code, "", "come back", headers={"x-should-retry": "false"}))
    with pytest.raises(ProviderError, match=named):
        ask(client)
    assert len(provider.requests) == 1


@pytest.mark.parametrize(
    "told",
    [
        raw(b"event: error\ndata: prompt is too long\n\n"),
        raw(b"Model the-model not found\n", content_type="text/plain"),
        status(500, "BadRequestError", "your prompt is too long"),
        status(500, "", "Requested tokens exceed context window of 2048"),
    ],
)
def test_plain_words_and_a_500_that_is_none_end_at_once_too(provider, client, ask, told):
    provider.script(told)
    with pytest.raises(ConfigError, match=r"refused the request \(40"):
        ask(client)
    assert len(provider.requests) == 1


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"error": {"message": "slow down", "code": 429}}, "rate limit (429)"),
        ({"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, "rate limit (429)"),
        ({"error": {"message": "slow down", "status": "RESOURCE_EXHAUSTED"}}, "rate limit (429)"),
        ({"error": {"message": "slow down", "type": "overloaded_error"}}, "overloaded (529)"),
        ({"error": {"message": "slow down", "type": "InternalServerError", "code": 500}}, "(500)"),
        ({"error": {"message": "slow down", "code": "503"}}, "unavailable (503)"),
        ({"object": "error", "message": "slow down", "code": 503}, "unavailable (503)"),
        ({"detail": "slow down", "status": "UNAVAILABLE"}, "unavailable (503)"),
    ],
)
def test_what_may_pass_is_waited_for_with_the_servers_sentence(provider, client, ask, body, named):
    provider.script(raw(event(body)), raw(plain(body)), answer("at last"))
    reply = ask(client)
    assert (reply.text, reply.lost_tries) == ("at last", 0)
    assert len(ask.said) == 2
    assert all(f'{named}: "slow down", trying again' in line for line in ask.said)


def test_a_long_nasty_sentence_is_shown_bounded_and_clean(provider, client, ask):
    nasty = "\x1b[2J" + "wait\n" * 500
    provider.script(raw(event({"error": {"message": nasty, "code": 503}})), answer())
    ask(client)
    assert ask.said[0].isprintable()
    assert len(ask.said[0]) < 260
    assert "wait wait" in ask.said[0]


@pytest.mark.parametrize(
    "body",
    [
        event({"error": {"message": "Something went sideways", "code": 1301}}),
        plain({"error": "Something went sideways"}),
        plain({"detail": "Something went sideways"}),
        event("Something went sideways", "error"),
        b"Something went sideways",
    ],
)
def test_an_error_that_nobody_knows_is_asked_again_but_not_for_half_an_hour(
    provider, client, ask, body
):
    provider.otherwise = raw(body)
    with pytest.raises(ProviderError) as caught:
        ask(client)
    assert caught.value.cause == "Something went sideways"
    assert len(provider.requests) == 5
    assert 'an error instead of an answer: "Something went sideways"' in ask.said[0]


@pytest.mark.parametrize("code", ["insufficient_quota", "billing_hard_limit_reached"])
def test_no_money_in_a_stream_is_not_asked_again(provider, client, ask, code):
    provider.script(raw(event({"error": {"message": "pay", "type": code, "code": code}})))
    with pytest.raises(ProviderError, match="no money or quota"):
        ask(client)
    assert len(provider.requests) == 1


@pytest.mark.parametrize("kind", ["authentication_error", "invalid_api_key", 401, "Unauthorized"])
def test_a_wrong_key_in_a_stream_names_the_variable(provider, client, ask, kind):
    provider.script(raw(event({"error": {"message": "no", "type": "error", "code": kind}})))
    with pytest.raises(ConfigError) as caught:
        ask(client)
    assert "TEST_KEY" in caught.value.remedy


PAGE = b"\xef\xbb\xbf\n<!DOCTYPE html><html><head><title>Guest\n login</title></head>" + b"x" * 9999


@pytest.mark.parametrize("kind", ["text/html", "text/event-stream", "application/json"])
@pytest.mark.parametrize("code", [200, 401, 403, 511])
def test_a_web_page_is_no_answer_and_no_judgement_on_a_key(provider, client, ask, code, kind):
    provider.script(raw(PAGE, code, kind))
    with pytest.raises(ConfigError, match="a web page came instead of an answer") as caught:
        ask(client)
    assert caught.value.cause == "Guest login"
    assert "--base-url" in caught.value.remedy
    assert "TEST_KEY" not in str(caught.value)
    assert len(provider.requests) == 1


@pytest.mark.parametrize(
    ("code", "named"), [(502, "bad gateway (502)"), (503, "unavailable (503)")]
)
def test_a_gateways_page_is_waited_for_by_its_title(provider, client, ask, code, named):
    provider.script(raw(PAGE, code, "text/html"), answer("at last"))
    assert ask(client).text == "at last"
    assert f'{named}: "Guest login"' in ask.said[0]


@pytest.mark.parametrize("code", [404, 413, 422])
def test_a_refusal_by_a_page_quotes_its_title(provider, client, ask, code):
    provider.script(raw(PAGE, code, "text/html"))
    with pytest.raises(ConfigError, match=rf"refused the request \({code}\)") as caught:
        ask(client)
    assert caught.value.cause == "Guest login"


def test_a_redirect_says_where_to(provider, client, ask):
    provider.script(status(307, message="", headers={"location": "https://login.invalid/"}))
    with pytest.raises(ConfigError) as caught:
        ask(client)
    assert caught.value.cause == "it points to https://login.invalid/"


def begun(protocol: str, error: dict) -> bytes:
    if protocol == "anthropic":
        start = event({"type": "message_start", "message": {"model": "m"}}, "message_start")
        piece = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "half"}}
        return start + event(piece, piece["type"]) + event(error, "error")
    return event({"choices": [{"delta": {"content": "half"}}]}) + event(error)


def test_an_error_after_some_text_is_a_try_that_was_lost(provider, protocol, client, ask):
    told = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
    provider.script(raw(begun(protocol, told)), answer("whole"))
    reply = ask(client)
    assert (reply.text, reply.lost_tries) == ("whole", 1)
    assert 'overloaded (529): "busy"' in ask.said[0]


def test_a_wrong_key_before_the_stream_keeps_the_servers_words(provider, ask):
    provider.script(status(401, "authentication_error", "key expired yesterday"))
    with pytest.raises(ConfigError) as caught:
        ask(make_client(model_on(provider, "openai"), patience=QUICK))
    assert caught.value.cause == "key expired yesterday"
