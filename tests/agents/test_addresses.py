"""Addresses of APIs: an invalid one is refused at once, a wrong one before a run is made."""

from pathlib import Path

import pytest

from agents.conftest import KEY
from agents.provider_server import QUICK, Response, agents_file, model_on, raw, status
from harness.agents.addresses import alternatives, server_of
from harness.agents.catalogue import check_settings, find_agent
from harness.agents.clients import make_client
from harness.agents.providers import PROVIDERS
from harness.base.errors import ConfigError
from harness.core.asked import Asked
from harness.core.writing import Writing
from harness.launch.run import start

OWN = {"openai": "gpt-oss-20b", "anthropic": "opus-4.5"}


@pytest.mark.parametrize(
    ("protocol", "asked", "meant"),
    [
        ("openai", " http://10.0.0.5:8000/v1", "http://10.0.0.5:8000/v1"),
        ("openai", "http://10.0.0.5:8000/v1\n", "http://10.0.0.5:8000/v1"),
        ("openai", "'http://10.0.0.5:8000/v1'", "http://10.0.0.5:8000/v1"),
        ("openai", "http://10.0.0.5:8000/v1 --steps 3", "http://10.0.0.5:8000/v1"),
        ("openai", "http:// localhost:8000/v1", "http://localhost:8000/v1"),
        ("openai", "localhost:8000/v1", "http://localhost:8000/v1"),
        ("openai", "127.0.0.1:8000", "http://127.0.0.1:8000/v1"),
        ("openai", "api.example.com/v1", "https://api.example.com/v1"),
        ("openai", "http:/localhost:8000/v1", "http://localhost:8000/v1"),
        ("openai", "http:\\\\localhost:8000/v1", "http://localhost:8000/v1"),
        ("openai", "ws://localhost:8000/v1", "http://localhost:8000/v1"),
        ("openai", "http://10.0.0.5:8000/v1/chat/completions", "http://10.0.0.5:8000/v1"),
        ("openai", "http://10.0.0.5:8000/v1/models/", "http://10.0.0.5:8000/v1"),
        ("openai", "http://me:hunter2hunter2@10.0.0.5/v1", "http://10.0.0.5/v1"),
        ("openai", "me:hunter2hunter2@10.0.0.5/v1", "http://10.0.0.5/v1"),
        ("openai", "http://10.0.0.5/v1?key=hunter2hunter2", "http://10.0.0.5/v1"),
        ("openai", "http://me:hunter2/hunter2?hunter2@10.0.0.5/v1", "http://10.0.0.5/v1"),
        ("openai", "http://a..b/v1", "http://127.0.0.1:8000/v1"),
        ("openai", "http://10.0.0.5:99999/v1", "http://127.0.0.1:8000/v1"),
        ("openai", "", "http://127.0.0.1:8000/v1"),
        ("anthropic", "https://proxy.example.com/v1", "https://proxy.example.com"),
        ("anthropic", "https://proxy.example.com/v1/messages", "https://proxy.example.com"),
    ],
)
def test_an_address_that_cannot_be_one_names_itself_and_the_likely_one(protocol, asked, meant):
    with pytest.raises(ConfigError, match="base URL cannot be used") as caught:
        check_settings(find_agent(OWN[protocol]), Writing(base_url=asked))
    assert caught.value.remedy == f"--base-url {meant}"
    assert caught.value.cause.startswith("asked for: ")
    assert caught.value.cause.isprintable()
    assert "hunter2" not in str(caught.value)
    check_settings(find_agent(OWN[protocol]), Writing(base_url=meant))


@pytest.mark.parametrize(
    "url",
    ["https://generativelanguage.googleapis.com/v1beta/openai/", "http://[::1]:8000/v1",
     "https://exämple.com/v1", "https://api.perplexity.ai", "http://gpu_7:8000/v1",
     "https://x.openai.azure.com/openai/v1/"],
)  # fmt: skip
def test_addresses_of_providers_are_taken_as_they_are(url):
    check_settings(find_agent("gpt-oss-20b"), Writing(base_url=url))


