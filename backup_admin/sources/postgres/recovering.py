"""Let a copied cluster recover on its own: settings that keep it apart from the live one, start, outcome."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from backup_admin.core.durable import replace_file
from backup_admin.core.errors import RestoreRefused, SourceError
from backup_admin.core.programs import run_program
from backup_admin.sources.postgres.clients import why

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from backup_admin.sources.postgres.clients import ClientPrograms

LOG = "restore.log"
_KEPT = "postgresql.conf.restored"
_MARK = "# Written by a restore of backup-admin. Take these lines out to use the cluster in earnest."
_MAX_SOCKET_PATH = 90
_LAST = re.compile(r"last completed transaction was at log time (\S+ \S+)")
_STOPPED = re.compile(r"recovery stopping before (?:commit|abort)\b")
_COMPLETE = "archive recovery complete"
_HBA = """# Only who is on this machine, as the user the server runs as, or with a password.
local all all peer
host all all 127.0.0.1/32 scram-sha-256
"""
_OPEN = "ready"
_STATE_LINE = 7
_START_SECONDS = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class Recovery:
    """Where a copied cluster recovers to; without a `moment` to the end of what `wal` holds."""

    folder: Path
    wal: Path
    port: int
    timeline: int
    moment: datetime | None


@dataclass(frozen=True, slots=True)
class Recovered:
    """How far a cluster came: the last transaction it holds, when it replayed any."""

    last_transaction: datetime | None


def need_plain_path(path: Path) -> None:
    """Refuse a path that cannot stand in the settings of a server."""
    if any(letter in str(path) for letter in "'\"\\\n%$`"):
        raise RestoreRefused(
            f"{path} holds a character that a server's settings cannot. Nothing was written."
        )


def configure(recovery: Recovery) -> None:
    """Write the settings: its own port, no archiving, nothing that reaches out to other servers.

    What the cluster had set stays beside it and in force wherever this says nothing.
    """
    folder = recovery.folder
    own = folder / "postgresql.conf"
    if own.exists():
        own.rename(folder / _KEPT)
    lines = [
        f"include_if_exists = '{_KEPT}'",
        _MARK,
        *_settings({**_places(folder), **_apart(recovery), **_target(recovery)}),
    ]
    _write(own, lines)
    if not (folder / "pg_hba.conf").exists():
        _write(folder / "pg_hba.conf", [_HBA])
    if not (folder / "pg_ident.conf").exists():
        _write(folder / "pg_ident.conf", [])
    # What ALTER SYSTEM had set comes after all other settings.
    automatic = folder / "postgresql.auto.conf"
    before = automatic.read_text(errors="surrogateescape") if automatic.exists() else ""
    _write(automatic, [before.rstrip("\n"), _MARK, *_settings({**_apart(recovery), **_target(recovery)})])
    _write(folder / "recovery.signal", [])
    (folder / "standby.signal").unlink(missing_ok=True)


def _places(folder: Path) -> dict[str, str]:
    return {
        "data_directory": str(folder),
        "hba_file": str(folder / "pg_hba.conf"),
        "ident_file": str(folder / "pg_ident.conf"),
        "external_pid_file": str(folder / "restored.pid"),
    }


def _apart(recovery: Recovery) -> dict[str, str]:
    sockets = str(recovery.folder) if len(str(recovery.folder)) <= _MAX_SOCKET_PATH else ""
    return {
        "port": str(recovery.port),
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": sockets,
        "ssl": "off",
        "archive_mode": "off",
        "archive_command": "",
        "primary_conninfo": "",
        "primary_slot_name": "",
        "synchronous_standby_names": "",
        "max_logical_replication_workers": "0",
        "hot_standby": "off",
        "logging_collector": "off",
        "log_destination": "stderr",
        "log_timezone": "UTC",
        "lc_messages": "C",
    }


def _target(recovery: Recovery) -> dict[str, str]:
    copy = f'cp {shlex.quote(str(recovery.wal))}/%f "%p"'
    found = {
        "restore_command": copy,
        "recovery_end_command": "",
        "archive_cleanup_command": "",
        "recovery_target_timeline": str(recovery.timeline),
        "recovery_target_action": "promote",
        "recovery_target": "",
        "recovery_target_name": "",
        "recovery_target_xid": "",
        "recovery_target_lsn": "",
        "recovery_target_time": "",
    }
    if recovery.moment is not None:
        found["recovery_target_time"] = f"{recovery.moment.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}+00"
    return found


def _settings(values: dict[str, str]) -> Iterator[str]:
    for name, value in values.items():
        yield f"{name} = '{value.replace(chr(39), chr(39) * 2)}'"


def _write(path: Path, lines: list[str]) -> None:
    text = "".join(f"{line}\n" for line in lines)
    replace_file(path, text.encode("utf-8", "surrogateescape"))


def start(programs: ClientPrograms, recovery: Recovery, wait: Callable[[], None]) -> Recovered:
    """Start the cluster, wait until it recovered and is open, and say how far it came.

    `wait` is called again and again meanwhile; what it raises stops the cluster. Raises `SourceError`
    when it did not get where it was to.
    """
    log = recovery.folder / LOG
    command = [str(programs.folder / "pg_ctl"), "start", "--wait", f"--timeout={_START_SECONDS:.0f}"]
    command += [f"--pgdata={recovery.folder}", f"--log={log}"]
    done = run_program(command, timeout_seconds=_START_SECONDS + 60)
    # It counts as started when it could serve as a standby, long before it recovered.
    state = _state(recovery.folder)
    while state not in {_OPEN, ""}:
        try:
            wait()
        except BaseException:
            stop(programs, recovery.folder)
            raise
        state = _state(recovery.folder)
    said = log.read_text(errors="replace") if log.exists() else ""
    if not state:
        reason = _complaint(said) or why(done)
        raise SourceError(f"The cluster in {recovery.folder} did not recover: {reason} See {log}.")
    is_there = _COMPLETE in said and (recovery.moment is None or _STOPPED.search(said) is not None)
    if not is_there:
        stop(programs, recovery.folder)
        raise SourceError(
            f"The cluster in {recovery.folder} started, but does not say that it reached its target; it was "
            f"stopped. See {log}."
        )
    found = _LAST.findall(said)
    return Recovered(_time(found[-1]) if found else None)


def stop(programs: ClientPrograms, folder: Path) -> None:
    """Stop a cluster that was started here."""
    run_program(
        [str(programs.folder / "pg_ctl"), "stop", f"--pgdata={folder}", "--mode=fast", "--wait"],
        timeout_seconds=600,
    )


def _state(folder: Path) -> str:
    """Return what a server says of itself in its pid file; empty when it does not run."""
    try:
        lines = (folder / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return ""
    return lines[_STATE_LINE].strip() if len(lines) > _STATE_LINE else "starting"


def _complaint(said: str) -> str:
    lines = [line for line in said.splitlines() if "FATAL:" in line or "PANIC:" in line]
    return lines[0].partition("FATAL:")[2].strip() or lines[0] if lines else ""


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text.replace(" UTC", "+00:00"))
    return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
