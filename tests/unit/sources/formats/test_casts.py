"""Values go from one engine to the other by declared casts; what would change is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest

from backup_admin.sources.formats.casts_to_sqlite import affinity_of, sqlite_cast
from backup_admin.sources.formats.importing import Refused
from backup_admin.sources.postgres.casts import postgres_cast, same_form

UUID = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"


@pytest.mark.parametrize(
    ("target", "value", "text"),
    [
        ("boolean", 1, "t"),
        ("boolean", 0, "f"),
        ("smallint", -32768, "-32768"),
        ("bigint", {"int": "-9223372036854775808"}, "-9223372036854775808"),
        ("double precision", 0.1, "0.1"),
        ("double precision", 7, "7"),
        ("double precision", {"real": "-inf"}, "-Infinity"),
        ("real", 0.1, "0.1"),
        ("numeric(4,2)", 4.5, "4.5"),
        ("numeric", "12345678901234567890.5", "12345678901234567890.5"),
        ("numeric", 3, "3"),
        ("character varying(5)", "ü", "ü"),
        ("enum(public.mood)", "sad", "sad"),
        ("bytea", {"b64": "AP8="}, "\\x00ff"),
        ("date", "2024-02-29", "2024-02-29"),
        ("time without time zone", "10:20:30.500000", "10:20:30.5"),
        ("time without time zone", "10:20", "10:20:00"),
        ("timestamp without time zone", "2024-01-01 10:20:30.000000", "2024-01-01 10:20:30"),
        ("timestamp(3) without time zone", "2024-01-01T10:20:30", "2024-01-01 10:20:30"),
        ("timestamp with time zone", "2024-01-01 10:20:30", "2024-01-01 10:20:30+00"),
        ("timestamp with time zone", "2024-01-01 00:20:30.25+05:30", "2023-12-31 18:50:30.25+00"),
        ("timestamp with time zone", "2024-01-01T10:20:30Z", "2024-01-01 10:20:30+00"),
        ("uuid", UUID.replace("-", "").upper(), UUID),
        ("uuid", UUID, UUID),
        ("json", '{"a": [1]}', '{"a": [1]}'),
        ("jsonb", 5, "5"),
        ("text", None, None),
    ],
)
def test_a_value_of_sqlite_becomes_text_that_postgresql_reads(target: str, value: Any, text: str) -> None:
    assert postgres_cast(target)(value) == text


@pytest.mark.parametrize(
    ("target", "value", "reason"),
    [
        ("boolean", 2, "no truth value"),
        ("boolean", "t", "no truth value"),
        ("boolean", 1.0, "no truth value"),
        ("integer", 1 << 31, "too large"),
        ("integer", "12", "text '12' is no integer"),
        ("integer", 1.0, "real '1.0' is no integer"),
        ("text", 12, "integer '12' is no text"),
        ("text", {"text_b64": "bgB1bA=="}, "NUL"),
        ("text", {"text_b64": "/0E="}, "not UTF-8"),
        ("text", {"b64": "AA=="}, "a blob is no text"),
        ("double precision", "1.5", "no real"),
        ("double precision", {"int": "9007199254740993"}, "no real"),
        ("real", 0.1234567890123, "more digits"),
        ("real", 1e300, "too large"),
        ("numeric(4,2)", 4.555, "rounded"),
        ("numeric", "four", "no number"),
        ("bytea", "text", "no blob"),
        ("date", "2024-01-01 00:00:00", "no date"),
        ("date", 20240101, "no date"),
        ("timestamp without time zone", "2024-01-01 00:00:00+02:00", "zone"),
        ("timestamp without time zone", 1704067200, "no time"),
        ("uuid", "a0eebc99", "no uuid"),
        ("json", "{'a': 1}", "no JSON"),
        ("json", "NaN", "no JSON"),
        ("integer[]", "{1}", "nothing that is integer"),
        ("int4range", "[1,2)", "nothing that is int4range"),
        ("interval", "1 day", "nothing that is interval"),
    ],
)
def test_what_postgresql_would_change_or_not_take_is_refused(target: str, value: Any, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        postgres_cast(target)(value)


@pytest.mark.parametrize(
    ("source", "target", "text", "value"),
    [
        ("boolean", "BOOLEAN", "t", 1),
        ("boolean", "BOOLEAN", "f", 0),
        ("bigint", "BIGINT", "-9223372036854775808", -(1 << 63)),
        ("real", "REAL", "0.1", 0.1),
        ("double precision", "FLOAT", "-Infinity", -math.inf),
        ("numeric(4,2)", "NUMERIC(4, 2)", "4.50", 4.5),
        ("numeric(4,2)", "NUMERIC(4, 2)", "4.00", 4),
        ("numeric", "TEXT", "12345678901234567890.50", "12345678901234567890.50"),
        ("character(5)", "CHAR(5)", "ab   ", "ab"),
        ("text", "TEXT", "007", "007"),
        ("text", "NUMERIC", "seven", "seven"),
        ("bytea", "BLOB", "\\x00ff", b"\0\xff"),
        ("date", "DATE", "2024-02-29", "2024-02-29"),
        ("time(0) without time zone", "TIME", "10:20:30", "10:20:30.000000"),
        ("timestamp without time zone", "DATETIME", "2024-01-01 10:20:30.5", "2024-01-01 10:20:30.500000"),
        ("timestamp(3) with time zone", "DATETIME", "2024-01-01 10:20:30+00", "2024-01-01 10:20:30.000000"),
        ("uuid", "CHAR(32)", UUID, UUID.replace("-", "")),
        ("uuid", "TEXT", UUID, UUID),
        ("jsonb", "JSON", '{"a": 1}', '{"a": 1}'),
        ("jsonb", "JSON", "5", 5),
        ("jsonb", "TEXT", "5", "5"),
        ("enum(public.mood)", "VARCHAR(5)", "sad", "sad"),
        ("integer[]", "TEXT", None, None),
    ],
)
def test_a_value_of_postgresql_becomes_one_of_sqlite(source: str, target: str, text: Any, value: Any) -> None:
    found = sqlite_cast(source, target)(text)

    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("source", "target", "text", "reason"),
    [
        ("double precision", "FLOAT", "NaN", "no NaN"),
        ("numeric", "NUMERIC", "NaN", "no NaN"),
        ("numeric", "NUMERIC", "0.12345678901234567890", "more digits"),
        ("text", "INTEGER", "007", "make a number"),
        ("date", "DATE", "0044-03-15 BC", "no date"),
        ("date", "DATE", "infinity", "no date"),
        ("time without time zone", "TIME", "24:00:00", "no time before midnight"),
        ("timestamp with time zone", "DATETIME", "-infinity", "no time"),
        ("integer[]", "TEXT", "{1}", r"nothing like integer\[\]"),
        ("int4range", "TEXT", "[1,2)", "nothing like int4range"),
        ("interval", "DATETIME", "1 day", "nothing like interval"),
        ("numeric(4,2)[]", "TEXT", "{1}", "nothing like"),
        ("jsonb", "JSON", "0.12345678901234567890", "more digits"),
        ("integer", "INTEGER", 5, "no value of PostgreSQL"),
        ("boolean", "BOOLEAN", "x", "no boolean"),
    ],
)
def test_what_sqlite_has_no_place_for_is_refused(source: str, target: str, text: Any, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        sqlite_cast(source, target)(text)


@pytest.mark.parametrize(
    ("kind", "first", "second", "other"),
    [
        ("numeric(6,3)", "4.5", "4.500", "4.501"),
        ("numeric", "-0.0", "0", "0.00000000000000000000000000000000000001"),
        ("double precision", "1e+16", "10000000000000000.0", "1e+17"),
        ("real", "0.10000000149011612", "0.1", "0.2"),
        ("character(5)", "ab", "ab   ", " ab"),
        ("jsonb", '{"b": 1.50, "a": 2}', '{"a": 2, "b": 1.5}', '{"a": 2, "b": "1.5"}'),
    ],
)
def test_equal_values_have_one_form(kind: str, first: str, second: str, other: str) -> None:
    form = same_form(kind)

    assert form is not None
    assert form(first) == form(second) != form(other)


def test_affinities_are_those_of_sqlite() -> None:
    declared = [
        "BIGINT",
        "VARCHAR(4)",
        "CLOB",
        "",
        "BLOB",
        "DOUBLE",
        "FLOATING POINT",
        "JSON",
        "BOOLEAN",
        "DATE",
    ]

    # "FLOATING POINT" has INT in it: an example of SQLite's own documentation.
    expected = ["INTEGER", "TEXT", "TEXT", "BLOB", "BLOB", "REAL", "INTEGER", "NUMERIC", "NUMERIC", "NUMERIC"]
    assert [affinity_of(one) for one in declared] == expected
