"""Every parser of stored bytes, each behind one function that takes bytes and may only raise our errors.

What is sealed in the repository is sealed again here with valid keys, so that the parser
behind the seal is reached.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import zstandard
from blake3 import blake3

from backup_admin.core.canonical import dump_canonical, load_strict
from backup_admin.core.errors import Damaged
from backup_admin.operations.captured import iterate_bytes
from backup_admin.operations.export import saved_settings
from backup_admin.repository import config as configuration
from backup_admin.repository import manifests, slots
from backup_admin.repository.chain import Chain, entry_name
from backup_admin.repository.checkpoints import decode_state, encode_state
from backup_admin.repository.config import Config, Parameters
from backup_admin.repository.entries import encode_entry, iterate_entries
from backup_admin.repository.history import ChainState, ManifestRef, Pin
from backup_admin.repository.index import Index, PackInfo, encode_record, encode_table
from backup_admin.repository.keys import parse_keyring, sha256
from backup_admin.repository.marking import Marker
from backup_admin.repository.objects import ObjectType, open_object, seal_object
from backup_admin.repository.packs import ChunkSpan, PackBuilder, check_segment, open_segment, read_pack
from backup_admin.repository.packs import decode_segment as open_zstd
from backup_admin.repository.page_extents import Extent
from backup_admin.repository.pages import Shard, encode_shard
from backup_admin.repository.pending import PendingPacks
from backup_admin.repository.seen import read_seen
from backup_admin.repository.types import (
    ChunkKind,
    ChunkRef,
    Content,
    DatabaseEntry,
    FileEntry,
    FilesRoot,
    Manifest,
    SettingsEntry,
    Snapshot,
    TableEntry,
)
from backup_admin.storage.memory import MemoryStorage
from tests.factories import SECRET, make_keys, prose

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from backup_admin.core.ids import SnapshotId
    from backup_admin.repository.reader import ChunkReader

KEYS = make_keys()
NAME = "manifests/01k0000000000000000000000a"
NOW = datetime(2026, 1, 2, tzinfo=UTC)
SEGMENT = prose(600)
IDS = [bytes([number]) * 32 for number in range(1, 9)]
DIGEST = "ab" * 32


@dataclass(frozen=True)
class Parser:
    """A parser with bytes that it accepts."""

    name: str
    parse: Callable[[bytes], object]
    valid: bytes
    lines: bool = False  # one JSON value in each line

    @property
    def holds_json(self) -> bool:
        return self.valid[:1] in (b"{", b"[")


class Chunks:
    """Stands for a reader of chunks: gives what it was told, whatever the size."""

    def __init__(self, chunks: Mapping[bytes, bytes]) -> None:
        self._chunks = chunks

    def read(self, _kind: ChunkKind, ref: ChunkRef) -> memoryview:
        if ref.id not in self._chunks:
            raise Damaged("a chunk that is not there")
        return memoryview(self._chunks[ref.id])


def reader(**chunks: bytes) -> ChunkReader:
    return cast("ChunkReader", Chunks({bytes([int(name[1:])]) * 32: data for name, data in chunks.items()}))


# --- objects, packs, index ------------------------------------------------------


def open_any_object(data: bytes) -> None:
    open_object(KEYS, ObjectType.MANIFEST, NAME, data)


def make_pack() -> tuple[bytes, bytes]:
    """Return a whole pack and its table of contents in clear."""
    builder = PackBuilder(KEYS, bytearray(1 << 16))
    for part in (SEGMENT, b"a second one"):
        chunk = ChunkSpan(ChunkKind.DATA, KEYS.chunk_id(ChunkKind.DATA, part), 0, len(part))
        builder.add(part, [chunk], level=1)
    data = bytes(builder.finish(64)[0])
    return data, open_object(KEYS, ObjectType.PACK, "pack", data)[-1]


PACK, TABLE_OF_CONTENTS = make_pack()


def open_pack(data: bytes) -> None:
    view = memoryview(data)
    cipher, segments = read_pack(KEYS, view)
    for segment in segments:
        sealed = view[segment.frame_offset : segment.frame_offset + segment.frame_length]
        check_segment(KEYS, segment, open_segment(cipher, segment, sealed))


def open_table_of_contents(data: bytes) -> None:
    frames = open_object(KEYS, ObjectType.PACK, "pack", PACK)[:-1]
    open_pack(seal_object(KEYS, ObjectType.PACK, "pack", [*frames, data]))


def open_segment_bytes(data: bytes) -> None:
    open_zstd(data, 1)


INDEX_TABLE = encode_table([PackInfo(IDS[0], PACK[:44], len(PACK)), PackInfo(IDS[1], PACK[:44], 99)])
INDEX_RECORDS = b"".join(
    encode_record(chunk, number % 2, (48, 1, 500, number), (0, 300)) for number, chunk in enumerate(IDS)
)


def look_up(table: bytes, records: bytes) -> None:
    data = seal_object(KEYS, ObjectType.INDEX, "index", [table, records])
    storage = MemoryStorage()
    name = f"index/{blake3(data).hexdigest()}"
    storage.put(name, data)
    with tempfile.TemporaryDirectory() as folder:
        index = Index(storage, KEYS, Path(folder))
        index.load([name], [])
        for chunk in IDS:
            index.has(chunk)
            list(index.locations(chunk))
        list(index.packs())
        list(index.iterate())


# --- chain, checkpoints, what was seen --------------------------------------------

ENTRY = {
    "actor": "cli",
    "base": 0,
    "op": "snapshot",
    "payload": {"id": NAME[10:], "indexes": ["index/" + DIGEST], "manifest": DIGEST},
    "prev": "00" * 32,
    "seq": 1,
    "time": "2026-01-02T00:00:00.000000Z",
}
EXCHANGE = {
    **ENTRY,
    "op": "gc-delete",
    "payload": {"packs": [DIGEST], "objects": ["index/" + DIGEST], "indexes": ["index/" + "cd" * 32]},
}
REKEY = {
    **ENTRY,
    "op": "rekey",
    "payload": {"manifests": {NAME[10:]: [NAME, DIGEST]}, "packs": [DIGEST], "objects": [], "indexes": []},
}
PIN = {
    **ENTRY,
    "op": "pin",
    "payload": {"pin": "p", "snapshot": NAME[10:], "until": "", "reason": "because"},
}
CONFIG_ENTRY = {
    **ENTRY,
    "op": "config",
    "payload": {"slots": {"ab" * 8: DIGEST}, "write_kid": 1, "retired": [], "objects": []},
}


def read_chain(data: bytes) -> None:
    storage = MemoryStorage()
    name = entry_name(1)
    storage.put(name, seal_object(KEYS, ObjectType.CHAIN, name, [data]))
    chain = Chain(storage, KEYS, None)
    chain.refresh()
    chain.verify()


STATE = ChainState(
    manifests={NAME[10:]: ManifestRef(NAME, DIGEST)},
    indexes={"index/" + DIGEST: None},
    collected={DIGEST},
    pins={"p": Pin(NAME[10:], "", "because", "cli", "2026-01-02T00:00:00.000000Z")},
    slots={"ab" * 8: DIGEST},
    write_kid=1,
)


def read_state(data: bytes) -> None:
    decode_state(b"\x01" + len(data).to_bytes(4, "big") + zstandard.ZstdCompressor().compress(data))


def plain_state() -> bytes:
    return zstandard.ZstdDecompressor().decompress(encode_state(STATE)[5:])


def read_what_was_seen(data: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        read_seen(Path(file.name), KEYS.repo_id)


def read_pending(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "pending").write_bytes(data)
        notes = PendingPacks(Path(folder), 3)
        assert all(len(name) == 32 for name in notes.names())
        notes.since()


# --- slots, keyring, configuration -------------------------------------------------

SLOT_NAME, SLOT = slots.make_slot(SECRET, KEYS.keyring, KEYS.repo_id, label="test", now=NOW)
SLOT_HEADER = SLOT[6 : 6 + int.from_bytes(SLOT[4:6], "big")]
HOSTILE_HEADER = SLOT_HEADER.replace(b'{"name":"hkdf"}', b'{"log2n":17,"name":"scrypt","p":1,"r":8}').replace(
    b'"raw"', b'"passphrase"'
)


def open_slot(data: bytes) -> None:
    storage = MemoryStorage()
    storage.put(SLOT_NAME, data)
    slots.list_slots(storage)
    slots.open_slots(storage, SECRET, KEYS.repo_id)


def list_slot_of_header(header: bytes) -> None:
    """Only list: to open one costs what its parameters say, up to the limit."""
    storage = MemoryStorage()
    storage.put(SLOT_NAME, b"BKS1" + (len(header) & 0xFFFF).to_bytes(2, "big") + header + bytes(80))
    slots.list_slots(storage)


CONFIG = configuration.seal_config(Config(KEYS.repo_id, "2026-01-02T00:00:00.000000Z", Parameters()), KEYS)


def read_config(data: bytes) -> None:
    storage = MemoryStorage()
    storage.put("config", data)
    _, raw = configuration.read_config(storage)
    configuration.check_config(raw, KEYS)


def read_config_body(data: bytes) -> None:
    """Seal what was changed with the right MAC."""
    try:
        body = load_strict(data)
        sealed = dump_canonical({"config": body, "mac": KEYS.config_mac(dump_canonical(body)).hex()})
    except (ValueError, RecursionError):
        return  # nobody can have sealed that
    read_config(sealed)


# --- manifests, folder trees, page maps ----------------------------------------------


def ref(number: int, size: int = 300) -> ChunkRef:
    return ChunkRef(IDS[number - 1], size)


ROOT = FilesRoot("uploads", "/srv", 0o755, 1, 2, 3, 2, 900, (ref(1),), ("*.tmp",))
SNAPSHOT = Snapshot(cast("SnapshotId", NAME[10:]), NOW, "manual", "", "completed", "", 2, 900, 1, 1024, 77, 0)
MANIFEST = Manifest(
    SNAPSHOT,
    {"host": "here"},
    (
        DatabaseEntry(
            "app",
            "sqlite",
            "pages",
            "3",
            "/db",
            512,
            Content(1024, DIGEST, pages=ref(5)),
            (TableEntry("t", 3, 4, DIGEST),),
            {"encoding": "UTF-8"},
        ),
    ),
    (ROOT,),
    SettingsEntry(ref(8), ("A",), ("B",)),
    ("a warning",),
    (),
)
FRAMES = manifests.manifest_frames(MANIFEST)
BODY = zstandard.ZstdDecompressor().decompress(FRAMES[1][5:])


def read_header(data: bytes) -> None:
    manifests.parse_header(data)


def read_block(data: bytes) -> None:
    header = load_strict(FRAMES[0])
    header["body"] = sha256(data).hex()
    manifests.parse_manifest([dump_canonical(header), data])


def read_body(data: bytes) -> None:
    read_block(b"\x01" + len(data).to_bytes(4, "big") + zstandard.ZstdCompressor().compress(data))


ENTRIES = (
    FileEntry(b"a", "folder", 0, 0o755, 1, 2, 3),
    FileEntry(b"a/b", "file", 300, 0o644, 1, 2, 4, Content(300, DIGEST, (ref(4),))),
    FileEntry(b"a/c", "file", 300, 0o644, 1, 2, 5, Content(300, DIGEST, (), (ref(3),)), b"", "group"),
    FileEntry(b"a/d\xff", "symlink", 1, 0o777, 1, 2, 6, None, b"b"),
)
SHARD = b"".join(encode_entry(entry) + b"\n" for entry in ENTRIES)
SHARD_LIST = dump_canonical([IDS[1].hex(), len(SHARD), len(ENTRIES), "a"]) + b"\n"
CHUNK_LIST = IDS[3] + (300).to_bytes(4, "big")


def walk(**chunks: bytes) -> None:
    """Read a tree as a restore, a check and a prune do."""
    found = reader(**({"_1": SHARD_LIST, "_2": SHARD, "_3": CHUNK_LIST, "_4": bytes(300)} | chunks))
    for entry in iterate_entries(found, ROOT):
        numbers = (entry.size, entry.mode, entry.mtime_ns, entry.ctime_ns, entry.inode)
        assert all(type(number) is int for number in numbers), entry
        if entry.content is not None:
            assert isinstance(entry.content.sha256, str), entry
            for _ in iterate_bytes(found, entry.content):
                pass


def mark(**chunks: bytes) -> None:
    found = reader(**({"_1": SHARD_LIST, "_2": SHARD, "_3": CHUNK_LIST} | chunks))
    needed: list[bytes] = []
    Marker(found, needed.extend).mark(MANIFEST_WITHOUT_DATABASE)
    assert all(isinstance(chunk, bytes) for chunk in needed)


MANIFEST_WITHOUT_DATABASE = Manifest(SNAPSHOT, {}, (), (ROOT,), None, (), ())
PAGE_SHARD = encode_shard(
    Shard((b"h" * 16, b"i" * 16), (Extent(0, 1, ref(7, 1024), 512), Extent(1, 1, ref(7, 1024), 0)))
)
PAGE_ROOT = (512).to_bytes(4, "big") + (1024).to_bytes(8, "big") + (1).to_bytes(4, "big")
PAGE_ROOT += IDS[5] + len(PAGE_SHARD).to_bytes(4, "big")


def read_pages(**chunks: bytes) -> None:
    found = reader(**({"_5": PAGE_ROOT, "_6": PAGE_SHARD, "_7": bytes(1024)} | chunks))
    size = 0
    for piece in iterate_bytes(found, Content(1024, DIGEST, pages=ref(5))):
        size += len(piece)
    assert size <= 1 << 40


def read_settings(data: bytes) -> None:
    saved_settings(reader(_8=data), MANIFEST.settings)


def _json(value: Any) -> bytes:
    return dump_canonical(value)


PARSERS = (
    Parser("object", open_any_object, seal_object(KEYS, ObjectType.MANIFEST, NAME, FRAMES)),
    Parser("pack", open_pack, PACK),
    Parser("table of contents", open_table_of_contents, TABLE_OF_CONTENTS),
    Parser("segment", open_segment_bytes, zstandard.ZstdCompressor().compress(SEGMENT)),
    Parser("index table", lambda data: look_up(data, INDEX_RECORDS), INDEX_TABLE),
    Parser("index records", lambda data: look_up(INDEX_TABLE, data), INDEX_RECORDS),
    Parser("chain entry", read_chain, _json(ENTRY)),
    Parser("chain entry of an exchange", read_chain, _json(EXCHANGE)),
    Parser("chain entry of new keys", read_chain, _json(REKEY)),
    Parser("chain entry of a pin", read_chain, _json(PIN)),
    Parser("chain entry of slots", read_chain, _json(CONFIG_ENTRY)),
    Parser("checkpoint", decode_state, encode_state(STATE)),
    Parser("state in a checkpoint", read_state, plain_state()),
    Parser(
        "what was seen",
        read_what_was_seen,
        _json({"repo_id": KEYS.repo_id.hex(), "seq": 3, "digest": DIGEST, "snapshots": [NAME[10:]]}),
    ),
    Parser("notes of packs", read_pending, f"\nafter 3\n\n{DIGEST}\n".encode()),
    Parser("slot", open_slot, SLOT),
    Parser("header of a slot", list_slot_of_header, SLOT_HEADER),
    Parser("header of a passphrase slot", list_slot_of_header, HOSTILE_HEADER),
    Parser("keyring", parse_keyring, KEYS.keyring.to_bytes()),
    Parser("config", read_config, CONFIG),
    Parser("config sealed again", read_config_body, _json(load_strict(CONFIG)["config"])),
    Parser("manifest header", read_header, FRAMES[0]),
    Parser("manifest block", read_block, FRAMES[1]),
    Parser("manifest body", read_body, BODY),
    Parser("shard", lambda data: walk(_2=data), SHARD, lines=True),
    Parser("list of shards", lambda data: walk(_1=data), SHARD_LIST, lines=True),
    Parser("list of chunks", lambda data: walk(_3=data), CHUNK_LIST),
    Parser("shard for the collector", lambda data: mark(_2=data), SHARD, lines=True),
    Parser("root of a page map", lambda data: read_pages(_5=data), PAGE_ROOT),
    Parser("shard of a page map", lambda data: read_pages(_6=data), PAGE_SHARD),
    Parser("settings", read_settings, _json({"values": {"A": 1}, "secrets": {"B": "x"}})),
)
