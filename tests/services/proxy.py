"""A proxy of our own before an HTTP server, which fails as it is told: real faults on a real wire."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PIECE = 1 << 16
_ERROR = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>as told</Message></Error>"


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked for: method and path with query, and whether it waits before it sends the body."""

    method: str
    path: str
    waits: bool = False


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to a request instead of being served. Only one of these is given.

    `cut_request_at`: the connection ends when so many bytes of the body went on.
    `lose_reply`: the server does its work and the client never hears of it.
    `cut_reply_at`: the connection ends when so many bytes of the answer's body came back.
    `answer`: a status and a code, said without asking the server; `headers` go with it, and `body`
    instead of what usually tells the code.
    `drip`: bytes of the answer's body a second.
    """

    cut_request_at: int | None = None
    lose_reply: bool = False
    cut_reply_at: int | None = None
    answer: tuple[int, str] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    drip: int | None = None


class Proxy:
    """Passes requests on, each on a connection of its own; `faults` says what goes wrong."""

    def __init__(self, host: str, port: int, *, delay_seconds: float = 0.0) -> None:
        self._upstream = (host, port)
        self._delay = delay_seconds
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._faults: list[tuple[Callable[[Request], bool], Fault]] = []
        self._lock = threading.Lock()
        self.requests: list[Request] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def endpoint(self) -> str:
        """Return the address to be asked instead of the server's."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def fail(self, fault: Fault, *, when: Callable[[Request], bool] = lambda _: True, times: int = 1) -> None:
        """Let the next matching requests end so."""
        with self._lock:
            self._faults += [(when, fault)] * times

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            head, rest = _read_head(client)
            if not head:
                return
            method, path, _ = head.split(b"\r\n")[0].decode().split(" ", 2)
            request = Request(method, path, waits=_header(head, b"expect") == b"100-continue")
            self._handle(client, request, head, rest)

    def _handle(self, client: socket.socket, request: Request, head: bytes, rest: bytes) -> None:
        fault = self._next_fault(request)
        size = _body_size(head)
        if fault.answer is not None:
            _take_body(client, head, size - len(rest))
            client.sendall(_canned(fault))
            return
        with socket.create_connection(self._upstream) as server:
            time.sleep(self._delay)
            server.sendall(_head_for_server(head))
            if not _pass_body(client, server, (head, rest, size), fault.cut_request_at):
                return
            _pass_answer(server, client, fault)

    def _next_fault(self, request: Request) -> Fault:
        with self._lock:
            self.requests.append(request)
            for number, (when, fault) in enumerate(self._faults):
                if when(request):
                    del self._faults[number]
                    return fault
        return Fault()


@contextmanager
def proxy_before(endpoint: str, *, delay_seconds: float = 0.0) -> Iterator[Proxy]:
    """Give a proxy before a server, `http://HOST:PORT`."""
    host, _, port = endpoint.removeprefix("http://").partition(":")
    proxy = Proxy(host, int(port), delay_seconds=delay_seconds)
    try:
        yield proxy
    finally:
        proxy.close()


def _read_head(client: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = client.recv(_PIECE)
        if not piece:
            return b"", b""
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return head + b"\r\n\r\n", rest


def _head_for_server(head: bytes) -> bytes:
    """Return the head of a request without what is between the client and us; none of that is signed."""
    first, *lines = head.split(b"\r\n")
    ours = (b"connection", b"expect")
    kept = [line for line in lines if line.partition(b":")[0].lower() not in ours]
    return b"\r\n".join([first, b"Connection: close", *kept])


def _body_size(head: bytes) -> int:
    return int(_header(head, b"content-length") or 0)


def _header(head: bytes, wanted: bytes) -> bytes:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == wanted:
            return value.strip()
    return b""


def _continue(client: socket.socket, head: bytes) -> None:
    """Let a client go on that waits for leave to send its body."""
    if _header(head, b"expect").lower() == b"100-continue":
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")


def _take_body(client: socket.socket, head: bytes, left: int) -> None:
    _continue(client, head)
    while left > 0 and (piece := client.recv(min(_PIECE, left))):
        left -= len(piece)


def _pass_body(
    client: socket.socket, server: socket.socket, sent: tuple[bytes, bytes, int], cut_at: int | None
) -> bool:
    """Pass the body of a request on; False when the connection shall end before its end."""
    head, rest, size = sent
    end = size if cut_at is None else min(size, cut_at)
    if not rest:
        _continue(client, head)
    done = 0
    piece = rest
    while True:
        piece = piece[: end - done]
        server.sendall(piece)
        done += len(piece)
        if done >= end:
            return end == size
        piece = client.recv(_PIECE)
        if not piece:
            return False


def _pass_answer(server: socket.socket, client: socket.socket, fault: Fault) -> None:
    head, rest = _read_head(server)
    if fault.lose_reply:
        while server.recv(_PIECE):
            pass
        return
    client.sendall(head)
    done, piece = 0, rest
    while piece or (piece := server.recv(_PIECE)):
        if fault.cut_reply_at is not None and done + len(piece) >= fault.cut_reply_at:
            client.sendall(piece[: fault.cut_reply_at - done])
            return
        _send(client, piece, fault.drip)
        done += len(piece)
        piece = b""


def _send(client: socket.socket, piece: bytes, drip: int | None) -> None:
    if drip is None:
        client.sendall(piece)
        return
    for at in range(0, len(piece), drip):
        client.sendall(piece[at : at + drip])
        time.sleep(1)


def _canned(fault: Fault) -> bytes:
    status, code = fault.answer or (500, "InternalError")
    body = (fault.body or _ERROR.format(code=code)).encode()
    lines = [f"HTTP/1.1 {status} As Told", "Content-Type: application/xml", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in fault.headers.items()]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body
