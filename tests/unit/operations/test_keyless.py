"""Without a key damage to packs and index is found, and nothing is claimed that a key is needed for."""

from __future__ import annotations

import pytest

from backup_admin.core.progress import QuietReporter
from backup_admin.operations.keyless import answer_keyless, check_keyless
from backup_admin.storage.memory import MemoryStorage
from tests.factories import file_sources, make_storage, open_test_repository, run_backup, write_tree
from tests.fakes import clone


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> MemoryStorage:
    root = tmp_path_factory.mktemp("keyless")
    storage = make_storage()
    assert isinstance(storage, MemoryStorage)
    run_backup(open_test_repository(storage, root / "s"), file_sources(write_tree(root / "f")), root / "s")
    return storage


def problems(storage: MemoryStorage) -> list[str]:
    return check_keyless(storage, reporter=QuietReporter()).problems


def test_a_sound_storage_has_no_problem_and_says_what_was_not_looked_at(sound: MemoryStorage) -> None:
    report = check_keyless(sound, reporter=QuietReporter())
    answer = answer_keyless("memory", report)

    assert (report.problems, report.slots, report.manifests, answer.exit_code) == ([], 1, 1, 0)
    size = sum(info.size for prefix in ("packs/", "index/") for info in sound.list_objects(prefix))
    assert report.bytes_read == size
    assert "Without a key nobody can tell" in answer.notes[0]


@pytest.mark.parametrize("prefix", ["packs/", "index/"])
@pytest.mark.parametrize("cut", [True, False])
def test_any_change_of_a_pack_or_index_object_is_found(sound: MemoryStorage, prefix: str, cut: bool) -> None:
    for info in sound.list_objects(prefix):
        storage = clone(sound)
        data = bytearray(storage.get(info.name))
        data[info.size // 2] ^= 1
        storage.put(info.name, data[: info.size - 1] if cut else data, if_absent=False)

        assert problems(storage) == [f"{info.name} is damaged: its name does not fit its bytes."]


def test_a_pack_in_the_wrong_folder_is_found(sound: MemoryStorage) -> None:
    storage = clone(sound)
    name = next(storage.list_objects("packs/")).name
    wrong = f"packs/{'00' if name[6:8] != '00' else '11'}/{name[-64:]}"
    storage.put(wrong, storage.get(name))

    assert problems(storage) == [f"{wrong} is damaged: its name does not fit its bytes."]


def test_what_lies_around_them_is_looked_at_too(sound: MemoryStorage) -> None:
    storage = clone(sound)
    storage.delete("config")
    for info in list(storage.list_objects("keys/")):
        storage.delete(info.name)
    storage.put("chain/00000000000000000003", b"BKA1")
    storage.put("manifests/" + "0" * 26, b"no manifest")

    found = problems(storage)

    assert [text for text in found if "'config' is missing" in text]
    assert [text for text in found if "no key slot" in text]
    assert [text for text in found if text.startswith("chain/00000000000000000002 is missing")]
    assert [text for text in found if text.startswith("manifests/0000")]
    assert len(found) == 4
