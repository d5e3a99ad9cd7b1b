"""A limit of bytes a second, kept by all threads together."""

from __future__ import annotations

import threading

import pytest

from backup_admin.core.errors import UsageError
from backup_admin.storage.s3_client import ViewBody
from backup_admin.storage.throttle import Throttle, parse_bandwidth


class Watch:
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def make(rate: int) -> tuple[Throttle, Watch]:
    watch = Watch()
    return Throttle(rate, monotonic=watch.monotonic, sleep=watch.sleep), watch


def test_what_is_sent_takes_its_time() -> None:
    throttle, watch = make(1000)

    for _ in range(11):
        throttle.wait(500)

    assert watch.now == pytest.approx(105.0)


def test_an_idle_time_gives_no_right_to_a_burst() -> None:
    throttle, watch = make(1000)
    throttle.wait(500)
    watch.now += 60

    for _ in range(3):
        throttle.wait(500)

    assert watch.now == pytest.approx(161.0)


def test_without_a_limit_nobody_waits() -> None:
    throttle, watch = make(0)

    throttle.wait(1 << 40)

    assert watch.now == 100.0


def test_threads_share_the_limit() -> None:
    waits: list[float] = []
    throttle = Throttle(1000, monotonic=lambda: 0.0, sleep=waits.append)
    threads = [threading.Thread(target=throttle.wait, args=(1000,)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(waits) == [1.0, 2.0, 3.0, 4.0]


def test_a_body_that_is_sent_waits_and_one_that_is_signed_does_not() -> None:
    data = bytes(range(256)) * 1024
    throttle, watch = make(len(data))
    body = ViewBody(memoryview(data), throttle)

    signed = body.read(1 << 20)
    before = watch.now
    body.seek(0)
    sent = b"".join(iter(lambda: body.read(16_384), b""))

    assert signed == sent == data
    assert before == 100.0
    assert watch.now == pytest.approx(101.0)


@pytest.mark.parametrize("text", ["fast", "nan", "0", "-1", "inf", ""])
def test_a_limit_that_is_none_is_told(text: str) -> None:
    with pytest.raises(UsageError, match="MiB a second"):
        parse_bandwidth(text)


def test_a_limit_is_given_in_mib() -> None:
    assert (parse_bandwidth("2.5"), parse_bandwidth(None)) == (2_621_440, 0)
