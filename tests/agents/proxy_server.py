"""A proxy on 127.0.0.1, from plain sockets: it forwards or tunnels, and keeps each request's head.

It sends requests for any host to the test's provider, so host names need not exist.
"""

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from agents.loopback import Loopback


class Proxy(Loopback, socketserver.TCPServer):
    """Forwards or tunnels to ``target``; if ``refusal`` is set, sends that instead."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target: tuple[str, int] = ("", 0)
        self.refusal = b""
        self.heads: list[str] = []
        self.begin()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _Handler(socketserver.BaseRequestHandler):
    server: Proxy

    def handle(self) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            if not (chunk := self.request.recv(65536)):
                return
            head += chunk
        head, _, body = head.partition(b"\r\n\r\n")
        self.server.heads.append(head.decode())
        if self.server.refusal:
            self.request.sendall(self.server.refusal)
            return
        with socket.create_connection(self.server.target) as there:
            if head.startswith(b"CONNECT"):
                self.request.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            else:
                method, url, rest = head.split(b" ", 2)
                path = b"/" + url.split(b"/", 3)[3]
                there.sendall(b" ".join([method, path, rest]) + b"\r\n\r\n" + body)
            back = threading.Thread(target=_pour, args=(there, self.request), daemon=True)
            back.start()
            _pour(self.request, there)
            back.join()


def _pour(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(65536):
            sink.sendall(chunk)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def no_proxy(monkeypatch) -> None:
    """No environment variable names a proxy."""
    for kind in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{kind}_proxy", raising=False)
        monkeypatch.delenv(f"{kind}_proxy".upper(), raising=False)


@pytest.fixture
def proxy(provider, no_proxy) -> Iterator[Proxy]:
    """A proxy to the provider. No environment variable names it yet, or any other proxy."""
    server = Proxy()
    host, port = provider.origin.removeprefix("http://").split(":")
    server.target = (host, int(port))
    yield server
    server.end()
