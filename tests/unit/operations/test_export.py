"""An exported manifest fits its schema, agrees with the snapshot, and holds no secret."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from backup_admin.operations.export import export_manifest, saved_settings
from backup_admin.operations.results import SourceSet
from backup_admin.sources.app_settings import SettingsSource
from backup_admin.sources.files import FileSource
from backup_admin.sources.sqlite import SqliteSource
from tests.factories import file_sources, make_storage, open_test_repository, run_backup, write_tree

SCHEMA = json.loads((Path(__file__).parents[3] / "docs/manifest.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def exported(tmp_path: Path, sources: SourceSet) -> dict[str, Any]:
    repository = open_test_repository(make_storage(), tmp_path / "state")
    run_backup(repository, sources, tmp_path / "state")
    result = run_backup(repository, sources, tmp_path / "state", label='a "label" ä')
    value: dict[str, Any] = json.loads("".join(export_manifest(repository, result.snapshot.id)))
    return value


def full(tmp_path: Path) -> SourceSet:
    tree = write_tree(tmp_path / "files")
    (tree / "twin").hardlink_to(tree / "empty")
    os.utime(tree / "empty", ns=(0, -1_500_000_000))
    (tree / "tab\tnew\nline").write_bytes(b"x")
    os.symlink(b"target-\xff", os.fsencode(tree / "odd link"))  # noqa: PTH211  bytes that are no text
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection, connection:
        connection.execute("CREATE TABLE photo (id INTEGER PRIMARY KEY)")
    settings = SettingsSource(
        lambda: {"SITE": "Gallery", "NUMBER": 1.5, "API_TOKEN": "canary-1", "URL": "db://u:canary-2@host/x"}
    )
    return SourceSet(
        files=(
            FileSource("uploads", tree, exclude=("*.tmp",)),
            FileSource("more", write_tree(tmp_path / "b")),
        ),
        databases=(SqliteSource("app", tmp_path / "app.db"),),
        settings=settings,
    )


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_a_full_snapshot_fits_the_schema_and_holds_no_secret(tmp_path: Path) -> None:
    value = exported(tmp_path, full(tmp_path))

    VALIDATOR.validate(value)
    assert "canary" not in json.dumps(value)
    assert value["settings"] == {"SITE": "Gallery", "NUMBER": 1.5}
    assert value["sealed_settings"] == ["API_TOKEN", "URL"]
    assert value["database"] == value["databases"][0]
    assert value["database"]["tables"]["photo"]["rows"] == 0
    assert value["label"] == 'a "label" ä'
    paths = [entry["path"] for entry in value["files"]["entries"]]
    assert {"b64": "bm90LXV0Zjgt/w=="} in paths
    assert "tab\tnew\nline" in paths


def test_the_counts_agree_with_the_entries(tmp_path: Path) -> None:
    value = exported(tmp_path, full(tmp_path))

    files = [entry for entry in value["files"]["entries"] if entry["kind"] == "file"]
    assert value["files"]["count"] == len(files) == value["totals"]["files"]
    assert value["files"]["total_size"] == sum(entry["size"] for entry in files)
    assert [(source["name"], source["excluded"]) for source in value["sources"]] == [
        ("uploads", ["*.tmp"]),
        ("more", []),
    ]


@pytest.mark.parametrize("files", [{}, {"a": b"x"}])
def test_a_snapshot_of_little_fits_the_schema(tmp_path: Path, files: dict[str, bytes]) -> None:
    (tmp_path / "files").mkdir()
    value = exported(tmp_path, file_sources(write_tree(tmp_path / "files", files)))

    VALIDATOR.validate(value)
    assert value["database"] is None
    assert len(value["files"]["entries"]) == len(files)


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1},
        {"version": "2.0.0"},
        {"outcome": "fine"},
        {"id": "x"},
        {"files": {"count": -1, "total_size": 0, "entries": []}},
        {"files": {"count": 1, "total_size": 0, "entries": [{"path": "a"}]}},
    ],
)
def test_the_schema_refuses_what_does_not_fit(tmp_path: Path, change: dict[str, Any]) -> None:
    value = exported(tmp_path, file_sources(write_tree(tmp_path / "files")))

    assert not VALIDATOR.is_valid(value | change)


def test_a_time_no_calendar_holds_does_not_stop_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = write_tree(tmp_path / "files", {"a": b"x"})
    sources = file_sources(tree)
    repository = open_test_repository(make_storage(), tmp_path / "state")
    result = run_backup(repository, sources, tmp_path / "state")
    entries = list(repository.entries(repository.manifest(result.snapshot.id).files[0]))
    monkeypatch.setattr(type(repository), "entries", lambda *_: iter([entries[0]._replace(mtime_ns=10**21)]))

    value = json.loads("".join(export_manifest(repository, result.snapshot.id)))

    VALIDATOR.validate(value)
    assert value["files"]["entries"][0]["modified"] == "9999-12-31T23:59:59.999999999Z"


def test_saved_settings_come_back_with_their_secrets(tmp_path: Path) -> None:
    repository = open_test_repository(make_storage(), tmp_path / "state")
    result = run_backup(repository, file_sources(write_tree(tmp_path / "files")), tmp_path / "state")

    saved = saved_settings(repository.reader(), repository.manifest(result.snapshot.id).settings)

    assert saved == {"values": {"SITE_NAME": "Gallery"}, "secrets": {"API_TOKEN": "t-0123"}}
