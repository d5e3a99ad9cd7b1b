"""The published test vectors of the format, byte for byte."""

from __future__ import annotations

from backup_admin.repository.keys import Keyring, RepositoryKeys, repository_prk
from backup_admin.repository.objects import ObjectType, new_header, open_object, seal_object
from backup_admin.repository.slots import scrypt_root, wrap_keyring
from backup_admin.repository.types import ChunkKind

RMK = bytes(range(0x20))
REPO_ID = bytes(range(0x40, 0x60))
SALT = bytes(range(0x80, 0xA0))
NAME = "snapshots/0000000000000000001"


def _keys() -> RepositoryKeys:
    return RepositoryKeys(Keyring({1: RMK}, id_kid=1, write_kid=1), REPO_ID)


def test_derived_keys_match_the_vectors() -> None:
    keys = _keys()

    assert (
        repository_prk(RMK, REPO_ID, 1).hex()
        == "61959d30827a08c2fdeb0d5feb2a1c67c864ca70c0b042b55dd87930718b5b45"
    )
    assert keys.chunk_key.hex() == "17f54011d0a1461ef7ec8d3c39857bb84795e9f62eff7d3f1cc7c63ee4c6612d"
    assert keys.cdc_key.hex() == "0435d060741238da2fb5f444ff9670b6fc6a1d9de4eba1042057fc206c039555"


def test_chunk_id_matches_the_vector() -> None:
    chunk_id = _keys().chunk_id(ChunkKind.DATA, b"hello")

    assert chunk_id.hex() == "154cc6a8ad8afc4242b04922395c124eaa88602ac4656f2d6604102f6b81e865"


def test_header_matches_the_vector() -> None:
    header = new_header(ObjectType.MANIFEST, 1, SALT)

    assert header.hex() == "424b41310103010000010000" + SALT.hex()


def test_sealed_object_matches_the_vector() -> None:
    data = seal_object(_keys(), ObjectType.MANIFEST, NAME, [b'{"seq":1}', b"body"], salt=SALT)

    assert data.hex() == (
        "424b41310103010000010000808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f"
        "00000019ce455395d1e679230b3d09af5c0bc14dfc62a4e4120999478300000014"
        "a7862e93fab3bb118a11abd69ffdd8c5a9fab718"
    )
    assert open_object(_keys(), ObjectType.MANIFEST, NAME, data) == [b'{"seq":1}', b"body"]


def test_slot_matches_the_vector() -> None:
    header = b'{"alg":"scrypt","log2n":17,"p":1,"r":8,"slot":"00","v":1}'
    root = scrypt_root(b"correct horse battery staple", bytes(range(0x20, 0x30)), log2n=17, r=8, p=1)

    commit, wrap = wrap_keyring(root, REPO_ID, header, RMK)

    assert commit.hex() == "a892e757147b76dbebd24ee4d2624af34d4eef7b01f9652d5cb10e9dd2a43ff8"
    assert wrap.hex() == (
        "faf752ecfe9a7ca95fe88280660ee88a0650eaa57cd0ad7b0164ea58f0175ba0bbd908ac2166e8db7831523cc33a16ee"
    )
