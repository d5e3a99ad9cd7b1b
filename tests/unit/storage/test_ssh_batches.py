"""Objects that several threads put at once travel together, each with its own answer."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.errors import StorageFull
from backup_admin.storage.ssh_batches import Batches

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from backup_admin.storage.ssh_batches import Parcel, Send


def put_all(batches: Batches, count: int, send: Send) -> dict[str, str]:
    answers: dict[str, str] = {}

    def put(name: str) -> None:
        answers[name] = batches.put(name, name.encode(), send)

    threads = [threading.Thread(target=put, args=(f"n{number}",)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_those_that_wait_go_together_and_never_too_many() -> None:
    sizes = []
    first_is_under_way = threading.Event()
    all_wait = threading.Event()

    def send(folder: Path, batch: Sequence[Parcel]) -> list[str]:
        sizes.append(len(batch))
        if len(sizes) == 1:
            first_is_under_way.set()
            all_wait.wait(20)
        return [(folder / str(number)).read_text() for number in range(len(batch))]

    batches = Batches()
    alone = threading.Thread(target=batches.put, args=("first", b"first", send))
    alone.start()
    first_is_under_way.wait(20)
    threading.Timer(0.5, all_wait.set).start()

    answers = put_all(batches, 40, send)
    alone.join()

    assert answers == {name: name for name in answers}
    assert len(answers) == 40
    assert sizes == [1, 16, 16, 8]


def test_a_failure_reaches_all_that_travelled_and_none_that_did_not() -> None:
    calls = []

    def send(_: Path, batch: Sequence[Parcel]) -> list[str]:
        calls.append(len(batch))
        if len(calls) == 1:
            raise StorageFull("as told")
        return ["stored"] * len(batch)

    batches = Batches()

    with pytest.raises(StorageFull):
        batches.put("a", b"x", send)
    assert batches.put("b", b"x", send) == "stored"
