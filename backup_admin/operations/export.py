"""The manifest for people and programs: JSON, without any secret, written as a stream."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from backup_admin.core.canonical import load_strict
from backup_admin.core.clock import format_time
from backup_admin.core.paths import path_to_json
from backup_admin.repository.types import ChunkKind, DatabaseEntry, FileEntry, Manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backup_admin.repository.reader import ChunkReader
    from backup_admin.repository.repository import Repository

VERSION = "1.0.0"
_FIRST_NS = -62_135_596_800 * 10**9  # the year 1
_LAST_NS = 253_402_300_800 * 10**9 - 1  # the year 9999


def export_manifest(repository: Repository, snapshot_id: str) -> Iterator[str]:
    """Yield the exported manifest piece by piece; its schema is `docs/manifest.schema.json`.

    Raises `Damaged`.
    """
    manifest = repository.manifest(snapshot_id)
    reader = repository.reader()
    head = _head(manifest, reader)
    text = json.dumps(head, ensure_ascii=False, indent=1)
    yield text.removesuffix("\n}") + ',\n "files": {\n  "count": '
    yield (
        f"{manifest.snapshot.file_count},\n  "
        + f'"total_size": {manifest.snapshot.file_bytes},\n  "entries": ['
    )
    separator = "\n   "
    for root in manifest.files:
        for entry in repository.entries(root, reader):
            yield separator + json.dumps(_entry(root.name, entry), ensure_ascii=False)
            separator = ",\n   "
    yield "\n  ]\n }\n}\n"


def saved_settings(reader: ChunkReader, manifest: Manifest) -> dict[str, dict[str, Any]]:
    """Return the saved settings, `values` and `secrets`; raise `Damaged`."""
    if manifest.settings is None:
        return {"values": {}, "secrets": {}}
    value = load_strict(reader.read(ChunkKind.DATA, manifest.settings.content))
    return {"values": dict(value["values"]), "secrets": dict(value["secrets"])}


def _head(manifest: Manifest, reader: ChunkReader) -> dict[str, Any]:
    snapshot = manifest.snapshot
    databases = [_database(entry) for entry in manifest.databases]
    return {
        "version": VERSION,
        "id": snapshot.id,
        "created_at": format_time(snapshot.created_at),
        "parent_id": snapshot.parent or None,
        "kind": snapshot.kind,
        "label": snapshot.label,
        "outcome": snapshot.outcome,
        "system_info": dict(manifest.system),
        "database": databases[0] if databases else None,
        "databases": databases,
        "sources": [
            {
                "name": root.name,
                "path": root.path,
                "files": root.file_count,
                "bytes": root.size,
                "excluded": list(root.excluded),
            }
            for root in manifest.files
        ],
        "settings": saved_settings(reader, manifest)["values"],
        "sealed_settings": [] if manifest.settings is None else list(manifest.settings.secret_names),
        "totals": {
            "files": snapshot.file_count,
            "file_bytes": snapshot.file_bytes,
            "databases": snapshot.database_count,
            "database_bytes": snapshot.database_bytes,
            "new_bytes": snapshot.new_bytes,
        },
        "warnings": list(manifest.warnings),
        "notices": list(manifest.notices),
    }


def _database(entry: DatabaseEntry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "dump_file": f"databases/{entry.name}.sqlite",
        "checksum": f"sha256:{entry.content.sha256}",
        "size": entry.content.size,
        "format": entry.format,
        "engine": entry.engine,
        "engine_version": entry.engine_version,
        "client_version": entry.engine_version,
        "tables": {
            table.name: {"rows": table.rows, "checksum": table.checksum, "bytes": table.size}
            for table in entry.tables
        },
    }


def _entry(source: str, entry: FileEntry) -> dict[str, Any]:
    row: dict[str, Any] = {
        "source": source,
        "path": path_to_json(entry.path),
        "kind": entry.kind,
        "size": entry.size,
        "modified": _time(entry.mtime_ns),
        "mode": f"{entry.mode:04o}",
    }
    if entry.content is not None:
        row["checksum"] = f"sha256:{entry.content.sha256}"
    if entry.kind == "symlink":
        row["link"] = path_to_json(entry.link_target)
    if entry.link_group:
        row["link_group"] = entry.link_group
    return row


def _time(moment_ns: int) -> str:
    """Write a file's time; one that no calendar holds as the nearest that it does."""
    seconds, nanoseconds = divmod(min(max(moment_ns, _FIRST_NS), _LAST_NS), 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
    return f"{moment}.{nanoseconds:09d}Z"
