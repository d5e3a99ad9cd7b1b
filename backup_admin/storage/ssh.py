"""A storage in a folder of a host that is reached by ssh: a shell, rsync and nothing of ours over there.

Objects go to a shell there, into a temporary file, and become objects by `ln`, which never overwrites.
A lost connection is made anew and what was under way is tried again: rsync goes on with a large object
where the connection ended, and brings it at once where the bandwidth is limited. Whether an earlier
attempt was stored is found out by comparing it there.
"""

from __future__ import annotations

import re
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from backup_admin.core.clock import SystemClock
from backup_admin.core.durable import TEMPORARY_PREFIX
from backup_admin.core.durable import explain as explain_disk
from backup_admin.core.errors import (
    BadObjectName,
    ProgramFailed,
    StorageDenied,
    StorageError,
    StorageUnavailable,
)
from backup_admin.core.ids import is_ulid, new_ulid, ulid_time
from backup_admin.storage.base import Buffer, Leftover, ObjectInfo, PutResult, check_name, is_name
from backup_admin.storage.retrying import Retries
from backup_admin.storage.ssh_errors import FarFailure, explain, hurdle_of, missing
from backup_admin.storage.ssh_keys import public_part
from backup_admin.storage.ssh_link import SHELLS, SshLink
from backup_admin.storage.ssh_place import parse_ssh_address
from backup_admin.storage.ssh_scripts import (
    ABSENT,
    DONE,
    END,
    LOOKING,
    MAKING,
    NONE,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from backup_admin.core.programs import Conversation
    from backup_admin.storage.base import Hurdle
    from backup_admin.storage.ssh_place import SshPlace

T = TypeVar("T")

_LARGE = 1 << 20
_STORING_SECONDS = 600.0
_BLOCK, _LARGE_BLOCK = 16 << 10, 128 << 10
_TIME = "%Y%m%d%H%M%S"
_ROW = re.compile(r"-\S+ +\d+ +\S+ +\S+ +(\d+) +\S+ +\S+ +\S+ +\./(.+)")
_ANY_FILE = re.compile(r"-[-rwxsSt]{9}\S? ")
_BAD_ROW = re.compile(r"^(?:find|ls): .*: (Permission denied|Input/output error|[^:]*)$")
_VANISHED = "No such file or directory"


def open_ssh(address: str, *, own_folder: Path, allow_private: bool, quick: bool = False) -> SshStorage:
    """Open the storage an `ssh://` address names; our own key lies in a folder, made when it is needed.

    Nothing is sent. Raises `UsageError` for an address that makes no sense.
    """
    link = SshLink(parse_ssh_address(address), own_folder, allow_private=allow_private)
    return SshStorage(link, retries=Retries.quick() if quick else None)


class SshStorage:
    """Keeps each object as one file below a folder of a host. May be used from several threads."""

    parallel_calls = SHELLS

    def __init__(self, link: SshLink, *, retries: Retries | None = None) -> None:
        self.place: SshPlace = link.place
        self.label = self.place.label
        self._link = link
        self._retries = retries or Retries()

    def make(self) -> None:
        """Create the folder (mode 0700) when it is not there."""
        self._call("", "created", lambda _: self._link.run(MAKING, answers=(DONE,)))

    def is_made(self) -> bool:
        """Say whether the folder is there."""
        answer = self._call("", "reached", lambda _: self._link.run(LOOKING, answers=(DONE, NONE)))
        return answer == DONE

    def put(self, name: str, data: Buffer, *, if_absent: bool = True) -> PutResult:
        """Store an object durably: synced there, linked in place, folder synced."""
        check_name(name)
        view = memoryview(data).cast("B")
        if if_absent and len(view) >= _LARGE:
            if self.stat(name) is not None:
                return PutResult.EXISTS
            return self._send(name, view)
        return self._call(name, "written", partial(self._put, name, view, if_absent))

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Read an object or a part of it."""
        check_name(name)
        return self._call(name, "read", lambda _: bytes(self._read(name, offset, length)))

    def get_into(self, name: str, offset: int, buffer: bytearray | memoryview) -> int:
        """Fill a buffer from an object."""
        check_name(name)
        return self._call(name, "read", lambda _: self._read_into(name, offset, memoryview(buffer)))

    def stat(self, name: str) -> ObjectInfo | None:
        """Return name and size, or None; an absent folder is an error."""
        check_name(name)
        size = self._call(name, "looked up", lambda _: self._size(name))
        return None if size is None else ObjectInfo(name, size)

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """List objects in order of name."""
        found = self._call(prefix, "listed", lambda _: self._listed(prefix))
        yield from sorted(found, key=attrgetter("name"))

    def delete(self, name: str) -> None:
        """Remove an object."""
        check_name(name)
        self._call(name, "deleted", lambda _: self._ask_done(f"remove {name}"))

    def free_bytes(self) -> int | None:
        """Return the bytes that can still be written there, or None when the host does not tell."""
        fields = self._call("", "measured", lambda _: self._ask("free")).split()
        return int(fields[3]) << 10 if len(fields) > 4 and fields[3].isdigit() else None

    def hurdle_of(self, error: StorageError) -> Hurdle | None:
        """Say what an error means for a first contact."""
        return hurdle_of(error)

    def tell_time(self, name: str) -> datetime:
        """Return what the clock of the host shows."""
        text = self._call(name, "looked up", lambda _: self._ask("time"))
        try:
            return datetime.strptime(text, _TIME).replace(tzinfo=UTC)
        except ValueError as error:
            raise StorageUnavailable(f"{self.label} does not tell its time: {text[:100]!r}.") from error

    def leftovers(self) -> Iterator[Leftover]:
        """List what transfers that were cut left there, or bring just now."""
        sizes: dict[str, int] = {}
        for info in self._call("", "listed", lambda _: self._rows("left")):
            name = info.name.partition("/")[0]
            sizes[name] = sizes.get(name, 0) + info.size
        for name, size in sorted(sizes.items()):
            if _is_temporary(name):
                yield Leftover(name, size, ulid_time(name.removeprefix(TEMPORARY_PREFIX)))

    def remove_leftover(self, leftover: Leftover) -> None:
        """Remove what a transfer left; raise `BadObjectName` for anything else."""
        if not _is_temporary(leftover.name):
            raise BadObjectName(f"{leftover.name!r} is nothing that a transfer left.")
        self._call(leftover.name, "removed", lambda _: self._ask_done(f"clear {leftover.name}"))

    def public_key(self) -> str:
        """Return the line that lets us in when it stands in `authorized_keys` of the far user."""
        return public_part(self._link.identity())

    def close(self) -> None:
        """End the connection; it is made again when it is needed."""
        self._link.close()

    def _call(self, name: str, act: str, attempt: Callable[[int], T]) -> T:
        return self._retries.run(
            attempt, lambda error: explain(error, self.place, name, act, self.public_key)
        )

    def _put(self, name: str, view: memoryview, if_absent: bool, number: int) -> PutResult:
        """Send an object; a taken name is compared there when an earlier attempt may have taken it."""
        how = ("again" if number else "new") if if_absent else "over"
        return self._hand_over(name, view, _temporary(), how)

    def _put_large(self, name: str, view: memoryview, target: str, number: int) -> PutResult:
        """Send a large object; a later attempt goes on where the last one ended."""
        if number == 0 and not self.place.bandwidth:
            return self._hand_over(name, view, target, "large")
        self._bring(view, target)
        with self._link.shell() as talk:
            talk.say(f"publish {name} {target} {len(view)} large\n".encode())
            return _put_result(_answer(talk, _STORING_SECONDS), is_again=number > 0)

    def _hand_over(self, name: str, view: memoryview, target: str, how: str) -> PutResult:
        with self._link.shell() as talk:
            talk.say(f"put {name} {target} {len(view)} {how}\n".encode())
            with suppress(BrokenPipeError):  # it did not take all: its answer says why
                talk.offer(view, seconds=_STORING_SECONDS)
            return _put_result(_answer(talk, _STORING_SECONDS), is_again=how == "again")

    def _bring(self, view: memoryview, target: str) -> None:
        """Bring what is missing of an object by rsync."""
        with tempfile.TemporaryDirectory(prefix="backup-admin-") as folder:
            file = Path(folder, "0")
            try:
                file.write_bytes(view)
            except OSError as error:
                raise (
                    explain_disk(error) or StorageError(f"{folder} could not be written: {error}.")
                ) from error
            self._link.rsync(file.parent, [file.name], target)

    def _send(self, name: str, view: memoryview) -> PutResult:
        """Send a large object; what will not go on is removed there."""
        target = _temporary()
        try:
            return self._call(name, "written", partial(self._put_large, name, view, target))
        except StorageError as error:
            if not isinstance(error, StorageUnavailable):
                self._clear(target)
            raise

    def _clear(self, name: str) -> None:
        """Remove what a transfer left that will not go on: on a full disk it would keep the rest out."""
        with suppress(FarFailure, ProgramFailed, OSError):  # what failed before is what is told
            self._ask_done(f"clear {name}")

    def _read(self, name: str, offset: int, length: int | None) -> bytearray:
        with self._link.shell() as talk:
            if length is None or length > _LARGE:
                rest = max(0, self._need_size(talk, name) - offset)
                length = rest if length is None else min(length, rest)
            data = bytearray(length)
            return data[: self._fill(talk, name, offset, memoryview(data))]

    def _read_into(self, name: str, offset: int, view: memoryview) -> int:
        with self._link.shell() as talk:
            return self._fill(talk, name, offset, view)

    def _fill(self, talk: Conversation, name: str, offset: int, view: memoryview) -> int:
        """Read whole blocks around what is wanted and keep that."""
        block = _LARGE_BLOCK if len(view) >= _LARGE else _BLOCK
        first = offset // block
        blocks = max(1, -(-(offset + len(view)) // block) - first)
        size = self._size_of(name, _asked(talk, f"read {name} {first} {blocks} {block}"))
        if size is None:
            raise missing(name, self.place)
        sent = max(0, min(size, (first + blocks) * block) - first * block)
        count = max(0, min(len(view), size - offset))
        before = min(offset - first * block, sent)
        talk.skip(before)
        talk.readinto(view[:count])
        talk.skip(sent - before - count)
        return count

    def _need_size(self, talk: Conversation, name: str) -> int:
        size = self._size_of(name, _asked(talk, f"size {name}"))
        if size is None:
            raise missing(name, self.place)
        return size

    def _size(self, name: str) -> int | None:
        return self._size_of(name, self._ask(f"size {name}"))

    def _size_of(self, name: str, answer: str) -> int | None:
        if answer == NONE:
            return None
        kind, _, size = answer.partition(" ")
        if kind != "f" or not size.isdigit():
            raise FarFailure(f"The host said {answer[:200]!r} about {name}.")
        return int(size)

    def _ask(self, question: str) -> str:
        with self._link.shell() as talk:
            return _asked(talk, question)

    def _ask_done(self, question: str) -> None:
        answer = self._ask(question)
        if answer != DONE:
            raise FarFailure(answer)

    def _listed(self, prefix: str) -> list[ObjectInfo]:
        folder = prefix.rpartition("/")[0]
        if folder and not is_name(folder):
            return []
        rows = self._rows(f"list ./{folder}" if folder else "list .")
        return [info for info in rows if info.name.startswith(prefix)]

    def _rows(self, question: str) -> list[ObjectInfo]:
        found = []
        with self._link.shell() as talk:
            row = _asked(talk, question)
            while row != END:
                info = _info(row)
                if info is not None:
                    found.append(info)
                row = talk.line().decode("utf-8", "replace")
        return found


def _temporary() -> str:
    """Return a name for what is under way, which tells since when."""
    return TEMPORARY_PREFIX + new_ulid(SystemClock().now())


def _is_temporary(name: str) -> bool:
    return name.startswith(TEMPORARY_PREFIX) and is_ulid(name.removeprefix(TEMPORARY_PREFIX))


def _asked(talk: Conversation, question: str) -> str:
    talk.say(f"{question}\n".encode())
    return _answer(talk)


def _put_result(answer: str, *, is_again: bool) -> PutResult:
    if answer == "stored" or (answer == "same" and is_again):
        return PutResult.STORED
    if answer in ("same", "exists"):
        return PutResult.EXISTS
    if answer == "short":
        raise FarFailure("The transfer was cut short.")
    raise FarFailure(answer[:300] or "The host stored nothing and did not say why.")


def _answer(talk: Conversation, seconds: float | None = None) -> str:
    answer = talk.line(seconds).decode("utf-8", "replace")
    if answer == ABSENT:
        raise FarFailure("The folder is absent.")
    return answer


def _info(row: str) -> ObjectInfo | None:
    """Read a row of `ls`; None for what vanished meanwhile."""
    matched = _ROW.fullmatch(row)
    if matched:
        return ObjectInfo(matched[2], int(matched[1]))
    complaint = _BAD_ROW.match(row)
    if complaint and complaint[1] != _VANISHED:
        raise StorageDenied(f"Not everything there can be listed: {row[:200]}.")
    if _ANY_FILE.match(row):  # a list without it would be taken for all there is
        raise FarFailure(f"The host lists in a way that nobody can read: {row[:200]!r}.")
    return None
