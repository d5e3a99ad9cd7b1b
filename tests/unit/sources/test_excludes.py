"""Exclude patterns leave out what gitignore's would, and nothing else."""

from __future__ import annotations

import pytest

from backup_admin.core.errors import ConfigurationError
from backup_admin.sources.excludes import Excludes


def matches(pattern: str, path: str, *, is_folder: bool = False) -> bool:
    raw = path.encode()
    return Excludes((pattern,)).match(raw, raw.rpartition(b"/")[2], is_folder=is_folder)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*.tmp", "a.tmp"),
        ("*.tmp", "deep/er/a.tmp"),
        ("/only/at/root", "only/at/root"),
        ("a/**/b", "a/b"),
        ("a/**/b", "a/x/y/b"),
        ("a/**", "a/x/y"),
        ("**/b", "x/y/b"),
        ("/*.log", "x.log"),
        ("a?c", "abc"),
        ("a?c", "aéc"),
        ("[ab].txt", "b.txt"),
        ("[!ab].txt", "ü.txt"),
        ("[]].txt", "].txt"),
        ("\\*.txt", "*.txt"),
        ("with space", "x/with space"),
        ("line\nbreak", "line\nbreak"),
    ],
)
def test_a_pattern_leaves_out_what_it_names(pattern: str, path: str) -> None:
    assert matches(pattern, path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*.tmp", "a.tmpx"),
        ("*.tmp", "a.tmp/b"),
        ("/only", "x/only"),
        ("only/here", "x/only/here"),
        ("a/**/b", "x/a/b"),
        ("/*.log", "x/y.log"),
        ("a?c", "a/c"),
        ("[!ab].txt", "a.txt"),
        ("\\*.txt", "x.txt"),
        ("a.b", "axb"),
        ("temp/", "temp"),
    ],
)
def test_a_pattern_leaves_in_what_it_does_not_name(pattern: str, path: str) -> None:
    assert not matches(pattern, path)


def test_a_pattern_with_a_slash_at_its_end_is_for_folders() -> None:
    assert matches("temp/", "x/temp", is_folder=True)
    assert matches("/x/temp/", "x/temp", is_folder=True)
    assert not matches("/x/temp/", "x/temp")


def test_leftovers_of_nfs_and_of_our_own_are_always_left_out() -> None:
    assert matches("*.tmp", ".nfs0000000012")
    assert matches("*.tmp", "x/.backup-admin-stage-1", is_folder=True)
    assert not matches("*.tmp", ".network")


@pytest.mark.parametrize("pattern", ["", "/", "//", "!keep", "a/../b", "[ab", "[é]", "a\0b", "[b-a]"])
def test_a_pattern_that_is_none_is_refused_by_name(pattern: str) -> None:
    with pytest.raises(ConfigurationError, match="pattern"):
        Excludes((pattern,))
