"""Ids, times, secrets, the state folder, errors and progress: small promises, kept."""

from __future__ import annotations

import logging
import sys
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from backup_admin.core import errors
from backup_admin.core.clock import SystemClock, format_time, parse_time
from backup_admin.core.errors import BackupAdminError, Busy, Cancelled, ProgramFailed
from backup_admin.core.ids import is_ulid, new_ulid
from backup_admin.core.programs import ProgramOutput, run_program, stream_program
from backup_admin.core.progress import QuietReporter, WithinStage
from backup_admin.core.secret import Secret
from backup_admin.core.state import StateFolder

NOON = datetime(2026, 3, 10, 12, 0, 0, 123456, tzinfo=UTC)


def test_ids_sort_by_time_and_never_repeat() -> None:
    ids = [new_ulid(NOON + timedelta(milliseconds=number)) for number in range(200)]

    assert ids == sorted(ids)
    assert len({new_ulid(NOON) for _ in range(1000)}) == 1000
    assert all(is_ulid(text) for text in ids)


@pytest.mark.parametrize(
    "text", ["", "8" + "0" * 25, "0" * 25, "0" * 27, "0" * 25 + "i", "0" * 25 + "A", "0" * 26 + "\n"]
)
def test_what_is_no_id_is_known(text: str) -> None:
    assert not is_ulid(text)


def test_a_time_is_kept_to_the_microsecond_in_utc() -> None:
    moved = NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))

    assert format_time(moved) == "2026-03-10T12:00:00.123456Z"
    assert parse_time(format_time(moved)) == NOON
    assert parse_time("2026-03-10T17:30:00.123456+05:30") == NOON


@pytest.mark.parametrize("text", ["2026-03-10T12:00:00", "yesterday", ""])
def test_a_time_without_a_zone_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  two sources of it
        parse_time(text)


def test_the_clock_of_the_machine_is_aware_and_goes_on() -> None:
    clock = SystemClock()

    before = clock.monotonic()
    clock.sleep(0)

    assert clock.now().tzinfo is UTC
    assert clock.monotonic() >= before


def test_a_secret_shows_in_no_log_and_no_message(caplog: pytest.LogCaptureFixture) -> None:
    secret = Secret("hunter2")

    logging.getLogger("test").warning("%s %r %s", secret, secret, [secret])

    assert "hunter2" not in caplog.text + f"{secret} {secret!r} {[secret]}"
    assert secret.reveal() == "hunter2"


def test_the_state_folder_is_private_and_made_when_needed(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "state")

    made = [state.cache, state.heads, state.restores, state.scratch, state.audit.parent]

    assert all(path.is_dir() for path in made)
    assert {path.stat().st_mode & 0o777 for path in made} == {0o700}
    assert state.maintenance_flag.parent == state.root


def test_a_lock_is_held_by_one_and_free_after(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)

    with state.lock("backup"):
        with pytest.raises(Busy, match="Another backup is under way"), state.lock("backup"):
            pass
        with state.lock("restore"):
            pass
    with state.lock("backup"):
        pass


def test_every_error_has_a_code_of_its_own_and_a_status() -> None:
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, BackupAdminError)
    ]

    assert len({kind.code for kind in kinds}) == len(kinds)
    assert all(0 < kind.exit_code < 126 for kind in kinds)


def test_work_inside_a_stage_passes_on_bytes_and_the_wish_to_stop() -> None:
    sizes: list[tuple[int, int]] = []

    class Outer(QuietReporter):
        def advance(self, *, size: int = 0, items: int = 0, current: str = "") -> None:
            sizes.append((size, items))

        def check_cancelled(self) -> None:
            raise Cancelled("stop")

    inner = WithinStage(Outer())
    inner.stage("other")
    inner.warn("once is enough")
    inner.advance(size=5, items=2)

    assert sizes == [(5, 0)]
    with pytest.raises(Cancelled):
        inner.check_cancelled()


def test_a_program_gets_its_input_and_a_small_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_APP", "hunter2")
    code = "import os, sys; print(sorted(set(os.environ) & {'SECRET_OF_THE_APP', 'GIVEN'}), sys.stdin.read())"

    finished = run_program(
        [sys.executable, "-c", code], timeout_seconds=30, data=b"input", environment={"GIVEN": "1"}
    )

    assert (finished.status, finished.output) == (0, b"['GIVEN'] input\n")


def test_a_program_that_is_missing_or_slow_is_told() -> None:
    with pytest.raises(ProgramFailed, match="cannot be started"):
        run_program(["/no/such/program"], timeout_seconds=1)
    with pytest.raises(ProgramFailed, match="did not end within"):
        run_program([sys.executable, "-c", "import time; time.sleep(60)"], timeout_seconds=0.3)


def read_all(output: ProgramOutput) -> bytes:
    found, buffer = bytearray(), bytearray(10_000)
    while count := output.readinto(buffer):
        found += buffer[:count]
    return bytes(found)


def test_what_a_program_writes_is_read_while_it_runs() -> None:
    script = "import sys; sys.stdout.write(sys.stdin.read() * 100_000)"
    with stream_program([sys.executable, "-c", script], silence_seconds=60, data=b"words ") as output:
        assert read_all(output) == b"words " * 100_000
        assert output.end() == "with status 0"


def test_a_program_that_is_read_ends_when_it_says_nothing_and_with_its_block() -> None:
    script = "import time; print('begun', flush=True); time.sleep(60)"
    with (
        stream_program([sys.executable, "-c", script], silence_seconds=0.5) as output,
        pytest.raises(ProgramFailed, match="said nothing for"),
    ):
        read_all(output)

    with stream_program([sys.executable, "-c", script], silence_seconds=60) as output:
        output.readinto(bytearray(10))
    assert not Path(f"/proc/{output.pid}").exists()

    with pytest.raises(ProgramFailed), stream_program(["/no/such/program"], silence_seconds=1):
        pass


def test_a_reader_may_take_its_time_with_what_a_program_wrote() -> None:
    script = "import sys; sys.stdout.write('x' * 3_000_000)"
    with stream_program([sys.executable, "-c", script], silence_seconds=0.3) as output:
        output.readinto(bytearray(10))
        time.sleep(1)
        assert len(read_all(output)) == 2_999_990


def test_a_program_that_complains_at_length_is_heard_at_the_end() -> None:
    script = "import sys; sys.stderr.write('x' * 300_000 + chr(10) + 'the reason'); print('out'); sys.exit(3)"
    with stream_program([sys.executable, "-c", script], silence_seconds=20) as output:
        assert read_all(output) == b"out\n"
        assert output.end() == "with status 3: the reason"
