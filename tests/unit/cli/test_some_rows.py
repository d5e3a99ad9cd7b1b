"""Tables and rows of databases that options name."""

from __future__ import annotations

import pytest

from backup_admin.cli.some_rows import Chosen, select_from
from backup_admin.core.errors import UsageError
from backup_admin.operations.results import SourceSet


def test_without_a_database_nothing_can_be_meant() -> None:
    with pytest.raises(UsageError, match="--sqlite NAME=FILE"):
        select_from(Chosen(("shop.a",), (), "skip", (), (), (), ()), SourceSet())
