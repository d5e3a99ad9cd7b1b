"""The command `backup-admin`: find the verb, run it, turn its end into an exit code."""

from __future__ import annotations

import gc
import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from backup_admin.cli.opening import Surroundings, state_path
from backup_admin.cli.printing import (
    Pieces,
    close_streams,
    prepare_streams,
    print_answer,
    print_error,
    say,
)
from backup_admin.cli.stopping import Stop
from backup_admin.core.clock import SystemClock
from backup_admin.core.durable import explain, make_folders, write_new
from backup_admin.core.errors import BackupAdminError, ConfigurationError
from backup_admin.core.version import VERSION
from backup_admin.operations.answers import Answer, describe_error

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from backup_admin.verbs.base import SharedVerb

_APP_SIDE = "app_side"
# Verb, module and what it does. Modules are loaded when their verb is used: the verbs
# of the app side need what a broken machine may lack.
_VERBS = {
    "init": ("beginning", "Make a repository in an empty place."),
    "run": ("making", "Back up folders and databases as one snapshot."),
    "changes": ("changing", "Let triggers count changes, or take them away."),
    "list": ("looking", "List the snapshots."),
    "show": ("looking", "Print the manifest of a snapshot."),
    "ls": ("verbs.searching", "List a folder of a snapshot."),
    "find": ("verbs.searching", "Find a file in all snapshots."),
    "diff": ("looking", "Say what changed between two snapshots."),
    "forget": ("verbs.forgetting", "Forget snapshots, by name or by policy."),
    "prune": ("verbs.retaining", "Delete data that no snapshot needs."),
    "pin": ("verbs.retaining", "Keep a snapshot from being forgotten."),
    "unpin": ("verbs.retaining", "Take the pins of a snapshot away."),
    "check": ("proving", "Check that the repository is sound."),
    "verify": ("proving", "Read a snapshot whole and compare it with its manifest."),
    "repair": ("mending", "Mend what is damaged; deletes nothing."),
    "mirror": ("mirroring", "Copy a repository to a second storage, or what is new in it."),
    "restore": ("rescue", "Restore into a folder, or in place."),
    "load": ("loading", "Load a restored PostgreSQL database into an empty one."),
    "export": ("exporting", "Write one database for other programs: json, sql, compact."),
    "import": ("exporting", "Load a json export into the tables of an app."),
    "undo": ("in_place", "Take back a restore in place."),
    "recover": ("in_place", "Finish or undo a restore that was interrupted."),
    "stream": ("streaming", "Stream changes of SQLite databases, restore one to a time."),
    "cluster": ("clusters", "See base backups of PostgreSQL servers, restore one to a time."),
    "archive-push": ("archiving", "Put a WAL file of a PostgreSQL server into the archive."),
    "archive-get": ("archiving", "Write a WAL file out of the archive."),
    "keys": ("keyring", "See and change the secrets that open a repository."),
    "storage": ("places", "Examine a storage, list it, clear it, index it anew."),
    "doctor": ("doctor", "Examine this machine and a storage."),
    "upgrade": (_APP_SIDE, "Bring the control database up to date."),
    "worker": (_APP_SIDE, "Run the jobs of the queue."),
    "scheduler": (_APP_SIDE, "Start what is due."),
}
_INTERRUPTED = 130
_INTERRUPTED_WORDS = (
    "Ended at once, as asked. Snapshots are intact; after a restore in place run: backup-admin recover"
)
_UNEXPECTED = 1
_ASKED_BY_SERVERS = "archive-get"
_NOT_KNOWN = 126
_ALLOCATIONS_BETWEEN_COLLECTIONS = 20_000


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _VERBS:
            return None
        module = _load(cmd_name)
        command = getattr(module, f"{cmd_name.replace('-', '_')}_verb")
        return command if isinstance(command, click.Command) else _shared(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, about) for verb, (_, about) in _VERBS.items()])


def _shared(verb: SharedVerb) -> click.Command:
    from backup_admin.cli.shared import command_of  # noqa: PLC0415  only for verbs that need it

    return command_of(verb)


def _load(verb: str) -> ModuleType:
    module = _VERBS[verb][0]
    name = f"backup_admin.{module}" if "." in module else f"backup_admin.cli.{module}"
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if _VERBS[verb][0] != _APP_SIDE:
            raise
        raise ConfigurationError(
            f"`{verb}` needs the libraries of the app side, and one cannot be loaded: {error}. "
            "Install the package again; all other verbs work without them."
        ) from error


