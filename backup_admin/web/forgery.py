"""Is a change really asked for by one of our own pages: token, origin, fetch metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flask import session
from flask_wtf.csrf import generate_csrf, validate_csrf

from backup_admin.core.errors import BackupAdminError

if TYPE_CHECKING:
    from flask import Request

FIELD = "csrf_token"
HEADER = "X-CSRFToken"
_TOKEN_SECONDS = 12 * 3600
_HARMLESS = ("GET", "HEAD", "OPTIONS")
_OWN_PAGE = ("same-origin", "none")


class ForgedRequest(BackupAdminError):
    """A change was asked for without proof that our own page asked."""

    code = "forged_request"


def token() -> str:
    """Return the token for the hidden field of a form."""
    return str(generate_csrf())


def check_request(request: Request) -> None:
    """Let a change through only with our token and from our own pages.

    Raises `ForgedRequest`. Reading requests pass: they change nothing.
    """
    if request.method in _HARMLESS:
        return
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in _OWN_PAGE:
        raise ForgedRequest("The request came from another site.")
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.host:
        raise ForgedRequest("The request came from another site.")
    _check_token(request.form.get(FIELD) or request.headers.get(HEADER) or "")


def _check_token(given: str) -> None:
    try:
        validate_csrf(given, time_limit=_TOKEN_SECONDS)
    except ValueError as error:  # the ValidationError of WTForms is one
        hint = "it is too old" if session.get(FIELD) else "no session cookie came with it"
        raise ForgedRequest(f"The form is not valid any more ({hint}).") from error
