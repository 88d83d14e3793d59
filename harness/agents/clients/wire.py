"""The HTTP client under both SDKs: every read can be cancelled and is bounded in size and time.

The SDKs block in a read. To cancel a try, a watcher thread shuts its sockets down: the blocked
read returns at once, and the provider stops generating, too. So that the sockets of a try are
known, each try opens its own connection, which the transport's trace reports; compared with the
minutes that an answer takes, a handshake costs nothing.
"""

import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Self

import httpx2

from harness.agents.clients.proxy import certificates, proxy_of

POLL_S = 0.1
CONNECT_S = 30.0
WRITE_S = 120.0

_OPENS = ("connection.", "proxy.", "socks.")
"""Prefixes of trace events that open a connection, or put TLS around a proxy's connection."""


class ResponseRefused(Exception):
    """The rest of the server's response is not read; the text says why."""


class Attempt:
    """One try: its sockets, its deadline, and whether its request was sent."""

    def __init__(self, cancel: threading.Event, *, total_s: float, max_bytes: int) -> None:
        self.cancel = cancel
        self.deadline = time.monotonic() + total_s
        self.max_bytes = max_bytes
        self.asked = False
        """Whether the whole request was sent: from then on the provider may charge for it."""
        self.expired = False
        self._sockets: list[socket.socket] = []
        self._cut = False
        self._lock = threading.Lock()
        self._done = threading.Event()

    def __enter__(self) -> Self:
        self._token = _line.set(self)
        self._watcher = threading.Thread(target=self._watch, name="line", daemon=True)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watcher.join()
        _line.reset(self._token)

    def on_trace_event(self, event: str, info: Mapping[str, Any]) -> None:
        """Take one trace event of the transport: a new socket, or a request that was sent."""
        if event.endswith("send_request_body.complete"):
            self.asked = True
        elif event.endswith("start_tls.started"):
            self.asked = False  # so far only the proxy got a request, to connect
        stream: Any = info.get("return_value")
        if event.startswith(_OPENS) and hasattr(stream, "get_extra_info"):
            found = stream.get_extra_info("socket")
            if isinstance(found, socket.socket):
                with self._lock:
                    self._sockets.append(found)
                    if self._cut:
                        _shut(found)

    def _watch(self) -> None:
        while not self._done.wait(POLL_S):
            self.expired = time.monotonic() > self.deadline
            if self.expired or self.cancel.is_set():
                with self._lock:
                    self._cut = True
                    for each in self._sockets:
                        _shut(each)
                return


def _shut(each: socket.socket) -> None:
    # The plain socket's shutdown, not the TLS socket's, from which another thread is reading.
    with suppress(OSError):
        socket.socket.shutdown(each, socket.SHUT_RDWR)


_line: ContextVar[Attempt | None] = ContextVar("line", default=None)


class _Metered(httpx2.SyncByteStream):
    """A response body that raises ResponseRefused if it grows beyond its limit."""

    def __init__(self, body: httpx2.SyncByteStream, line: Attempt) -> None:
        self._body = body
        self._line = line

    def __iter__(self) -> Iterator[bytes]:
        seen = 0
        for chunk in self._body:
            seen += len(chunk)
            if seen > self._line.max_bytes:
                raise ResponseRefused(f"the server sent more than {self._line.max_bytes:,} bytes")
            yield chunk

    def close(self) -> None:
        self._body.close()


def _prepare(request: httpx2.Request) -> None:
    # Compression would make the limit on size useless.
    request.headers["accept-encoding"] = "identity"
    if (line := _line.get()) is not None:
        request.extensions = {**request.extensions, "trace": line.on_trace_event}


def _meter(response: httpx2.Response) -> None:
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise ResponseRefused("the server compressed its answer, though asked not to")
    line = _line.get()
    if line is not None and isinstance(response.stream, httpx2.SyncByteStream):
        response.stream = _Metered(response.stream, line)


def timeouts(idle_s: float) -> httpx2.Timeout:
    """Return the transport's time-outs. A read may bring nothing for ``idle_s`` seconds."""
    return httpx2.Timeout(connect=CONNECT_S, read=idle_s, write=WRITE_S, pool=None)


def open_http(url: str, idle_s: float) -> httpx2.Client:
    """Return the HTTP client to give to an SDK that calls ``url``.

    Of the environment only the proxy and the certificates are used. Redirects are not followed:
    a key goes only to the address that was given. Raises ConfigError.
    """
    proxy = proxy_of(url)
    through = httpx2.Proxy(proxy.url, ssl_context=certificates(proxy.url)) if proxy else None
    return httpx2.Client(
        timeout=timeouts(idle_s),
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
        event_hooks={"request": [_prepare], "response": [_meter]},
        follow_redirects=False,
        trust_env=False,
        proxy=through,
        # Without TLS, use a context that trusts nobody and loads no certificates.
        verify=certificates(url) or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
    )
