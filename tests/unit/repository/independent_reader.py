"""A second reader of repositories, written from docs/format.md alone.

Imports nothing of the product, so that what the page leaves out or gets wrong
shows. Slow and simple: everything is read whole.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import blake3
import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PACK, INDEX, MANIFEST, CHAIN, EPOCH, WAL = 1, 2, 3, 4, 7, 8
DATA, PART, MAP, PAGES = 1, 2, 3, 4
LABEL = b"backup_admin/v1/"


class Refused(Exception):
    """The repository is not what the page says."""


@dataclass(frozen=True)
class Place:
    """Where a chunk lies."""

    pack: bytes
    header: bytes
    frame_offset: int
    frame_length: int
    frame_number: int
    method: int
    offset: int
    length: int


@dataclass(frozen=True)
class Entry:
    """One entry of a folder tree."""

    path: bytes
    kind: str
    size: int
    mode: int
    mtime_ns: int
    data: bytes
    target: bytes
    group: str


def number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def need(claim: bool, message: str) -> None:
    if not claim:
        raise Refused(message)


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def expand(key: bytes, info: bytes) -> bytes:
    return HKDFExpand(SHA256(), 32, info).derive(key)


def read_recovery_key(text: str) -> bytes:
    """Section 2, text forms."""
    clean = "".join(text.split()).replace("-", "").upper().translate(str.maketrans("018", "OIB"))
    return decode_key(clean, b"recovery")


def read_application_key(text: str) -> bytes:
    """Section 2, text forms."""
    need(text.startswith("bkm1_"), "no application key")
    return decode_key(text[5:].upper(), b"bkm1_")


def decode_key(text: str, purpose: bytes) -> bytes:
    need(len(text) == 56, "a key of another length")
    raw = base64.b32decode(text[:52] + "====")
    check = base64.b32encode(hashlib.sha256(LABEL + b"check/" + purpose + raw).digest())[:4].decode()
    need(base64.b32encode(raw).decode().rstrip("=") + check == text, "a mistyped key")
    return raw


class Reader:
    """A repository in a folder, opened by one secret."""

    def __init__(self, folder: Path, kind: str, secret: bytes) -> None:
        self.folder = folder
        raw = self.get("config")
        value = json.loads(raw)
        config = value["config"]
        need(config["format"] == 1 and set(config["features"]) <= {"single-writer"}, "a newer version")
        self.repo_id = bytes.fromhex(config["repo_id"])
        self.prk: dict[int, bytes] = {}
        keyrings = self.open_slots(kind, secret)
        for keyring in keyrings:
            need(keyring["v"] in (1, 2), "a newer version")
            for kid, key in keyring["epochs"].items():
                self.take_epoch(int(kid), key)
        self.chunk_key, config_key = self.identity(keyrings)
        mac = hmac.digest(config_key, canonical(config), "sha256")
        need(canonical(value) == raw and mac.hex() == value["mac"], "the configuration was altered")
        self.manifests: dict[str, tuple[str, str]] = {}
        self.indexes: dict[str, None] = {}
        self.collected: set[str] = set()
        self.read_chain()
        self.places: dict[bytes, list[Place]] = {}
        for name in self.indexes:
            self.read_index(name)

    def get(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def identity(self, keyrings: list[dict[str, Any]]) -> tuple[bytes, bytes]:
        """Sections 2 and 3: the keys of chunk ids and of the configuration."""
        for keyring in keyrings:
            if "identity" in keyring:
                named = keyring["identity"]
                return bytes.fromhex(named["chunk_id"]), bytes.fromhex(named["config"])
        root = self.prk[keyrings[0]["id_kid"]]
        return expand(root, LABEL + b"chunk-id"), expand(root, LABEL + b"config")

    def take_epoch(self, kid: int, key: str) -> None:
        """Section 3."""
        self.prk[kid] = hmac.digest(
            LABEL + b"repo" + self.repo_id, bytes.fromhex(key) + kid.to_bytes(2, "big"), "sha256"
        )

    def find_epoch(self, kid: int) -> None:
        """Section 3, epoch objects."""
        name = f"epochs/{kid:05d}"
        need((self.folder / name).exists(), "a key that is not at hand")
        data = self.get(name)
        need(number(data[8:10]) < kid, "an epoch object under a later key")
        (frame,) = self.open_object(data, EPOCH, name)
        value = json.loads(frame)
        need(value["v"] == 1 and value["kid"] == kid and value["key"], "an epoch object without a key")
        self.take_epoch(kid, value["key"])

    def open_slots(self, kind: str, secret: bytes) -> list[dict[str, Any]]:
        """Section 2."""
        keyrings = []
        for path in sorted((self.folder / "keys").iterdir()):
            data = path.read_bytes()
            need(data[:4] == b"BKS1", "no slot")
            end = 6 + number(data[4:6])
            header, commit, wrap = data[6:end], data[end : end + 32], data[end + 32 :]
            value = json.loads(header)
            if value["v"] != 1 or value["type"] != kind:
                continue
            salt, kdf = bytes.fromhex(value["salt"]), value["kdf"]
            if kdf["name"] == "hkdf":
                root = hmac.digest(salt, secret, "sha256")
            else:
                root = Scrypt(salt=salt, length=32, n=1 << kdf["log2n"], r=kdf["r"], p=kdf["p"]).derive(
                    secret
                )
            if hmac.compare_digest(expand(root, LABEL + b"slot-commit" + self.repo_id + header), commit):
                key = expand(root, LABEL + b"slot-kek" + self.repo_id + header)
                keyrings.append(json.loads(AESGCM(key).decrypt(bytes(12), wrap, commit + header)))
        need(bool(keyrings), "no slot opens")
        return keyrings

    def cipher(self, header: bytes, kind: int) -> AESGCM:
        """Section 5."""
        need(len(header) == 44 and header[:4] == b"BKA1", "no object")
        need(header[4] == 1 and header[6:8] == b"\1\0" and header[10:12] == b"\0\0", "a newer version")
        need(header[5] == kind, "an object of another type")
        kid = number(header[8:10])
        if kid not in self.prk:
            self.find_epoch(kid)
        return AESGCM(expand(self.prk[kid], LABEL + b"obj" + self.repo_id + header))

    def open_frame(
        self, header: bytes, kind: int, name: str, sealed: bytes, count: int, *, last: bool
    ) -> bytes:
        nonce = bytes(4) + count.to_bytes(7, "big") + (b"\1" if last else b"\0")
        aad = header + self.repo_id + hashlib.sha256(name.encode()).digest()
        return self.cipher(header, kind).decrypt(nonce, sealed, aad)

    def open_object(self, data: bytes, kind: int, name: str) -> list[bytes]:
        header, at, sealed = data[:44], 44, []
        while at < len(data):
            size = number(data[at : at + 4])
            need(16 <= size <= (64 << 20) + 16 and at + 4 + size <= len(data), "an impossible frame")
            sealed.append(data[at + 4 : at + 4 + size])
            at += 4 + size
        need(bool(sealed), "an object without frames")
        return [
            self.open_frame(header, kind, name, part, count, last=count == len(sealed) - 1)
            for count, part in enumerate(sealed)
        ]

    def read_chain(self) -> None:
        """Section 9: from the newest checkpoint on."""
        last = 0
        while (self.folder / f"chain/{last + 1:020d}").exists():
            last += 1
        before, first = bytes(32).hex(), 1
        if last:
            entry, blocks = self.entry_of_chain(last)
            if base := last if blocks else entry["base"]:
                before = self.take_checkpoint(base)
                first = base + 1
        for count in range(first, last + 1):
            entry, blocks = self.entry_of_chain(count)
            need(entry["seq"] == count and entry["prev"] == before, "a chain that does not link")
            self.follow(entry["op"], entry["payload"])
            before = hashlib.sha256(self.get(f"chain/{count:020d}")).hexdigest()

    def entry_of_chain(self, count: int) -> tuple[dict[str, Any], list[bytes]]:
        name = f"chain/{count:020d}"
        frame, *blocks = self.open_object(self.get(name), CHAIN, name)
        return json.loads(frame), blocks

    def take_checkpoint(self, count: int) -> str:
        _, (block,) = self.entry_of_chain(count)
        need(block[0] == 1, "a checkpoint of another kind")
        plain = zstandard.ZstdDecompressor().decompress(block[5:], max_output_size=number(block[1:5]))
        state = json.loads(plain)
        for snapshot, digest in zip(state["ids"], state["digests"], strict=True):
            self.manifests[snapshot] = (state["names"].get(snapshot, f"manifests/{snapshot}"), digest)
        self.indexes = dict.fromkeys(state["indexes"])
        self.collected = set(state["collected"])
        return hashlib.sha256(self.get(f"chain/{count:020d}")).hexdigest()

    def follow(self, operation: str, payload: dict[str, Any]) -> None:
        if operation == "snapshot":
            self.manifests[payload["id"]] = (f"manifests/{payload['id']}", payload["manifest"])
            self.indexes.update(dict.fromkeys(payload["indexes"]))
        elif operation == "forget":
            for snapshot in payload["ids"]:
                self.manifests.pop(snapshot, None)
        elif operation in ("gc-delete", "rekey"):
            self.manifests.update(
                {
                    snapshot: (name, digest)
                    for snapshot, (name, digest) in payload.get("manifests", {}).items()
                }
            )
            self.collected.update(payload["packs"])
            for name in payload.get("objects", []):
                self.indexes.pop(name, None)
            self.indexes.update(dict.fromkeys(payload.get("indexes", [])))
        elif operation == "gc-end":
            self.collected.difference_update(payload["packs"])

    def read_index(self, name: str) -> None:
        """Section 8."""
        data = self.get(name)
        need("index/" + blake3.blake3(data).hexdigest() == name, "an index under another name")
        table, *parts = self.open_object(data, INDEX, "index")
        records = b"".join(parts)
        need(len(table) == 4 + 80 * number(table[:4]) and len(records) % 52 == 0, "an impossible index")
        packs = [table[at : at + 80] for at in range(4, len(table), 80)]
        ids = []
        for at in range(0, len(records), 52):
            row = records[at : at + 52]
            pack = packs[number(row[32:36])]
            ids.append(row[:32])
            if pack[:32].hex() in self.collected:
                continue
            place = Place(
                pack=pack[:32],
                header=pack[32:76],
                frame_offset=number(row[36:40]),
                method=row[40],
                frame_length=number(row[41:44]),
                frame_number=number(row[44:46]),
                offset=number(row[46:49]),
                length=number(row[49:52]),
            )
            self.places.setdefault(row[:32], []).append(place)
        need(ids == sorted(ids), "an index out of order")

    def wal(self, system: str, file: str) -> bytes:
        """Section 16."""
        name = f"wal/{system}/{file.lower()}"
        head, *pieces = self.open_object(self.get(name), WAL, name)
        value = json.loads(head)
        need(value["v"] == 1, "a newer version")
        need((value["system"], value["file"]) == (system, file), "a file of another name")
        plain = b""
        for piece in pieces:
            need(piece[0] in (0, 1), "a newer version")
            part = piece[1:]
            if piece[0] == 1:
                part = zstandard.ZstdDecompressor().decompress(part, max_output_size=4 << 20)
            plain += part
        need(len(plain) == value["size"], "a file of another size")
        need(hashlib.sha256(plain).hexdigest() == value["sha256"], "other bytes")
        return plain

    def chunk(self, kind: int, chunk_id: bytes, size: int) -> bytes:
        """Sections 6 to 8."""
        for place in self.places[chunk_id]:
            path = self.folder / f"packs/{place.pack.hex()[:2]}/{place.pack.hex()}"
            if not path.exists():
                continue
            sealed = path.read_bytes()[place.frame_offset : place.frame_offset + place.frame_length]
            plain = self.open_frame(place.header, PACK, "pack", sealed, place.frame_number, last=False)
            if place.method == 1:
                plain = zstandard.ZstdDecompressor().decompress(plain, max_output_size=4 << 20)
            data = plain[place.offset : place.offset + place.length]
            found = blake3.blake3(bytes([kind]) + data, key=self.chunk_key).digest()
            need(found == chunk_id and len(data) == size, "a chunk that is not what its name says")
            return data
        raise Refused("a chunk whose packs are all gone")

    def referred(self, kind: int, reference: list[Any]) -> bytes:
        return self.chunk(kind, bytes.fromhex(reference[0]), reference[1])

    def binary_references(self, data: bytes) -> Iterator[tuple[bytes, int]]:
        for at in range(0, len(data), 36):
            yield data[at : at + 32], number(data[at + 32 : at + 36])

    def manifest(self, snapshot: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Section 10: header and body."""
        name, digest = self.manifests[snapshot]
        data = self.get(name)
        need(hashlib.sha256(data).hexdigest() == digest, "a manifest nobody committed")
        head, block = self.open_object(data, MANIFEST, name)
        header = json.loads(head)
        need(header["v"] == 1 and header["id"] == snapshot, "a manifest of another snapshot")
        need(hashlib.sha256(block).hexdigest() == header["body"] and block[0] == 1, "another body")
        size = number(block[1:5])
        body = zstandard.ZstdDecompressor().decompress(block[5:], max_output_size=size)
        need(len(body) == size, "a body of another size")
        return header, json.loads(body)

    def entries(self, root: dict[str, Any]) -> Iterator[Entry]:
        """Section 10: the entries of a folder tree."""
        before = b""
        for reference in root["shard_lists"]:
            for line in self.referred(PART, reference).split(b"\n")[:-1]:
                shard_id, size, count, first = json.loads(line)
                rows = self.referred(PART, [shard_id, size]).split(b"\n")[:-1]
                need(len(rows) == count and json.loads(rows[0])[0] == first, "another shard")
                for row in rows:
                    entry = self.entry(json.loads(row))
                    key = entry.path.replace(b"/", b"\0")
                    need(key > before, "entries out of order")
                    before = key
                    yield entry

    def entry(self, row: list[Any]) -> Entry:
        path, kind, size, mode, mtime_ns, _ctime_ns, _inode, *rest = row
        data = target = b""
        group = ""
        if kind == "f":
            data = self.content(rest[1], size, rest[0])
            group = rest[2] if len(rest) > 2 else ""
        elif kind == "l":
            target = self.raw_path(rest[0])
            group = rest[1] if len(rest) > 1 else ""
        raw = self.raw_path(path)
        need(all(part not in (b"", b".", b"..") for part in raw.split(b"/")), "a path that leaves its folder")
        return Entry(raw, kind, size, mode, mtime_ns, data, target, group)

    def raw_path(self, value: Any) -> bytes:
        return value.encode() if isinstance(value, str) else base64.b64decode(value["b64"])

    def content(self, value: Any, size: int, digest: str) -> bytes:
        """Section 11."""
        if isinstance(value, list):
            data = b"".join(self.referred(DATA, reference) for reference in value)
        elif "lists" in value:
            lists = b"".join(self.referred(PART, reference) for reference in value["lists"])
            data = b"".join(self.chunk(DATA, *reference) for reference in self.binary_references(lists))
        else:
            data = self.pages(self.referred(MAP, value["pages"]))
        need(len(data) == size and hashlib.sha256(data).hexdigest() == digest, "content of another digest")
        return data

    def pages(self, root: bytes) -> bytes:
        """Section 11, page maps."""
        page_size, size, count = number(root[:4]), number(root[4:12]), number(root[12:16])
        references = list(self.binary_references(root[16:]))
        need(len(references) == count, "a page map of another length")
        data = bytearray()
        for reference in references:
            shard = self.chunk(MAP, *reference)
            pages, extents = number(shard[:4]), number(shard[4:8])
            start = 8 + 16 * pages
            need(len(shard) == start + 48 * extents, "a shard of another length")
            at_page = 0
            for at in range(start, len(shard), 48):
                row = shard[at : at + 48]
                need(number(row[:4]) == at_page, "a gap in a page map")
                at_page += number(row[4:8])
                chunk = self.chunk(PAGES, row[8:40], number(row[40:44]))
                offset = number(row[44:48])
                length = min(number(row[4:8]) * page_size, size - len(data))
                data += chunk[offset : offset + length]
            need(at_page == pages, "a gap in a page map")
        return bytes(data)

    def settings(self, body: dict[str, Any]) -> dict[str, Any]:
        """Section 10, settings."""
        value: dict[str, Any] = json.loads(self.referred(DATA, body["settings"]["content"]))
        return value

    def rebuild_index(self) -> dict[bytes, bytes]:
        """Section 7: every chunk that is in a pack, from the packs alone."""
        found = {}
        for path in sorted((self.folder / "packs").rglob("*")):
            if not path.is_file():
                continue
            data = path.read_bytes()
            need(blake3.blake3(data).hexdigest() == path.name, "a pack under another name")
            *segments, table = self.open_object(data, PACK, "pack")
            rows, at = table[4 : 4 + number(table[:4])], 0
            need(not any(table[4 + len(rows) :]), "a padding that is not zero")
            for segment in segments:
                method, size, chunks = rows[at], number(rows[at + 1 : at + 5]), number(rows[at + 5 : at + 9])
                at += 9
                plain = zstandard.ZstdDecompressor().decompress(segment) if method == 1 else segment
                need(len(plain) == size, "a segment of another size")
                for _ in range(chunks):
                    row = rows[at : at + 41]
                    part = plain[number(row[33:37]) :][: number(row[37:41])]
                    identity = blake3.blake3(row[:1] + part, key=self.chunk_key).digest()
                    need(identity == row[1:33], "a chunk that is not what its name says")
                    found[row[1:33]] = part
                    at += 41
            need(at == len(rows), "a table of contents that does not fit")
        return found
