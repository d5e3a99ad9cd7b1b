"""From the class of an error to a status code and a page that helps."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from flask import request
from werkzeug.exceptions import HTTPException

from backup_admin.access.audit import AuditFailed
from backup_admin.core import errors as core
from backup_admin.core.errors import BackupAdminError
from backup_admin.core.ids import new_ulid
from backup_admin.web.forgery import ForgedRequest
from backup_admin.web.guards import is_fragment_request
from backup_admin.web.render import render_error

if TYPE_CHECKING:
    from flask import Blueprint, Response

logger = logging.getLogger(__name__)

_UNTOUCHED = "Backups and the data of the app are as they were."


@dataclass(frozen=True, slots=True)
class Problem:
    """What a person reads when something failed."""

    status: int
    title: str
    what: str
    untouched: str
    next: str
    code: str
    id: str = ""


class NotFound(BackupAdminError):
    """There is nothing of that id, or it is not for this person: both look alike."""

    code = "not_found"


@dataclass(frozen=True, slots=True)
class _Kind:
    status: int
    title: str
    next: str


_UNAVAILABLE = "Look whether the disk or the server of the storage is there, then try again."
# The first class that fits counts, so the narrow ones stand before the wide ones.
_KINDS: tuple[tuple[type[BackupAdminError], _Kind], ...] = (
    (NotFound, _Kind(404, "Not found", "Check the address, or start at the dashboard.")),
    (
        core.SnapshotMissing,
        _Kind(404, "This backup is not there", "Choose another one from the list of backups."),
    ),
    (ForgedRequest, _Kind(400, "The form has expired", "Go back, reload the page, and send the form again.")),
    (core.UsageError, _Kind(400, "That cannot be done", "Go back and correct it.")),
    (core.NotPermitted, _Kind(403, "Not permitted", "Ask an administrator for the permission.")),
    (core.Busy, _Kind(409, "Other work is under way", "Wait until it has ended, then try again.")),
    (
        core.RestoreRefused,
        _Kind(409, "The restore was refused", "Go back to the review: it says what prevents it."),
    ),
    (
        core.ConfigurationError,
        _Kind(503, "The configuration is not complete", "Correct it and start the app again."),
    ),
    (
        core.StorageFull,
        _Kind(507, "The storage is full", "Free space or choose another storage, then try again."),
    ),
    (core.StorageError, _Kind(503, "The storage cannot be used", _UNAVAILABLE)),
    (
        core.BadSecret,
        _Kind(503, "A key does not fit", "Check BACKUP_ADMIN_KEY_FILE; nothing opens with another key."),
    ),
    (
        core.WrongKey,
        _Kind(503, "A key does not fit", "Check BACKUP_ADMIN_KEY_FILE; nothing opens with another key."),
    ),
    (
        AuditFailed,
        _Kind(
            503, "The audit log cannot be used", "Nothing sensitive starts without it: look at the log file."
        ),
    ),
    (
        core.NeedsAttention,
        _Kind(500, "A person has to look", "Run `backup-admin rescue status` on the server."),
    ),
)
_OTHER = _Kind(
    500, "Something failed", "Try again; if it fails again, look for the error id in the log of the app."
)
_HTTP = {
    404: _Kind(404, "Not found", "Check the address, or start at the dashboard."),
    405: _Kind(405, "Not like this", "Go back to the page and use its buttons."),
    413: _Kind(413, "Too much at once", "Send less."),
}


def register_errors(blueprint: Blueprint) -> None:
    """Answer every failure below the blueprint with our own page."""
    blueprint.register_error_handler(BackupAdminError, answer_known)
    blueprint.register_error_handler(HTTPException, answer_http)
    blueprint.register_error_handler(Exception, answer_unknown)


def answer_known(error: BackupAdminError) -> Response:
    """Answer an error of ours; its message is made for people."""
    kind = next((kind for cls, kind in _KINDS if isinstance(error, cls)), _OTHER)
    what = str(error) or kind.title
    return _answer(Problem(kind.status, kind.title, what, _UNTOUCHED, kind.next, error.code))


def answer_http(error: HTTPException) -> Response:
    """Answer an error of HTTP itself."""
    if error.response is not None:
        return error.get_response(request.environ)  # type: ignore[return-value]  # a redirect or abort(response)
    status = error.code or 500
    kind = _HTTP.get(status, replace_kind(status))
    return _answer(Problem(status, kind.title, error.name, _UNTOUCHED, kind.next, f"http_{status}"))


def replace_kind(status: int) -> _Kind:
    """Return the general words with another status."""
    return replace(_OTHER, status=status)


def answer_unknown(error: Exception) -> Response:
    """Answer what nobody foresaw: the log gets the trace, the page only its id."""
    what = "An error that was not foreseen."
    problem = Problem(
        500, _OTHER.title, what, "What was under way has been stopped.", _OTHER.next, "unexpected"
    )
    return _answer(problem, error)


def _answer(problem: Problem, error: Exception | None = None) -> Response:
    known = replace(problem, id=new_ulid(datetime.now(UTC)))
    fields = {"error_id": known.id, "code": known.code, "status": known.status, "endpoint": request.endpoint}
    if error is not None:
        logger.error("request failed", extra=fields, exc_info=error)
    elif known.status >= 500:
        logger.warning("request refused", extra=fields)
    else:
        logger.info("request refused", extra=fields)
    response = render_error(known)
    if is_fragment_request() and known.status < 500:
        # The page around the fragment says it better; a failure of ours is asked again.
        response.headers["HX-Refresh"] = "true"
    return response
