"""The keyring of a repository and every key that is derived from it.

The keyring holds one random key (RMK) for each epoch; it is never derived from
a password. All other keys follow by HKDF-SHA256 as `docs/format.md` says.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from backup_admin.core.canonical import dump_canonical, load_strict
from backup_admin.core.errors import Damaged, NewerVersion
from backup_admin.repository.types import ChunkKind

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY_BYTES = 32
PAGE_HASH_BYTES = 16
_LABEL = b"backup_admin/v1/"


@dataclass(frozen=True, slots=True, repr=False)
class Keyring:
    """Random repository keys by epoch; `id_kid` names the one behind chunk ids."""

    epochs: Mapping[int, bytes]
    id_kid: int
    write_kid: int

    def to_bytes(self) -> bytes:
        """Write the keyring as it is wrapped in slots."""
        epochs = {str(kid): key.hex() for kid, key in self.epochs.items()}
        return dump_canonical({"v": 1, "epochs": epochs, "id_kid": self.id_kid, "write_kid": self.write_kid})


def new_keyring() -> Keyring:
    """Make a keyring with one fresh epoch."""
    return Keyring({1: os.urandom(KEY_BYTES)}, id_kid=1, write_kid=1)


def parse_keyring(data: bytes) -> Keyring:
    """Read a keyring; raise `NewerVersion` or `Damaged`."""
    try:
        value = load_strict(data, max_bytes=64 << 10)
        if value["v"] != 1:
            raise NewerVersion("The keyring was written by a newer version; nothing was changed.")
        epochs = {int(kid): bytes.fromhex(key) for kid, key in value["epochs"].items()}
        keyring = Keyring(epochs, int(value["id_kid"]), int(value["write_kid"]))
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"The keyring in the slot cannot be read: {error}.") from error
    if not {keyring.id_kid, keyring.write_kid} <= epochs.keys() or any(
        len(k) != KEY_BYTES for k in epochs.values()
    ):
        raise Damaged("The keyring in the slot lacks a key it names.")
    return keyring


def expand(key: bytes, info: bytes, length: int = KEY_BYTES) -> bytes:
    """HKDF-Expand with SHA-256 (RFC 5869)."""
    return HKDFExpand(SHA256(), length, info).derive(key)


def repository_prk(key: bytes, repo_id: bytes, kid: int) -> bytes:
    """The pseudo random key of one epoch in one repository."""
    return hmac.digest(_LABEL + b"repo" + repo_id, key + kid.to_bytes(2, "big"), "sha256")


class RepositoryKeys:
    """Every derived key of one repository."""

    def __init__(self, keyring: Keyring, repo_id: bytes) -> None:
        self.keyring = keyring
        self.repo_id = repo_id
        self._prk = {kid: repository_prk(key, repo_id, kid) for kid, key in keyring.epochs.items()}
        id_prk = self._prk[keyring.id_kid]
        self.chunk_key = expand(id_prk, _LABEL + b"chunk-id")
        self.cdc_key = expand(id_prk, _LABEL + b"cdc")
        self._config_key = expand(id_prk, _LABEL + b"config")
        self._hashers = {kind: blake3(bytes([kind]), key=self.chunk_key) for kind in ChunkKind}

    def chunk_id(self, kind: ChunkKind, data: bytes | bytearray | memoryview) -> bytes:
        """Name a chunk by its keyed BLAKE3 hash."""
        hasher = self._hashers[kind].copy()
        hasher.update(data)
        return hasher.digest()

    def page_hash(self, page: bytes | bytearray | memoryview) -> bytes:
        """Name one database page, shorter than a chunk id."""
        hasher = self._hashers[ChunkKind.PAGES].copy()
        hasher.update(page)
        return hasher.digest(PAGE_HASH_BYTES)

    def object_cipher(self, header: bytes) -> AESGCM:
        """Return the cipher of the one object that has this header."""
        kid = int.from_bytes(header[8:10], "big")
        prk = self._prk.get(kid)
        if prk is None:
            raise Damaged(f"An object names key {kid}, which is not in the keyring.")
        return AESGCM(expand(prk, _LABEL + b"obj" + self.repo_id + header))

    def config_mac(self, data: bytes) -> bytes:
        """Authenticate the repository's configuration."""
        return hmac.digest(self._config_key, data, "sha256")

    def cdc_seed(self) -> int:
        """A per-repository seed for the chunker (no security boundary)."""
        return int.from_bytes(self.cdc_key[:4], "big")


def sha256(data: bytes | bytearray | memoryview) -> bytes:
    """SHA-256 as used for names, chain links and body digests."""
    return hashlib.sha256(data).digest()
