"""The verb of `flask backup` that takes a new application key into use."""

from __future__ import annotations

from pathlib import Path

import click

from backup_admin.control.key_change import take_new_key
from backup_admin.core.shown import count_of
from backup_admin.operations.answers import Answer
from backup_admin.repository.secrets import read_key_file
from backup_admin.web.command_line import actor, here, verb


@click.command("new-key")
@click.option(
    "--old-key-file",
    type=click.Path(path_type=Path),
    required=True,
    help="File of the application key before the one that the settings name now.",
)
@verb
def new_key_command(*, old_key_file: Path) -> Answer:
    """Take a new application key into use, after `backup-admin keys application`.

    Authenticators go on working. The audit log begins anew; the one before is kept
    beside it, and is verified with the old key only.
    """
    installation = here()
    old = read_key_file(old_key_file)
    with installation.database.new_session() as session:
        change = take_new_key(session, installation, old, actor())
    lines = [f"{count_of(change.secrets, 'secret')} sealed under the new application key."]
    if change.old_log:
        lines.append(f"The audit log of before is {change.old_log}; keep the old key with it.")
    return Answer({"secrets": change.secrets, "old_log": change.old_log or None}, lines)
