"""Paths are bytes: ordered as a walk meets them, kept exactly, shown harmlessly."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup_admin.core.paths import check_path, path_from_json, path_to_json, show_path, sort_key

PART = st.binary(min_size=1, max_size=20).filter(
    lambda part: b"/" not in part and b"\0" not in part and part not in (b".", b"..")
)
PATH = st.lists(PART, min_size=1, max_size=5).map(b"/".join)


@given(PATH)
def test_every_path_is_kept_exactly(path: bytes) -> None:
    assert path_from_json(json.loads(json.dumps(path_to_json(path)))) == path


@given(st.lists(PATH, max_size=12))
def test_the_order_is_that_of_a_walk(paths: list[bytes]) -> None:
    by_key = sorted(paths, key=sort_key)

    assert by_key == sorted(paths, key=lambda path: path.split(b"/"))


@given(PATH)
def test_every_path_of_a_real_tree_is_accepted(path: bytes) -> None:
    check_path(path)


@pytest.mark.parametrize(
    "path",
    [
        b"",
        b"/etc",
        b"a/",
        b"a//b",
        b".",
        b"..",
        b"../a",
        b"a/../b",
        b"a/..",
        b"./a",
        b"a\0b",
        b"a" * 256,
        b"a/" * 256 + b"a",
        b"/".join([b"a" * 200] * 21),
    ],
)
def test_a_path_that_could_leave_its_folder_is_refused(path: bytes) -> None:
    with pytest.raises(ValueError, match="a path"):
        check_path(path)


@pytest.mark.parametrize(
    "value", [None, 1, ["a"], {}, {"b64": 1}, {"b64": "*"}, {"b64": "YQ==", "x": 1}, {"b64": "YQ"}, "\ud800"]
)
def test_what_is_no_path_is_refused(value: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  the reason differs from case to case
        path_from_json(value)


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (b"a b", "a b"),
        ("ä".encode(), "ä"),
        (b"a\nb", "a\\nb"),
        (b"\x1b[31m", "\\x1b[31m"),
        (b"\xff", "\\xff"),
        ("a\u202eb".encode(), "a\\u202eb"),
    ],
)
def test_a_shown_path_is_one_line_that_no_terminal_obeys(path: bytes, shown: str) -> None:
    assert show_path(path) == shown
