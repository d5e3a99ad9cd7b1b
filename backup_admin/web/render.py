"""Pages and their fragments: one frame around all, errors included."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Response, current_app, make_response

from backup_admin.web import current
from backup_admin.web.forgery import token
from backup_admin.web.frame import Frame, build_frame, plain_frame

if TYPE_CHECKING:
    from backup_admin.web.errors import Problem


def render_page(name: str, /, *, status: int = 200, **context: Any) -> Response:
    """Render `pages/<name>.html` inside the frame."""
    return _respond(f"backup_admin/pages/{name}.html", build_frame(), status, context)


def render_fragment(name: str, /, **context: Any) -> Response:
    """Render the fragment `partials/_<name>.html`, without a frame around it."""
    return _respond(f"backup_admin/partials/_{name}.html", build_frame(), 200, context)


def render_bare(name: str, /, *, status: int = 200, **context: Any) -> Response:
    """Render a page for people who are not signed in."""
    return _respond(f"backup_admin/pages/{name}.html", plain_frame(), status, context)


def render_error(problem: Problem) -> Response:
    """Render the page of a failure; what the frame wants may be broken too."""
    return _respond("backup_admin/pages/error.html", plain_frame(), problem.status, {"problem": problem})


def _respond(template: str, frame: Frame, status: int, context: dict[str, Any]) -> Response:
    # Without a frame for a person nobody is asked who it is: that may be what failed.
    may = current.permissions() if frame.nav else current.no_permissions()
    # Not `render_template`: that runs the host's context processors, which may
    # need a database that is broken or being restored.
    templates = current_app.jinja_env
    pieces = templates.get_template("backup_admin/partials/_ui.html").make_module({"ba_csrf": token})
    page = templates.get_template(template)
    return make_response(page.render(frame=frame, may=may, ui=pieces, **context), status)
