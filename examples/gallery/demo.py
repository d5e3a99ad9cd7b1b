"""Run the gallery with backup_admin mounted: `python -m examples.gallery.demo`."""

import errno
import logging
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click
from flask import Flask
from waitress.server import create_server

from examples.gallery.app import create_app
from examples.gallery.backstage import running_queue, running_worker
from examples.gallery.fill import ADMIN_NAME, PROFILES, Profile
from examples.gallery.household import FolderRefused, Household, keep_house
from examples.gallery.product import (
    ProductError,
    init_repository,
    trigger_backup,
    wait_for_run,
)
from examples.gallery.rehearsal import rehearse
from examples.services.server import ServerError

DEFAULT_DATA = Path(__file__).resolve().parents[2] / ".demo"
_PORTS_TO_TRY = 50


@click.command()
@click.option("--once", is_flag=True, help="Back up, destroy, restore, compare; then stop.")
@click.option("--port", default=5050, show_default=True, help="The next free one is taken.")
@click.option("--data", type=click.Path(path_type=Path), default=DEFAULT_DATA, help="Data folder.")
@click.option("--fresh", is_flag=True, help="Throw the data of an earlier demo away.")
@click.option("--profile", type=click.Choice(sorted(PROFILES)), default="demo", help="How much data.")
def main(once: bool, port: int, data: Path, fresh: bool, profile: str) -> None:
    """Show backup_admin in a photo gallery filled with invented pictures."""
    signal.signal(signal.SIGTERM, _leave)
    try:
        if once:
            _report_rehearsal(PROFILES[profile])
        else:
            serve(data.absolute(), PROFILES[profile], port=port, fresh=fresh)
    except (FolderRefused, ProductError, ServerError) as problem:
        raise click.ClickException(str(problem)) from problem


def serve(data: Path, profile: Profile, *, port: int, fresh: bool) -> None:
    """Serve the demo until Ctrl-C or SIGTERM and leave no process behind."""
    click.echo(f"Preparing {data}")
    house = keep_house(data, profile, fresh=fresh)
    with ExitStack() as stack:
        stack.enter_context(running_queue(data))
        app = create_app({"GALLERY_DATA": data})
        init_repository(app)
        stack.enter_context(running_worker(app, data))
        listener = stack.enter_context(listening_socket(port))
        if house.is_new:
            _make_first_backup(app)
        click.echo(_invitation(house, listener.getsockname()[1]))
        # A browser asks for several files at once; that is nothing to warn about.
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        create_server(app, sockets=[listener]).run()
    click.echo("Stopped.")


@contextmanager
def listening_socket(port: int) -> Iterator[socket.socket]:
    """Yield a socket on this port of the loopback address, or on the next free one."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for candidate in range(port, port + _PORTS_TO_TRY):
            try:
                listener.bind(("127.0.0.1", candidate))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
            yield listener
            return
        raise ServerError(f"No free port from {port} on; name another with --port.")


def _make_first_backup(app: Flask) -> None:
    click.echo("Making the first backup")
    outcome = wait_for_run(app, trigger_backup(app))
    click.echo(outcome.summary)
    if not outcome.succeeded:
        raise ProductError(f"The first backup failed: {outcome.summary}")


def _invitation(house: Household, port: int) -> str:
    address = f"http://127.0.0.1:{port}"
    return f"""
Gallery  {address}/
Backups  {address}/backup-admin/
Sign in  {ADMIN_NAME} / {house.password}

Try this: look at the photos, open Counts and press "Damage this gallery",
see what is gone, then open Backups and restore the newest snapshot. A restore asks
for a code of an authenticator app: Settings, Restore security shows the QR code.
No phone at hand? Under "Cannot scan?" stands the key; this prints its codes:
  {sys.executable} -m examples.gallery.codes KEY
The recovery key of this demo lies in {house.data / "recovery.key"}
Ctrl-C stops everything."""


def _report_rehearsal(profile: Profile) -> None:
    wrong = rehearse(profile)
    for sentence in wrong:
        click.echo(sentence)
    if wrong:
        sys.exit(1)
    click.echo("The restored gallery equals the one before, byte for byte.")


def _leave(_signal: int, _frame: object) -> None:
    """Turn the first SIGTERM into an ordinary exit, so that everything opened is closed."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(0)


if __name__ == "__main__":
    main()
