"""Tables, keys and columns as people write them."""

from __future__ import annotations

import pytest

from backup_admin.core.errors import UsageError
from backup_admin.operations.linked_files import Link
from backup_admin.operations.rows_asked import AskedRows, select_rows
from backup_admin.sources.merging.merge_model import OnConflict

NAMES = ("shop", "shop.old")


def asked(
    tables: tuple[str, ...] = (), rows: tuple[str, ...] = (), linked: tuple[str, ...] = ()
) -> AskedRows:
    return AskedRows(tables, rows, "skip", linked)


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
    found = select_rows(asked(rows=(text,)), NAMES)

    assert (found.database, found.rows, found.on_conflict) == ("shop", (meant,), OnConflict.SKIP)


def test_the_longest_name_of_a_database_counts() -> None:
    assert select_rows(asked(tables=("shop.old.events",)), NAMES).database == "shop.old"


def test_a_link_is_a_column_and_a_folder_of_the_snapshot() -> None:
    found = select_rows(asked(("shop.photos",), (), ("shop.audit.photos.path=files/uploads/2024/",)), NAMES)

    assert found.links == (Link("audit.photos", "path", "files", "uploads/2024"),)


@pytest.mark.parametrize(
    "wrong",
    [
        asked(rows=("shop.events",)),
        asked(rows=("shop.:1",)),
        asked(tables=("events",)),
        asked(tables=("shop.",)),
        asked(tables=("shop.a", "shop.old.b")),
        asked(tables=("shop.a",), linked=("shop.a.b",)),
        asked(tables=("shop.a",), linked=("shop.a=files",)),
        asked(tables=("shop.a",), linked=("shop.old.a.b=files",)),
        asked(tables=("shop.\udcff",)),
    ],
)
def test_what_cannot_be_read_is_wrong_use(wrong: AskedRows) -> None:
    with pytest.raises(UsageError):
        select_rows(wrong, NAMES)
