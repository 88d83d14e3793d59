"""How environment variables affect a call to a server: headers, proxies, certificates."""

import threading
import time

import pytest

from agents.conftest import KEY, PROMPT
from agents.provider_server import (
    HANGS_S,
    QUICK,
    answer,
    as_it_comes,
    endless,
    model_on,
    raw,
    status,
)
from agents.proxy_server import no_proxy, proxy
from harness.agents.clients import make_client
from harness.base.errors import Cancelled, ConfigError, ProviderError
from harness.core.writing import Writing

__all__ = ["no_proxy", "proxy"]

FOREIGN = {
    "OPENAI_API_KEY": "sk-corp-other",
    "OPENAI_ADMIN_KEY": "sk-corp-admin",
    "OPENAI_ORG_ID": "org-corp",
    "OPENAI_PROJECT_ID": "proj-corp",
    "OPENAI_BASE_URL": "http://127.0.0.1:9/corp",
    "OPENAI_WEBHOOK_SECRET": "corp-hook",
    "OPENAI_CUSTOM_HEADERS": "Authorization: Bearer CORP-SECRET\nX-Corp: né",
    "ANTHROPIC_API_KEY": "sk-ant-corp",
    "ANTHROPIC_AUTH_TOKEN": "corp-token",
    "ANTHROPIC_BASE_URL": "http://127.0.0.1:9/corp",
    "ANTHROPIC_CUSTOM_HEADERS": "Authorization: Bearer CORP-SECRET\nX-Api-Key: corp\nX-Corp: né",
    "ANTHROPIC_WEBHOOK_SIGNING_KEY": "corp-hook",
    "ANTHROPIC_PROFILE": "corp",
}
"""Variables that other tools set and the SDKs would use."""


def far(protocol: str, scheme: str = "http") -> str:
    """Return an address that only the proxy can reach."""
    return f"{scheme}://provider.test" + ("" if protocol == "anthropic" else "/v1")


def client_of(provider, protocol, scheme="http"):
    model = model_on(provider, protocol, base_url=far(protocol, scheme))
    return make_client(model, patience=QUICK)


def test_no_setting_of_another_tool_reaches_the_server(provider, protocol, ask, monkeypatch):
    entry = model_on(provider, protocol, extra_headers={"x-ours": "1"})
    ask(make_client(entry, patience=QUICK))
    for name, value in FOREIGN.items():
        monkeypatch.setenv(name, value)
    client = make_client(entry, patience=QUICK)
    client.check()
    ask(client)
    alone, beside = (request.headers for request in provider.requests)
    assert beside == alone
    assert (beside["authorization"], beside["x-ours"]) == (f"Bearer {KEY}", "1")
    sent = repr([request.headers for request in (*provider.requests, *provider.looked)]).lower()
    assert "corp" not in sent
    assert not {"openai-organization", "openai-project", "x-api-key"} & beside.keys()


def test_the_environment_is_as_it_was_once_a_client_is_made(provider, protocol, monkeypatch):
    monkeypatch.setenv("OPENAI_ORG_ID", "org-corp")
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    import os

    before = dict(os.environ)
    # The key is found although its variable is hidden from the SDK.
    make_client(model_on(provider, protocol, key="ANTHROPIC_API_KEY"))
    assert dict(os.environ) == before


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "ALL_PROXY"])
def test_a_proxy_of_the_environment_is_used_and_gets_its_password(
    provider, proxy, protocol, ask, monkeypatch, variable
):
    monkeypatch.setenv(variable, f"http://me:hush@{proxy.address}")
    assert ask(client_of(provider, protocol)).text == "ok"
    (head,) = proxy.heads
    assert head.startswith("POST http://provider.test/")
    assert "Proxy-Authorization: Basic bWU6aHVzaA==" in head


@pytest.mark.parametrize(
    "proxy_url", ["http://127.0.0.1:9", "socks://127.0.0.1:7890/", "socks5://127.0.0.1:7890", "??"]
)
def test_a_server_on_this_machine_is_never_asked_through_a_proxy(
    provider, proxy, protocol, ask, monkeypatch, proxy_url
):
    monkeypatch.setenv("all_proxy", proxy_url)
    monkeypatch.setenv("HTTP_PROXY", proxy_url)
    client = make_client(model_on(provider, protocol), patience=QUICK)
    client.check()
    assert ask(client).text == "ok"


