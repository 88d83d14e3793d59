"""Makes the clients of providers' APIs. SDKs are imported only when ``make_client`` is called."""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from urllib.parse import urlsplit

from harness.agents.addresses import is_here
from harness.agents.catalogue import ModelEntry, check_settings, today
from harness.agents.clients.patience import RetryTimes
from harness.agents.providers import PROVIDERS
from harness.base.errors import ConfigError
from harness.base.registry import load
from harness.core.model import Client
from harness.core.writing import Writing

__all__ = ["make_client"]

NO_KEY = "none"
"""Sent as the key to a user's own server if no key is set: the SDKs insist on a key."""

_SDKS = re.compile(r"(OPENAI|AZURE_OPENAI|ANTHROPIC)_")
_ambient = threading.Lock()


def make_client(
    entry: ModelEntry,
    writing: Writing | None = None,
    *,
    patience: RetryTimes | None = None,
    on: date | None = None,
) -> Client:
    """Return the client of a model. Nothing is sent; ``check()`` tries the key.

    Raises ConfigError if the provider has shut the model, the model does not take a setting, the
    key is missing or malformed, or the SDK is not installed.
    """
    writing, patience = writing or Writing(), patience or RetryTimes()
    check_settings(entry, writing)
    _check_alive(entry, writing, on or today())
    with _ambient:
        key = _key(entry, writing)
    provider = PROVIDERS.find(entry.provider)
    try:
        make = load("harness.agents.clients.client:ApiClient")
        with _nothing_ambient():
            adapter = load(provider.adapter)(entry, writing, key=key, idle_s=patience.idle_s)
    except ModuleNotFoundError as error:
        package = "'aira-harness[models]'" if entry.provider in PROVIDERS.ours else error.name
        raise ConfigError(
            f"Agent {entry.name} needs the package {error.name}, which is not installed.",
            remedy=f"pip install {package}",
        ) from error
    secret = key if key != NO_KEY else ""
    made: Client = make(entry, writing, adapter, key=secret, patience=patience)
    return made


@contextmanager
def _nothing_ambient() -> Iterator[None]:
    """Hide the environment variables that the SDKs read when they are imported and created.

    Otherwise organisation, project and headers set for another tool (even ``Authorization``) would
    go to the server that a run names, and a log of every prompt would go to the screen. The SDKs
    have no option to turn this off.
    """
    with _ambient:
        hidden = {name: os.environ.pop(name) for name in list(os.environ) if _SDKS.match(name)}
        try:
            yield
        finally:
            os.environ.update(hidden)


def _check_alive(entry: ModelEntry, writing: Writing, on: date) -> None:
    """Refuse a model that its provider has shut, unless the run names another server."""
    if writing.base_url is None and entry.retires is not None and entry.is_shut(on):
        successor = f"--agent {entry.successor} (its successor), or " if entry.successor else ""
        raise ConfigError(
            f"Agent {entry.name} is gone: its provider shut {entry.model} on {entry.retires.on}.",
            remedy=f"{successor}a recorded run again: --agent replay:RUN",
        )


def _key(entry: ModelEntry, writing: Writing) -> str:
    """Return the key, which calls need at the table's address if the table names a key."""
    key = entry.read_key()
    if not key:
        host = urlsplit(entry.base_url or "").hostname
        if entry.key and host and writing.base_url is None and not is_here(host):
            raise ConfigError(
                f"Agent {entry.name} needs a key, and {entry.key} is not set.",
                remedy=f"export {entry.key}=…   (or --base-url for a server of your own)",
            )
        return NO_KEY
    if not key.isascii() or not key.isprintable() or " " in key:
        # The HTTP library's own error would print the key.
        raise ConfigError(
            f"{entry.key} holds characters that no key has.",
            remedy=f"set {entry.key} again, without spaces, line breaks or quotes around it",
        )
    return key
