"""The keyring of a repository and every key that is derived from it.

The keyring holds one random key (RMK) for each epoch; it is never derived from
a password. All other keys follow by HKDF-SHA256 as `docs/format.md` says.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import threading
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from backup_admin.core.canonical import dump_canonical, load_strict
from backup_admin.core.errors import Damaged, NewerVersion, OldKey
from backup_admin.repository.types import ChunkKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

KEY_BYTES = 32
PAGE_HASH_BYTES = 16
MAX_KID = 65_535
_LABEL = b"backup_admin/v1/"
_KEYRING_VERSIONS = (1, 2)
_ALIGNED_FROM = 3 << 10
_ALIGNED_TO = 64 << 10


class _Own(threading.local):
    """What each thread has for itself."""

    def __init__(self) -> None:
        self.joined = memoryview(bytearray(1 + _ALIGNED_TO))


_OWN = _Own()


@dataclass(frozen=True, slots=True, repr=False)
class Identity:
    """The keys behind chunk ids, chunker and configuration; kept when their epoch is dropped."""

    chunk_id: bytes
    cdc: bytes
    config: bytes


@dataclass(frozen=True, slots=True, repr=False)
class Keyring:
    """Random repository keys by epoch.

    `id_kid` names the epoch behind the identity, which is written out once that
    epoch is dropped. `write_kid` is the epoch of new objects until the chain names one.
    """

    epochs: Mapping[int, bytes]
    id_kid: int
    write_kid: int
    identity: Identity | None = None

    def to_bytes(self) -> bytes:
        """Write the keyring as it is wrapped in slots."""
        value: dict[str, object] = {
            "v": 1,
            "epochs": {str(kid): key.hex() for kid, key in self.epochs.items()},
            "id_kid": self.id_kid,
            "write_kid": self.write_kid,
        }
        if self.identity is not None:
            value |= {"v": 2, "identity": {name: key.hex() for name, key in asdict(self.identity).items()}}
        return dump_canonical(value)


def new_keyring() -> Keyring:
    """Make a keyring with one fresh epoch."""
    return Keyring({1: os.urandom(KEY_BYTES)}, id_kid=1, write_kid=1)


def parse_keyring(data: bytes) -> Keyring:
    """Read a keyring; raise `NewerVersion` or `Damaged`."""
    try:
        value = load_strict(data, max_bytes=64 << 10)
        if value["v"] not in _KEYRING_VERSIONS:
            raise NewerVersion("The keyring was written by a newer version; nothing was changed.")
        epochs = {int(kid): bytes.fromhex(key) for kid, key in value["epochs"].items()}
        identity = None
        if value["v"] > 1:
            identity = Identity(**{name: bytes.fromhex(key) for name, key in value["identity"].items()})
        keyring = Keyring(epochs, int(value["id_kid"]), int(value["write_kid"]), identity)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise Damaged(f"The keyring in the slot cannot be read: {error}.") from error
    needed = {keyring.write_kid} if identity else {keyring.id_kid, keyring.write_kid}
    derived = asdict(identity).values() if identity else ()
    if not needed <= epochs.keys() or any(len(key) != KEY_BYTES for key in (*epochs.values(), *derived)):
        raise Damaged("The keyring in the slot lacks a key it names.")
    if not all(0 < kid <= MAX_KID for kid in epochs):
        raise Damaged("The keyring in the slot gives a key an impossible number.")
    return keyring


def merge_keyrings(keyrings: Iterable[Keyring]) -> Keyring:
    """Return what several slots of one secret hold together: an interrupted change leaves two."""
    merged, *others = keyrings
    for other in others:
        merged = Keyring(
            {**merged.epochs, **other.epochs},
            merged.id_kid,
            max(merged.write_kid, other.write_kid),
            merged.identity or other.identity,
        )
    return merged


def expand(key: bytes, info: bytes, length: int = KEY_BYTES) -> bytes:
    """HKDF-Expand with SHA-256 (RFC 5869)."""
    return HKDFExpand(SHA256(), length, info).derive(key)


def repository_prk(key: bytes, repo_id: bytes, kid: int) -> bytes:
    """The pseudo random key of one epoch in one repository."""
    return hmac.digest(_LABEL + b"repo" + repo_id, key + kid.to_bytes(2, "big"), "sha256")


class RepositoryKeys:
    """Every derived key of one repository.

    A rotation adds epochs that the slot of a secret may not hold yet; `find_epoch`
    is asked for one when an object needs it.
    """

    def __init__(
        self,
        keyring: Keyring,
        repo_id: bytes,
        find_epoch: Callable[[RepositoryKeys, int], bytes | None] | None = None,
    ) -> None:
        self.keyring = keyring
        self.repo_id = repo_id
        self._find_epoch = find_epoch
        self._prk = {kid: repository_prk(key, repo_id, kid) for kid, key in keyring.epochs.items()}
        self.identity = keyring.identity or self._derive_identity()
        self.chunk_key = self.identity.chunk_id
        self.cdc_key = self.identity.cdc
        self._config_key = self.identity.config
        self._hasher = blake3(key=self.chunk_key)
        self._hashers = {kind: blake3(bytes([kind]), key=self.chunk_key) for kind in ChunkKind}

    def _derive_identity(self) -> Identity:
        prk = self._prk[self.keyring.id_kid]
        return Identity(*(expand(prk, _LABEL + label) for label in (b"chunk-id", b"cdc", b"config")))

    def chunk_id(self, kind: ChunkKind, data: bytes | bytearray | memoryview) -> bytes:
        """Name a chunk by its keyed BLAKE3 hash."""
        return self._hashed(kind, data).digest()

    def page_hash(self, page: bytes | bytearray | memoryview) -> bytes:
        """Name one database page, shorter than a chunk id."""
        return self._hashed(ChunkKind.PAGES, page).digest(PAGE_HASH_BYTES)

    def page_hashes(self, data: memoryview, page_size: int) -> list[bytes]:
        """Name the pages that lie one behind the other; the last may be cut short."""
        if not _ALIGNED_FROM <= page_size <= _ALIGNED_TO or len(data) % page_size:
            return [self.page_hash(data[at : at + page_size]) for at in range(0, len(data), page_size)]
        joined, fresh, hashes = _OWN.joined[: page_size + 1], self._hasher.copy, []
        joined[0] = ChunkKind.PAGES
        for at in range(0, len(data), page_size):
            joined[1:] = data[at : at + page_size]
            hasher = fresh()
            hasher.update(joined)
            hashes.append(hasher.digest(PAGE_HASH_BYTES))
        return hashes

    def _hashed(self, kind: ChunkKind, data: bytes | bytearray | memoryview) -> blake3:
        """Hash the kind, a byte, and then the data.

        BLAKE3 takes several blocks of 1 KiB at once where it gets them whole. Behind a byte
        that came before none is: what is not long is copied behind that byte instead.
        """
        size = len(data)
        if not _ALIGNED_FROM <= size <= _ALIGNED_TO:
            hasher = self._hashers[kind].copy()
            hasher.update(data)
            return hasher
        joined = _OWN.joined
        joined[0] = kind
        joined[1 : size + 1] = memoryview(data)
        hasher = self._hasher.copy()
        hasher.update(joined[: size + 1])
        return hasher

    def object_cipher(self, header: bytes) -> AESGCM:
        """Return the cipher of the one object that has this header."""
        kid = int.from_bytes(header[8:10], "big")
        if kid not in self._prk and not self.knows(kid):
            raise Damaged(
                f"An object names key {kid}, which is not in the keyring: it is damaged, or the keys were "
                "rotated without this secret."
            )
        return AESGCM(expand(self._prk[kid], _LABEL + b"obj" + self.repo_id + header))

    def knows(self, kid: int) -> bool:
        """Say whether objects under this epoch can be read; looks for it when it is new."""
        if kid in self._prk:
            return True
        key = None if self._find_epoch is None else self._find_epoch(self, kid)
        if key is not None:
            self.add_epoch(kid, key)
        return key is not None

    def add_epoch(self, kid: int, key: bytes) -> None:
        """Take a further epoch into the keyring; nothing is written under it yet."""
        self._prk[kid] = repository_prk(key, self.repo_id, kid)
        self.keyring = replace(self.keyring, epochs={**self.keyring.epochs, kid: key})

    def follow(self, write_kid: int, retired: Iterable[int]) -> None:
        """Write under the epoch the chain names, and drop those it retired; raise `OldKey`."""
        if write_kid and write_kid != self.keyring.write_kid:
            if not self.knows(write_kid):
                raise OldKey(
                    f"The keys were rotated without this secret, or just now: key {write_kid}, under which "
                    "newer snapshots are, is not at hand. Open the repository again, or use another key. "
                    "Earlier snapshots are intact."
                )
            self.keyring = replace(self.keyring, write_kid=write_kid)
        gone = self.keyring.epochs.keys() & set(retired)
        if gone:
            self.keyring = self.without(gone)
            for kid in gone:
                del self._prk[kid]

    def without(self, kids: Iterable[int]) -> Keyring:
        """Return the keyring that lacks these epochs and still finds every chunk."""
        dropped = set(kids)
        epochs = {kid: key for kid, key in self.keyring.epochs.items() if kid not in dropped}
        identity = None if self.keyring.id_kid in epochs else self.identity
        return replace(self.keyring, epochs=epochs, identity=identity)

    def config_mac(self, data: bytes) -> bytes:
        """Authenticate the repository's configuration."""
        return hmac.digest(self._config_key, data, "sha256")

    def cdc_seed(self) -> int:
        """A per-repository seed for the chunker (no security boundary)."""
        return int.from_bytes(self.cdc_key[:4], "big")


def sha256(data: bytes | bytearray | memoryview) -> bytes:
    """SHA-256 as used for names, chain links and body digests."""
    return hashlib.sha256(data).digest()
