"""The kinds of objects a repository consists of, and what their bytes must be; needs no key."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.core.errors import Damaged
from backup_admin.operations.rebuild import QUARANTINE
from backup_admin.repository import chain, epochs, index, manifests, packs, slots, wal
from backup_admin.repository.objects import HEADER_BYTES, ObjectType, check_header, frame_spans

if TYPE_CHECKING:
    from collections.abc import Callable

    Prover = Callable[[str, bytes | bytearray], None]


_PART = "[a-z0-9][a-z0-9.-]*"


@dataclass(frozen=True, slots=True)
class Kind:
    """Objects below one prefix.

    `prove` raises `Damaged` or `NewerVersion` when bytes are not those of the object of that
    name, as far as that can be told. `vanishes` says that the format lets them be deleted.
    """

    prefix: str
    pattern: re.Pattern[str]
    prove: Prover
    vanishes: bool = True

    def has(self, name: str) -> bool:
        """Say whether a name is one of this kind; others below the prefix are not ours."""
        return self.pattern.fullmatch(name) is not None


def _prove_pack(name: str, data: bytes | bytearray) -> None:
    if packs.pack_name(packs.pack_digest(data)) != name:
        raise Damaged("Its name does not fit its bytes.")


def _prove_index(name: str, data: bytes | bytearray) -> None:
    if index.PREFIX + packs.pack_digest(data).hex() != name:
        raise Damaged("Its name does not fit its bytes.")


def _prove_slot(_name: str, data: bytes | bytearray) -> None:
    if not data.startswith(slots.MAGIC):
        raise Damaged("It is not a key slot.")


def _prove_any(_name: str, _data: bytes | bytearray) -> None:
    """Take damaged bytes too: what is in quarantine is there for being damaged."""


def _sealed(kind: ObjectType) -> Prover:
    """Return a prover of what is seen of a sealed object from outside: header and frames."""

    def prove(_name: str, data: bytes | bytearray) -> None:
        check_header(bytes(data[:HEADER_BYTES]), kind)
        frame_spans(data)

    return prove


def _kind(prefix: str, rest: str, prove: Prover, *, vanishes: bool = True) -> Kind:
    return Kind(prefix, re.compile(re.escape(prefix) + rest), prove, vanishes)


SLOTS = _kind(slots.PREFIX, r"[0-9a-f]{16}", _prove_slot)
PACKS = _kind(packs.PREFIX, r"[0-9a-f]{2}/[0-9a-f]{64}", _prove_pack)
CHAIN = _kind(chain.PREFIX, r"[0-9]{20}", _sealed(ObjectType.CHAIN), vanishes=False)
BEFORE_CHAIN = (
    SLOTS,
    _kind(epochs.PREFIX, r"[0-9]{5}", _sealed(ObjectType.EPOCH)),
    PACKS,
    _kind(index.PREFIX, r"[0-9a-f]{64}", _prove_index),
    _kind(manifests.PREFIX, r"[0-9a-z]{26}", _sealed(ObjectType.MANIFEST)),
    _kind(wal.PREFIX, wal.PATTERN, _sealed(ObjectType.WAL)),
    _kind(QUARANTINE, rf"{_PART}(/{_PART})*", _prove_any, vanishes=False),
)
"""All that an entry of the chain may need, in the order of storing."""


def kind_of(name: str) -> Kind | None:
    """Return the kind of an object; None for `config` and for what is not ours."""
    return next((kind for kind in (*BEFORE_CHAIN, CHAIN) if kind.has(name)), None)
