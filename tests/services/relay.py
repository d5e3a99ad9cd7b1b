"""A relay of our own before any TCP server, which ends connections as it is told."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PIECE = 1 << 16


class Relay:
    """Passes bytes both ways; a connection ends when more went to the server than is allowed."""

    def __init__(self, port: int, at: int = 0) -> None:
        self._server = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", at))
        self._cuts: list[int] = []
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self.ended = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        """Return the port to be used instead of the server's."""
        port: int = self._listener.getsockname()[1]
        return port

    def cut(self, *at_bytes: int) -> None:
        """End the connections that send so many bytes, one for each number."""
        with self._lock:
            self._cuts += at_bytes

    def cut_all(self) -> None:
        """End every connection there is."""
        with self._lock:
            for one in self._open:
                _shut(one)
            self._open.clear()

    def close(self) -> None:
        """Stop listening and end every connection."""
        _shut(self._listener)
        self._listener.close()
        self.cut_all()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection(self._server) as server:
            with self._lock:
                self._open += [client, server]
            back = threading.Thread(target=_pass, args=(server, client), daemon=True)
            back.start()
            self._pass_counted(client, server)
            back.join()

    def _pass_counted(self, client: socket.socket, server: socket.socket) -> None:
        sent = 0
        with suppress(OSError):
            while (piece := client.recv(_PIECE)) and not self._ends(sent + len(piece)):
                server.sendall(piece)
                sent += len(piece)
        _shut(client)
        _shut(server)

    def _ends(self, sent: int) -> bool:
        with self._lock:
            if not self._cuts or sent < self._cuts[0]:
                return False
            del self._cuts[0]
            self.ended += 1
            return True


@contextmanager
def relay_before(port: int, *, at: int = 0) -> Iterator[Relay]:
    """Give a relay before a server on loopback, at a port of its own or any free one."""
    relay = Relay(port, at)
    try:
        yield relay
    finally:
        relay.close()


def _pass(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(_PIECE):
            target.sendall(piece)
    _shut(source)
    _shut(target)


def _shut(one: socket.socket) -> None:
    with suppress(OSError):  # it is closed or was never connected
        one.shutdown(socket.SHUT_RDWR)
