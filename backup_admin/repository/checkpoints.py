"""Checkpoints: all that the chain says, in one entry, so that opening need not read it whole."""

from __future__ import annotations

from typing import Any

import zstandard

from backup_admin.core.canonical import dump_canonical, load_strict
from backup_admin.core.errors import Damaged, NewerVersion
from backup_admin.repository.history import ChainState, ManifestRef, Pin
from backup_admin.repository.manifests import manifest_name

MAX_STATE_BYTES = 64 << 20
_METHOD = 1
_HEAD = 5
_MEMBERS = frozenset(
    [
        "collected",
        "damaged",
        "digests",
        "doomed",
        "forgotten",
        "ids",
        "indexes",
        "names",
        "pins",
        "retired",
        "slots",
        "write_kid",
    ]
)


def encode_state(state: ChainState) -> bytes:
    """Write a state as the second frame of a checkpoint: `u8 method || u32 plain size || zstd frame`."""
    plain = state_bytes(state)
    packed = zstandard.ZstdCompressor(level=3).compress(plain)
    return bytes([_METHOD]) + len(plain).to_bytes(4, "big") + packed


def decode_state(block: bytes) -> ChainState:
    """Read a state; raise `Damaged` or `NewerVersion`."""
    try:
        value = load_strict(plain_state(block))
        if not _MEMBERS.issuperset(value):
            raise NewerVersion("A checkpoint was written by a newer version; nothing was written.")
        return _parse(value)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise Damaged(f"A checkpoint cannot be read: {error}.") from error


def plain_state(block: bytes) -> bytes:
    """Return the canonical JSON in a checkpoint, within its size limit; raise `Damaged`."""
    size = int.from_bytes(block[1:_HEAD], "big")
    if block[:1] != bytes([_METHOD]) or size > MAX_STATE_BYTES:
        raise Damaged("A checkpoint is of an unknown kind or size.")
    try:
        if zstandard.frame_content_size(block[_HEAD:]) != size:
            raise Damaged("A checkpoint has a size that does not fit.")
        return zstandard.ZstdDecompressor().decompress(block[_HEAD:], max_output_size=size)
    except zstandard.ZstdError as error:
        raise Damaged(f"A checkpoint does not decompress: {error}.") from error


def state_bytes(state: ChainState) -> bytes:
    """Write a state in its one exact form: canonical JSON, long lists flat."""
    refs = state.manifests
    return dump_canonical(
        {
            "ids": list(refs),
            "digests": [ref.digest for ref in refs.values()],
            "names": {id_: ref.name for id_, ref in refs.items() if ref.name != manifest_name(id_)},
            "indexes": list(state.indexes),
            "collected": sorted(state.collected),
            "doomed": sorted(state.doomed),
            "forgotten": sorted(state.forgotten),
            "damaged": sorted(state.damaged),
            "pins": {
                name: [pin.snapshot, pin.until, pin.reason, pin.actor, pin.time]
                for name, pin in state.pins.items()
            },
            "slots": state.slots,
            "write_kid": state.write_kid,
            "retired": sorted(state.retired),
        }
    )


def _parse(value: dict[str, Any]) -> ChainState:
    names = value["names"]
    return ChainState(
        manifests={
            str(id_): ManifestRef(str(names.get(id_, manifest_name(id_))), str(digest))
            for id_, digest in zip(value["ids"], value["digests"], strict=True)
        },
        indexes=dict.fromkeys(map(str, value["indexes"])),
        collected=set(map(str, value["collected"])),
        doomed=set(map(str, value["doomed"])),
        forgotten=set(map(str, value["forgotten"])),
        damaged=set(map(str, value["damaged"])),
        pins={str(name): Pin(*map(str, row)) for name, row in value["pins"].items()},
        slots={str(slot): str(digest) for slot, digest in value["slots"].items()},
        write_kid=int(value["write_kid"]),
        retired=set(map(int, value["retired"])),
    )
