"""A limit for the bytes a second that all threads of one storage send together."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from backup_admin.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable


MIB = 1 << 20


class Throttle:
    """Makes who sends wait his turn. Nobody may save up: an idle time gives no right to a burst."""

    def __init__(
        self,
        bytes_per_second: int,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """With 0 there is no limit."""
        self.is_limited = bytes_per_second > 0
        self._rate = bytes_per_second
        self._monotonic = monotonic
        self._sleep = sleep
        self._lock = threading.Lock()
        self._free_at = 0.0

    def wait(self, count: int) -> None:
        """Return when so many bytes may be sent."""
        if not self.is_limited:
            return
        with self._lock:
            now = self._monotonic()
            begin = max(now, self._free_at)
            self._free_at = begin + count / self._rate
        if begin > now:
            self._sleep(begin - now)


def parse_bandwidth(text: str | None) -> int:
    """Return bytes a second from MiB a second; raise `UsageError`."""
    if text is None:
        return 0
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.01 <= value <= 100_000:
        raise UsageError(f"bandwidth is the MiB a second to send at the most, such as 2.5, not {text!r}.")
    return int(value * MIB)
