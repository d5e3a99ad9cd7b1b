"""The verbs that need the app: upgrade, worker, scheduler."""

from __future__ import annotations

import signal
from contextlib import suppress
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import click
from flask.cli import NoAppException, ScriptInfo

from backup_admin import jobs
from backup_admin.cli.opening import STATE_DIR, Surroundings, plain_options
from backup_admin.cli.printing import say
from backup_admin.core.errors import ConfigurationError
from backup_admin.operations.answers import Answer
from backup_admin.records.upgrade import require_current, upgrade

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from flask import Flask

P = ParamSpec("P")
R = TypeVar("R")

APP = "BACKUP_ADMIN_APP"
_STANDALONE = "backup_admin.web.standalone:create_app"


def _app_options(function: Callable[P, R]) -> Callable[P, R]:
    """Give a verb the options that say which app; let signals end it as usual."""

    @click.option(
        "--app",
        metavar="MODULE:FACTORY",
        help=f"The app that mounts backup_admin.  [{APP}, FLASK_APP, else the standalone app]",
    )
    @plain_options
    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        return function(*args, **kwargs)

    return call


@click.command("upgrade")
@_app_options
@click.pass_obj
def upgrade_verb(surroundings: Surroundings, *, app: str | None, state_dir: Path | None) -> Answer:
    """Create the control database, or bring it up to date. Safe to repeat."""
    found = _load_app(surroundings, app, state_dir)
    with found.app_context():
        revision = upgrade(jobs.installation_of(found).database)
    return Answer({"revision": revision}, lines=[f"The control database is at revision {revision}."])


@click.command("worker")
@click.option("--burst", is_flag=True, help="Stop when nothing waits.")
@click.option("--no-scheduler", is_flag=True, help="Do not start what is due as well.")
@_app_options
@click.pass_obj
def worker_verb(
    surroundings: Surroundings, *, burst: bool, no_scheduler: bool, app: str | None, state_dir: Path | None
) -> Answer:
    """Run the jobs of the queue until told to stop, and start what is due."""
    found = _load_app(surroundings, app, state_dir)
    say("The worker has started. Ctrl-C ends it after the job at hand.")
    jobs.work(found, burst=burst, with_scheduler_loop=not no_scheduler)
    return Answer({"ended": True}, lines=["The worker has ended."])


@click.command("scheduler")
@_app_options
@click.pass_obj
def scheduler_verb(surroundings: Surroundings, *, app: str | None, state_dir: Path | None) -> Answer:
    """Start what is due, each second, without running jobs in this process."""
    found = _load_app(surroundings, app, state_dir)
    require_current(jobs.installation_of(found).database)
    say("The scheduler has started. Ctrl-C ends it.")
    with suppress(KeyboardInterrupt):  # the usual way to end it
        jobs.scheduler_loop(found)
    return Answer({"ended": True}, lines=["The scheduler has ended."])


def _load_app(surroundings: Surroundings, given: str | None, state_dir: Path | None) -> Flask:
    environment = surroundings.environment
    name = given or environment.get(APP) or environment.get("FLASK_APP") or _STANDALONE
    if state_dir is not None:
        surroundings.set_variable(STATE_DIR, str(state_dir.expanduser().absolute()))
    try:
        app = ScriptInfo(app_import_path=name).load_app()
    except (NoAppException, ImportError) as error:
        raise ConfigurationError(
            f"The app {name} cannot be loaded: {error} Name it with --app MODULE:FACTORY."
        ) from error
    if jobs.INSTALLATION not in app.extensions:
        raise ConfigurationError(f"The app {name} does not mount backup_admin: BackupAdmin(app) is missing.")
    return app
