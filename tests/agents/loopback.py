"""A server of these tests: it waits without polling, and so closes at once."""

import socket
import socketserver
import threading


class Loopback(socketserver.ThreadingMixIn):
    """To be mixed into a server on 127.0.0.1."""

    daemon_threads = True

    def begin(self) -> None:
        self._open = True
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._open = False
        socket.create_connection(self.server_address).close()  # wakes it
        self._thread.join()
        self.server_close()

    def _serve(self) -> None:
        while self._open:
            self.handle_request()

    def handle_error(self, *_: object) -> None:
        """A client that went away, or was killed, is what these tests are about."""
