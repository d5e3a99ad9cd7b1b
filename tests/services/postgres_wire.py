"""A relay of our own before a PostgreSQL server, which ends connections at a statement, on a real wire."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PIECE = 1 << 16
_LONGEST_TEXT = 64
_KEY_DATA = b"K\x00\x00\x00\x0c"


class Fault(Enum):
    """What becomes of a connection."""

    LOST_BEFORE = "the server never hears the statement, and that the connection is gone"
    LOST_AFTER = "the server carries it out, and nobody hears of it"
    LEFT_OPEN = "the server hears nothing any more, and does not learn that the connection is gone"
    KILLED = "the process of the server is killed"


@dataclass
class _Connection:
    client: socket.socket
    server: socket.socket
    pid: int = 0
    tail: bytes = b""
    met: int = 0
    losing_reply: bool = False


class Wire:
    """Passes bytes both ways until a connection sends a text, after another when there are two."""

    def __init__(self, port: int) -> None:
        self._server = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._fault: Fault | None = None
        self._texts: tuple[bytes, ...] = ()
        self._stays_away = False
        self._kept: list[_Connection] = []
        self.met = 0
        self.away = False
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        """Return the port to be used instead of the server's."""
        port: int = self._listener.getsockname()[1]
        return port

    def fail(self, fault: Fault, *texts: bytes, stays_away: bool = False) -> None:
        """End the first connection so that sends all these texts, in this order; perhaps all after it."""
        self._texts, self._stays_away, self._fault = texts, stays_away, fault

    def close(self) -> None:
        """Stop listening and close what was left open."""
        _end(self._listener)
        for one in self._kept:
            _end(one.server)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.away:
                    client.close()
                    continue
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError):
            one = _Connection(client, socket.create_connection(self._server))
            back = threading.Thread(target=self._pass_back, args=(one,), daemon=True)
            back.start()
            self._pass(one)

    def _pass(self, one: _Connection) -> None:
        with suppress(OSError):
            while piece := one.client.recv(_PIECE):
                if self._is_met(one, piece):
                    self._carry_out(one, piece)
                    return
                one.server.sendall(piece)
        _end(one.client)
        _end(one.server)

    def _is_met(self, one: _Connection, piece: bytes) -> bool:
        if self._fault is None:
            return False
        rest = one.tail + piece
        while one.met < len(self._texts):
            _, found, after = rest.partition(self._texts[one.met])
            if not found:
                one.tail = rest[-_LONGEST_TEXT:]
                return False
            one.met += 1
            rest = after
        return True

    def _carry_out(self, one: _Connection, piece: bytes) -> None:
        fault, self._fault = self._fault, None
        self.met += 1
        self.away = self._stays_away
        if fault is Fault.LOST_AFTER:
            one.losing_reply = True
            one.server.sendall(piece)  # the other thread ends both when there is a reply
            return
        if fault is Fault.LEFT_OPEN:
            self._kept.append(one)
            _end(one.client)
            return
        if fault is Fault.KILLED:
            os.kill(one.pid, signal.SIGKILL)
        _end(one.client)
        _end(one.server)

    def _pass_back(self, one: _Connection) -> None:
        with suppress(OSError):
            while piece := one.server.recv(_PIECE):
                at = piece.find(_KEY_DATA) if not one.pid else -1
                if at >= 0:
                    (one.pid,) = struct.unpack_from(">i", piece, at + len(_KEY_DATA))
                if one.losing_reply:
                    break
                one.client.sendall(piece)
        _end(one.client)
        if one not in self._kept:
            _end(one.server)


@contextmanager
def wire_before(port: int) -> Iterator[Wire]:
    """Give a wire before a server on loopback."""
    wire = Wire(port)
    try:
        yield wire
    finally:
        wire.close()


def _end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
