"""A machine with an app, as the tests of the command have it."""

from __future__ import annotations

from tests.e2e.cli.conftest import world

__all__ = ["world"]
