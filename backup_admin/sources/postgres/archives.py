"""Restoring the archives of a capture with `pg_restore`, also into servers older than it."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from backup_admin.core.errors import SourceError
from backup_admin.core.programs import run_program
from backup_admin.sources.postgres.clients import why
from backup_admin.sources.postgres.connect import advise
from backup_admin.sources.postgres.left_out import left_of
from backup_admin.sources.postgres.parts import WHOLE
from backup_admin.sources.postgres.script import run_script

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from backup_admin.core.programs import Finished
    from backup_admin.sources.postgres.address import PostgresAddress
    from backup_admin.sources.postgres.clients import RestoreClient

_HOURS = 24 * 3600.0
_UNKNOWN_SETTING = b'"transaction_timeout"'
# What locks several tables, what stands on it, and what comes last in every dump.
_ALONE = re.compile(
    rb"\d+; \d+ \d+ (FK CONSTRAINT|COMMENT|SECURITY LABEL|POLICY|ROW SECURITY|MATERIALIZED VIEW DATA"
    rb"|EVENT TRIGGER) "
)


@dataclass(frozen=True, slots=True)
class Archives:
    """Archives in a folder, and the empty database they go into."""

    folder: Path
    address: PostgresAddress
    client: RestoreClient
    connection: psycopg.Connection
    no_owner: bool
    jobs: int
    no_tablespaces: bool = False

    def restore(self, name: str) -> None:
        """Restore an archive of definitions or large objects; the first error ends it."""
        with self._chosen(name) as chosen:
            if self.client.filters:
                self._run(name, chosen)
            else:
                self._restore(name, chosen)

    def restore_side_by_side(self, name: str) -> None:
        """Restore an archive of what needs rows: indexes side by side, then what locks several tables.

        Such an archive has no tables, so `pg_restore` does not know which of its jobs would lock each
        other out: two keys between the same tables did.
        """
        if self.client.filters:
            self._run(name, [])
            return
        listed = self._pg_restore(name, ["--list"])
        self._check(name, listed)
        lines = listed.output.splitlines(keepends=True)
        with TemporaryDirectory() as place:
            for alone in (False, True):
                chosen = Path(place, "list")
                chosen.write_bytes(b"".join(line for line in lines if bool(_ALONE.match(line)) is alone))
                jobs = [] if alone else [f"--jobs={self.jobs}"]
                self._restore(name, [*jobs, f"--use-list={chosen}"])

    def restore_whole(self, jobs: int) -> None:
        """Restore the archive that holds everything, with so many jobs; the first error ends it."""
        with self._chosen(WHOLE) as chosen:
            if not self.client.filters:
                self._restore(WHOLE, [f"--jobs={jobs}", *chosen])
                return
            self._run(WHOLE, ["--section=pre-data", *chosen])
        # Rows cannot be run as a script, and the setting that is refused makes no row wrong.
        done = self._pg_restore(WHOLE, ["--section=data", self._target()])
        errors = [line for line in done.errors.splitlines() if b"error:" in line]
        if not errors or any(_UNKNOWN_SETTING not in line for line in errors):
            self._check(WHOLE, done)
        self._run(WHOLE, ["--section=post-data"])

    @contextmanager
    def _chosen(self, name: str) -> Iterator[list[str]]:
        """Give the options that leave out what our user may not restore."""
        listed = self._pg_restore(name, ["--list"])
        self._check(name, listed)
        with TemporaryDirectory() as place:
            chosen = Path(place, "list")
            chosen.write_bytes(left_of(listed.output, self.connection))
            yield [f"--use-list={chosen}"]

    def _restore(self, name: str, options: list[str]) -> None:
        self._check(name, self._pg_restore(name, ["--exit-on-error", *options, self._target()]))

    def _run(self, name: str, options: list[str]) -> None:
        done = self._pg_restore(name, ["--exit-on-error", *options, "--file=-"])
        self._check(name, done)
        run_script(self.connection, done.output)

    def _pg_restore(self, name: str, options: list[str]) -> Finished:
        owners = ["--no-owner", "--no-acl"] if self.no_owner else []
        places = ["--no-tablespaces"] if self.no_tablespaces else []
        how = ["--no-password", *owners, *places]
        command = [self.client.programs.restore, *how, *options, str(self.folder / name)]
        return run_program(command, timeout_seconds=_HOURS, environment=self.address.environment())

    def _check(self, name: str, done: Finished) -> None:
        if done.status != 0:
            told = f"pg_restore of {name} {why(done)}."
            raise SourceError(f"{self.address.label}: {told} {advise(told)}".rstrip())

    def _target(self) -> str:
        return f"--dbname={self.address.conninfo()}"
