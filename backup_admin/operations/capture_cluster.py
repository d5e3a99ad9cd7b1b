"""Storing a base backup of a PostgreSQL cluster: its files are those of a tree of its own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from backup_admin.core.errors import SourceError
from backup_admin.operations.base_backups import CLUSTER_FORMAT, describe_base
from backup_admin.operations.trees import Tools, TreeCapture
from backup_admin.repository.entries import ShardWriter
from backup_admin.repository.types import ChunkRef, DatabaseEntry, FilesRoot
from backup_admin.sources.files import FileSource

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from backup_admin.repository.content_writer import ContentWriter
    from backup_admin.repository.types import Content
    from backup_admin.sources.postgres.cluster import ClusterSource

_FOLDER_MODE = 0o700
_MANIFEST = "backup_manifest"


def capture_cluster(
    source: ClusterSource, tools: Tools, put_part: Callable[[bytes], ChunkRef], scratch: Path
) -> tuple[DatabaseEntry, tuple[str, ...]]:
    """Take a base backup, read it back, store it; return its entry and what is to be said about it.

    Needs room for the whole cluster in `scratch`. Raises `SourceMissing`, `SourceError` or `NoClient`.
    """
    folder = scratch / f"cluster-{source.name}"
    facts = source.copy_into(folder)
    tree = _store(FileSource(source.name, folder), source, tools, put_part)
    with (folder / _MANIFEST).open("rb", buffering=0) as file:

        def write(writer: ContentWriter) -> Content:
            return writer.write(lambda view: file.readinto(view) or 0)

        content = tools.workers.submit(write, size=1).result()
    entry = DatabaseEntry(
        name=source.name,
        engine="postgresql",
        format=CLUSTER_FORMAT,
        engine_version=facts.server_version,
        path=source.address.label,
        page_size=0,
        content=content,
        tables=(),
        details=describe_base(facts),
        tree=tree,
    )
    return entry, tuple(f"{source.name}: {notice}" for notice in facts.notices)


def _store(
    files: FileSource, source: ClusterSource, tools: Tools, put_part: Callable[[bytes], ChunkRef]
) -> FilesRoot:
    began_ns = time.time_ns()
    shards = ShardWriter(put_part)
    notes = TreeCapture(files, shards, tools, parent=None).run()
    if notes.warnings:
        raise SourceError(f"{source.name}: {notes.warnings[0]} The base backup is not whole; none was made.")
    return shards.finish_root(source.name, source.address.label, _FOLDER_MODE, began_ns, began_ns=began_ns)
