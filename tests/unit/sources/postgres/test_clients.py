"""Which client programs are taken: that of the server's version first, and never one that cannot."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from backup_admin.sources.postgres import clients as clients_module
from backup_admin.sources.postgres.clients import (
    ClientPrograms,
    NoClient,
    choose_for_dump,
    choose_for_restore,
    find_clients,
)

if TYPE_CHECKING:
    from pathlib import Path


def client(path: Path, version: str) -> ClientPrograms:
    major, _, minor = version.partition(".")
    return ClientPrograms(path / version, int(major), int(minor))


def install(folder: Path, version: str, restore: str = "", status: int = 0) -> Path:
    folder.mkdir(parents=True)
    for name, own in (("pg_dump", version), ("pg_restore", restore or version)):
        program = folder / name
        program.write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {own} (Debian 1.pgdg+1)'\nexit {status}\n")
        program.chmod(0o755)
    return folder


@pytest.fixture
def nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients_module, "_PATTERNS", ())
    monkeypatch.setattr(clients_module, "find_spec", lambda _name: None)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")


@pytest.mark.usefixtures("nothing_else")
def test_a_named_folder_comes_first_then_packages_then_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = install(tmp_path / "named", "16.4")
    for version in ("14.9", "16.4", "17.1"):
        install(tmp_path / f"pg-{version}/bin", version)
    on_path = install(tmp_path / "path", "18beta1")
    broken = install(tmp_path / "broken", "15.2", status=1)
    mixed = install(tmp_path / "mixed", "15.2", restore="14.2")
    monkeypatch.setattr(clients_module, "_PATTERNS", (f"{tmp_path}/pg-*/bin",))
    monkeypatch.setenv("PATH", os.pathsep.join(map(str, (broken, mixed, on_path, tmp_path / "none"))))

    found = find_clients(named)

    assert [(one.folder, one.version) for one in found] == [
        (named, "16.4"),
        (tmp_path / "pg-17.1/bin", "17.1"),
        (tmp_path / "pg-14.9/bin", "14.9"),
        (on_path, "18.0"),
    ]


@pytest.mark.usefixtures("nothing_else")
def test_programs_that_are_replaced_are_asked_again(tmp_path: Path) -> None:
    folder = install(tmp_path / "named", "16.4")
    assert [one.version for one in find_clients(folder)] == ["16.4"]
    for name in ("pg_dump", "pg_restore"):
        (folder / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) 16.10'\n")

    assert [one.version for one in find_clients(folder)] == ["16.10"]


@pytest.mark.parametrize(
    ("server", "expected"),
    [(13, "14.9"), (14, "14.9"), (15, "16.4"), (16, "16.4"), (17, "18.1"), (18, "18.1")],
)
def test_a_dump_is_made_by_the_version_of_the_server_or_the_next_one(
    tmp_path: Path, server: int, expected: str
) -> None:
    installed = [client(tmp_path, version) for version in ("18.1", "16.2", "14.9", "16.4")]

    assert choose_for_dump(installed, server).version == expected


def test_no_program_for_a_newer_server_is_told_with_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(NoClient, match=r"installed: 15\.2\. .*postgresql-client-18"):
        choose_for_dump([client(tmp_path, "15.2")], 18)
    with pytest.raises(NoClient, match="installed: none"):
        choose_for_dump([], 13)


@pytest.mark.parametrize(
    ("installed", "archive", "server", "expected", "filters"),
    [
        (("15.1", "18.1"), 15, 15, "15.1", False),
        (("15.1", "18.1"), 15, 18, "18.1", False),
        (("15.1", "18.1"), 18, 15, "18.1", True),  # only it reads the archive, and the server knows less
        (("16.1", "17.1"), 15, 15, "16.1", False),
        (("15.1",), 15, 18, "15.1", False),
        (("17.1", "18.1"), 17, 17, "17.1", False),
        (("17.1",), 15, 16, "17.1", True),
    ],
)
def test_an_archive_is_restored_by_what_reads_it_and_suits_the_server(
    tmp_path: Path, installed: tuple[str, ...], archive: int, server: int, expected: str, filters: bool
) -> None:
    found = choose_for_restore(
        [client(tmp_path, version) for version in installed], archive_major=archive, server_major=server
    )

    assert (found.programs.version, found.filters) == (expected, filters)


def test_an_archive_of_a_newer_version_than_all_programs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoClient, match="an archive of pg_dump 18"):
        choose_for_restore([client(tmp_path, "15.1")], archive_major=18, server_major=15)
