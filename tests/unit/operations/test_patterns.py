"""What a pattern of `restore --only` names."""

from __future__ import annotations

import pytest

from backup_admin.core.errors import UsageError
from backup_admin.operations.patterns import Patterns

_MATCHES = [
    ("files/photos/2024", b"2024/a.jpg"),
    ("photos/2024", b"2024/a.jpg"),
    ("2024", b"2024/deep/a.jpg"),
    ("2024/a.jpg", b"2024/a.jpg"),
    ("2024/*.jpg", b"2024/a.jpg"),
    ("**/a.jpg", b"x/y/a.jpg"),
    ("**/a.jpg", b"a.jpg"),
    ("20?4", b"2024/a.jpg"),
    ("20[12]4", b"2024/a.jpg"),
    ("/2024/", b"2024/a.jpg"),
    ("it's (odd) + more", b"it's (odd) + more"),
]
_MISSES = [
    ("2024", b"2025/a.jpg"),
    ("2024/*.jpg", b"2024/deep/a.jpg"),
    ("20?4", b"20/4"),
    ("20[!2]4", b"2024/a.jpg"),
    ("a.jpg", b"aXjpg"),
    ("other/2024", b"2024/a.jpg"),
]


@pytest.mark.parametrize(("pattern", "path"), _MATCHES)
def test_pattern_names_the_path(pattern: str, path: bytes) -> None:
    assert Patterns([pattern]).match_file("photos", path)


@pytest.mark.parametrize(("pattern", "path"), _MISSES)
def test_pattern_does_not_name_the_path(pattern: str, path: bytes) -> None:
    assert not Patterns([pattern]).match_file("photos", path)


def test_a_name_that_is_not_utf_8_can_be_named() -> None:
    assert Patterns(["caf\udce9"]).match_file("photos", b"caf\xe9/menu")


def test_no_pattern_means_everything() -> None:
    patterns = Patterns([])

    assert patterns.match_file("photos", b"a")
    assert patterns.match_database("app")
    assert patterns.match_settings()


def test_a_database_is_named_with_or_without_its_ending() -> None:
    assert Patterns(["databases/app"]).match_database("app")
    assert Patterns(["databases/app.sqlite"]).match_database("app")
    assert not Patterns(["databases/other"]).match_database("app")


def test_a_pattern_that_matched_nothing_is_told() -> None:
    patterns = Patterns(["a", "b"])
    patterns.match_file("photos", b"a")

    assert patterns.unused() == ("b",)


def test_an_empty_pattern_is_refused() -> None:
    with pytest.raises(UsageError):
        Patterns(["/"])


_BRANCHES = [
    ([], (b"",)),
    (["files/photos/2024/a.jpg"], (b"2024/a.jpg", b"files/photos/2024/a.jpg")),
    (["photos/2024/*.jpg"], (b"2024", b"photos/2024")),
    (["2024", "2025/**"], (b"2024", b"2025")),
    (["photos"], (b"", b"photos")),
    (["files"], (b"", b"files")),
    (["files/other/x"], (b"files/other/x",)),
    (["*/a.jpg"], (b"",)),
    (["2024", "[ab]/x"], (b"", b"2024")),
]


@pytest.mark.parametrize(("given", "branches"), _BRANCHES)
def test_a_pattern_says_where_to_look(given: list[str], branches: tuple[bytes, ...]) -> None:
    assert Patterns(given).branches("photos") == branches


@pytest.mark.parametrize(("pattern", "path"), _MATCHES)
def test_what_a_pattern_names_lies_where_it_says_to_look(pattern: str, path: bytes) -> None:
    branches = Patterns([pattern]).branches("photos")

    assert any((path + b"/").startswith(branch + b"/" if branch else b"") for branch in branches)
