"""What the product writes is what docs/format.md says, and stays readable for ever."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from backup_admin.core.clock import SystemClock
from backup_admin.core.paths import path_to_json
from backup_admin.core.progress import QuietReporter
from backup_admin.core.state import StateFolder
from backup_admin.operations.check import check_repository
from backup_admin.operations.key_rotation import rotate
from backup_admin.operations.rekeying import RetireOptions, retire
from backup_admin.operations.results import SourceSet
from backup_admin.operations.verify import verify_snapshot
from backup_admin.operations.wal_archive import archive_file
from backup_admin.repository.config import Parameters
from backup_admin.repository.history import OPERATIONS
from backup_admin.repository.repository import open_repository
from backup_admin.repository.secrets import (
    RepositorySecret,
    parse_application_key,
    parse_recovery_key,
    passphrase_secret,
)
from backup_admin.sources.app_settings import SettingsSource
from backup_admin.sources.files import FileSource
from backup_admin.sources.sqlite import SqliteSource
from backup_admin.storage.local import LocalStorage
from tests.factories import (
    CLOCK,
    OTHER_SECRET,
    SECRET,
    change_tree,
    make_storage,
    noise,
    open_test_repository,
    prose,
    run_backup,
    write_tree,
)
from tests.keyed import make_site
from tests.unit.repository import independent_reader
from tests.unit.repository.independent_reader import Reader, Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.keyed import Site

ROOT = Path(__file__).parents[3]
FIXTURES = sorted((ROOT / "tests/data/repositories").glob("format-*"))
KINDS = ("raw", "recovery", "passphrase")


@pytest.fixture(params=FIXTURES, ids=lambda path: path.name)
def fixture(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.param
    return folder


def secret(folder: Path, kind: str) -> RepositorySecret:
    keys = json.loads((folder / "secrets.json").read_text())
    parsed: dict[str, Callable[[], RepositorySecret]] = {
        "raw": lambda: parse_application_key(keys["application_key"]),
        "recovery": lambda: parse_recovery_key(keys["recovery_key"]),
        "passphrase": lambda: passphrase_secret(keys["passphrase"]),
    }
    return parsed[kind]()


def described(entry: independent_reader.Entry) -> dict[str, Any]:
    value: dict[str, Any] = {
        "path": path_to_json(entry.path),
        "mode": entry.mode,
        "mtime_ns": entry.mtime_ns,
        "kind": entry.kind,
    }
    if entry.kind == "f":
        value["sha256"] = hashlib.sha256(entry.data).hexdigest()
    if entry.kind == "l":
        value["target"] = entry.target.decode()
    return value


def dump_digest(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        return hashlib.sha256("\n".join(connection.iterdump()).encode()).hexdigest()


def test_there_is_a_fixture_for_every_released_format() -> None:
    assert [folder.name for folder in FIXTURES] == ["format-1"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_stranger_reads_an_old_repository_whole(fixture: Path, tmp_path: Path, kind: str) -> None:
    expected = json.loads((fixture / "expected.json").read_text())

    reader = Reader(fixture / "objects", kind, secret(fixture, kind).material)

    assert set(reader.manifests) == set(expected)
    for snapshot, wanted in expected.items():
        header, body = reader.manifest(snapshot)
        entries = [described(entry) for root in body["files"] for entry in reader.entries(root)]
        (database,) = body["databases"]
        path = tmp_path / f"{snapshot}.db"
        path.write_bytes(reader.content(database["content"], database["size"], database["sha256"]))
        found = {
            "label": header["label"],
            "entries": sorted(entries, key=lambda entry: json.dumps(entry["path"])),
            "dump": dump_digest(path),
            "settings": reader.settings(body),
        }
        assert found == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_the_product_reads_an_old_repository_whole(fixture: Path, tmp_path: Path, kind: str) -> None:
    state = StateFolder(tmp_path)
    storage = LocalStorage(fixture / "objects")

    repository = open_repository(storage, secret(fixture, kind), state=state, clock=SystemClock())

    expected = json.loads((fixture / "expected.json").read_text())
    assert set(repository.snapshot_ids()) == set(expected)
    assert check_repository(repository, read_data=True, reporter=QuietReporter()).problems == ()
    for snapshot in repository.snapshot_ids():
        report = verify_snapshot(repository, snapshot, state=state, reporter=QuietReporter())
        assert (report.files, report.databases, report.problems) == (
            sum(entry["kind"] == "f" for entry in expected[snapshot]["entries"]),
            1,
            (),
        )


def test_the_text_forms_of_keys_are_what_a_stranger_reads(fixture: Path) -> None:
    keys = json.loads((fixture / "secrets.json").read_text())

    assert independent_reader.read_application_key(keys["application_key"]) == secret(fixture, "raw").material
    assert (
        independent_reader.read_recovery_key(keys["recovery_key"].lower())
        == secret(fixture, "recovery").material
    )


def test_a_fixture_is_small(fixture: Path) -> None:
    assert sum(path.stat().st_size for path in fixture.rglob("*") if path.is_file()) < 300_000


def test_a_stranger_restores_what_the_product_wrote_byte_for_byte(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "objects")
    make_storage(storage)
    tree = write_tree(tmp_path / "files")
    (tree / "twin").hardlink_to(tree / "text/long.txt")
    database = tmp_path / "app.db"
    sources = SourceSet(
        files=(FileSource("uploads", tree),),
        databases=(SqliteSource("app", database),),
        settings=SettingsSource(lambda: {"A": [1, None, "ä"], "TOKEN": "t"}),
    )
    repository = open_test_repository(storage, tmp_path / "state")
    for turn in range(2):
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("CREATE TABLE IF NOT EXISTS note (id INTEGER PRIMARY KEY, text TEXT)")
            rows = [(f"{turn} {number} " * 20,) for number in range(400)]
            connection.executemany("INSERT INTO note (text) VALUES (?)", rows)
        snapshot = run_backup(repository, sources, tmp_path / "state").snapshot.id
        if turn == 0:
            change_tree(tree)

    reader = Reader(tmp_path / "objects", "raw", SECRET.material)

    _, body = reader.manifest(snapshot)
    entries = [entry for root in body["files"] for entry in reader.entries(root)]
    live = {path.relative_to(tree) for path in tree.rglob("*")}
    assert {Path(entry.path.decode("utf-8", "surrogateescape")) for entry in entries} == live
    for entry in entries:
        path = tree / entry.path.decode("utf-8", "surrogateescape")
        assert (entry.mtime_ns, entry.mode) == (path.lstat().st_mtime_ns, path.lstat().st_mode & 0o7777)
        if entry.kind == "f":
            assert entry.data == path.read_bytes()
        if entry.kind == "l":
            assert entry.target.decode() == str(path.readlink())
    groups = {entry.path: entry.group for entry in entries if entry.group}
    assert groups[b"twin"] == groups[b"text/long.txt"]
    copy = tmp_path / "copy.db"
    (saved,) = body["databases"]
    copy.write_bytes(reader.content(saved["content"], saved["size"], saved["sha256"]))
    assert dump_digest(copy) == dump_digest(database)
    assert reader.settings(body) == {"values": {"A": [1, None, "ä"]}, "secrets": {"TOKEN": "t"}}


def test_a_stranger_reads_a_repository_whose_keys_were_rotated_and_retired(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site", snapshots=2)
    paper = OTHER_SECRET
    rotate(site.open(), (SECRET,), actor="tests", clock=SystemClock())
    write_tree(site.root, {"after": b"after the rotation\n" * 99})
    site.snapshots.append(site.back_up())

    assert stranger_reads(site, tmp_path / "rotated", paper) == site_files(site)

    retire(
        site.open(),
        RetireOptions(1, (SECRET, paper)),
        actor="tests",
        state=StateFolder(site.state),
        reporter=QuietReporter(),
        clock=SystemClock(),
    )

    assert stranger_reads(site, tmp_path / "retired", paper) == site_files(site)


def site_files(site: Site) -> dict[bytes, bytes]:
    return {path.name.encode(): path.read_bytes() for path in site.root.iterdir()}


def stranger_reads(site: Site, folder: Path, given: RepositorySecret) -> dict[bytes, bytes]:
    """Write the objects into a folder and return the files of the newest snapshot."""
    for info in site.storage.list_objects(""):
        (folder / info.name).parent.mkdir(parents=True, exist_ok=True)
        (folder / info.name).write_bytes(site.storage.get(info.name))
    reader = Reader(folder, given.kind.value, given.material)
    assert list(reader.manifests) == site.snapshots
    _, body = reader.manifest(site.snapshots[-1])
    return {entry.path: entry.data for entry in reader.entries(body["files"][0])}


def test_every_chunk_of_the_index_is_found_from_the_packs_alone(fixture: Path) -> None:
    reader = Reader(fixture / "objects", "raw", secret(fixture, "raw").material)

    chunks = reader.rebuild_index()

    assert set(chunks) == set(reader.places)
    assert all(len(data) == reader.places[chunk][0].length for chunk, data in chunks.items())


def test_a_stranger_refuses_a_wrong_secret(fixture: Path) -> None:
    with pytest.raises(Refused):
        Reader(fixture / "objects", "raw", bytes(32))


def test_the_page_names_every_parameter_operation_and_field(fixture: Path) -> None:
    reader = Reader(fixture / "objects", "raw", secret(fixture, "raw").material)
    header, body = reader.manifest(min(reader.manifests))
    names = {field.name for field in fields(Parameters)} | OPERATIONS | header.keys() | body.keys()
    names |= body["databases"][0].keys() | body["files"][0].keys() | body["settings"].keys()
    page = (ROOT / "docs/format.md").read_text()

    assert {name for name in names if f"`{name}`" not in page and f'"{name}"' not in page} == set()


def test_the_second_reader_shares_no_code_with_the_product() -> None:
    text = Path(independent_reader.__file__).read_text()

    assert "backup_admin" in text
    assert re.findall(r"^\s*(?:from|import) (?:backup_admin|tests)\b.*", text, re.MULTILINE) == []


def test_a_wal_file_is_read_by_the_page_alone(tmp_path: Path) -> None:
    folder = tmp_path / "storage"
    folder.mkdir()
    storage = make_storage(LocalStorage(folder))
    repository = open_test_repository(storage, tmp_path / "state")
    for file, data in (
        ("00000001000000000000000A", prose(9 << 20) + noise(5 << 20)),
        ("00000002.history", b""),
    ):
        archive_file(repository, "6b095dbd928dd2ac", file, data, clock=CLOCK)

        assert Reader(folder, "raw", SECRET.material).wal("6b095dbd928dd2ac", file) == data