def test_a_server_on_this_machine_is_one_whatever_its_port_and_name():
    here = ("127.0.0.1:8000", "127.0.0.1:8001", "localhost", "LOCALHOST.", "[::1]:9", "0.0.0.0:80",
            "127.0.1.1", "[::ffff:127.0.0.1]:8000")  # fmt: skip
    assert {server_of(f"http://{host}/v1") for host in here} == {"local"}
    assert server_of("https://API.example.com:443/v1") == server_of("https://api.example.com")
    assert server_of("http://10.0.0.5:8000") != server_of("http://10.0.0.5:8001")
    assert server_of("http://[fe80::1]:8000/v1") == "[fe80::1]:8000"


def only_at(place: str, otherwise: Response = status(404)) -> Response:  # noqa: B008 (frozen)
    """Return the responses of a server whose API is only at ``place``; elsewhere ``otherwise``."""
    there = raw(b'{"data": []}', 200, "application/json")

    def send(handler, request):
        found = request.path in (f"{place}/models", f"{place}/v1/models")
        (there if found else otherwise).send(handler, request)

    return Response(send)


PAGE = raw(b"<!doctype html><title>Welcome</title>", 200, "text/html; charset=utf-8")


@pytest.mark.parametrize("otherwise", [status(404), status(405), PAGE])
@pytest.mark.parametrize(
    ("speaks", "asked", "there"),
    [("openai", "", "/v1"), ("openai", "/v2", "/v1"), ("openai", "/v1", "/api/v1"),
     ("anthropic", "/api", ""), ("anthropic", "", "/anthropic")],
)  # fmt: skip
def test_a_wrong_address_is_told_with_the_one_where_the_api_is(
    provider, monkeypatch, otherwise, speaks, asked, there
):
    monkeypatch.setenv("TEST_KEY", KEY)
    provider.models = only_at(there, otherwise)
    wrong = Writing(base_url=f"{provider.origin}{asked}")
    client = make_client(model_on(provider, speaks), wrong, patience=QUICK)
    with pytest.raises(ConfigError, match="there is no API at http") as caught:
        client.check()
    assert f"{provider.origin}{asked}/" in caught.value.cause
    assert caught.value.remedy == f"--base-url {provider.origin}{there}"
    assert provider.requests == []


def test_a_server_without_any_api_is_told_with_the_likely_address(provider, client, protocol):
    provider.models = provider.otherwise = status(404, message="Not Found")
    with pytest.raises(ConfigError, match="there is no API at http") as caught:
        client.check()
    assert "--base-url" in caught.value.remedy
    assert [request.body for request in provider.requests] == [{}]
    # If the 404 only says that the request named no model, there is an API.
    provider.otherwise = status(404, message="The model `` does not exist.")
    client.check()


def test_a_wrong_address_leaves_no_folder_of_a_run(provider, tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)
    provider.models = only_at("/v1")
    values = model_on(provider, "openai").model_dump(
        include={"title", "provider", "model", "key", "context_tokens", "max_output_tokens"}
    )
    file = agents_file(tmp_path / "agents.toml", mine=values)
    for url, told in ((provider.origin, "there is no API at"), (f" {provider.origin}", "cannot")):
        writing = Writing(base_url=url, agents_file=file)
        asked = Asked(task="toy", agent="mine", profile="test", writing=writing)
        with pytest.raises(ConfigError, match=told) as caught:
            start(asked, tmp_path / "runs", progress=print, observe=print)
        assert f"--base-url {provider.origin}" in caught.value.remedy
    assert not Path(tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("name", "url", "near"),
    [
        ("openai", "http://h/p", ["http://h/p/v1", "http://h/v1", "http://h/api/v1"]),
        ("openai", "http://h/p/v1/", ["http://h/p", "http://h/v1", "http://h/api/v1"]),
        ("anthropic", "http://h/p", ["http://h", "http://h/p/anthropic"]),
        ("anthropic", "http://h/p/v1", ["http://h/p", "http://h", "http://h/p/v1/anthropic"]),
    ],
)
def test_where_else_an_api_may_stand(name: str, url: str, near: list[str]) -> None:
    assert alternatives(url, PROVIDERS.find(name)) == near
