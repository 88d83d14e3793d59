"""What the servers of these tests share: they wait without polling, and so close at once."""

import socket
import socketserver
import ssl
import sys
import threading

BROKEN = (ConnectionError, ssl.SSLError)
"""The errors of a connection whose client went away: that is part of these tests."""


class Loopback(socketserver.ThreadingMixIn):
    """A mix-in for a server on 127.0.0.1 that runs in threads from ``begin`` to ``end``.

    ``end`` raises what its threads raised, such as a test's failed assertion.
    """

    daemon_threads = True

    def begin(self) -> None:
        self._open = True
        self._errors: list[Exception] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._open = False
        socket.create_connection(self.server_address).close()  # ends the wait in handle_request
        self._thread.join()
        self.server_close()
        if self._errors:
            raise ExceptionGroup("errors in the threads of a server", self._errors)

    def _serve(self) -> None:
        while self._open:
            self.handle_request()

    def handle_error(self, *_: object) -> None:
        """Keep an error for ``end``, unless it is one of ``BROKEN``."""
        error = sys.exception()
        if isinstance(error, Exception) and not isinstance(error, BROKEN):
            self._errors.append(error)
