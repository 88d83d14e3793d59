"""Over TLS, as with every real provider: a blocked read is woken, an answer comes whole."""

import threading
import time

import pytest

from agents.conftest import PROMPT, put_behind_tls
from agents.provider_server import QUICK, answer, endless, model_on, silent
from harness.agents.clients import make_client
from harness.errors import Cancelled, ProviderError


@pytest.fixture
def secure(provider, tmp_path, monkeypatch):
    """The provider behind a certificate that the client trusts."""
    certificate = put_behind_tls(provider, tmp_path, "127.0.0.1", "IP:127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    return provider


@pytest.mark.parametrize("busy", [silent(10), endless(pause_s=0.05)])
def test_cancelling_wakes_a_read_under_tls(secure, protocol, ask, busy):
    secure.script(answer("first"), busy)
    url = secure.base_url(protocol).replace("http:", "https:")
    client = make_client(model_on(secure, protocol, base_url=url), patience=QUICK)
    assert ask(client, PROMPT).text == "first"
    cancel = threading.Event()
    threading.Timer(0.5, cancel.set).start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        ask(client, PROMPT, cancel)
    assert time.monotonic() - began < 3


def test_a_certificate_that_is_not_trusted_is_no_connection(secure, protocol, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    url = secure.base_url(protocol).replace("http:", "https:")
    client = make_client(model_on(secure, protocol, base_url=url), patience=QUICK)
    with pytest.raises(ProviderError, match="nothing answers"):
        client.check()
