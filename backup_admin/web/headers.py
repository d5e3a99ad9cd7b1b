"""The headers our own responses carry; a host's pages never get them from us."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Response

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def protect(response: Response, *, is_static: bool) -> Response:
    """Set the headers; what may be kept by a browser is only the static files."""
    response.headers.update(_ALWAYS)
    response.headers["Content-Security-Policy"] = POLICY
    if not is_static:
        response.headers["Cache-Control"] = "no-store"
        response.vary.update(["HX-Request", "Cookie"])
    return response
