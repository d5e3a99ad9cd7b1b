"""The audit log: each entry durable, in one line, sealed to the one before."""

from __future__ import annotations

import json
import multiprocessing
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from backup_admin.access.audit import AuditFailed, AuditLog, AuditOutcome, as_dict
from backup_admin.access.permissions import Actor
from backup_admin.core.clock import SystemClock
from tests.installations import ADMIN, START, FakeClock

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier

KEY = b"k" * 32


def make_log(folder: Path) -> AuditLog:
    return AuditLog(folder / "state" / "audit.jsonl", KEY, FakeClock())


def test_an_entry_says_who_what_and_how_it_ended(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    seq = log.append(
        ADMIN,
        "restore.start",
        target="op1",
        outcome=AuditOutcome.DENIED,
        reason="no code",
        details={"plan": "ab"},
    )
    (entry,) = log.read_page()
    assert as_dict(entry) == {
        "seq": seq,
        "at": "2026-03-10T12:00:00.000000Z",
        "actor": "7",
        "actor_name": "Ada",
        "address": "10.0.0.5",
        "login": ADMIN.login_id,
        "request": "r1",
        "action": "restore.start",
        "object": "op1",
        "outcome": "denied",
        "reason": "no code",
        "details": {"plan": "ab"},
    }
    assert entry.at == START
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600


def test_verify_counts_what_is_whole(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    assert log.verify().entries == 0
    for number in range(5):
        assert log.append(ADMIN, f"act.{number}") == number + 1
    check = log.verify()
    assert (check.ok, check.entries, check.message) == (True, 5, "Verified up to entry 5.")


def tamper_reason(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[1].replace(b"act.1", b"act.9"), *lines[2:]]


def remove_one(lines: list[bytes]) -> list[bytes]:
    return [lines[0], *lines[2:]]


def swap_two(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[2], lines[1], *lines[3:]]


def insert_one(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[0], *lines[1:]]


def forge_one(lines: list[bytes]) -> list[bytes]:
    record = json.loads(lines[1])
    record["actor"] = "8"
    return [lines[0], json.dumps(record).encode() + b"\n", *lines[2:]]


def add_junk(lines: list[bytes]) -> list[bytes]:
    return [lines[0], b"junk\n", *lines[1:]]


@pytest.mark.parametrize("attack", [tamper_reason, remove_one, swap_two, insert_one, forge_one, add_junk])
def test_any_change_to_an_old_entry_is_named(tmp_path: Path, attack: object) -> None:
    log = make_log(tmp_path)
    for number in range(4):
        log.append(ADMIN, f"act.{number}")
    lines = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(b"".join(attack(lines)))  # type: ignore[operator] # one of the functions above
    assert log.verify().first_bad == 2


def test_the_first_entry_cannot_be_cut_away(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    log.append(ADMIN, "act.0")
    log.append(ADMIN, "act.1")
    log.path.write_bytes(log.path.read_bytes().splitlines(keepends=True)[1])
    assert log.verify().first_bad == 1


def test_an_entry_of_another_log_does_not_fit(tmp_path: Path) -> None:
    one, two = make_log(tmp_path / "a"), make_log(tmp_path / "b")
    for log, word in ((one, "a"), (two, "b")):
        for number in range(3):
            log.append(ADMIN, f"{word}.{number}")
    lines = one.path.read_bytes().splitlines(keepends=True)
    lines[1] = two.path.read_bytes().splitlines(keepends=True)[1]
    one.path.write_bytes(b"".join(lines))
    assert one.verify().first_bad == 2


def test_another_key_does_not_verify(tmp_path: Path) -> None:
    make_log(tmp_path).append(ADMIN, "act")
    other = AuditLog(tmp_path / "state" / "audit.jsonl", b"x" * 32, FakeClock())
    assert other.verify().first_bad == 1


def test_names_cannot_forge_lines(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    evil = Actor("1", 'eve"}\n{"seq":2,\u2028\x1b[31m\u202e', address="\r\n")
    log.append(evil, "act\n", reason="a\nb" * 5000)
    raw = log.path.read_bytes()
    assert raw.count(b"\n") == 1
    assert raw.isascii()
    assert all(32 <= byte < 127 for byte in raw.rstrip(b"\n"))
    assert log.verify().ok
    assert log.read_page()[0].actor_name == evil.name


def test_a_half_written_line_is_dropped_and_the_chain_goes_on(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    log.append(ADMIN, "act.0")
    with log.path.open("ab") as file:
        file.write(b'{"seq":2,"half')
    assert log.append(ADMIN, "act.1") == 2
    assert (log.verify().ok, log.verify().entries) == (True, 2)


def test_nothing_is_appended_behind_a_forged_end(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    log.append(ADMIN, "act.0")
    log.path.write_bytes(log.path.read_bytes().replace(b"act.0", b"act.9"))
    with pytest.raises(AuditFailed, match="not as it was written"):
        log.append(ADMIN, "act.1")


def test_a_log_that_cannot_be_written_raises(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    log.path.mkdir(parents=True)
    with pytest.raises(AuditFailed, match="cannot be written"):
        log.append(ADMIN, "act")


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = make_log(tmp_path)
    log.append(ADMIN, "act.0")
    before = log.path.read_bytes()

    def half(handle: int, data: bytes) -> None:
        os.write(handle, data[:10])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("backup_admin.access.audit.write_all", half)
        with pytest.raises(AuditFailed, match="No space left"):
            log.append(ADMIN, "act.1")
    assert log.path.read_bytes() == before


def test_pages_are_newest_first_and_filtered(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    bob = Actor("8", "Bob")
    for number in range(300):
        log.append(ADMIN if number % 2 else bob, f"act.{number}", reason="x" * 500)
    page = log.read_page(limit=10)
    assert [entry.seq for entry in page] == list(range(300, 290, -1))
    assert [entry.seq for entry in log.read_page(limit=2, before=page[-1].seq)] == [290, 289]
    assert {entry.actor for entry in log.read_page(actor="bo", limit=400)} == {"8"}
    assert len(log.read_page(actor="8", limit=400)) == 150
    assert [entry.seq for entry in log.read_page(action="act.29", limit=400)][-1] == 30
    assert log.read_page(outcome="denied") == ()


def append_many(folder: str, count: int, gate: Barrier) -> None:
    gate.wait()
    log = AuditLog(Path(folder) / "state" / "audit.jsonl", KEY, SystemClock())
    for number in range(count):
        log.append(ADMIN, f"act.{number}")


def test_many_processes_append_to_one_chain(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    gate = context.Barrier(4)
    processes = [context.Process(target=append_many, args=(str(tmp_path), 25, gate)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    check = make_log(tmp_path).verify()
    assert (check.ok, check.entries) == (True, 100)
