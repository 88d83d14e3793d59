"""What the servers of these tests share: they wait without polling, and so close at once."""

import socket
import socketserver
import threading


class Loopback(socketserver.ThreadingMixIn):
    """A mix-in for a server on 127.0.0.1 that runs in threads from ``begin`` to ``end``."""

    daemon_threads = True

    def begin(self) -> None:
        self._open = True
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._open = False
        socket.create_connection(self.server_address).close()  # ends the wait in handle_request
        self._thread.join()
        self.server_close()

    def _serve(self) -> None:
        while self._open:
            self.handle_request()

    def handle_error(self, *_: object) -> None:
        """Print no error: clients that go away or are killed are part of these tests."""
