"""What passes is tried again, within bounds that all calls of a run share."""

from __future__ import annotations

import pytest

from backup_admin.core.errors import StorageUnavailable
from backup_admin.storage.retrying import Failure, Retries


class Server:
    """Fails a number of times, then answers; remembers the waits in between."""

    def __init__(self, failures: int, *, passes: bool = True, wait_seconds: float = 0.0) -> None:
        self.failures = failures
        self.failure = Failure(StorageUnavailable("busy"), passes, wait_seconds)
        self.attempts: list[int] = []
        self.waits: list[float] = []

    def answer(self, number: int) -> str:
        self.attempts.append(number)
        if len(self.attempts) <= self.failures:
            raise OSError("busy")
        return "answer"

    def explain(self, error: Exception) -> Failure | None:
        return self.failure if isinstance(error, OSError) else None


def run(server: Server, **options: float) -> str:
    retries = Retries(sleep=server.waits.append, **options)  # type: ignore[arg-type]  # attempts is an int
    return retries.run(server.answer, server.explain)


def test_what_passes_is_tried_until_it_succeeds() -> None:
    server = Server(3)

    assert run(server) == "answer"
    assert server.attempts == [0, 1, 2, 3]
    assert len(server.waits) == 3


def test_what_lasts_is_told_at_once() -> None:
    server = Server(1, passes=False)

    with pytest.raises(StorageUnavailable, match="busy") as raised:
        run(server)
    assert (server.attempts, server.waits) == ([0], [])
    assert isinstance(raised.value.__cause__, OSError)


def test_what_nobody_can_explain_is_raised_as_it_is() -> None:
    def attempt(_number: int) -> None:
        raise KeyError("a mistake of ours")

    with pytest.raises(KeyError):
        Retries(sleep=lambda _: None).run(attempt, Server(0).explain)


def test_there_is_a_last_attempt() -> None:
    server = Server(99)

    with pytest.raises(StorageUnavailable):
        run(server, attempts=4)
    assert server.attempts == [0, 1, 2, 3]


def test_waits_grow_are_drawn_and_have_a_bound() -> None:
    waits = []
    for _ in range(300):
        server = Server(6)
        run(server, attempts=7, first_seconds=1, longest_seconds=10)
        waits.append(server.waits)

    for number, bound in enumerate([1, 2, 4, 8, 10, 10]):
        drawn = [wait[number] for wait in waits]
        assert all(0 <= seconds <= bound for seconds in drawn)
        assert min(drawn) < bound / 4
        assert max(drawn) > 3 * bound / 4


def test_a_wait_the_server_asks_for_is_kept() -> None:
    server = Server(1, wait_seconds=77)

    run(server)

    assert server.waits == [77]


def test_all_calls_of_a_run_share_one_budget() -> None:
    waits: list[float] = []
    retries = Retries(budget_seconds=100, sleep=waits.append)
    for _ in range(2):
        server = Server(1, wait_seconds=40)
        retries.run(server.answer, server.explain)

    server = Server(1, wait_seconds=40)
    with pytest.raises(StorageUnavailable):
        retries.run(server.answer, server.explain)
    assert waits == [40, 40]
