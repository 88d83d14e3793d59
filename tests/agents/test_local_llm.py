"""Both clients against a real language model, over both protocols (``make test-llm``)."""

import threading
import time

import pytest

from agents.local_llm import CONTEXT, NAME, local_llm
from harness.agents.clients import make_client
from harness.base.errors import Cancelled, ConfigError
from harness.core.model import Prompt, Turn
from harness.core.writing import Settings

__all__ = ["local_llm"]
pytestmark = pytest.mark.llm

PROMPT = Prompt("You write Python.", (Turn("user", "Write a function that adds two numbers."),))


def send(client, prompt=PROMPT, cancel=None):
    said: list[str] = []
    reply = client.send(prompt, say=said.append, cancel=cancel or threading.Event())
    assert said == []
    return reply


def test_a_real_model_answers_the_same_over_both_protocols(local_llm):
    settings = Settings(temperature=0.0, max_answer_tokens=60)
    replies = []
    for protocol in ("openai", "anthropic"):
        client = make_client(local_llm.entry(protocol), settings)
        client.check()
        reply = send(client)
        print(f"\n{protocol}: {reply}")
        worst_in, worst_out = client.worst_tokens(PROMPT)
        assert 20 < reply.usage.prompt_tokens <= worst_in
        assert 0 < reply.usage.output_tokens <= worst_out == 60
        assert NAME in reply.model_id
        assert reply.seconds > 0
        replies.append(reply)
    first, second = replies
    assert first.text.strip()
    assert (first.text, first.stop) == (second.text, second.stop)
    assert first.usage.prompt_tokens == second.usage.prompt_tokens
    assert first.usage.output_tokens == second.usage.output_tokens


def test_a_limit_of_length_is_told(local_llm, protocol):
    client = make_client(local_llm.entry(protocol), Settings(max_answer_tokens=5))
    reply = send(client)
    assert (reply.stop, reply.usage.output_tokens) == ("length", 5)


def test_a_conversation_goes_on(local_llm, protocol):
    client = make_client(local_llm.entry(protocol), Settings(max_answer_tokens=20))
    reply = send(client)
    more = Prompt(
        PROMPT.system, (*PROMPT.turns, Turn("assistant", reply.text), Turn("user", "Go on."))
    )
    assert send(client, more).usage.prompt_tokens > reply.usage.prompt_tokens


def test_a_prompt_that_is_too_long_is_a_refused_request(local_llm, protocol):
    client = make_client(local_llm.entry(protocol))
    with pytest.raises(ConfigError, match="refused the request") as caught:
        send(client, Prompt("", (Turn("user", "word " * (2 * CONTEXT)),)))
    assert "context" in caught.value.cause


def test_cancelling_ends_the_generation(local_llm, protocol):
    # Reading the prompt alone takes seconds, so the call cannot end before it is cancelled, however
    # little the small model writes. Each protocol gets its own words, so that nothing is cached.
    words = " ".join(f"{protocol}{number}" for number in range(CONTEXT // 8))
    client = make_client(local_llm.entry(protocol), Settings(max_answer_tokens=512))
    cancel = threading.Event()
    threading.Timer(0.2, cancel.set).start()
    with pytest.raises(Cancelled):
        send(client, Prompt("", (Turn("user", f"Repeat: {words}"),)), cancel)
    while local_llm.slot()["is_processing"]:
        time.sleep(0.1)
    # The server noticed, and stopped before the end of the answer.
    assert local_llm.slot()["next_token"][0]["has_next_token"]
    # The only slot is free again.
    assert send(make_client(local_llm.entry(protocol), Settings(max_answer_tokens=3))).text
