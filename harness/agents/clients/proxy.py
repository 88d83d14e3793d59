"""Reads the environment variables that decide how a server is reached: proxies, certificates.

The HTTP library does not read them: it treats unknown values as a bug, and a proxy's responses as
the server's. The variables are those that curl reads.
"""

import ipaddress
import os
import ssl
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

from harness.agents.addresses import is_here
from harness.base.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy in use. Its ``str`` leaves out the password that its URL may hold."""

    url: str
    variable: str
    forwards: bool
    """Whether it sees the call and may answer it itself; if False, it only connects (https)."""

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        return f"the proxy {parts.scheme}://{parts.netloc.rpartition('@')[2]} ({self.variable})"


def proxy_of(url: str) -> Proxy | None:
    """Return the proxy for an address; None for a direct connection, always so to this machine.

    Raises ConfigError if the proxy's address is invalid or its kind cannot be used.
    """
    target = urlsplit(url)
    host = target.hostname or ""
    known = getproxies()
    kind = next((kind for kind in (target.scheme, "all") if known.get(kind)), None)
    if kind is None or is_here(host) or _spared(host, target.netloc.rpartition("@")[2]):
        return None
    found = known[kind] if "://" in known[kind] else f"http://{known[kind]}"
    names = (f"{kind}_proxy", f"{kind}_proxy".upper())
    variable = next((name for name in names if os.environ.get(name)), "the system's setting")
    proxy = Proxy(found, variable, forwards=target.scheme == "http")
    _check(proxy, host)
    return proxy


def _check(proxy: Proxy, host: str) -> None:
    direct = f"or reach the server directly: export NO_PROXY={host}"
    try:
        parts = urlsplit(proxy.url)
        httpx2.URL(proxy.url)
        usable = bool(parts.hostname) and parts.port != 0 and " " not in proxy.url
    except (ValueError, httpx2.InvalidURL):
        usable = False
    if not usable:
        # The message leaves out the value, which may hold a password.
        raise ConfigError(
            f"{proxy.variable} holds no address of a proxy.",
            remedy=f"export {proxy.variable}=http://HOST:PORT, {direct}",
        )
    if parts.scheme in ("http", "https"):
        return
    if parts.scheme not in ("socks5", "socks5h"):
        address = parts.netloc.rpartition("@")[2]
        raise ConfigError(
            f"A proxy of the kind {parts.scheme}:// is not supported: {proxy}.",
            remedy=f"if it speaks SOCKS 5: export {proxy.variable}=socks5h://{address}, {direct}",
        )
    if find_spec("socksio") is None:
        raise ConfigError(
            f"A SOCKS proxy needs the package socksio, which is not installed: {proxy}.",
            remedy=f"pip install socksio, {direct}",
        )


def _spared(host: str, netloc: str) -> bool:
    """Return whether NO_PROXY names a host: by name, domain, address, or range of addresses."""
    if proxy_bypass(netloc) or proxy_bypass(host):
        return True
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        for entry in getproxies().get("no", "").split(","):
            with suppress(ValueError):
                if address in ipaddress.ip_network(entry.strip(), strict=False):
                    return True
    return False


def certificates(url: str) -> ssl.SSLContext | None:
    """Return the TLS context to check a server with: SSL_CERT_FILE, SSL_CERT_DIR, or the system's.

    None if ``url`` is not https. Raises ConfigError if a variable points to something without
    certificates.
    """
    if urlsplit(url).scheme != "https":
        return None
    name = next((n for n in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(n)), None)
    if name is None:
        return httpx2.create_ssl_context(trust_env=False)
    value = os.environ[name]
    # Not create_default_context, which also obeys SSLKEYLOGFILE.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if name == "SSL_CERT_FILE":
            context.load_verify_locations(cafile=value)
        elif Path(value).is_dir():
            context.load_verify_locations(capath=value)
        else:
            raise NotADirectoryError("it is no folder")
    except OSError as error:  # an SSLError, too
        raise ConfigError(
            f"{name} names no certificates: {value}.",
            cause=str(error),
            remedy=f"unset {name}, or set it to certificates (PEM) to check the server by",
        ) from None
    return context
