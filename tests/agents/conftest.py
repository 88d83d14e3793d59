"""Fixtures for tests of the clients, over both protocols, with a key that must not leak."""

import shutil
import ssl
import subprocess
import threading

import pytest

from agents.provider_server import QUICK, model_on, provider
from agents.scripted import server
from harness.agents.clients import make_client
from harness.core.model import Prompt, Turn

__all__ = ["provider", "server"]

KEY = "QX7-0123456789abcdef-DO-NOT-LEAK"  # looks like no provider's key: only its value shows it
PROMPT = Prompt("Write models.", (Turn("user", "Improve this."),))


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """The PEM file of a certificate for 127.0.0.1 and provider.test, with its private key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    file = tmp_path_factory.mktemp("tls") / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        + ["-nodes", "-days", "1", "-subj", "/CN=provider.test"]
        + ["-addext", "subjectAltName=DNS:provider.test,IP:127.0.0.1"]
        + ["-keyout", str(file), "-out", str(file.with_suffix(".crt"))],
        check=True,
        capture_output=True,
    )
    with file.open("a") as both:
        both.write(file.with_suffix(".crt").read_text())
    return file


@pytest.fixture
def secure(provider, certificate, monkeypatch):
    """The provider behind TLS, with a certificate that the client trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    provider.wrap(context)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    return provider


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
    """A function that sends a prompt; ``ask.said`` holds the lines that the client reported."""

    def send(client, prompt=PROMPT, cancel=None, **more):
        cancel = cancel or threading.Event()
        return client.send(prompt, say=send.said.append, cancel=cancel, **more)

    send.said = []
    return send
