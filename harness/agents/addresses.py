"""Checks the address of a provider's API, suggests the intended one, and names its server.

Nothing here uses the network.
"""

import ipaddress
import re
from contextlib import suppress
from urllib.parse import SplitResult, urlsplit

from harness.agents.providers import Provider
from harness.base.text import visible

CALLS = re.compile(
    r"/(chat/completions|completions|responses|embeddings|models|messages|complete)/*$", re.I
)
"""Endings of addresses of single calls; each protocol client appends its own."""

FORBIDDEN = re.compile(r"[^!#-&(-;=?-\[\]_a-z~\x80-\U0010ffff]")
"""Characters that are not valid in an address, such as spaces, line breaks, quotes and ``<``."""


class WrongAddress(ValueError):
    """An address cannot be used; the text says why. ``likely`` is the address probably meant."""

    def __init__(self, why: str, likely: str) -> None:
        super().__init__(why)
        self.likely = likely


def refuse_wrong(url: str, provider: Provider) -> None:
    """Raise WrongAddress if ``url`` cannot be the address of an API of that provider."""
    why = _wrong(url, provider)
    if why:
        raise WrongAddress(why, likely(url, provider))


def without_password(url: str) -> str:
    """Return an address fit to print: on one line, without parts that may hold a password."""
    text = re.sub(r"\s", "�", visible(url))
    return re.sub(r"[?#].*", "?…", re.sub(r"^(\w+:/*)?.*@", r"\1…@", text))


def likely(url: str, provider: Provider) -> str:
    """Return the valid address that the user probably meant; if unclear, one on this machine."""
    first = url.split()[:1]
    if first and first[0] != url and not _wrong(first[0], provider):
        return first[0]
    text = FORBIDDEN.sub("", url.replace("\\", "/"))
    scheme, _, rest = text.rpartition("://") if "://" in text else ("", "", text)
    if not scheme and (typed := re.match(r"(https?)(:/*|/+)(?=[^/])", text, re.I)):
        scheme, rest = typed[1], text[typed.end() :]
    rest = re.split(r"[?#]", rest.lstrip("/").rpartition("@")[2])[0]
    host, slash, path = rest.partition("/")
    path = CALLS.sub("", slash + path).rstrip("/")
    path = path.removesuffix(provider.added) or provider.usual
    if scheme.lower() not in ("http", "https"):
        # An IP address or a name without a dot probably means a server nearby, without TLS.
        named = re.fullmatch(r"[a-z-][\w-]*(\.[\w-]+)+(:\d+)?", host, re.I) and not is_here(host)
        scheme = "https" if named else "http"
    found = f"{scheme.lower()}://{host}{path}"
    return found if host and not _wrong(found, provider) else f"http://127.0.0.1:8000{path}"


def alternatives(url: str, provider: Provider) -> list[str]:
    """Return other addresses on the server of ``url`` where its API may be, likeliest first."""
    base, parts = url.rstrip("/"), urlsplit(url)
    words = {
        "base": base,
        "trunk": base.removesuffix("/v1"),
        "origin": f"{parts.scheme}://{parts.netloc}",
    }
    found = dict.fromkeys(pattern.format(**words) for pattern in provider.near)
    return [other for other in found if other != base]


def server_of(url: str) -> str:
    """Return the name of the server that answers: a host and its port, or just "local".

    A server on this machine chooses its port when it starts, and the port has no effect on its
    answers. A run resumed on another port is the same run, and both share one leaderboard row.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_here(host):
        return "local"
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    port = "" if parts.port in (None, usual) else f":{parts.port}"
    return f"[{host}]{port}" if ":" in host else f"{host}{port}"


def is_here(host: str) -> bool:
    """Return whether a host is this machine."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    with suppress(ValueError):
        address = ipaddress.ip_address(name)
        mapped = getattr(address, "ipv4_mapped", None) or address
        return bool(mapped.is_loopback or mapped.is_unspecified)
    return False


def _wrong(url: str, provider: Provider) -> str:
    if FORBIDDEN.search(url):
        return "it holds a space, a line break, a quote or another sign that no address has"
    try:
        parts = urlsplit(url)
        good = (parts.port is None or parts.port > 0) and _is_host(parts)
    except ValueError:
        return "it is no web address"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "it must begin with http:// or https:// and a host"
    if not good:
        return "its host or port can be none"
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        return "it must hold no password, query or fragment"
    if call := CALLS.search(parts.path):
        return f"it is the address of one call ({call[0].rstrip('/')}), not of the API"
    if provider.added and parts.path.rstrip("/").endswith(provider.added):
        return f"this protocol adds {provider.added} itself"
    return ""


def _is_host(parts: SplitResult) -> bool:
    """Return whether a host is IPv6 or a valid name. Raises ValueError if IDNA cannot encode it."""
    host = parts.hostname or ""
    return ":" in host or re.fullmatch(r"[a-z0-9._-]+", host.encode("idna").decode()) is not None
