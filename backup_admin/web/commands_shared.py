"""The verbs that both commands have, as `flask backup` offers them: on the app's repository."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from backup_admin.access.audit import AuditOutcome
from backup_admin.control import catalogue, engine
from backup_admin.core.errors import BackupAdminError
from backup_admin.core.progress import QuietReporter
from backup_admin.verbs.base import STORAGE, SharedVerb, Work, click_command
from backup_admin.web.command_line import actor, is_json, ready, say, verb

if TYPE_CHECKING:
    import click

    from backup_admin.control.installation import Installation
    from backup_admin.operations.answers import Answer
    from backup_admin.repository.repository import Repository


def command_of(shared: SharedVerb) -> click.Command:
    """Return the command: the verb on the app's repository, audited when it changes something."""

    def call(**options: Any) -> Answer:
        installation = ready()
        with installation.database.new_session() as session:
            repository = engine.open_repository(session, installation)
        work = Work(
            repository,
            installation.state,
            installation.clock,
            actor().id,
            is_json(),
            lambda _stopped: nullcontext(QuietReporter()),
        )
        if not shared.changes or options.get("dry_run"):
            return shared.function(work, **options)
        return _change(shared, work, installation, options)

    parameters = tuple(parameter for parameter in shared.parameters if parameter is not STORAGE)
    return click_command(shared, verb(call), parameters)


def _change(shared: SharedVerb, work: Work, installation: Installation, options: dict[str, Any]) -> Answer:
    """Do what changes the repository: written to the audit log before it begins, and how it ended."""
    action = f"repository.{shared.name}"
    given = {name: str(value) for name, value in options.items() if value}
    installation.audit().append(actor(), f"{action}.start", target=work.repository.repo_id, details=given)
    outcome, reason = AuditOutcome.FAILED, ""
    try:
        answer = shared.function(work, **options)
        outcome = AuditOutcome.DONE
    except BackupAdminError as error:
        reason = str(error)
        raise
    finally:
        installation.audit().append(
            actor(), action, target=work.repository.repo_id, outcome=outcome, reason=reason
        )
        _learn(installation, work.repository)
    return answer


def _learn(installation: Installation, repository: Repository) -> None:
    with installation.database.new_session() as session:
        for problem in catalogue.reindex(session, repository):
            say(problem)
