"""Every test of the wire runs over both protocols, with a key that must never be seen again."""

import shutil
import ssl
import subprocess
import threading

import pytest

from agents.provider_server import QUICK, model_on, provider
from harness.agents.clients import make_client
from harness.agents.model import Prompt, Turn

__all__ = ["provider"]

KEY = "QX7-0123456789abcdef-DO-NOT-LEAK"  # of no known form: only its value gives it away
PROMPT = Prompt("Write models.", (Turn("user", "Improve this."),))


def put_behind_tls(provider, folder, name, address):
    """Put the provider behind a certificate of its own, for that name; return the file."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
        + ["-subj", f"/CN={name}", "-addext", f"subjectAltName={address}"]
        + ["-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    provider.wrap(context)
    return certificate


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
