"""The bytes of a captured file or database, and the chunks behind them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from backup_admin.core.errors import Damaged
from backup_admin.repository.content import content_refs, iterate_content
from backup_admin.repository.pages import iterate_pages, page_refs
from backup_admin.repository.types import ChunkKind, ChunkRef, Content

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backup_admin.repository.reader import ChunkReader


def iterate_bytes(reader: ChunkReader, content: Content) -> Iterator[memoryview]:
    """Yield the content piece by piece, each compared with its name; raise `Damaged`."""
    if content.pages is not None:
        return iterate_pages(reader, content.pages)
    return iterate_content(reader, content)


def iterate_refs(reader: ChunkReader, content: Content) -> Iterator[tuple[ChunkKind, ChunkRef]]:
    """Yield every chunk the content needs; raise `Damaged`."""
    if content.pages is not None:
        yield from page_refs(reader, content.pages)
        return
    for part in content.chunk_lists:
        yield ChunkKind.MANIFEST, part
    for ref in content_refs(reader, content):
        yield ChunkKind.DATA, ref


def check_content(reader: ChunkReader, content: Content) -> int:
    """Read content and compare its digest and size; return the bytes read.

    Raises `Damaged`.
    """
    digest = hashlib.sha256()
    size = 0
    for piece in iterate_bytes(reader, content):
        digest.update(piece)
        size += len(piece)
    if size != content.size or digest.hexdigest() != content.sha256:
        raise Damaged("its bytes do not have the digest the manifest gives")
    return size


def write_content(reader: ChunkReader, content: Content, path: Path) -> None:
    """Write content to a new file (mode 0600) and compare its digest; raise `Damaged`."""
    digest = hashlib.sha256()
    size = 0
    with path.open("xb") as file:
        path.chmod(0o600)
        for piece in iterate_bytes(reader, content):
            digest.update(piece)
            size += len(piece)
            file.write(piece)
    if size != content.size or digest.hexdigest() != content.sha256:
        raise Damaged("its bytes do not have the digest the manifest gives")
