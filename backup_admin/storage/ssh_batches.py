"""Large objects on their way to a host: those that wait go together, in one call of rsync."""

from __future__ import annotations

import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from backup_admin.core.durable import explain as explain_disk
from backup_admin.core.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from backup_admin.storage.base import Buffer

    Send = Callable[[Path, Sequence["Parcel"]], Sequence[str]]

_MOST_OBJECTS = 16


@dataclass(slots=True)
class Parcel:
    """One object that waits for its turn, and then what came of it."""

    name: str
    data: Buffer
    answer: str = ""
    failure: BaseException | None = None
    is_done: bool = False


class Batches:
    """Gathers what several threads put at once; who comes first takes all that wait along."""

    def __init__(self) -> None:
        self._waiting: list[Parcel] = []
        self._lock = threading.Condition()
        self._is_busy = False

    def put(self, name: str, data: Buffer, send: Send) -> str:
        """Send an object, with those that others put meanwhile; return the answer for it.

        `send` brings the files `0`, `1`, … of a folder there and returns an answer for each parcel.
        It is not kept: a storage that nobody uses any more ends its connection at once.
        """
        parcel = Parcel(name, data)
        with self._lock:
            self._waiting.append(parcel)
        while batch := self._turn(parcel):
            self._carry(batch, send)
        if parcel.failure is not None:
            raise parcel.failure
        return parcel.answer

    def _turn(self, parcel: Parcel) -> Sequence[Parcel]:
        """Wait until nobody carries; return what is to be carried now, nothing when the parcel is there."""
        with self._lock:
            while self._is_busy and not parcel.is_done:
                self._lock.wait()
            if parcel.is_done:
                return ()
            self._is_busy = True
            batch, self._waiting = self._waiting[:_MOST_OBJECTS], self._waiting[_MOST_OBJECTS:]
            return batch

    def _carry(self, batch: Sequence[Parcel], send: Send) -> None:
        try:
            answers = _send_all(batch, send)
            for parcel, answer in zip(batch, answers, strict=True):
                parcel.answer = answer
        except BaseException as error:  # noqa: BLE001 - each of the waiting threads raises it
            for parcel in batch:
                parcel.failure = error
        with self._lock:
            for parcel in batch:
                parcel.is_done = True
            self._is_busy = False
            self._lock.notify_all()


def _send_all(batch: Sequence[Parcel], send: Send) -> Sequence[str]:
    with tempfile.TemporaryDirectory(prefix="backup-admin-") as folder:
        try:
            for number, parcel in enumerate(batch):
                (Path(folder) / str(number)).write_bytes(parcel.data)
        except OSError as error:
            raise (explain_disk(error) or StorageError(f"{folder} could not be written: {error}.")) from error
        return send(Path(folder), batch)
