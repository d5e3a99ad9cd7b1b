"""Restoring the archives of a capture with `pg_restore`, also into servers older than it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.core.errors import SourceError
from backup_admin.core.programs import run_program
from backup_admin.sources.postgres.clients import why
from backup_admin.sources.postgres.parts import WHOLE
from backup_admin.sources.postgres.script import run_script

if TYPE_CHECKING:
    from pathlib import Path

    import psycopg

    from backup_admin.core.programs import Finished
    from backup_admin.sources.postgres.address import PostgresAddress
    from backup_admin.sources.postgres.clients import RestoreClient

_HOURS = 24 * 3600.0
_UNKNOWN_SETTING = b'"transaction_timeout"'


@dataclass(frozen=True, slots=True)
class Archives:
    """Archives in a folder, and the empty database they go into."""

    folder: Path
    address: PostgresAddress
    client: RestoreClient
    connection: psycopg.Connection
    no_owner: bool
    jobs: int

    def restore(self, name: str, *, side_by_side: bool = False) -> None:
        """Restore an archive of definitions or large objects; the first error ends it."""
        if self.client.filters:
            self._run(name, [])
            return
        jobs = [f"--jobs={self.jobs}"] if side_by_side else []
        self._check(name, self._pg_restore(name, ["--exit-on-error", *jobs, self._target()]))

    def restore_whole(self) -> None:
        """Restore the archive that holds everything; the first error ends it."""
        if not self.client.filters:
            self.restore(WHOLE, side_by_side=True)
            return
        self._run(WHOLE, ["--section=pre-data"])
        # Rows cannot be run as a script, and the setting that is refused makes no row wrong.
        done = self._pg_restore(WHOLE, ["--section=data", self._target()])
        errors = [line for line in done.errors.splitlines() if b"error:" in line]
        if not errors or any(_UNKNOWN_SETTING not in line for line in errors):
            self._check(WHOLE, done)
        self._run(WHOLE, ["--section=post-data"])

    def _run(self, name: str, options: list[str]) -> None:
        done = self._pg_restore(name, ["--exit-on-error", *options, "--file=-"])
        self._check(name, done)
        run_script(self.connection, done.output)

    def _pg_restore(self, name: str, options: list[str]) -> Finished:
        owners = ["--no-owner", "--no-acl"] if self.no_owner else []
        command = [self.client.programs.restore, "--no-password", *owners, *options, str(self.folder / name)]
        return run_program(command, timeout_seconds=_HOURS, environment=self.address.environment())

    def _check(self, name: str, done: Finished) -> None:
        if done.status != 0:
            raise SourceError(f"{self.address.label}: pg_restore of {name} {why(done)}.")

    def _target(self) -> str:
        return f"--dbname={self.address.conninfo()}"
