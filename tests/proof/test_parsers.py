"""Bytes changed in any way: a parser accepts them or raises one of our errors, in bounded memory."""

from __future__ import annotations

import json
import random
import tracemalloc
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backup_admin.core.errors import BackupAdminError
from tests.proof.parsers import PARSERS, Parser

if TYPE_CHECKING:
    from collections.abc import Callable

BOUND_BYTES = 40 << 20
ODD_BYTES = (b"", b"\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\x04\0\0\x10", b"\n", b"{")
ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**31,
    2**63,
    2**64,
    10**31,
    1.5,
    "",
    "x",
    "..",
    "a/../b",
    "/etc/passwd",
    "\0",
    "\u20ac",
    "zz" * 32,
    "ab" * 31,
    "a" * 5000,
    [],
    [[]],
    {},
    {"b64": "!"},
    {"b64": "Li4vYQ=="},
    {"pages": []},
    {"lists": [["ab" * 32, 1]]},
    ["ab" * 32, -1],
)
ODD_TEXTS = (
    b"NaN",
    b"Infinity",
    b"1e999",
    b"9" * 5000,
    b'{"a":1,"a":2}',
    b"[" * 60_000,
    b'"\xff"',
    b"\\ud800",
)


def changed_bytes(data: bytes, chance: random.Random) -> bytes:
    """Flip, cut, double, insert or overwrite, up to three times."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        at = chance.randint(0, len(changed))
        act = chance.randrange(5)
        if act == 0 and at < len(changed):
            changed[at] ^= 1 << chance.randrange(8)
        elif act == 1:
            del changed[at:]
        elif act == 2:
            changed[at:at] = changed[at : at + chance.randint(1, 60)]
        elif act == 3:
            changed[at:at] = chance.choice(ODD_BYTES)
        else:
            odd = chance.choice(ODD_BYTES)
            changed[at : at + len(odd)] = odd
    return bytes(changed)


def changed_json(data: bytes, chance: random.Random) -> bytes:
    """Put odd values, other keys and impossible texts into a value that was valid."""
    holder = [json.loads(data)]
    for _ in range(chance.randint(1, 3)):
        parent, key = chance.choice(list(places(holder)))
        act = chance.randrange(4)
        if act == 0 and isinstance(parent, dict):
            del parent[key]
        elif act == 1 and isinstance(parent, dict):
            parent[key + "x"] = deepcopy(parent[key])
        elif act == 2 and isinstance(parent, list) and parent is not holder:
            parent.insert(key, deepcopy(parent[key]))
        else:
            parent[key] = deepcopy(chance.choice(ODD_VALUES))
    text = json.dumps(holder[0], separators=(",", ":"), ensure_ascii=False).encode()
    if chance.random() < 0.2:
        at = text.find(b":" if b":" in text else b",", chance.randrange(len(text))) + 1
        text = text[:at] + chance.choice(ODD_TEXTS) + text[at:]
    return text


def places(value: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in pairs:
        found.append((value, key))
        if isinstance(inner, dict | list):
            found += places(inner)
    return found


def changed(parser: Parser, seed: int) -> bytes:
    chance = random.Random(seed)
    if not parser.holds_json or seed % 3 == 0:
        return changed_bytes(parser.valid, chance)
    if not parser.lines:
        return changed_json(parser.valid, chance)
    lines = parser.valid.splitlines(keepends=True)
    at = chance.randrange(len(lines))
    lines[at] = changed_json(lines[at], chance) + b"\n"
    return b"".join(lines)


def feed(parse: Callable[[bytes], object], data: bytes) -> None:
    try:
        parse(data)
    except BackupAdminError:
        pass
    except MemoryError:
        pytest.fail(f"out of memory for {data[:200]!r}")


each_parser = pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.name)


@each_parser
def test_what_is_valid_is_accepted(parser: Parser) -> None:
    parser.parse(parser.valid)


@each_parser
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**40))
def test_changed_bytes_raise_only_our_errors(parser: Parser, seed: int) -> None:
    feed(parser.parse, changed(parser, seed))


@each_parser
def test_changed_bytes_cost_little_memory(parser: Parser) -> None:
    tracemalloc.start()
    try:
        for seed in range(40):
            feed(parser.parse, changed(parser, seed))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < BOUND_BYTES


@pytest.mark.long
@each_parser
def test_bytes_changed_in_twenty_thousand_ways_raise_only_our_errors(parser: Parser) -> None:
    for seed in range(20_000):
        feed(parser.parse, changed(parser, seed))
