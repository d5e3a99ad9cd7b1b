"""What all storage addresses have in common: parts of a URL, and options that are checked."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from backup_admin.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection
    from urllib.parse import SplitResult


def split_address(address: str, known: Collection[str]) -> tuple[SplitResult, dict[str, str]]:
    """Return the parts of an address and its options; raise `UsageError`, which shows no option's value."""
    shown = repr(address.partition("?")[0][:200])
    try:
        parts = urlsplit(address)
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        _ = parts.port  # a port that is none is only told when it is asked for
    except ValueError as error:
        raise UsageError(f"The address {shown} cannot be read: {error}.") from error
    if parts.fragment:
        raise UsageError(f"The address {shown} has a '#'; write it as %23.")
    given = dict(pairs)
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise UsageError(
            f"An {parts.scheme}:// address has no option {unknown[0]!r}; it has {', '.join(known)}."
        )
    if len(given) != len(pairs):
        raise UsageError(f"An option of the {parts.scheme}:// address is given twice.")
    return parts, given
