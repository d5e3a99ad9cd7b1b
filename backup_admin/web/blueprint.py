"""The blueprint a host mounts: routes, templates, static files and what guards them all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint, Response, request

from backup_admin.core.resources import resource_dir
from backup_admin.web import (
    current,
    forgery,
    pages_backups,
    pages_confirm,
    pages_mirrors,
    pages_overview,
    pages_restore,
    pages_rows,
    pages_security,
    pages_settings,
    pages_setup,
)
from backup_admin.web.errors import register_errors
from backup_admin.web.formats import filters
from backup_admin.web.headers import protect

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue

NAME = "backup_admin"
_STATIC = f"{NAME}.static"
_PAGES = (
    pages_overview,
    pages_backups,
    pages_confirm,
    pages_restore,
    pages_rows,
    pages_security,
    pages_mirrors,
    pages_settings,
    pages_setup,
)


def create_blueprint() -> Blueprint:
    """Create the blueprint with every page on it; register it below the prefix."""
    blueprint = Blueprint(
        NAME,
        __name__,
        template_folder=str(resource_dir("templates")),
        static_folder=str(resource_dir("static")),
        static_url_path="/static",
    )
    blueprint.before_request(before_request)
    blueprint.after_request(after_request)
    for module in _PAGES:
        module.register(blueprint)
    _add_filters(blueprint)
    register_errors(blueprint)
    return blueprint


def before_request() -> ResponseReturnValue | None:
    """Refuse forged changes, and leave a host's boosted page before anything else."""
    if request.endpoint == _STATIC:
        return None
    if _is_boosted_from_outside():
        return "", 200, {"HX-Redirect": request.full_path.rstrip("?")}
    forgery.check_request(request)
    return None


def after_request(response: Response) -> Response:
    """Add our headers; Flask calls this for our own responses only."""
    return protect(response, is_static=request.endpoint == _STATIC)


def _is_boosted_from_outside() -> bool:
    """Tell whether a host page would swap our body into its own head."""
    if request.method != "GET" or request.headers.get("HX-Boosted") != "true":
        return False
    where = request.headers.get("HX-Current-URL", "")
    return f"{request.host}{current.settings().url_prefix}" not in where


def _add_filters(blueprint: Blueprint) -> None:
    for name, function in filters(current.now, lambda: current.settings().timezone).items():
        blueprint.add_app_template_filter(function, name)
