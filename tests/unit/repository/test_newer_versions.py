"""What a newer version made is told from damage, and nothing is written to it."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any

import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from backup_admin.core.canonical import dump_canonical, load_strict
from backup_admin.core.errors import NewerVersion
from backup_admin.repository.epochs import epoch_name, read_epoch
from backup_admin.repository.index import open_index
from backup_admin.repository.objects import ObjectType, seal_object
from backup_admin.repository.packs import read_pack
from backup_admin.repository.slots import slot_keys
from tests.factories import SECRET, file_sources, run_backup
from tests.fakes import FaultyStorage
from tests.keyed import Site, make_site

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from backup_admin.storage.memory import MemoryStorage


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path)


def replace(storage: MemoryStorage, name: str, data: bytes) -> None:
    storage.put(name, data, if_absent=False)


def names(site: Site, prefix: str) -> list[str]:
    return [info.name for info in site.storage.list_objects(prefix)]


def with_config(**changes: Any) -> Callable[[Site], None]:
    """Write the configuration anew, with its seal, as a newer version would."""

    def change(site: Site) -> None:
        keys = site.open().keys
        body = load_strict(site.storage.get("config"))["config"]
        parameters = body["parameters"] | changes.pop("parameters", {})
        body |= {"parameters": parameters} | changes
        sealed = {"config": body, "mac": keys.config_mac(dump_canonical(body)).hex()}
        replace(site.storage, "config", dump_canonical(sealed))

    return change


def with_header_byte(prefix: str, at: int, value: int) -> Callable[[Site], None]:
    def change(site: Site) -> None:
        for name in names(site, prefix):
            data = bytearray(site.storage.get(name))
            data[at] = value
            replace(site.storage, name, bytes(data))

    return change


def with_slots(edit: Callable[[bytes], bytes]) -> Callable[[Site], None]:
    def change(site: Site) -> None:
        for name in names(site, "keys/"):
            replace(site.storage, name, edit(site.storage.get(name)))

    return change


def slot_header(**changes: Any) -> Callable[[bytes], bytes]:
    def edit(data: bytes) -> bytes:
        end = 6 + int.from_bytes(data[4:6], "big")
        raw = dump_canonical(load_strict(data[6:end]) | changes)
        return data[:4] + len(raw).to_bytes(2, "big") + raw + data[end:]

    return edit


def with_keyring(site: Site) -> None:
    """Wrap a keyring of a later version under the same secret."""
    repo_id = site.open().keys.repo_id
    for name in names(site, "keys/"):
        data = site.storage.get(name)
        end = 6 + int.from_bytes(data[4:6], "big")
        header = data[6:end]
        value = load_strict(header)
        if value["type"] != SECRET.kind.value:
            continue
        root = hmac.digest(bytes.fromhex(value["salt"]), SECRET.material, "sha256")
        commit, key = slot_keys(root, repo_id, header)
        wrap = AESGCM(key).encrypt(bytes(12), dump_canonical({"v": 3}), commit + header)
        replace(site.storage, name, data[:end] + commit + wrap)


def with_entry(op: str) -> Callable[[Site], None]:
    def change(site: Site) -> None:
        repository = site.open()
        head = repository.head
        name = f"chain/{head.seq + 1:020d}"
        body = {
            "seq": head.seq + 1, "op": op, "payload": {}, "actor": "later", "time": "", "base": 0,
            "prev": head.digest,
        }  # fmt: skip
        site.storage.put(name, seal_object(repository.keys, ObjectType.CHAIN, name, [dump_canonical(body)]))

    return change


OPENING = {
    "format": with_config(format=2),
    "feature": with_config(features=["sealed-mode"]),
    "chunker": with_config(parameters={"chunker": "another"}),
    "slot magic": with_slots(lambda data: b"BKS2" + data[4:]),
    "slot version": with_slots(slot_header(v=2)),
    "slot kdf": with_slots(slot_header(kdf={"name": "argon2id"})),
    "keyring": with_keyring,
    "chain operation": with_entry("merge"),
    "chain object version": with_header_byte("chain/", 4, 2),
    "chain object type": with_header_byte("chain/", 5, 9),
    "chain object cipher": with_header_byte("chain/", 6, 2),
    "chain object flag": with_header_byte("chain/", 7, 1),
    "chain object key block": with_header_byte("chain/", 11, 1),
}


@pytest.mark.parametrize("what", OPENING)
def test_a_repository_of_a_newer_version_is_refused_and_not_touched(site: Site, what: str) -> None:
    OPENING[what](site)
    site.forget_head()
    before = {info.name: site.storage.get(info.name) for info in site.storage.list_objects("")}
    watched = FaultyStorage(site.storage)

    with pytest.raises(NewerVersion, match=r"newer version|does not know|uses the chunker"):
        run_backup(site.open(watched), file_sources(site.root), site.state)

    assert watched.counts()["put"] + watched.counts()["delete"] == 0
    assert {info.name: site.storage.get(info.name) for info in site.storage.list_objects("")} == before


@pytest.mark.parametrize(("at", "value"), [(4, 2), (5, 9), (6, 2), (7, 1), (10, 1)])
def test_each_kind_of_object_of_a_newer_version_is_told_from_damage(site: Site, at: int, value: int) -> None:
    repository = site.open()
    keys, snapshot = repository.keys, site.snapshots[0]
    reads: dict[str, Callable[[str, bytes], object]] = {
        "packs/": lambda _name, data: read_pack(keys, memoryview(data)),
        "manifests/": lambda _name, _data: repository.snapshot(snapshot),
    }
    for prefix, read in reads.items():
        name = names(site, prefix)[0]
        with_header_byte(prefix, at, value)(site)
        with pytest.raises(NewerVersion):
            read(name, site.storage.get(name))


def test_an_index_and_an_epoch_of_a_newer_version_are_told_from_damage(site: Site) -> None:
    keys = site.open().keys
    data = bytearray(site.storage.get(names(site, "index/")[0]))
    data[6] = 2
    with pytest.raises(NewerVersion):
        open_index(keys, f"index/{blake3(data).hexdigest()}", bytes(data))

    name = epoch_name(2)
    site.storage.put(name, seal_object(keys, ObjectType.EPOCH, name, [dump_canonical({"v": 2})]))
    with pytest.raises(NewerVersion):
        read_epoch(site.storage, keys, 2)


def test_a_slot_of_a_newer_version_does_not_keep_a_known_one_from_opening(site: Site) -> None:
    known = names(site, "keys/")[0]
    site.storage.put("keys/0000000000000000", slot_header(v=2)(site.storage.get(known)))

    assert site.opens(site.storage, SECRET)
