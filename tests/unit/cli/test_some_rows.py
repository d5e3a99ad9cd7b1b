"""Tables, keys and columns as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from backup_admin.cli.some_rows import Chosen, select_rows
from backup_admin.core.errors import UsageError
from backup_admin.operations.linked_files import Link
from backup_admin.operations.results import SourceSet
from backup_admin.sources.merging.merge_model import OnConflict
from backup_admin.sources.sqlite import SqliteSource

TARGETS = SourceSet(databases=(SqliteSource("shop", Path("/a")), SqliteSource("shop.old", Path("/b"))))


def chosen(tables: tuple[str, ...] = (), rows: tuple[str, ...] = (), linked: tuple[str, ...] = ()) -> Chosen:
    return Chosen(tables, rows, "skip", linked, (), (), ())


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("shop.events:42", ("events", "42")),
        ("shop.audit.log:1,2", ("audit.log", "1,2")),
        ("shop.events:a:b", ("events", "a:b")),
        ("shop.events:", ("events", "")),
        ('shop."odd:name":7', ("odd:name", "7")),
        ('shop."My S"."a""b":"x,y",2', ('My S.a"b', '"x,y",2')),
        ("shop.events:line\nbreak", ("events", "line\nbreak")),
    ],
)
def test_a_row_is_a_table_and_a_key(text: str, meant: tuple[str, str]) -> None:
    found = select_rows(chosen(rows=(text,)), TARGETS)

    assert (found.database, found.rows, found.on_conflict) == ("shop", (meant,), OnConflict.SKIP)


def test_the_longest_name_of_a_database_counts() -> None:
    assert select_rows(chosen(tables=("shop.old.events",)), TARGETS).database == "shop.old"


def test_a_link_is_a_column_and_a_folder_of_the_snapshot() -> None:
    found = select_rows(
        chosen(("shop.photos",), (), ("shop.audit.photos.path=files/uploads/2024/",)), TARGETS
    )

    assert found.links == (Link("audit.photos", "path", "files", "uploads/2024"),)


@pytest.mark.parametrize(
    "wrong",
    [
        chosen(rows=("shop.events",)),
        chosen(rows=("shop.:1",)),
        chosen(tables=("events",)),
        chosen(tables=("shop.",)),
        chosen(tables=("shop.a", "shop.old.b")),
        chosen(tables=("shop.a",), linked=("shop.a.b",)),
        chosen(tables=("shop.a",), linked=("shop.a=files",)),
        chosen(tables=("shop.a",), linked=("shop.old.a.b=files",)),
    ],
)
def test_what_cannot_be_read_is_wrong_use(wrong: Chosen) -> None:
    with pytest.raises(UsageError):
        select_rows(wrong, TARGETS)


def test_without_a_database_nothing_can_be_meant() -> None:
    with pytest.raises(UsageError, match="--sqlite NAME=FILE"):
        select_rows(chosen(tables=("shop.a",)), SourceSet())
