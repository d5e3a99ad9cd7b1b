"""The manifest for people and programs: JSON, without any secret, written as a stream."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self

from backup_admin.core.canonical import load_strict
from backup_admin.core.clock import format_time
from backup_admin.core.errors import Damaged
from backup_admin.core.paths import path_to_json
from backup_admin.repository.types import ChunkKind, DatabaseEntry, FileEntry, Manifest, SettingsEntry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from backup_admin.repository.reader import ChunkReader
    from backup_admin.repository.repository import Repository

VERSION = "1.0.0"
FIRST_SEPARATOR = "\n   "
SEPARATOR = ",\n   "
EXPORT_END = "\n  ]\n }\n}\n"
_DAY = 86_400
_EPOCH = date(1970, 1, 1).toordinal()
_FIRST_NS = -62_135_596_800 * 10**9  # the year 1
_encode = json.JSONEncoder(ensure_ascii=False).encode
_text = json.encoder.encode_basestring
_LAST_NS = 253_402_300_800 * 10**9 - 1  # the year 9999


@dataclass(frozen=True, slots=True)
class Exported:
    """Which parts of a snapshot an exported manifest names; files are named one by one."""

    manifest: Manifest
    databases: tuple[DatabaseEntry, ...]
    settings: SettingsEntry | None
    file_count: int
    file_bytes: int

    @classmethod
    def whole(cls, manifest: Manifest) -> Exported:
        """Name everything that is in the snapshot."""
        snapshot = manifest.snapshot
        return cls(manifest, manifest.databases, manifest.settings, snapshot.file_count, snapshot.file_bytes)


def export_manifest(repository: Repository, snapshot_id: str) -> Iterator[str]:
    """Yield the exported manifest piece by piece; its schema is `docs/manifest.schema.json`.

    Raises `Damaged`.
    """
    manifest = repository.manifest(snapshot_id)
    reader = repository.reader()
    yield export_head(Exported.whole(manifest), reader)
    separator = FIRST_SEPARATOR
    for root in manifest.files:
        for entry in repository.entries(root, reader):
            yield separator + export_entry(root.name, entry)
            separator = SEPARATOR
    yield EXPORT_END


def export_head(exported: Exported, reader: ChunkReader) -> str:
    """Return the beginning of an exported manifest, up to the entries; raise `Damaged`."""
    text = json.dumps(_head(exported, reader), ensure_ascii=False, indent=1)
    return (
        text.removesuffix("\n}")
        + f',\n "files": {{\n  "count": {exported.file_count},\n  '
        + f'"total_size": {exported.file_bytes},\n  "entries": ['
    )


def export_entry(source: str, entry: FileEntry) -> str:
    """Return one entry of a folder tree; it stands behind a separator."""
    row = (
        f'{{"source": {_text(source)}, "path": {_path(entry.path)}, "kind": "{entry.kind}", '
        f'"size": {entry.size}, "modified": "{_time(entry.mtime_ns)}", "mode": "{entry.mode:04o}"'
    )
    if entry.content is not None:
        row += f', "checksum": {_text("sha256:" + entry.content.sha256)}'
    if entry.kind == "symlink":
        row += f', "link": {_path(entry.link_target)}'
    if entry.link_group:
        row += f', "link_group": {_text(entry.link_group)}'
    return row + "}"


class ManifestFile:
    """A file (mode 0600) with an exported manifest, written while the entries pass by."""

    def __init__(self, path: Path, head: str) -> None:
        self._file = path.open("w", encoding="utf-8")
        path.chmod(0o600)
        self._file.write(head)
        self._separator = FIRST_SEPARATOR

    def note(self, source: str, entries: Iterable[FileEntry]) -> Iterator[FileEntry]:
        """Hand entries of a folder tree on, each after it was written down."""
        for entry in entries:
            self._file.write(self._separator + export_entry(source, entry))
            self._separator = SEPARATOR
            yield entry

    def __enter__(self) -> Self:
        return self

    def __exit__(self, raised: type[BaseException] | None, *_details: object) -> None:
        """Close the file; it is whole and durable when nothing was raised."""
        with self._file:
            if raised is None:
                self._file.write(EXPORT_END)
                self._file.flush()
                os.fsync(self._file.fileno())


def saved_settings(reader: ChunkReader, settings: SettingsEntry | None) -> dict[str, dict[str, Any]]:
    """Return the saved settings, `values` and `secrets`; raise `Damaged`."""
    if settings is None:
        return {"values": {}, "secrets": {}}
    try:
        value = load_strict(reader.read(ChunkKind.DATA, settings.content))
        return {"values": dict(value["values"]), "secrets": dict(value["secrets"])}
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"The saved settings cannot be read: {error}.") from error


def _head(exported: Exported, reader: ChunkReader) -> dict[str, Any]:
    manifest, settings = exported.manifest, exported.settings
    snapshot = manifest.snapshot
    databases = [_database(entry) for entry in exported.databases]
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
        "settings": saved_settings(reader, settings)["values"],
        "sealed_settings": [] if settings is None else list(settings.secret_names),
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


_ENDS = {"tables": "/contents.json", "cluster": "/backup_manifest"}


def _database(entry: DatabaseEntry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "dump_file": f"databases/{entry.name}{_ENDS.get(entry.format, '.sqlite')}",
        "checksum": f"sha256:{entry.content.sha256}",
        "size": entry.size,
        "format": entry.format,
        "engine": entry.engine,
        "engine_version": entry.engine_version,
        "client_version": str(entry.details.get("client_version", entry.engine_version)),
        "tables": {
            table.name: {"rows": table.rows, "checksum": table.checksum, "bytes": table.size}
            for table in entry.tables
        },
    }


def _path(path: bytes) -> str:
    return _text(shown) if isinstance(shown := path_to_json(path), str) else _encode(shown)


def _time(moment_ns: int) -> str:
    """Write a file's time; one that no calendar holds as the nearest that it does."""
    if not _FIRST_NS <= moment_ns <= _LAST_NS:
        moment_ns = _FIRST_NS if moment_ns < _FIRST_NS else _LAST_NS
    seconds, nanoseconds = divmod(moment_ns, 1_000_000_000)
    days, seconds = divmod(seconds, _DAY)
    return f"{_date(days)}T{_clock(seconds // 60)}:{seconds % 60:02d}.{nanoseconds:09d}Z"


@lru_cache(maxsize=2048)
def _date(days: int) -> str:
    return date.fromordinal(_EPOCH + days).isoformat()


@lru_cache(maxsize=1440)
def _clock(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"
