"""Each byte of each object flipped, each object cut at each length: always named, never wrong bytes."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.errors import BackupAdminError, Damaged, NewerVersion, WrongKey
from backup_admin.core.progress import QuietReporter
from backup_admin.core.state import StateFolder
from backup_admin.operations.captured import iterate_bytes
from backup_admin.operations.check import check_repository
from backup_admin.operations.verify import verify_snapshot
from backup_admin.repository.repository import open_repository
from backup_admin.repository.types import ChunkKind
from backup_admin.storage.memory import MemoryStorage
from tests.factories import CLOCK, OTHER_SECRET
from tests.proof.site import Site, assert_sound, make_site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backup_admin.repository.repository import Repository

FLIPS, CUTS = 520, 180


@dataclass(frozen=True)
class Harm:
    """One change to one object: a bit flipped, or the object cut short; None takes it away."""

    name: str
    offset: int | None
    bit: int | None = None

    def done_to(self, data: bytes) -> bytes | None:
        if self.offset is None:
            return None
        if self.bit is None:
            return data[: self.offset]
        changed = bytearray(data)
        changed[self.offset] ^= 1 << self.bit
        return bytes(changed)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        site = make_site(tmp_path_factory.mktemp("bytes"))
        assert_sound(site, expected=site.truths)
    return site


def objects(site: Site) -> dict[str, bytes]:
    return {
        str(path.relative_to(site.objects)): path.read_bytes()
        for path in sorted(site.objects.rglob("*"))
        if path.is_file()
    }


def read_everything(repository: Repository) -> Iterator[tuple[str, str]]:
    """Yield a name for each thing in the repository with the digest of its bytes, or the error."""
    reader = repository.reader()
    for snapshot in repository.snapshot_ids():
        try:
            manifest = repository.manifest(snapshot)
            for database in manifest.databases:
                yield f"{snapshot} database {database.name}", digest(iterate_bytes(reader, database.content))
            for root in manifest.files:
                for entry in repository.entries(root, reader):
                    data = iter(()) if entry.content is None else iterate_bytes(reader, entry.content)
                    about = f"{entry.kind} {entry.mode} {entry.mtime_ns} {entry.link_target!r}"
                    yield f"{snapshot} file {entry.path!r}", f"{about} {digest(data)}"
            if manifest.settings is not None:
                yield (
                    f"{snapshot} settings",
                    digest(iter([reader.read(ChunkKind.DATA, manifest.settings.content)])),
                )
        except BackupAdminError as error:
            yield f"{snapshot} error", str(error)


def digest(pieces: Iterator[memoryview]) -> str:
    return hashlib.sha256(b"".join(map(bytes, pieces))).hexdigest()


def is_named(name: str, error: str) -> bool:
    """Say whether a message leads to the object."""
    if name == "config":
        return "config" in error or error.startswith("The repository ")
    if name.startswith("chain/") and "history ends at entry" in error:
        return True  # an entry is gone, and all behind it with it
    return name.rpartition("/")[2] in error


class Patient:
    """A copy of the repository that is harmed, looked at, and healed again and again."""

    def __init__(self, site: Site, root: Path) -> None:
        self.site = site.twin(root)
        self.objects = objects(self.site)
        self.whole = dict(read_everything(self.site.open()))
        self._pins = self.site.state.heads

    def look(self, harm: Harm) -> list[str]:
        """Return what is wrong with how the harm was noticed; nothing when all is well."""
        path = self.site.objects / harm.name
        before = self.objects[harm.name]
        after = harm.done_to(before)
        if after is None:
            path.unlink()
        else:
            path.write_bytes(after)
        try:
            return self._complaints(harm)
        finally:
            path.write_bytes(before)

    def _complaints(self, harm: Harm) -> list[str]:
        shutil.rmtree(self.site.state.cache)  # or the index would be read from there
        try:
            repository = self.site.open()
        except WrongKey as error:
            return [] if self._looks_like_a_wrong_key(harm) else [f"{harm}: {error!r}"]
        except BackupAdminError as error:
            return [] if is_named(harm.name, str(error)) else [f"{harm}: {error!r} does not name it"]
        noticed = list(check_repository(repository, read_data=True, reporter=QuietReporter()).problems)
        complaints = self._compare(repository, harm)
        if not any(is_named(harm.name, problem) for problem in noticed) and not self._is_harmless(harm):
            complaints.append(f"{harm}: not noticed, only {noticed}")
        return complaints

    def _compare(self, repository: Repository, harm: Harm) -> list[str]:
        found = dict(read_everything(repository))
        wrong = [f"{harm}: {key} has other bytes" for key in found if found[key] != self.whole.get(key)]
        wrong = [line for line in wrong if " error " not in line]
        errors = [key for key in found if key.endswith(" error")]
        errors += [""] if repository.history_warning else []
        missing = set(self.whole) - set(found)
        silent = [f"{harm}: {key} is gone without an error" for key in missing if not _told(key, errors)]
        return wrong + silent

    def _looks_like_a_wrong_key(self, harm: Harm) -> bool:
        """Slots are bound to their secret and to the repository's id: changed, no key fits any more."""
        return harm.name.startswith("keys/") or (
            harm.name == "config" and b'"repo_id"' in self.objects["config"][: harm.offset]
        )

    def _is_harmless(self, harm: Harm) -> bool:
        """A slot of another secret: only that secret can tell a changed label, salt or wrapped key.

        What opened the repository was not touched, and the damage shows as soon as that secret is used.
        """
        return b'"type":"recovery"' in self.objects[harm.name]


