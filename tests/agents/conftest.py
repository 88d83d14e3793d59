"""Every test of the wire runs over both protocols, with a key that must never be seen again."""

import threading

import pytest

from agents.provider_server import QUICK, model_on, provider
from harness.agents.clients import make_client
from harness.agents.model import Prompt, Turn

__all__ = ["provider"]

KEY = "QX7-0123456789abcdef-DO-NOT-LEAK"  # of no known form: only its value gives it away
PROMPT = Prompt("Write models.", (Turn("user", "Improve this."),))


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.delenv("HARNESS_AGENTS", raising=False)


@pytest.fixture(params=["anthropic", "openai"])
def protocol(request):
    return request.param


@pytest.fixture
def client(provider, protocol):
    return make_client(model_on(provider, protocol), patience=QUICK)


@pytest.fixture
def ask():
    """Send a prompt; what was said while waiting is in ``ask.said``."""

    def send(client, prompt=PROMPT, cancel=None, **more):
        cancel = cancel or threading.Event()
        return client.send(prompt, say=send.said.append, cancel=cancel, **more)

    send.said = []
    return send
