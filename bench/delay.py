"""A proxy that makes a server far away: all bytes arrive later, and as many in a second as before.

Run as a process of its own, so that it takes no time of what is measured:
`python -m bench.delay PORT SERVER_PORT MILLISECONDS`. The milliseconds are those of a round
trip. A new connection costs one round trip more, as its handshake does. For each request of
HTTP its method and path are written to the standard output, a line each.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections import deque
from typing import cast

_HOST = "127.0.0.1"
_METHOD = re.compile(rb"((?:GET|PUT|HEAD|POST|DELETE) /[^ \r\n]*) HTTP/1\.1\r\n")
_MOST_WAITING = 64 << 20


class DelayedPipe:
    """Hands bytes to one end of a connection, each piece so long after it came."""

    def __init__(self, delay_seconds: float, *, handshake_seconds: float = 0.0) -> None:
        self._loop = asyncio.get_running_loop()
        self._delay = delay_seconds
        self._open_at = self._loop.time() + handshake_seconds
        self._pieces: deque[tuple[float, bytes]] = deque()
        self._waiting = 0
        self._is_ended = False
        self._to: asyncio.Transport | None = None
        self._came_from: asyncio.Transport | None = None

    def connect(self, came_from: asyncio.Transport, to: asyncio.Transport) -> None:
        """Join the two ends; what came before goes on now."""
        self._came_from, self._to = came_from, to
        self._wake()

    def add(self, piece: bytes) -> None:
        """Take a piece; an empty one is the end."""
        due = max(self._loop.time(), self._open_at) + self._delay
        self._pieces.append((due, piece))
        self._waiting += len(piece)
        if self._waiting > _MOST_WAITING and self._came_from is not None:
            self._came_from.pause_reading()
        if len(self._pieces) == 1:
            self._wake()

    def _wake(self) -> None:
        if self._pieces and self._to is not None:
            self._loop.call_at(self._pieces[0][0], self._hand_over)

    def _hand_over(self) -> None:
        to, now = self._to, self._loop.time()
        while to is not None and self._pieces and self._pieces[0][0] <= now:
            _, piece = self._pieces.popleft()
            self._waiting -= len(piece)
            if to.is_closing():
                continue
            if piece:
                to.write(piece)
            else:
                to.close()
        if self._waiting < _MOST_WAITING // 2 and self._came_from is not None:
            self._came_from.resume_reading()
        self._wake()


class _End(asyncio.Protocol):
    """One end of a connection; what it says goes into a pipe."""

    def __init__(self, says: DelayedPipe, *, counts: bool) -> None:
        self._says = says
        self._counts = counts

    def data_received(self, data: bytes) -> None:
        if self._counts and (found := _METHOD.match(data)):
            sys.stdout.write(f"{found[1].decode()}\n")
            sys.stdout.flush()
        self._says.add(data)

    def connection_lost(self, _error: Exception | None) -> None:
        self._says.add(b"")


class _Client(_End):
    """The end of who connects to us; it is joined with the server at once."""

    def __init__(self, server_port: int, delay_seconds: float) -> None:
        super().__init__(DelayedPipe(delay_seconds, handshake_seconds=2 * delay_seconds), counts=True)
        self._back = DelayedPipe(delay_seconds)
        self._server_port = server_port
        self._joining: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._joining = asyncio.get_running_loop().create_task(
            self._join(cast("asyncio.Transport", transport))
        )

    async def _join(self, client: asyncio.Transport) -> None:
        loop = asyncio.get_running_loop()
        try:
            server, _ = await loop.create_connection(
                lambda: _End(self._back, counts=False), _HOST, self._server_port
            )
        except OSError:
            client.abort()
            return
        self._says.connect(client, server)
        self._back.connect(server, client)


async def serve(port: int, server_port: int, round_trip_seconds: float) -> None:
    """Serve until the process is ended."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Client(server_port, round_trip_seconds / 2), _HOST, port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) / 1000))
