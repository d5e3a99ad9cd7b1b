"""Which secret is taken, and what a person may name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from backup_admin.cli.given import find_secrets, parse_key
from backup_admin.cli.named_sources import make_sources
from backup_admin.core.errors import BadSecret, NotPermitted, UsageError
from backup_admin.repository.secrets import (
    SecretKind,
    generate_application_key,
    generate_recovery_key,
    write_key_file,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


def kinds(key_file: Path | None = None, environment: Mapping[str, str] | None = None) -> list[str]:
    return [given.secret.kind.value for given in find_secrets(key_file, environment or {}, None)]


def test_keys_are_known_by_their_form() -> None:
    application, recovery = generate_application_key().reveal(), generate_recovery_key().reveal()

    assert parse_key(f" {application}\n", "x").kind is SecretKind.RAW
    assert parse_key(recovery.lower().replace("-", " "), "x").kind is SecretKind.RECOVERY


@pytest.mark.parametrize("text", ["", "hello", "bkm1_", "bkm1_short", "A" * 56])
def test_what_is_no_key_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(BadSecret, match="The file") as caught:
        parse_key(text, "The file")

    assert not text or text == "bkm1_" or text not in str(caught.value)


def test_named_file_is_the_only_secret(tmp_path: Path) -> None:
    write_key_file(tmp_path / "key", generate_recovery_key())

    assert kinds(tmp_path / "key", {"BACKUP_ADMIN_PASSPHRASE": "correct horse"}) == ["recovery"]


def test_environment_gives_several_secrets_to_try() -> None:
    environment = {
        "BACKUP_ADMIN_PASSPHRASE": "correct horse",
        "BACKUP_ADMIN_RECOVERY_KEY": generate_recovery_key().reveal(),
        "BACKUP_ADMIN_KEY": generate_application_key().reveal(),
    }

    assert kinds(None, environment) == ["raw", "recovery", "passphrase"]


def test_person_is_asked_last() -> None:
    (given,) = find_secrets(None, {}, lambda: generate_recovery_key().reveal())

    assert given.secret.kind is SecretKind.RECOVERY
    with pytest.raises(UsageError, match="No key"):
        find_secrets(None, {}, lambda: "")


def test_readable_key_file_is_refused(tmp_path: Path) -> None:
    write_key_file(tmp_path / "key", generate_application_key())
    (tmp_path / "key").chmod(0o604)

    with pytest.raises(NotPermitted, match="chmod 600"):
        find_secrets(None, {"BACKUP_ADMIN_KEY_FILE": str(tmp_path / "key")}, None)


def test_key_in_place_of_a_file_is_not_repeated() -> None:
    key = generate_application_key().reveal()

    with pytest.raises(UsageError) as caught:
        find_secrets(Path(key), {}, None)

    assert key not in str(caught.value)


def test_sources_pin_databases_and_what_else_is_left_alone(tmp_path: Path) -> None:
    made = make_sources(
        [f"f={tmp_path}"], [f"d={tmp_path}/a=b.db"], exclude=["*.tmp"], pinned=[tmp_path / "s"]
    )

    (files,), (database,) = made.files, made.databases
    assert (database.name, database.path) == ("d", tmp_path / "a=b.db")
    assert (files.root, files.exclude) == (tmp_path, ("*.tmp",))
    assert files.pinned == (tmp_path / "s", tmp_path / "a=b.db")


@pytest.mark.parametrize("text", ["", "name", "=path", "name="])
def test_source_without_name_or_path_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="NAME=DIR"):
        make_sources([text], [])
