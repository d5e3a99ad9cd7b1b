"""JSON has one exact form when written, and is refused when ambiguous."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup_admin.core.canonical import dump_canonical, load_strict

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=20,
)


def test_keys_are_sorted_and_nothing_is_spaced_or_escaped() -> None:
    assert dump_canonical({"b": [1, None], "a": "ä\n"}) == '{"a":"ä\\n","b":[1,null]}'.encode()


@given(PLAIN)
def test_what_is_written_is_read_back_and_written_the_same(value: Any) -> None:
    data = dump_canonical(value)

    assert load_strict(data) == value
    assert dump_canonical(load_strict(data)) == data


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_json_has_not_are_not_written(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        dump_canonical(value)


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1,"a":1}',
        b'{"x":{"a":1,"b":2,"a":3}}',
        b"NaN",
        b"[Infinity]",
        b"-Infinity",
        b"1e999",
        b"[-1e999]",
        b"1" * 33,
        b"-" + b"1" * 5000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 65 + b"1" + b"}" * 65,
        b'"\xff"',
        b'"\xed\xa0\x80"',
        rb'"\ud800"',
        rb'{"\uDFFF":1}',
        b"",
        b"{",
        b"[1,]",
        b"1 2",
        b"'a'",
        b'"\n"',
    ],
)
def test_what_two_readers_could_take_differently_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  the reason differs from case to case
        load_strict(text)


def test_brackets_inside_text_do_not_count_as_depth() -> None:
    text = "[" * 200 + '\\"' + "{" * 200

    assert load_strict(dump_canonical([text])) == [text]


def test_the_deepest_allowed_nesting_is_read() -> None:
    assert load_strict(b"[" * 64 + b"]" * 64) is not None


def test_more_bytes_than_allowed_are_refused_unread() -> None:
    with pytest.raises(ValueError, match="11 bytes of JSON, at most 10"):
        load_strict(b"[1,2,3,4,5]", max_bytes=10)
