"""TLS, as with every real provider: answers come whole, cancelling ends a blocked read."""

import threading
import time

import pytest

from agents.conftest import PROMPT
from agents.provider_server import HANGS_S, QUICK, answer, as_it_comes, endless, model_on, silent
from harness.agents.clients import make_client
from harness.base.errors import Cancelled, ProviderError


@pytest.mark.parametrize("busy", [silent(), endless(pause_s=0.05)])
def test_cancelling_wakes_a_read_under_tls(secure, protocol, ask, busy):
    cancel = threading.Event()
    secure.script(answer("first"), as_it_comes(cancel, busy))
    url = secure.base_url(protocol).replace("http:", "https:")
    client = make_client(model_on(secure, protocol, base_url=url), patience=QUICK)
    assert ask(client, PROMPT).text == "first"
    began = time.monotonic()
    with pytest.raises(Cancelled):
        ask(client, PROMPT, cancel)
    assert time.monotonic() - began < HANGS_S


def test_a_certificate_that_is_not_trusted_is_no_connection(secure, protocol, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    url = secure.base_url(protocol).replace("http:", "https:")
    client = make_client(model_on(secure, protocol, base_url=url), patience=QUICK)
    with pytest.raises(ProviderError, match="nothing answers"):
        client.check()
