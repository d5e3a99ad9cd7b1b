"""Who may call a route: each one names its permission, nothing is open by itself."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from flask import redirect, request

from backup_admin.access.audit import AuditOutcome
from backup_admin.access.permissions import require
from backup_admin.core.errors import NotPermitted
from backup_admin.web import current

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask.typing import ResponseReturnValue

    from backup_admin.access.permissions import Permission

P = ParamSpec("P")
R = TypeVar("R", bound="ResponseReturnValue")

MARK = "backup_admin_permission"
OPEN_TO_ALL = "open to all"


def requires(
    permission: Permission,
) -> Callable[[Callable[P, ResponseReturnValue]], Callable[P, ResponseReturnValue]]:
    """Let only people with the permission call the view."""

    def decorate(view: Callable[P, ResponseReturnValue]) -> Callable[P, ResponseReturnValue]:
        @wraps(view)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> ResponseReturnValue:
            refusal = _refuse(permission)
            return refusal if refusal is not None else view(*args, **kwargs)

        setattr(guarded, MARK, permission)
        return guarded

    return decorate


def open_to_all(view: Callable[P, ResponseReturnValue]) -> Callable[P, ResponseReturnValue]:
    """Mark a view that needs no permission, such as the sign-in page itself."""
    setattr(view, MARK, OPEN_TO_ALL)
    return view


def is_fragment_request() -> bool:
    """Say whether htmx asks for a part of a page; it chooses an answer, it proves nothing."""
    return request.headers.get("HX-Request") == "true" and request.headers.get("HX-Boosted") != "true"


def _refuse(permission: Permission) -> ResponseReturnValue | None:
    """Return where to sign in, raise `NotPermitted`, or return nothing when all is well."""
    actor = current.actor()
    if actor is None:
        address = current.sign_in_url()
        if address is not None and is_fragment_request():
            # Following a redirect htmx would put the sign-in page into the fragment's place.
            return "", 200, {"HX-Refresh": "true"}
        if address is not None:
            return redirect(address)
        raise NotPermitted("Sign in first; these pages are for administrators of the app.")
    try:
        require(actor, permission)
    except NotPermitted:
        if request.method == "POST":
            current.audit().append(
                actor, str(request.endpoint), outcome=AuditOutcome.DENIED, reason=f"lacks {permission}"
            )
        raise
    return None
