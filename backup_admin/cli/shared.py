"""The verbs that both commands have, as `backup-admin` offers them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from backup_admin.cli.opening import Surroundings, actor, open_given, repository_options
from backup_admin.verbs.base import SharedVerb, Work, click_command

if TYPE_CHECKING:
    from pathlib import Path

    from backup_admin.operations.answers import Answer


def command_of(verb: SharedVerb) -> click.Command:
    """Return the command: the verb on the storage that is named."""

    @click.pass_obj
    def call(
        surroundings: Surroundings,
        /,
        *,
        storage: str,
        key_file: Path | None,
        state_dir: Path | None,
        **options: Any,
    ) -> Answer:
        repository, state = open_given(surroundings, storage, key_file, state_dir)
        work = Work(
            repository, state, surroundings.clock, actor(), surroundings.as_json, surroundings.reporting
        )
        return verb.function(work, **options)

    return click_command(verb, call, (*verb.parameters, repository_options))
