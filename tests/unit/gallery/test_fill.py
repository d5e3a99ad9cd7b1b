import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from examples.gallery.chance import seeded
from examples.gallery.compare import describe_tree
from examples.gallery.fill import check_links, fill
from examples.gallery.folders import EXCLUDED_FOLDERS, Folders
from examples.gallery.library import LONGEST_NAME_BYTES, Sizes, plan_library
from examples.gallery.tree import NAME_THAT_IS_NOT_TEXT


@pytest.fixture
def database(filled: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(Folders(filled).database)) as connection:
        yield connection


def names(folder: Path) -> list[bytes]:
    return list(describe_tree(folder))


def test_the_same_seed_gives_the_same_gallery(filled: Path, tmp_path: Path) -> None:
    fill(tmp_path / "again")

    first, second = Folders(filled), Folders(tmp_path / "again")
    assert describe_tree(first.storage) == describe_tree(second.storage)
    assert dump(first.database) == dump(second.database)


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def test_a_tiny_gallery_is_tiny(filled: Path) -> None:
    files = [path for path in filled.rglob("*") if path.is_file()]

    assert 50 <= len(files) <= 70
    assert 2_000_000 <= sum(path.stat().st_size for path in files) <= 4_000_000


def test_every_row_finds_its_files(filled: Path) -> None:
    assert check_links(filled) == []


def test_a_lost_file_is_named(data: Path) -> None:
    victim = next((data / "storage/thumbnails").iterdir())
    victim.unlink()

    assert check_links(data) == [f"thumbnails/{victim.name}"]


def test_the_database_is_sound(database: sqlite3.Connection) -> None:
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert database.execute("PRAGMA foreign_key_check").fetchall() == []


def test_foreign_keys_go_in_a_circle(database: sqlite3.Connection) -> None:
    circle = """SELECT count(*) FROM events e JOIN photos p ON p.id = e.hero_photo_id
        JOIN photo_categories c ON c.id = p.category_id
        JOIN photos h ON h.id = c.hero_photo_id WHERE p.event_id = e.id"""

    assert database.execute(circle).fetchone() == (3,)


def test_ids_have_gaps_and_numbers_are_large(database: sqlite3.Connection) -> None:
    tokens = database.execute("SELECT id FROM api_tokens ORDER BY id").fetchall()
    views = database.execute("SELECT min(view_count) FROM events").fetchone()

    assert tokens == [(1,), (2,), (5,), (9,), (40,)]
    assert views[0] >= 2**31


def test_mail_is_waiting(database: sqlite3.Connection) -> None:
    waiting = "SELECT count(*) FROM email_queue WHERE status = 'pending'"

    assert database.execute(waiting).fetchone() == (8,)


def test_names_are_awkward(filled: Path) -> None:
    found = names(filled / "storage")

    assert NAME_THAT_IS_NOT_TEXT in found
    assert any(len(name.rpartition(b"/")[2]) == LONGEST_NAME_BYTES for name in found)
    assert any("🎉".encode() in name for name in found)
    assert any("e\u0301".encode() in name for name in found)
    assert any(b'"' in name for name in found)


def test_kinds_and_modes_are_mixed(filled: Path) -> None:
    entries = describe_tree(filled / "storage").values()

    assert {entry.kind for entry in entries} == {"file", "folder", "link"}
    assert {0o600, 0o644} <= {entry.mode for entry in entries if entry.kind == "file"}
    assert 0o700 in {entry.mode for entry in entries if entry.kind == "folder"}


def test_there_are_an_empty_file_an_empty_folder_and_a_hollow_one(filled: Path) -> None:
    storage = filled / "storage"
    sizes = [path.lstat() for path in storage.rglob("*") if path.is_file()]

    assert any(info.st_size == 0 for info in sizes)
    assert not list((storage / "uploads/favicons").iterdir())
    assert any(info.st_blocks * 512 < info.st_size // 2 for info in sizes)


def test_times_lie_years_apart_and_have_nanoseconds(filled: Path) -> None:
    times = [path.lstat().st_mtime_ns for path in (filled / "storage").rglob("*")]

    assert max(times) - min(times) > 2 * 365 * 86_400 * 10**9
    assert any(time % 1000 for time in times)


def test_scratch_is_there_to_be_left_out(filled: Path) -> None:
    storage = filled / "storage"
    left_out = set(names(storage)) - set(describe_tree(storage, exclude=EXCLUDED_FOLDERS))

    assert len(left_out) == 7
    assert not stat.S_ISLNK((storage / "temp").lstat().st_mode)


def test_copies_and_exports_have_their_share() -> None:
    photos = plan_library(seeded("share"), events=12, photos=2_000, sizes=Sizes()).photos
    bodies = [photo.body_seed for photo in photos]
    whole = [(photo.body_seed, photo.header) for photo in photos]
    repeated, copied = len(bodies) - len(set(bodies)), len(whole) - len(set(whole))

    assert 100 <= repeated <= 190
    assert 25 <= copied <= 70
