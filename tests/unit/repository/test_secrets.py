"""Keys in the form people keep them: exact, checked, and private on disk."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.errors import BadSecret, NotPermitted, UsageError
from backup_admin.core.secret import Secret
from backup_admin.repository.secrets import (
    SecretKind,
    generate_application_key,
    generate_recovery_key,
    parse_application_key,
    parse_recovery_key,
    passphrase_secret,
    read_key_file,
    recovery_key_groups,
    write_key_file,
)

if TYPE_CHECKING:
    from pathlib import Path

APPLICATION = "bkm1_aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dypqmxj3"
RECOVERY = "AAAQEAY-EAUDAOC-AJBIFQY-DIOB4IB-CEQTCQK-RMFYYDE-NBWHA5D-YPQHUKR"


def test_the_published_keys_are_read() -> None:
    application, recovery = parse_application_key(APPLICATION), parse_recovery_key(RECOVERY)

    assert (application.kind, application.material) == (SecretKind.RAW, bytes(range(32)))
    assert (recovery.kind, recovery.material) == (SecretKind.RECOVERY, bytes(range(32)))


def test_a_new_application_key_has_its_form_and_is_read_back() -> None:
    key = generate_application_key().reveal()

    assert re.fullmatch(r"bkm1_[a-z2-7]{56}", key)
    assert parse_application_key(f"  {key}\n") == parse_application_key(key)
    assert generate_application_key().reveal() != key


def test_a_new_recovery_key_has_eight_groups_and_is_read_back() -> None:
    key = generate_recovery_key()

    assert re.fullmatch(r"([A-Z2-7]{7}-){7}[A-Z2-7]{7}", key.reveal())
    assert "-".join(recovery_key_groups(key)) == key.reveal()
    assert len(parse_recovery_key(key.reveal()).material) == 32


def test_a_recovery_key_is_read_as_people_type_it() -> None:
    typed = RECOVERY.lower().replace("-", " ").replace("o", "0").replace("i", "1").replace("b", "8")

    assert parse_recovery_key(typed) == parse_recovery_key(RECOVERY)


def test_one_wrong_character_anywhere_in_a_recovery_key_is_noticed() -> None:
    passed = []
    for at, right in enumerate(RECOVERY):
        for wrong in "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567":
            if right not in ("-", wrong):
                try:
                    parse_recovery_key(RECOVERY[:at] + wrong + RECOVERY[at + 1 :])
                    passed.append((at, wrong))
                except BadSecret:
                    pass

    # Four characters of checksum: one mistake in a million may slip through.
    assert passed == []


def test_two_neighbours_swapped_in_an_application_key_are_noticed() -> None:
    swaps = [
        APPLICATION[:at] + APPLICATION[at + 1] + APPLICATION[at] + APPLICATION[at + 2 :]
        for at in range(5, len(APPLICATION) - 1)
        if APPLICATION[at] != APPLICATION[at + 1]
    ]

    for text in swaps:
        with pytest.raises(BadSecret):
            parse_application_key(text)


@pytest.mark.parametrize(
    "text",
    ["", "bkm1_", APPLICATION[5:], APPLICATION + "a", APPLICATION[:-1] + "é", "bkm1_" + "1" * 56, RECOVERY],
)
def test_what_is_no_application_key_is_refused(text: str) -> None:
    with pytest.raises(BadSecret):
        parse_application_key(text)


@pytest.mark.parametrize("text", ["", RECOVERY[:-1], RECOVERY + "A", RECOVERY[:-1] + "ß", APPLICATION])
def test_what_is_no_recovery_key_is_refused(text: str) -> None:
    with pytest.raises(BadSecret):
        parse_recovery_key(text)


def test_a_mistake_is_told_without_showing_the_key() -> None:
    with pytest.raises(BadSecret) as caught:
        parse_recovery_key(RECOVERY[:-1] + "2")

    assert not any(group in str(caught.value) for group in RECOVERY.split("-"))
    assert "AAAQEAY" not in repr(parse_recovery_key(RECOVERY)) + str(parse_recovery_key(RECOVERY).kind)


def test_a_short_passphrase_is_refused_and_a_long_one_kept_exactly() -> None:
    with pytest.raises(BadSecret):
        passphrase_secret("7 chars")

    assert passphrase_secret(" a häkel ").material == " a häkel ".encode()


@pytest.mark.parametrize("mode", [0o400, 0o600])
def test_a_private_key_file_is_read(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    path.write_text(f"{APPLICATION}\n")
    path.chmod(mode)

    assert read_key_file(path).reveal() == APPLICATION


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o601, 0o666])
def test_a_key_file_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    path.write_text(APPLICATION)
    path.chmod(mode)

    with pytest.raises(NotPermitted, match="chmod 600"):
        read_key_file(path)


def test_a_key_file_that_is_none_is_refused(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    binary.chmod(0o600)

    with pytest.raises(UsageError):
        read_key_file(tmp_path / "missing")
    with pytest.raises(UsageError):
        read_key_file(tmp_path)
    with pytest.raises(BadSecret):
        read_key_file(binary)


def test_a_key_file_is_written_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "key"

    write_key_file(path, Secret(APPLICATION))

    assert path.stat().st_mode & 0o777 == 0o600
    assert read_key_file(path).reveal() == APPLICATION
    with pytest.raises(UsageError, match="was not touched"):
        write_key_file(path, Secret("other"))
    with pytest.raises(UsageError):
        write_key_file(tmp_path / "missing/key", Secret("other"))
    assert read_key_file(path).reveal() == APPLICATION
