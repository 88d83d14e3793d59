"""The key of a provider appears in a request's header and nowhere else."""

import logging
import threading
import traceback
from dataclasses import replace

import pytest

from agents.conftest import KEY, PROMPT
from agents.provider_server import QUICK, answer, endless, model_on, raw, silent, status
from harness.agents.clients import make_client
from harness.agents.clients.failures import cleaned
from harness.base.errors import HarnessError

ECHOES = [
    status(400, "invalid_request_error", f"bad header Bearer {KEY}"),
    status(401, "authentication_error", f"Incorrect API key provided: {KEY}"),
    status(404, KEY, KEY, error_code=KEY),
    status(429, "insufficient_quota", f"{KEY} is out", error_code="insufficient_quota"),
    raw(f'{{"error": "{KEY}"}}'.encode(), 400, "application/json"),
    raw(f"<b>{KEY}</b>".encode(), 403, "text/html"),
    raw(f"data: {{{KEY}\n\n".encode()),
    raw(f'event: error\ndata: {{"error": {{"message": "{KEY}"}}}}\n\n'.encode()),
    answer("x", cut_after=2),
    silent(0),
    endless(),
    status(500, message=KEY),
]


@pytest.mark.parametrize("response", ECHOES)
def test_a_key_that_a_provider_repeats_is_in_no_error_log_or_repr(
    provider, protocol, response, caplog
):
    caplog.set_level(logging.DEBUG)
    provider.otherwise = response
    provider.models = response
    client = make_client(model_on(provider, protocol), patience=replace(QUICK, outage_s=0.05))
    seen: list[object] = [repr(client), str(client), client.describe(), repr(vars(client).keys())]

    contexts: list[BaseException | None] = []

    def send():
        client.send(PROMPT, say=seen.append, cancel=threading.Event())

    for call in (send, client.check):
        try:
            call()
        except HarnessError as error:
            # If an SDK's error were our error's context, it would carry the request and the key.
            contexts.append(error.__context__)
            seen += [str(error), repr(error), error.cause, error.remedy]
            seen += traceback.format_exception(error)
    assert contexts
    assert set(contexts) == {None}
    seen += [record.getMessage() for record in caplog.records]
    seen += [repr(record.args) for record in caplog.records]
    assert provider.requests
    assert provider.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in repr(seen)


def test_what_a_provider_says_is_fit_for_a_terminal(provider, client):
    nasty = "\x1b[2J\x1b]0;owned\x07line one\nline two " + "long " * 500
    provider.script(status(400, "invalid_request_error", nasty))
    with pytest.raises(HarnessError) as caught:
        client.send(PROMPT, say=print, cancel=threading.Event())
    cause = caught.value.cause
    assert cause.isprintable()
    assert "line one line two" in cause
    assert len(cause) <= 300


@pytest.mark.parametrize(
    "echo", ["sk-proj-ab*****cdef", "sk-ant-api03-abcdefgh", "AIzaSyAbcdefgh-123"]
)
def test_what_looks_like_a_key_is_hidden_even_where_it_is_not_ours(echo):
    assert cleaned(f"Incorrect API key provided: {echo}, you", "other") == (
        "Incorrect API key provided: [key], you"
    )


@pytest.mark.parametrize(
    ("key", "said", "shown"),
    [
        # Short keys are placeholders for servers that accept any key.
        ("token", "at most 4096 tokens, a token each", "at most 4096 tokens, a token each"),
        ("k", "ask for a key", "ask for a key"),
        ("", "no key", "no key"),
        # A longer word that contains the key is not the key.
        ("password", "your passwords, a password", "your passwords, a [key]"),
        ("localhost", "localhost1 refused, localhost did", "localhost1 refused, [key] did"),
        (KEY, f"'Bearer {KEY}', key={KEY}&x, {KEY}.", "'Bearer [key]', key=[key]&x, [key]."),
        ("a+b/c=d.e$f", "a+b/c=d.e$f and aab/c=d.e$f", "[key] and aab/c=d.e$f"),
    ],
)
def test_a_key_is_hidden_where_it_stands_by_itself_and_no_word_of_a_message_is(key, said, shown):
    assert cleaned(said, key) == shown


def test_a_placeholder_key_leaves_a_servers_sentence_as_it_is(provider, monkeypatch):
    monkeypatch.setenv("TEST_KEY", "token")
    said = "This model's maximum context length is 4096 tokens."
    provider.script(status(400, "invalid_request_error", said))
    client = make_client(model_on(provider, "openai"), patience=QUICK)
    with pytest.raises(HarnessError) as caught:
        client.send(PROMPT, say=print, cancel=threading.Event())
    assert caught.value.cause == said
