"""What an error left as it was, said in one way wherever that is known."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from backup_admin.core.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def telling(left: str, kinds: tuple[type[SourceError], ...] = (SourceError,)) -> Iterator[None]:
    """Add to an error of a source what that left as it was, and what to do next.

    The error stays of its kind. One that says the first sentence already is left as it is.
    """
    try:
        yield
    except kinds as error:
        if left.partition(".")[0] in str(error):
            raise
        raise type(error)(f"{error} {left}") from error
