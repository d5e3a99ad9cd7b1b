"""What every verb of `flask backup` shares: the app at hand, JSON, statuses, consent."""

from __future__ import annotations

import getpass
import sys
from functools import partial, wraps
from typing import TYPE_CHECKING, ParamSpec

import click
from flask import current_app
from flask.cli import with_appcontext

from backup_admin import jobs
from backup_admin.access.permissions import Actor, Permission
from backup_admin.core.errors import BackupAdminError, Cancelled, UsageError
from backup_admin.operations.answers import Answer, describe_error, dump, envelope, write_document
from backup_admin.records.upgrade import require_current

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from backup_admin.control.installation import Installation

P = ParamSpec("P")

NAME = "flask backup"
_YES = frozenset({"y", "yes"})
_INTERRUPTED = 130
_INTERRUPTED_WORDS = "Ended at once, as asked. After a restore in place run: flask backup recover"


def verb(function: Callable[P, Answer | Iterator[str]]) -> Callable[P, None]:
    """Run in the app's context, print what is answered, end with its status.

    Each verb gets `--json`: one document in the form of `docs/cli.md`, also when it
    fails. A verb that answers text pieces prints a document of its own.
    """

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
    @with_appcontext
    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        command, as_json = click.get_current_context().info_name or "", bool(kwargs.pop("as_json"))
        click.get_current_context().meta[NAME] = as_json
        try:
            answer = function(*args, **kwargs)
            sys.exit(_print(command, answer, as_json=as_json))
        except BackupAdminError as error:
            code, said = error.exit_code, describe_error(error)
        except KeyboardInterrupt:
            code, said = _INTERRUPTED, {"code": "interrupted", "message": _INTERRUPTED_WORDS}
        if as_json:
            click.echo(dump(envelope(command, code, said)))
        else:
            say(f"Error: {said['message']}")
        sys.exit(code)

    return call


def is_json() -> bool:
    """Say whether the verb at hand shall print JSON."""
    return bool(click.get_current_context().meta.get(NAME))


def say(message: str) -> None:
    """Tell a person something; goes to stderr."""
    click.echo(message, err=True)


def ask(question: str) -> None:
    """Go on only after a yes; raise `Cancelled` else."""
    say(f"{question} Type yes to go on:")
    if sys.stdin.readline().strip().lower() not in _YES:
        raise Cancelled("Not confirmed. Nothing was touched.")


def is_terminal() -> bool:
    """Say whether a person can be asked."""
    return sys.stdin.isatty()


def require_consent(*, given: bool) -> None:
    """Raise `UsageError` when consent was not given and nobody can be asked."""
    if not (given or is_terminal()):
        raise UsageError("There is no terminal to ask for consent: give --yes. Nothing was touched.")


def here() -> Installation:
    """Return what the app has of us."""
    return jobs.installation_of(current_app._get_current_object())  # type: ignore[attr-defined]  # noqa: SLF001


def ready() -> Installation:
    """The same; raise `ConfigurationError` while its control database is not up to date."""
    installation = here()
    require_current(installation.database)
    return installation


def actor() -> Actor:
    """Return who runs the command: whoever has a shell here may do everything."""
    name = getpass.getuser()
    return Actor(f"system:{name}", f"{name} (command line)", granted=frozenset(Permission))


def _print(command: str, answer: Answer | Iterator[str], *, as_json: bool) -> int:
    if not isinstance(answer, Answer):
        for piece in answer:
            click.echo(piece, nl=False)
        return 0
    if as_json:
        exit_code, error = write_document(command, answer, partial(click.echo, nl=False))
        if error is not None:
            say(f"Error: {error}")
        return exit_code
    for line in answer.lines:
        click.echo(line)
    for note in answer.notes:
        say(note)
    return answer.exit_code