def _told(key: str, errors: list[str]) -> bool:
    return any(key.startswith(error.removesuffix(" error")) for error in errors)


def all_flips(patient: Patient) -> Iterator[Harm]:
    for name, data in patient.objects.items():
        for offset in range(len(data)):
            for bit in range(8):
                yield Harm(name, offset, bit)


def all_cuts(patient: Patient) -> Iterator[Harm]:
    for name, data in patient.objects.items():
        yield Harm(name, None)
        for size in range(len(data)):
            yield Harm(name, size)


def spread(harms: list[Harm], count: int) -> list[Harm]:
    """Choose about so many, all along, and the first bytes of each object."""
    step = max(1, len(harms) // count) | 1
    heads = [harm for harm in harms if harm.offset in (None, 0, 4, 5, 7, 9) and harm.bit in (None, 0)]
    return heads + harms[::step]


def look_at_all(patient: Patient, harms: list[Harm]) -> None:
    if complaints := [line for harm in harms for line in patient.look(harm)]:
        pytest.fail("\n".join(complaints), pytrace=False)


def test_a_flipped_bit_anywhere_is_named_and_never_gives_wrong_bytes(site: Site, tmp_path: Path) -> None:
    patient = Patient(site, tmp_path / "patient")

    look_at_all(patient, spread(list(all_flips(patient)), FLIPS))


def test_an_object_cut_anywhere_or_gone_is_named_and_never_gives_wrong_bytes(
    site: Site, tmp_path: Path
) -> None:
    patient = Patient(site, tmp_path / "patient")

    look_at_all(patient, spread(list(all_cuts(patient)), CUTS))


@pytest.mark.long
@pytest.mark.parametrize("bit", range(8))
def test_every_flipped_bit_is_named(site: Site, tmp_path: Path, bit: int) -> None:
    patient = Patient(site, tmp_path / "patient")

    look_at_all(patient, [harm for harm in all_flips(patient) if harm.bit == bit])


@pytest.mark.long
def test_every_object_cut_at_every_length_is_named(site: Site, tmp_path: Path) -> None:
    patient = Patient(site, tmp_path / "patient")

    look_at_all(patient, list(all_cuts(patient)))


def test_a_harmed_slot_shows_as_soon_as_its_own_secret_is_used(site: Site) -> None:
    (name,) = [name for name, data in objects(site).items() if b'"type":"recovery"' in data]
    data = objects(site)[name]
    silent = []
    for harm in (Harm(name, offset, offset % 8) for offset in range(len(data))):
        storage = MemoryStorage()
        storage.put("config", objects(site)["config"])
        storage.put(name, harm.done_to(data) or b"")
        try:
            open_repository(storage, OTHER_SECRET, state=None, clock=CLOCK)
            silent.append(harm)
        except (Damaged, NewerVersion, WrongKey):
            pass

    assert silent == []


def test_verify_tells_of_each_snapshot_that_a_lost_pack_harms(site: Site, tmp_path: Path) -> None:
    patient = Patient(site, tmp_path / "patient")
    for name in patient.objects:
        if not name.startswith("packs/"):
            continue
        twin = site.twin(tmp_path / name.rpartition("/")[2])
        data = bytearray((twin.objects / name).read_bytes())
        data[60] ^= 1
        (twin.objects / name).write_bytes(data)
        shutil.rmtree(twin.state.cache)
        repository = twin.open()
        state = StateFolder(twin.root / "state")
        problems = [
            problem
            for snapshot in repository.snapshot_ids()
            for problem in _verified(repository, snapshot, state)
        ]
        assert any(is_named(name, problem) for problem in problems), name


def _verified(repository: Repository, snapshot: str, state: StateFolder) -> list[str]:
    try:
        return list(
            verify_snapshot(
                repository, repository.find_snapshot(snapshot).id, state=state, reporter=QuietReporter()
            ).problems
        )
    except BackupAdminError as error:
        return [str(error)]