@click.group(
    cls=_Verbs,
    subcommand_metavar="VERB [ARGUMENTS]...",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed, 2 wrong use, 3 done but something is missing, 4 damage found, "
    "5 busy, 6 not permitted, 10 skipped, 12 the key does not open the repository, 75 try again later.",
)
@click.version_option(VERSION, prog_name="backup-admin")
def backup_admin() -> None:
    """Back up and restore: encrypted, deduplicated, proven by reading back.

    Works without the app, its queue and its databases.
    """


def main() -> NoReturn:
    """Run the command and end the process."""
    # What is loaded by now stays: looking through it for garbage is a tenth of a short verb.
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS_BETWEEN_COLLECTIONS)
    prepare_streams()
    exit_code = run(sys.argv[1:])
    try:
        close_streams()
    except BackupAdminError as error:
        say(f"backup-admin: {error}")
        exit_code = exit_code or error.exit_code
    sys.exit(exit_code)


def run(arguments: Sequence[str]) -> int:
    """Run one verb and return its exit code; prints what there is to say."""
    as_json = "--json" in arguments
    surroundings = Surroundings(os.environ, SystemClock(), Stop(), as_json)
    command = next((text for text in arguments if not text.startswith("-")), "")
    error: dict[str, str]
    try:
        with surroundings.stop.on_signals():
            answer = _invoke(arguments, surroundings)
            if isinstance(answer, Answer | Pieces):
                return print_answer(command, answer, as_json=as_json)
            return answer if isinstance(answer, int) else 0
    except BackupAdminError as caught:
        exit_code, error = caught.exit_code, describe_error(caught)
    except click.exceptions.NoArgsIsHelpError as caught:
        say(caught.format_message())
        return 2
    except click.ClickException as caught:
        exit_code, error = 2, {"code": "usage", "message": _usage_message(caught)}
    except (KeyboardInterrupt, click.Abort):
        exit_code, error = _INTERRUPTED, {"code": "interrupted", "message": _INTERRUPTED_WORDS}
    except Exception as caught:  # noqa: BLE001  here a command ends
        exit_code, error = _UNEXPECTED, _unforeseen(caught, surroundings, arguments)
    exit_code = _for_servers(command, error["code"], exit_code)
    print_error(command if command in _VERBS else "", error, exit_code, as_json=as_json)
    return exit_code


def _for_servers(command: str, code: str, exit_code: int) -> int:
    """Let a server never take a mistake for the end of its archive: up to 125 it opens at that point."""
    return exit_code if command != _ASKED_BY_SERVERS or code == "not_archived" else max(exit_code, _NOT_KNOWN)


def _invoke(arguments: Sequence[str], surroundings: Surroundings) -> Any:
    return backup_admin.main(
        list(arguments), prog_name="backup-admin", standalone_mode=False, obj=surroundings
    )


def _usage_message(error: click.ClickException) -> str:
    message = error.format_message()
    context = getattr(error, "ctx", None)
    if context is None:
        return message
    return f"{message}\n{context.get_usage()}\nSee: {context.command_path} --help"


def _unforeseen(error: Exception, surroundings: Surroundings, arguments: Sequence[str]) -> dict[str, str]:
    known = explain(error) if isinstance(error, OSError) else None
    if known is not None:
        return describe_error(known)
    return {"code": "unexpected", "message": _log(error, surroundings, arguments)}


def _log(error: Exception, surroundings: Surroundings, arguments: Sequence[str]) -> str:
    """Keep the traceback in a file; return the one line a person reads."""
    reason = (str(error).strip() or "no details").splitlines()[0]
    what = f"Something unexpected went wrong: {type(error).__name__}: {reason}"
    now = surroundings.clock.now()
    text = "".join(traceback.format_exception(error))
    try:
        folder = state_path(surroundings, _given_state(arguments)) / "logs"
        make_folders(folder)
        path = folder / f"error-{now:%Y%m%dT%H%M%S}-{os.getpid()}.log"
        kept = f"backup-admin {VERSION}, {now.isoformat()}\n{text}"
        write_new(path, (kept.encode("utf-8", "replace"),))
    except OSError as failure:
        return f"{what}. The details could not be kept: {failure.strerror}."
    return f"{what}. The details are in {path}; please report them."


def _given_state(arguments: Sequence[str]) -> Path | None:
    for at, text in enumerate(arguments):
        if text.startswith("--state-dir="):
            return Path(text.partition("=")[2])
        if text == "--state-dir" and at + 1 < len(arguments):
            return Path(arguments[at + 1])
    return None
