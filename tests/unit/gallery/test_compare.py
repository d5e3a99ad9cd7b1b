import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from examples.gallery.compare import (
    Entry,
    describe_database,
    describe_tree,
    differences,
)

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "a/temp").mkdir(parents=True)
    (root / "a/one").write_bytes(b"")
    (root / "a/one").chmod(0o640)
    os.utime(root / "a/one", ns=(5, 5))
    (root / "a/temp/left out").write_bytes(b"x")
    (root / "link").symlink_to("nowhere")
    return root


@pytest.fixture
def database(tmp_path: Path) -> Iterator[tuple[Path, sqlite3.Connection]]:
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE plain (id INTEGER PRIMARY KEY, x)")
        connection.execute("CREATE TABLE keyed (b, a, x, PRIMARY KEY (a, b)) WITHOUT ROWID")
        connection.execute("INSERT INTO plain VALUES (1, 1.5), (7, X'00ff'), (9, NULL)")
        connection.execute("INSERT INTO keyed VALUES (2, 1, 'ü'), (1, 1, ''), (0, 3, 4)")
        connection.execute("CREATE INDEX by_x ON plain (x) WHERE x IS NOT NULL")
        yield path, connection


def test_a_tree_is_described_by_names_in_bytes(tree: Path) -> None:
    described = describe_tree(tree, exclude=["temp/"])

    assert set(described) == {b"a", b"a/one", b"link"}
    assert described[b"a/one"] == Entry("file", 0o640, 5, EMPTY)
    assert described[b"link"].content == "nowhere"


def test_equal_trees_have_no_differences(tree: Path) -> None:
    assert differences(describe_tree(tree), describe_tree(tree)) == []


def test_each_change_in_a_tree_is_one_sentence(tree: Path) -> None:
    before = describe_tree(tree)
    times = {path: path.stat().st_mtime_ns for path in (tree, tree / "a")}
    (tree / "a/one").chmod(0o600)
    (tree / "link").unlink()
    (tree / "new").touch()
    for path, time in times.items():
        os.utime(path, ns=(time, time))

    assert differences(before, describe_tree(tree)) == [
        "'link' is missing.",
        "'new' was not there before.",
        "'a/one' differs in mode (416 became 384).",
    ]


def test_many_differences_are_cut_short() -> None:
    before = {f"{number:02d}": Entry("file", 0, 0, "") for number in range(25)}

    sentences = differences(before, {})

    assert len(sentences) == 21
    assert sentences[-1] == "And 5 more like these."


def test_tables_with_and_without_rowid_are_counted(
    database: tuple[Path, sqlite3.Connection],
) -> None:
    described = describe_database(database[0])

    assert {name: state.rows for name, state in described.items()} == {
        "table plain": 3,
        "table keyed": 3,
        "index by_x": 0,
    }


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ("UPDATE plain SET x = '1.5' WHERE id = 1", "table plain"),
        ("UPDATE plain SET id = 8 WHERE id = 7", "table plain"),
        ("UPDATE keyed SET x = 'u' WHERE b = 2", "table keyed"),
        ("ALTER TABLE plain RENAME COLUMN x TO y", "table plain"),
        ("DROP INDEX by_x", "index by_x"),
    ],
)
def test_a_change_in_the_database_shows(
    database: tuple[Path, sqlite3.Connection], change: str, changed: str
) -> None:
    before = describe_database(database[0])

    database[1].execute(change)

    sentences = differences(before, describe_database(database[0]))
    assert any(sentence.startswith(f"'{changed}'") for sentence in sentences)
