"""Each slot opens with its own secret, and hostile ones are refused before any work."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from backup_admin.core.canonical import dump_canonical, load_strict
from backup_admin.core.errors import BackupAdminError, Damaged, NewerVersion, WrongKey
from backup_admin.repository.keys import Keyring, parse_keyring
from backup_admin.repository.secrets import RepositorySecret, SecretKind, passphrase_secret
from backup_admin.repository.slots import list_slots, make_slot, open_slots
from backup_admin.storage.memory import MemoryStorage
from tests.factories import OTHER_SECRET, SECRET

NOW = datetime(2026, 1, 1, tzinfo=UTC)
REPO_ID = bytes(range(64, 96))
KEYRING = Keyring({1: bytes(32), 2: b"\x01" * 32}, id_kid=1, write_kid=2)
PASSPHRASE = passphrase_secret("correct horse battery staple")


def add(storage: MemoryStorage, secret: RepositorySecret) -> str:
    name, data = make_slot(secret, KEYRING, REPO_ID, label="test", now=NOW)
    storage.put(name, data)
    return name


def with_header(data: bytes, **changes: Any) -> bytes:
    """Return a slot whose header says something else."""
    size = int.from_bytes(data[4:6], "big")
    header = load_strict(data[6 : 6 + size])
    header.update(changes)
    raw = dump_canonical(header)
    return data[:4] + len(raw).to_bytes(2, "big") + raw + data[6 + size :]


def only(data: bytes, name: str = "keys/0011223344556677") -> MemoryStorage:
    storage = MemoryStorage()
    storage.put(name, data)
    return storage


@pytest.mark.parametrize("secret", [SECRET, OTHER_SECRET, PASSPHRASE], ids=lambda secret: secret.kind.value)
def test_each_kind_of_secret_opens_its_slot(secret: RepositorySecret) -> None:
    storage = MemoryStorage()
    add(storage, secret)

    assert open_slots(storage, secret, REPO_ID) == KEYRING


def test_slots_written_anew_since_they_were_listed_are_found() -> None:
    storage = MemoryStorage()
    add(storage, SECRET)

    assert open_slots(storage, SECRET, REPO_ID, listed=lambda: ("0011223344556677",)) == KEYRING


def test_the_right_one_of_many_slots_is_found() -> None:
    storage = MemoryStorage()
    names = {add(storage, RepositorySecret(SecretKind.RAW, bytes([number]) * 32)) for number in range(9)}
    names.add(add(storage, SECRET))

    assert open_slots(storage, SECRET, REPO_ID) == KEYRING
    assert {f"keys/{slot.id}" for slot in list_slots(storage)} == names


def test_what_stands_in_clear_is_listed() -> None:
    storage = MemoryStorage()
    name = add(storage, SECRET)

    (slot,) = list_slots(storage)

    assert (f"keys/{slot.id}", slot.kind, slot.label) == (name, "raw", "test")
    assert slot.created_at == "2026-01-01T00:00:00.000000Z"


@pytest.mark.parametrize(
    "secret",
    [
        RepositorySecret(SecretKind.RAW, bytes(32)),
        RepositorySecret(SecretKind.RECOVERY, SECRET.material),
        RepositorySecret(SecretKind.PASSPHRASE, b"correct horse battery stapl"),
    ],
)
def test_a_wrong_secret_opens_nothing(secret: RepositorySecret) -> None:
    storage = MemoryStorage()
    for right in (SECRET, PASSPHRASE):
        add(storage, right)

    with pytest.raises(WrongKey, match="nothing was written"):
        open_slots(storage, secret, REPO_ID)


def test_a_slot_of_another_repository_does_not_open() -> None:
    storage = MemoryStorage()
    add(storage, SECRET)

    with pytest.raises(WrongKey):
        open_slots(storage, SECRET, bytes(32))


def test_every_flipped_bit_of_a_slot_is_noticed() -> None:
    _, data = make_slot(SECRET, KEYRING, REPO_ID, label="", now=NOW)
    passed = []
    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            open_slots(only(bytes(changed)), SECRET, REPO_ID)
            passed.append(bit)
        except (Damaged, NewerVersion, WrongKey):
            pass

    assert passed == []


def test_every_truncation_of_a_slot_is_noticed() -> None:
    _, data = make_slot(SECRET, KEYRING, REPO_ID, label="", now=NOW)

    for size in range(len(data)):
        with pytest.raises((Damaged, WrongKey)):
            open_slots(only(data[:size]), SECRET, REPO_ID)


@pytest.mark.parametrize(
    "damage", [b"", b"XXXX", b"BKS2" + bytes(100), b"BKS1\xff\xff", b"BKS1\0\2{}" + bytes(60)]
)
def test_a_damaged_slot_does_not_keep_another_from_opening(damage: bytes) -> None:
    storage = only(damage, "keys/0000000000000000")
    add(storage, SECRET)
    storage.put("keys/ffffffffffffffff", damage)

    assert open_slots(storage, SECRET, REPO_ID) == KEYRING


@pytest.mark.parametrize(
    "kdf",
    [
        {"log2n": 14},
        {"log2n": 1},
        {"log2n": 21},
        {"log2n": 60},
        {"log2n": 17.0},
        {"log2n": "17"},
        {"log2n": True},
        {"log2n": None},
        {"r": 7},
        {"r": 17},
        {"r": 8.5},
        {"p": 0},
        {"p": 5},
        {"p": -1},
        {"p": 1.0},
        {"log2n": 20, "r": 16},
    ],
)
def test_weak_or_hostile_scrypt_parameters_are_refused_before_any_work(kdf: dict[str, Any]) -> None:
    _, data = make_slot(SECRET, KEYRING, REPO_ID, label="", now=NOW)
    hostile = with_header(data, type="passphrase", kdf={"name": "scrypt", "log2n": 17, "r": 8, "p": 1} | kdf)
    before = time.process_time()

    with pytest.raises(Damaged):
        open_slots(only(hostile), PASSPHRASE, REPO_ID)

    assert time.process_time() - before < 0.1


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"v": 2}, NewerVersion),
        ({"kdf": {"name": "argon2id"}}, NewerVersion),
        ({"type": "passphrase", "kdf": {"name": "hkdf"}}, NewerVersion),
        ({"kdf": {}}, Damaged),
        ({"kdf": 5}, Damaged),
        ({"salt": "xyz"}, Damaged),
        ({"salt": 5}, Damaged),
        ({"label": "x" * 5000}, Damaged),
    ],
)
def test_a_slot_of_a_newer_version_is_told_from_a_damaged_one(
    changes: dict[str, Any], kind: type[BackupAdminError]
) -> None:
    _, data = make_slot(SECRET, KEYRING, REPO_ID, label="", now=NOW)

    with pytest.raises(kind):
        list_slots(only(with_header(data, **changes)))


def test_a_short_scrypt_salt_is_refused() -> None:
    _, data = make_slot(SECRET, KEYRING, REPO_ID, label="", now=NOW)
    kdf = {"name": "scrypt", "log2n": 17, "r": 8, "p": 1}

    with pytest.raises(Damaged, match="weak"):
        open_slots(only(with_header(data, type="passphrase", kdf=kdf, salt="00" * 15)), PASSPHRASE, REPO_ID)


def test_more_slots_than_allowed_are_refused() -> None:
    storage = MemoryStorage()
    for number in range(33):
        storage.put(f"keys/{number:016x}", b"BKS1")

    with pytest.raises(Damaged, match="more than 32"):
        open_slots(storage, SECRET, REPO_ID)


def test_a_swapped_commitment_does_not_open_another_wrap() -> None:
    _, data = make_slot(SECRET, KEYRING, REPO_ID, label="", now=NOW)
    _, other = make_slot(OTHER_SECRET, KEYRING, REPO_ID, label="", now=NOW)
    tail = len(KEYRING.to_bytes()) + 16

    with pytest.raises(Damaged, match="was altered"):
        open_slots(only(data[:-tail] + other[-tail:]), SECRET, REPO_ID)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({"v": 3, "epochs": {}, "id_kid": 1, "write_kid": 1}, NewerVersion),
        ({"v": 2, "epochs": {}, "id_kid": 1, "write_kid": 1}, Damaged),
        ({"v": 2, "epochs": {"2": "00" * 32}, "id_kid": 1, "write_kid": 2, "identity": {}}, Damaged),
        ({"v": 1, "epochs": {"2": "00" * 32}, "id_kid": 1, "write_kid": 2}, Damaged),
        ({"v": 1, "epochs": {"70000": "00" * 32}, "id_kid": 70000, "write_kid": 70000}, Damaged),
        ({"v": 1, "epochs": [], "id_kid": 1, "write_kid": 1}, Damaged),
        ({"v": 1, "epochs": {}, "id_kid": 1, "write_kid": 1}, Damaged),
        ({"v": 1, "epochs": {"1": "00"}, "id_kid": 1, "write_kid": 1}, Damaged),
        ({"v": 1, "epochs": {"1": "00" * 32}, "id_kid": 1, "write_kid": 2}, Damaged),
        ({"v": 1, "epochs": {"x": "00" * 32}, "id_kid": 1, "write_kid": 1}, Damaged),
        ([], Damaged),
    ],
)
def test_a_keyring_that_makes_no_sense_is_refused(value: object, kind: type[BackupAdminError]) -> None:
    with pytest.raises(kind):
        parse_keyring(dump_canonical(value))