@pytest.mark.parametrize(
    ("spared", "host"),
    [
        ("provider.test", "provider.test"),
        (".test", "provider.test"),
        ("*", "provider.test"),
        ("10.0.0.0/8, example.com", "10.1.2.3"),
        ("fd00::/8", "[fd00::1]"),
    ],
)
def test_no_proxy_spares_names_domains_and_ranges(provider, proxy, monkeypatch, spared, host):
    # This proxy is refused unless the host is exempt.
    monkeypatch.setenv("ALL_PROXY", "socks4://127.0.0.1:9")
    entry = model_on(provider, "openai", base_url=f"http://{host}:8000/v1")
    with pytest.raises(ConfigError, match="socks4"):
        make_client(entry)
    monkeypatch.setenv("NO_PROXY", spared)
    make_client(entry)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("socks://127.0.0.1:7890/", "of the kind socks:// is not supported"),
        ("socks4://u:hush@127.0.0.1:7890", "of the kind socks4:// is not supported"),
        ("socks5://u:hush@127.0.0.1:7890", "needs the package socksio"),
        ("http://u:hush@[oops", "holds no address of a proxy"),
        ("http://u:hush@host:hush", "holds no address of a proxy"),
        ("http://", "holds no address of a proxy"),
        ("http://u:hush@two words:3128", "holds no address of a proxy"),
        ("http://u:hush@host:99999", "holds no address of a proxy"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named_with_its_variable_and_the_way_out(
    provider, proxy, protocol, monkeypatch, value, words
):
    monkeypatch.setattr("harness.agents.clients.proxy.find_spec", lambda _: None)
    monkeypatch.setenv("all_proxy", value)
    with pytest.raises(ConfigError, match=words) as caught:
        client_of(provider, protocol)
    assert "all_proxy" in str(caught.value)
    assert "NO_PROXY=provider.test" in caught.value.remedy
    assert "hush" not in str(caught.value)


def refusal(code: int, body: bytes = b"<title>Blocked by policy</title>") -> bytes:
    head = f"HTTP/1.1 {code} No\r\ncontent-type: text/html\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(("code", "way_out"), [(403, "NO_PROXY"), (407, "NAME:PASSWORD@")])
def test_a_proxys_refusal_is_told_as_the_proxys_and_not_repeated(
    provider, proxy, protocol, ask, monkeypatch, scheme, code, way_out
):
    monkeypatch.setenv(f"{scheme}_proxy", f"http://me:hush@{proxy.address}")
    proxy.refusal = refusal(code)
    client = client_of(provider, protocol, scheme)
    for call in (client.check, lambda: ask(client)):
        with pytest.raises(ConfigError) as caught:
            call()
        assert f"the proxy http://{proxy.address} ({scheme}_proxy) refused" in str(caught.value)
        assert way_out in caught.value.remedy
        assert "TEST_KEY" not in str(caught.value)
        assert "hush" not in str(caught.value)
    assert len(proxy.heads) == 2
    if scheme == "http":
        assert "Blocked by policy" in caught.value.cause


def test_a_busy_proxy_is_waited_for_by_name(provider, proxy, protocol, ask, monkeypatch):
    monkeypatch.setenv("http_proxy", proxy.address)  # without http://, as many write it
    proxy.refusal = refusal(503, b"try later")
    client = client_of(provider, protocol)
    said = ask.said.append

    def heal(line):
        said(line)
        proxy.refusal = b""

    reply = client.send(PROMPT, say=heal, cancel=threading.Event())
    assert (reply.text, reply.lost_tries) == ("ok", 0)
    assert f"the proxy http://{proxy.address} (http_proxy) refused" in ask.said[0]
    assert "try later" in ask.said[0]


def test_a_providers_own_refusal_stays_the_providers(provider, proxy, protocol, ask, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://{proxy.address}")
    provider.script(status(403, "permission_error", "not this model"))
    with pytest.raises(ConfigError, match="the provider refused the key") as caught:
        ask(client_of(provider, protocol))
    assert "not this model" in caught.value.cause
    provider.script(raw(b"404 page not found", 404, "text/plain"))
    with pytest.raises(ConfigError, match=r"the provider refused the request \(404\)"):
        ask(client_of(provider, protocol))


def test_a_proxy_that_is_gone_is_named(provider, proxy, protocol, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(ProviderError, match=r"nothing answers at http://provider") as caught:
        client_of(provider, protocol).check()
    assert "no connection through the proxy http://127.0.0.1:9 (http_proxy)" in caught.value.cause
    assert "unset http_proxy" in caught.value.remedy


@pytest.fixture
def tunnelled(secure, proxy, tmp_path, monkeypatch):
    """The provider behind TLS; https addresses are called through the proxy."""
    monkeypatch.setenv("https_proxy", f"http://{proxy.address}")
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "gone" / "keys.log"))  # set for a browser
    return secure


def test_through_a_tunnel_the_key_is_hidden_cancelling_wakes_and_a_cut_is_lost(
    tunnelled, proxy, protocol, ask
):
    cancel = threading.Event()
    busy = as_it_comes(cancel, endless(pause_s=0.05))
    tunnelled.script(answer("half", cut_after=2), answer("whole"), busy)
    client = client_of(tunnelled, protocol, "https")
    reply = ask(client)
    assert (reply.text, reply.lost_tries) == ("whole", 1)
    assert proxy.heads[0].startswith("CONNECT provider.test:443 ")
    assert KEY not in "".join(proxy.heads)
    assert f"was lost, through the proxy http://{proxy.address} (https_proxy)" in ask.said[0]
    began = time.monotonic()
    with pytest.raises(Cancelled):
        ask(client, cancel=cancel)
    assert time.monotonic() - began < HANGS_S


def test_a_certificate_that_is_not_trusted_is_said_at_once(tunnelled, protocol, ask, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    client = client_of(tunnelled, protocol, "https")
    for call in (client.check, lambda: ask(client)):
        with pytest.raises(ProviderError) as caught:
            call()
        assert "certificate is not trusted" in str(caught.value)
        assert "SSL_CERT_FILE" in caught.value.remedy
    assert ask.said == []


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
@pytest.mark.parametrize("kind", ["gone", "no certificate"])
def test_certificates_that_are_gone_are_named_where_something_is_encrypted(
    provider, proxy, protocol, tmp_path, monkeypatch, name, kind
):
    place = tmp_path / "certificates"
    if kind != "gone":
        place.write_text("not PEM")
    for each in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, str(place))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(place))  # read by another library
    make_client(model_on(provider, protocol), Writing(base_url=far(protocol)))
    with pytest.raises(ConfigError, match=f"{name} names no certificates") as caught:
        client_of(provider, protocol, "https")
    assert str(place) in str(caught.value)
    # The connection to a proxy may use TLS, too.
    monkeypatch.setenv("http_proxy", "https://127.0.0.1:9")
    with pytest.raises(ConfigError, match=f"{name} names no certificates"):
        client_of(provider, protocol)
