"""Objects: the sealed envelope around everything a repository stores.

Layout, keys and nonces are those of `docs/format.md`: a 44 byte header with a
random salt, then frames sealed with AES-256-GCM under a key of the object's
own. The frame counter and a last flag are in each nonce, so that cutting,
adding, reordering or doubling frames is noticed.
"""

from __future__ import annotations

import os
from enum import IntEnum
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag

from backup_admin.core.errors import Damaged, NewerVersion
from backup_admin.repository.keys import RepositoryKeys, sha256

if TYPE_CHECKING:
    from collections.abc import Sequence

MAGIC = b"BKA1"
HEADER_BYTES = 44
TAG_BYTES = 16
LENGTH_BYTES = 4
FRAME_OVERHEAD = LENGTH_BYTES + TAG_BYTES
MAX_FRAME_BYTES = 64 << 20
_VERSION = 1
_CIPHER = 1


class ObjectType(IntEnum):
    """What an object is; part of its header and so of its key."""

    PACK = 1
    INDEX = 2
    MANIFEST = 3
    CHAIN = 4
    SETTINGS = 5
    JOURNAL = 6
    EPOCH = 7
    WAL = 8


_TYPES = frozenset(ObjectType)


class ObjectCipher:
    """Seals and opens the frames of one object."""

    def __init__(self, keys: RepositoryKeys, header: bytes, logical_name: str) -> None:
        self.header = header
        self._cipher = keys.object_cipher(header)
        self._aad = header + keys.repo_id + sha256(logical_name.encode())

    def seal_into(
        self, plain: bytes | bytearray | memoryview, number: int, out: memoryview, *, last: bool
    ) -> int:
        """Write one frame (length, ciphertext, tag) and return its size."""
        size = len(plain) + TAG_BYTES
        out[:LENGTH_BYTES] = size.to_bytes(LENGTH_BYTES, "big")
        self._cipher.encrypt_into(
            _nonce(number, last=last), plain, self._aad, out[LENGTH_BYTES : LENGTH_BYTES + size]
        )
        return LENGTH_BYTES + size

    def open(self, sealed: bytes | bytearray | memoryview, number: int, *, last: bool) -> bytes:
        """Return the plain bytes of a frame; raise `Damaged`."""
        try:
            return self._cipher.decrypt(_nonce(number, last=last), sealed, self._aad)
        except InvalidTag as error:
            raise Damaged(f"Frame {number} does not carry a valid seal.") from error

    def open_into(
        self, sealed: bytes | bytearray | memoryview, number: int, out: bytearray | memoryview, *, last: bool
    ) -> int:
        """Open a frame into a buffer of exactly its plain size; raise `Damaged`."""
        try:
            return self._cipher.decrypt_into(_nonce(number, last=last), sealed, self._aad, out)
        except InvalidTag as error:
            raise Damaged(f"Frame {number} does not carry a valid seal.") from error


def _nonce(number: int, *, last: bool) -> bytes:
    return bytes(4) + number.to_bytes(7, "big") + (b"\x01" if last else b"\x00")


def new_header(kind: ObjectType, kid: int, salt: bytes | None = None) -> bytes:
    """Make the header of a new object; the salt is random unless a test gives it."""
    start = MAGIC + bytes([_VERSION, kind, _CIPHER, 0]) + kid.to_bytes(2, "big") + bytes(2)
    return start + (os.urandom(32) if salt is None else salt)


def object_kid(header: bytes) -> int:
    """Return the key that an object with this header is sealed under."""
    return int.from_bytes(header[8:10], "big")


def check_header(header: bytes, kind: ObjectType) -> None:
    """Refuse a header that is damaged, of another kind, or from a newer version."""
    if len(header) < HEADER_BYTES or header[:4] != MAGIC:
        raise Damaged("The bytes do not begin as an object of this product does.")
    if header[4] != _VERSION or header[6] != _CIPHER or header[7] != 0 or header[10:12] != bytes(2):
        raise NewerVersion("An object was made by a newer version; nothing was written.")
    if header[5] not in _TYPES:
        raise NewerVersion(f"An object of type {header[5]} was made by a newer version; nothing was written.")
    if header[5] != kind:
        raise Damaged(f"An object of type {header[5]} stands where type {int(kind)} belongs.")


def seal_object(
    keys: RepositoryKeys,
    kind: ObjectType,
    logical_name: str,
    frames: Sequence[bytes],
    *,
    salt: bytes | None = None,
) -> bytes:
    """Return the bytes of an object with the given frames."""
    header = new_header(kind, keys.keyring.write_kid, salt)
    cipher = ObjectCipher(keys, header, logical_name)
    data = bytearray(HEADER_BYTES + sum(len(frame) + FRAME_OVERHEAD for frame in frames))
    data[:HEADER_BYTES] = header
    view = memoryview(data)
    at = HEADER_BYTES
    for number, frame in enumerate(frames):
        at += cipher.seal_into(frame, number, view[at:], last=number == len(frames) - 1)
    return bytes(data)


def frame_spans(data: bytes | bytearray | memoryview) -> list[tuple[int, int]]:
    """Return (offset, size) of the sealed part of each frame; raise `Damaged`."""
    spans = []
    at = HEADER_BYTES
    while at < len(data):
        size = int.from_bytes(data[at : at + LENGTH_BYTES], "big")
        if size < TAG_BYTES or size > MAX_FRAME_BYTES + TAG_BYTES or at + LENGTH_BYTES + size > len(data):
            raise Damaged("An object is cut short or a frame has an impossible length.")
        spans.append((at + LENGTH_BYTES, size))
        at += LENGTH_BYTES + size
    if not spans:
        raise Damaged("An object without frames.")
    return spans


def open_object(keys: RepositoryKeys, kind: ObjectType, logical_name: str, data: bytes) -> list[bytes]:
    """Return the plain frames of an object; raise `Damaged` or `NewerVersion`."""
    check_header(data[:HEADER_BYTES], kind)
    cipher = ObjectCipher(keys, data[:HEADER_BYTES], logical_name)
    spans = frame_spans(data)
    view = memoryview(data)
    return [
        cipher.open(view[offset : offset + size], number, last=number == len(spans) - 1)
        for number, (offset, size) in enumerate(spans)
    ]
