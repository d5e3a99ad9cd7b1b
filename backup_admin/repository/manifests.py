"""Manifests: what one snapshot holds, written so that nobody needs it whole.

The manifest object has two frames: a small header, enough for a list of backups,
and the body. A block (the body) is `method u8 || plain size u32be || bytes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import zstandard

from backup_admin.core.canonical import dump_canonical, load_strict
from backup_admin.core.clock import format_time, parse_time
from backup_admin.core.errors import Damaged, NewerVersion
from backup_admin.core.ids import SnapshotId
from backup_admin.repository.entries import (
    content_from_json,
    content_to_json,
    ref_from_json,
    ref_to_json,
)
from backup_admin.repository.keys import sha256
from backup_admin.repository.objects import (
    HEADER_BYTES,
    LENGTH_BYTES,
    ObjectCipher,
    ObjectType,
    check_header,
)
from backup_admin.repository.packs import Method
from backup_admin.repository.types import (
    DatabaseEntry,
    FilesRoot,
    Manifest,
    SettingsEntry,
    Snapshot,
    TableEntry,
)

if TYPE_CHECKING:
    from backup_admin.repository.keys import RepositoryKeys
    from backup_admin.storage.base import Storage

PREFIX = "manifests/"
_VERSION = 1
_HEADER_READ = 16 << 10
_BLOCK_HEAD = 5
_MAX_BODY = 64 << 20
_FOREIGN = (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError)


def manifest_name(snapshot_id: str) -> str:
    """Return the storage name of a manifest."""
    return PREFIX + snapshot_id


def manifest_frames(manifest: Manifest) -> list[bytes]:
    """Return header frame and body frame of a manifest."""
    body = _encode_block(dump_canonical(_body_to_json(manifest)))
    snapshot = manifest.snapshot
    header = {
        "v": _VERSION,
        "id": snapshot.id,
        "created_at": format_time(snapshot.created_at),
        "kind": snapshot.kind,
        "label": snapshot.label,
        "outcome": snapshot.outcome,
        "parent": snapshot.parent,
        "files": [snapshot.file_count, snapshot.file_bytes],
        "databases": [snapshot.database_count, snapshot.database_bytes],
        "new_bytes": snapshot.new_bytes,
        "warnings": snapshot.warning_count,
        "body": sha256(body).hex(),
    }
    return [dump_canonical(header), body]


def read_header(storage: Storage, keys: RepositoryKeys, name: str) -> Snapshot:
    """Return the snapshot of a manifest object, by reading only its first frame.

    Raises `Damaged` or `ObjectMissing`.
    """
    data = storage.get(name, 0, _HEADER_READ)
    end = HEADER_BYTES + LENGTH_BYTES
    size = int.from_bytes(data[HEADER_BYTES:end], "big")
    if len(data) == _HEADER_READ < end + size:
        data = storage.get(name, 0, end + size)
    check_header(data[:HEADER_BYTES], ObjectType.MANIFEST)
    cipher = ObjectCipher(keys, data[:HEADER_BYTES], name)
    return parse_header(cipher.open(data[end : end + size], 0, last=False))[0]


def parse_header(frame: bytes) -> tuple[Snapshot, str]:
    """Return the snapshot in a header frame and the digest of the body."""
    try:
        value = load_strict(frame)
        if value["v"] != _VERSION:
            raise NewerVersion("A snapshot was made by a newer version; nothing was written.")
        return _header_from_json(value), str(value["body"])
    except _FOREIGN as error:
        raise Damaged(f"The header of a manifest cannot be read: {error}.") from error


def parse_manifest(frames: list[bytes]) -> Manifest:
    """Read a whole manifest; raise `Damaged` or `NewerVersion`."""
    snapshot, digest = parse_header(frames[0])
    if len(frames) != 2 or sha256(frames[1]).hex() != digest:
        raise Damaged(f"The manifest of snapshot {snapshot.id} does not fit its header.")
    try:
        return _body_from_json(snapshot, load_strict(_decode_block(frames[1])))
    except _FOREIGN as error:
        raise Damaged(f"The manifest of snapshot {snapshot.id} cannot be read: {error}.") from error


def _header_from_json(value: dict[str, Any]) -> Snapshot:
    return Snapshot(
        id=SnapshotId(str(value["id"])),
        created_at=parse_time(value["created_at"]),
        kind=str(value["kind"]),
        label=str(value["label"]),
        outcome=str(value["outcome"]),
        parent=str(value["parent"]),
        file_count=int(value["files"][0]),
        file_bytes=int(value["files"][1]),
        database_count=int(value["databases"][0]),
        database_bytes=int(value["databases"][1]),
        new_bytes=int(value["new_bytes"]),
        warning_count=int(value["warnings"]),
    )


def _body_to_json(manifest: Manifest) -> dict[str, Any]:
    settings = manifest.settings
    return {
        "system": dict(manifest.system),
        "databases": [_database_to_json(entry) for entry in manifest.databases],
        "files": [_root_to_json(root) for root in manifest.files],
        "settings": None
        if settings is None
        else {
            "content": ref_to_json(settings.content),
            "names": list(settings.names),
            "secret_names": list(settings.secret_names),
        },
        "warnings": list(manifest.warnings),
        "notices": list(manifest.notices),
    }


def _body_from_json(snapshot: Snapshot, value: dict[str, Any]) -> Manifest:
    settings = value["settings"]
    return Manifest(
        snapshot=snapshot,
        system=dict(value["system"]),
        databases=tuple(_database_from_json(entry) for entry in value["databases"]),
        files=tuple(_root_from_json(root) for root in value["files"]),
        settings=None
        if settings is None
        else SettingsEntry(
            ref_from_json(settings["content"]),
            tuple(map(str, settings["names"])),
            tuple(map(str, settings["secret_names"])),
        ),
        warnings=tuple(map(str, value["warnings"])),
        notices=tuple(map(str, value["notices"])),
    )


def _database_to_json(entry: DatabaseEntry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "engine": entry.engine,
        "format": entry.format,
        "engine_version": entry.engine_version,
        "path": entry.path,
        "page_size": entry.page_size,
        "size": entry.content.size,
        "sha256": entry.content.sha256,
        "content": content_to_json(entry.content),
        "tables": [[table.name, table.rows, table.size, table.checksum] for table in entry.tables],
        "details": dict(entry.details),
    } | ({} if entry.tree is None else {"tree": _root_to_json(entry.tree)})


def _database_from_json(value: dict[str, Any]) -> DatabaseEntry:
    return DatabaseEntry(
        name=str(value["name"]),
        engine=str(value["engine"]),
        format=str(value["format"]),
        engine_version=str(value["engine_version"]),
        path=str(value["path"]),
        page_size=int(value["page_size"]),
        content=content_from_json(int(value["size"]), str(value["sha256"]), value["content"]),
        tables=tuple(
            TableEntry(str(name), int(rows), int(size), str(checksum))
            for name, rows, size, checksum in value["tables"]
        ),
        details=dict(value["details"]),
        tree=_root_from_json(value["tree"]) if "tree" in value else None,
    )


def _root_to_json(root: FilesRoot) -> dict[str, Any]:
    return {
        "name": root.name,
        "path": root.path,
        "mode": root.mode,
        "mtime_ns": root.mtime_ns,
        "scan_started_ns": root.scan_started_ns,
        "entry_count": root.entry_count,
        "file_count": root.file_count,
        "size": root.size,
        "shard_lists": [ref_to_json(ref) for ref in root.shard_lists],
        "excluded": list(root.excluded),
    }


def _root_from_json(value: dict[str, Any]) -> FilesRoot:
    return FilesRoot(
        name=str(value["name"]),
        path=str(value["path"]),
        mode=int(value["mode"]),
        mtime_ns=int(value["mtime_ns"]),
        scan_started_ns=int(value["scan_started_ns"]),
        entry_count=int(value["entry_count"]),
        file_count=int(value["file_count"]),
        size=int(value["size"]),
        shard_lists=tuple(ref_from_json(ref) for ref in value["shard_lists"]),
        excluded=tuple(map(str, value["excluded"])),
    )


def _encode_block(data: bytes) -> bytes:
    packed = zstandard.ZstdCompressor(level=3).compress(data)
    return bytes([Method.ZSTD]) + len(data).to_bytes(4, "big") + packed


def _decode_block(block: bytes) -> bytes:
    size = int.from_bytes(block[1:_BLOCK_HEAD], "big")
    if block[0] != Method.ZSTD or size > _MAX_BODY:
        raise ValueError("a body of an unknown kind or size")
    try:
        if zstandard.frame_content_size(block[_BLOCK_HEAD:]) != size:
            raise ValueError("a body whose size does not fit")
        return zstandard.ZstdDecompressor().decompress(block[_BLOCK_HEAD:], max_output_size=size)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error
