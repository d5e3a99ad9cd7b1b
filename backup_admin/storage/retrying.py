"""Trying again what failed for a reason that passes: waits that grow, with full jitter.

Full jitter (a wait drawn evenly between nothing and twice the last bound) is what keeps
many clients of one server from coming back at the same moment; see Brooker, "Exponential
Backoff and Jitter", 2015.
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from backup_admin.core.errors import StorageError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Failure:
    """What an attempt ended with, told so that a person understands it.

    `passes` says that another attempt may succeed, `wait_seconds` what the server asked for.
    """

    error: StorageError
    passes: bool
    wait_seconds: float = 0.0


class Retries:
    """Tries again within the budget of one run, which all its calls and threads share."""

    def __init__(
        self,
        *,
        attempts: int = 8,
        first_seconds: float = 0.5,
        longest_seconds: float = 20.0,
        budget_seconds: float = 600.0,
        connect_seconds: float = 10.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Hold a budget; `connect_seconds` is how long a client may wait for a connection."""
        self.connect_seconds = connect_seconds
        self._attempts = attempts
        self._first = first_seconds
        self._longest = longest_seconds
        self._left = budget_seconds
        self._lock = threading.Lock()
        self._sleep = sleep

    @classmethod
    def quick(cls) -> Retries:
        """Return those for a person who waits: a short failure is bridged, a lasting one told soon."""
        return cls(attempts=3, budget_seconds=3.0, connect_seconds=3.0)

    def run(self, attempt: Callable[[int], T], explain: Callable[[Exception], Failure | None]) -> T:
        """Return what `attempt` returns; it is given its number, from 0 on.

        `explain` tells what an exception means; one it does not know is raised as it is.
        Raises the error of the last attempt.
        """
        for number in range(self._attempts):
            try:
                return attempt(number)
            except Exception as raised:
                failure = explain(raised)
                if failure is None:
                    raise
                if not failure.passes or not self._may_wait(number, failure.wait_seconds):
                    raise failure.error from raised
        raise AssertionError("the last attempt returns or raises")

    def _may_wait(self, number: int, asked_seconds: float) -> bool:
        """Wait before the next attempt; False when there is none, or its wait is beyond the budget."""
        if number + 1 >= self._attempts:
            return False
        bound = min(self._longest, self._first * 2**number)
        seconds = max(asked_seconds, random.uniform(0, bound))  # noqa: S311
        with self._lock:
            if seconds > self._left:
                return False
            self._left -= seconds
        self._sleep(seconds)
        return True
