"""The object `config`: what the repository is, in clear, with a MAC; its marker.

A storage without it is never taken for an empty repository: an unmounted disk
must not look like a fresh start.
"""

from __future__ import annotations

import hmac
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from backup_admin.core.canonical import dump_canonical, load_strict
from backup_admin.core.errors import Damaged, NewerVersion, NotARepository, ObjectMissing
from backup_admin.repository.types import FORMAT_VERSION, MIB

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backup_admin.repository.keys import RepositoryKeys
    from backup_admin.storage.base import Storage

NAME = "config"
_MAX_BYTES = 64 << 10
SINGLE_WRITER = "single-writer"
"""The storage ignores conditions: who writes to the chain takes a turn first (`storage/turns.py`)."""
_KNOWN_FEATURES = frozenset({SINGLE_WRITER})
_CHUNKERS = frozenset({"fastcdc-2020"})


@dataclass(frozen=True, slots=True)
class ContentDefined:
    """Parameters of content-defined chunking, in bytes."""

    minimum: int
    average: int
    maximum: int


@dataclass(frozen=True, slots=True)
class Parameters:
    """How a repository cuts and packs what it stores. Sizes are in bytes.

    `whole_file` is the largest file kept as one chunk. Sources of the figures:
    `docs/performance.md`.
    """

    whole_file: int = 512 << 10
    media: ContentDefined = ContentDefined(256 << 10, MIB, 4 * MIB)
    stream: ContentDefined = ContentDefined(8 << 10, 32 << 10, 128 << 10)
    segment: int = MIB
    pack: int = 16 * MIB
    pack_padding: int = 64 << 10
    compression_level: int = 1
    pages_per_shard: int = 1024
    chunker: str = "fastcdc-2020"


@dataclass(frozen=True, slots=True)
class Config:
    """The repository's identity and parameters.

    `slots` are the key slots it was made with, each with the SHA-256 of its file. `features` are what
    a reader must know of besides the format.
    """

    repo_id: bytes
    created_at: str
    parameters: Parameters
    slots: Mapping[str, str] = field(default_factory=dict)
    features: tuple[str, ...] = ()


def seal_config(config: Config, keys: RepositoryKeys) -> bytes:
    """Write the object with its MAC."""
    body = {
        "format": FORMAT_VERSION,
        "repo_id": config.repo_id.hex(),
        "created_at": config.created_at,
        "parameters": asdict(config.parameters),
        "features": sorted(config.features),
        "slots": dict(config.slots),
    }
    return dump_canonical({"config": body, "mac": keys.config_mac(dump_canonical(body)).hex()})


def read_config(storage: Storage) -> tuple[Config, bytes]:
    """Return the configuration, not yet authenticated, and its raw bytes.

    Raises `NotARepository`, `NewerVersion` or `Damaged`.
    """
    try:
        raw = storage.get(NAME, 0, _MAX_BYTES)
    except ObjectMissing as error:
        raise NotARepository(
            f"{storage.label} holds no repository: its object 'config' is missing. If one was there, "
            "check that the right disk or bucket is connected. Nothing was written."
        ) from error
    try:
        return _parse(load_strict(raw)["config"]), raw
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise Damaged(f"The object 'config' in {storage.label} cannot be read: {error}.") from error


def check_config(raw: bytes, keys: RepositoryKeys) -> None:
    """Raise `Damaged` when a bit of the configuration was changed."""
    value = load_strict(raw)
    mac = str(value.get("mac", ""))
    if dump_canonical(value) != raw or not hmac.compare_digest(
        mac.encode(), keys.config_mac(dump_canonical(value["config"])).hex().encode()
    ):
        raise Damaged("The repository's configuration was altered; its seal does not fit.")


def _parse(body: dict[str, Any]) -> Config:
    unknown = set(body["features"]) - _KNOWN_FEATURES
    if body["format"] != FORMAT_VERSION or unknown:
        raise NewerVersion("The repository was made by a newer version; nothing was written.")
    values = dict(body["parameters"])
    if values["chunker"] not in _CHUNKERS:
        raise NewerVersion(f"The repository uses the chunker {values['chunker']!r}; nothing was written.")
    if values.keys() != {one.name for one in fields(Parameters)}:
        raise ValueError("its parameters are not those of this format")
    parameters = Parameters(
        **{
            **values,
            "media": ContentDefined(**values["media"]),
            "stream": ContentDefined(**values["stream"]),
        }
    )
    repo_id = bytes.fromhex(body["repo_id"])
    if len(repo_id) != 32:
        raise ValueError("repo_id is not 32 bytes")
    slots = {str(slot): str(digest) for slot, digest in body.get("slots", {}).items()}
    features = tuple(str(name) for name in body["features"])
    return Config(repo_id, str(body["created_at"]), parameters, slots, features)
