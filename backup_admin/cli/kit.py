"""The verb that prints the restore kit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from backup_admin.cli.given import check_not_a_key
from backup_admin.cli.opening import Surroundings, open_with_secret, repository_options
from backup_admin.core.durable import write_new
from backup_admin.core.errors import UsageError
from backup_admin.operations.answers import Answer
from backup_admin.operations.key_slots import prove_secret
from backup_admin.operations.restore_kit import collect_kit, render_html, render_text
from backup_admin.repository.secrets import (
    format_recovery_key,
    parse_recovery_key,
    read_key_file,
    recovery_key_groups,
)

if TYPE_CHECKING:
    from backup_admin.repository.repository import Repository

_PLACE = click.Path(path_type=Path)


@click.command("kit")
@click.argument("storage")
@click.option("--html", "html_file", type=_PLACE, help="Write the page as HTML, to be printed on A4 paper.")
@click.option("--text", "text_file", type=_PLACE, help="Write the page as plain text.")
@click.option(
    "--with-recovery-key",
    type=_PLACE,
    help="File of the recovery key, to stand on the page; else room for it.",
)
@repository_options
@click.pass_obj
def kit_verb(  # noqa: PLR0913  one parameter for each option
    surroundings: Surroundings,
    *,
    storage: str,
    html_file: Path | None,
    text_file: Path | None,
    with_recovery_key: Path | None,
    key_file: Path | None,
    state_dir: Path | None,
) -> Answer:
    """Make the page from which a bare machine gets everything back.

    A recovery key that is to stand on it is proven to open the repository first. Files
    are new and for the owner only; without one the text is printed.
    """
    repository, _, _ = open_with_secret(surroundings, storage, key_file, state_dir)
    groups = _groups(surroundings, repository, with_recovery_key)
    kit = collect_kit(repository, now=surroundings.clock.now(), recovery_key=groups)
    written = []
    for path, page in ((html_file, render_html(kit)), (text_file, render_text(kit))):
        if path is not None:
            _write(path, page)
            written.append(str(path.absolute()))
    lines = [
        f"The restore kit is in {path}. Print it, and keep it away from this machine." for path in written
    ]
    return Answer(
        result={
            "repository": repository.repo_id,
            "files": written,
            "has_recovery_key": bool(groups),
            "text": None if written else render_text(kit),
        },
        lines=lines or render_text(kit).splitlines(),
    )


def _groups(surroundings: Surroundings, repository: Repository, path: Path | None) -> tuple[str, ...]:
    if path is None:
        return ()
    check_not_a_key(str(path))
    key = read_key_file(path)
    secret = parse_recovery_key(key.reveal())
    prove_secret(repository, secret, clock=surroundings.clock)
    return recovery_key_groups(format_recovery_key(secret))


def _write(path: Path, page: str) -> None:
    try:
        written = write_new(path.absolute(), (page.encode(),))
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}.") from error
    if not written:
        raise UsageError(f"{path} exists already; it was not touched. Give a new name.")
