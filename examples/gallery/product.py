"""Everything the demo asks of backup_admin, in one place.

The demo never touches the engine: it does what an administrator does, with a queue
and a worker in between.
"""

# ruff: noqa: ARG001  # the bodies that use these arguments follow with the product

import sys
from dataclasses import dataclass

from flask import Flask

_NOT_YET = "backup_admin cannot do this yet"


class ProductError(Exception):
    """A backup or restore did not end well; the message says how."""


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run or a restore ended."""

    id: str
    succeeded: bool
    summary: str


def worker_command() -> list[str]:
    """Return the command that starts a worker for the gallery."""
    return [
        *(sys.executable, "-m", "backup_admin.cli.main", "worker"),
        *("--app", "examples.gallery.app:create_app"),
    ]


def init_repository(app: Flask) -> None:
    """Make key file, storage and repository, and bring the control database up to date.

    What exists already is left as it is.
    """
    raise ProductError(_NOT_YET)


def trigger_backup(app: Flask) -> str:
    """Queue a backup of everything, as the button does; return the run's id."""
    raise ProductError(_NOT_YET)


def wait_for_run(app: Flask, run_id: str, *, timeout_seconds: float = 300) -> RunOutcome:
    """Wait until a run has ended, verified or not."""
    raise ProductError(_NOT_YET)


def restore_latest(app: Flask, *, timeout_seconds: float = 300) -> RunOutcome:
    """Restore the newest snapshot in place, through plan, confirmation and worker."""
    raise ProductError(_NOT_YET)
