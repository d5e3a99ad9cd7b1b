"""WAL objects: files that a PostgreSQL server archives, each an object under a name that tells it.

`wal/<system>/<file>` is put once and never replaced, so that two servers that took one another's
place, or one that tries again, never mean different bytes by one name. No entry of the chain names
a file when it comes; that it is the right one, its seal says. Layout: `docs/format.md`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import zstandard

from backup_admin.core.canonical import dump_canonical, load_strict
from backup_admin.core.clock import format_time, parse_time
from backup_admin.core.errors import Damaged, NewerVersion
from backup_admin.repository.keys import RepositoryKeys, sha256
from backup_admin.repository.objects import (
    HEADER_BYTES,
    ObjectCipher,
    ObjectType,
    check_header,
    frame_spans,
    open_object,
    seal_object,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

PREFIX = "wal/"
MAX_FILE_BYTES = 64 << 20
_VERSION = 1
_RAW, _ZSTD = b"\x00", b"\x01"
_PIECE_BYTES = 4 << 20
_SYSTEM = re.compile(r"[0-9a-f]{16}", re.ASCII)
_FILE = re.compile(r"[0-9A-F]{8}\.history|[0-9A-F]{24}(?:\.partial|\.[0-9A-F]{8}\.backup)?", re.ASCII)
PATTERN = r"[0-9a-f]{16}/(?:[0-9a-f]{8}\.history|[0-9a-f]{24}(?:\.partial|\.[0-9a-f]{8}\.backup)?)"


@dataclass(frozen=True, slots=True)
class WalHead:
    """What a WAL object says about the file in it."""

    system: str
    file: str
    size: int
    sha256: str
    archived_at: datetime


def is_wal_file(file: str) -> bool:
    """Say whether a server archives files of this name."""
    return _FILE.fullmatch(file) is not None


def is_system(text: str) -> bool:
    """Say whether this is how a cluster is named here."""
    return _SYSTEM.fullmatch(text) is not None


def wal_name(system: str, file: str) -> str:
    """Return the storage name of a file; raise `ValueError` for one that no server archives."""
    if not is_system(system) or not is_wal_file(file):
        raise ValueError(f"{file!r} of {system!r} is no file of a WAL archive")
    return f"{PREFIX}{system}/{file.lower()}"


def parse_wal_name(name: str) -> tuple[str, str] | None:
    """Return system and file of a storage name; None for one that is not ours."""
    system, _, rest = name.removeprefix(PREFIX).partition("/")
    digits, dot, kind = rest.partition(".")
    if kind.endswith(".backup"):
        kind = kind.removesuffix("backup").upper() + "backup"
    file = digits.upper() + dot + kind
    known = name.startswith(PREFIX) and is_system(system) and is_wal_file(file)
    return (system, file) if known and wal_name(system, file) == name else None


def seal_wal(
    keys: RepositoryKeys, system: str, file: str, data: bytes, *, now: datetime, level: int
) -> bytes:
    """Return the object for a file."""
    name = wal_name(system, file)
    head = {
        "v": _VERSION,
        "system": system,
        "file": file,
        "size": len(data),
        "sha256": sha256(data).hex(),
        "archived_at": format_time(now),
    }
    return seal_object(keys, ObjectType.WAL, name, [dump_canonical(head), *_pieces(data, level)])


def _pieces(data: bytes, level: int) -> Iterator[bytes]:
    packer = zstandard.ZstdCompressor(level=level)
    view = memoryview(data)
    for at in range(0, len(data), _PIECE_BYTES):
        piece = view[at : at + _PIECE_BYTES]
        packed = packer.compress(piece)
        yield _ZSTD + packed if len(packed) < len(piece) else _RAW + bytes(piece)


def open_wal(keys: RepositoryKeys, name: str, data: bytes) -> tuple[WalHead, bytes]:
    """Return what an object says and the file in it, compared with its digest.

    Raises `Damaged` or `NewerVersion`.
    """
    frames = open_object(keys, ObjectType.WAL, name, data)
    head = _parse_head(name, frames[0])
    unpacker = zstandard.ZstdDecompressor()
    file = b"".join(_unpack(name, frame, unpacker) for frame in frames[1:])
    if len(file) != head.size or sha256(file).hex() != head.sha256:
        raise Damaged(f"{name} does not hold the file it says.")
    return head, file


def _unpack(name: str, frame: bytes, unpacker: zstandard.ZstdDecompressor) -> bytes:
    method, body = frame[:1], frame[1:]
    if method == _RAW:
        return body
    if method != _ZSTD:
        raise NewerVersion(f"{name} was written by a newer version; nothing was written.")
    try:
        size = zstandard.frame_content_size(body)
        if not 0 <= size <= _PIECE_BYTES:
            raise Damaged(f"{name} holds a piece of an impossible size.")
        return unpacker.decompress(body)
    except zstandard.ZstdError as error:
        raise Damaged(f"{name} cannot be unpacked.") from error


def _parse_head(name: str, frame: bytes) -> WalHead:
    try:
        value = load_strict(frame)
        if value["v"] != _VERSION:
            raise NewerVersion(f"{name} was written by a newer version; nothing was written.")
        head = WalHead(
            str(value["system"]),
            str(value["file"]),
            int(value["size"]),
            str(value["sha256"]),
            parse_time(value["archived_at"]),
        )
        if wal_name(head.system, head.file) != name or not 0 <= head.size <= MAX_FILE_BYTES:
            raise Damaged(f"{name} holds another file than its name says.")
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{name} cannot be read: {error}.") from error
    return head


def read_head(keys: RepositoryKeys, name: str, data: bytes) -> WalHead:
    """Return what an object says about its file; only the first frame is opened."""
    check_header(data[:HEADER_BYTES], ObjectType.WAL)
    spans = frame_spans(data)
    offset, size = spans[0]
    cipher = ObjectCipher(keys, data[:HEADER_BYTES], name)
    return _parse_head(name, cipher.open(data[offset : offset + size], 0, last=len(spans) == 1))
