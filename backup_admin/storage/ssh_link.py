"""The connection to a host: one of ssh that all programs share, and shells there that answer questions."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import weakref
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from backup_admin.core.errors import ObjectMissing, ProgramFailed, StorageDenied
from backup_admin.core.programs import Conversation, run_program
from backup_admin.storage.endpoints import check_endpoint
from backup_admin.storage.ssh_errors import FarFailure
from backup_admin.storage.ssh_keys import own_key, pinned_key
from backup_admin.storage.ssh_scripts import ABSENT, ANSWERING, READY, command_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from backup_admin.core.programs import Finished
    from backup_admin.storage.ssh_place import SshPlace

T = TypeVar("T")

_ALIAS = "storage"
SHELLS = 4
_PROGRAMS = 3  # a host allows ten sessions in one connection by default
_SILENCE_SECONDS = 75.0
_PROGRAM_SECONDS = 600.0
_SLOWEST_BYTES_PER_SECOND = 16 << 10
_LOST = 255
# Only shells hold the connection: a program that did would not end before all that share it.
_HOLD = ("-o", "ControlMaster=auto")
_SETTINGS = """\
Host {alias}
  HostName "{host}"
  Port {port}
{user}  IdentityFile "{identity}"
  UserKnownHostsFile "{folder}/known_hosts"
  HostKeyAlias {alias}
  HostKeyAlgorithms {algorithms}
  ControlPath "{folder}/mux"
  ControlMaster no
  ControlPersist no
  GlobalKnownHostsFile none
  StrictHostKeyChecking yes
  UpdateHostKeys no
  CheckHostIP no
  BatchMode yes
  IdentitiesOnly yes
  IdentityAgent none
  PreferredAuthentications publickey
  ForwardAgent no
  ForwardX11 no
  ClearAllForwardings yes
  PermitLocalCommand no
  CanonicalizeHostname no
  Compression no
  Ciphers aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,aes128-ctr,aes256-ctr
  EscapeChar none
  RequestTTY no
  LogLevel ERROR
  ConnectTimeout 20
  ServerAliveInterval 15
  ServerAliveCountMax 4
"""


class SshLink:
    """Programs on a host, through one connection that is made when the first is started.

    It ends with this process, however that ends: the connection belongs to a shell there that
    reads from us. May be used from several threads.
    """

    def __init__(self, place: SshPlace, own_folder: Path, *, allow_private: bool) -> None:
        self.place = place
        self._own_folder = own_folder
        self._allow_private = allow_private
        self._begin()

    def _begin(self) -> None:
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._free: list[Conversation] = []
        self._open: list[Conversation] = []
        weakref.finalize(self, _in_process, self._owner, _close_all, self._open)
        self._shells = threading.BoundedSemaphore(SHELLS)
        self._programs = threading.BoundedSemaphore(_PROGRAMS)
        self._folder: Path | None = None

    def _leave_to_parent(self) -> None:
        """In a process that was forked off, begin anew: what is open belongs to the one it came from."""
        if self._owner != os.getpid():
            self._begin()

    def identity(self) -> Path:
        """Return the file of the private key that is used; ours is made when it is not there."""
        if self.place.identity:
            return Path(self.place.identity).expanduser()
        return own_key(self._own_folder)

    @contextmanager
    def shell(self) -> Iterator[Conversation]:
        """Give a shell there that answers; one that fails is not used again.

        Raises `FarFailure` when the folder is not there.
        """
        self._leave_to_parent()
        with self._shells:
            talk = self._take()
            try:
                yield talk
            except ObjectMissing:  # an answer like any other
                self._give_back(talk)
                raise
            except (ProgramFailed, OSError):
                self._drop_idle()  # they share the connection that ended
                self._drop(talk)
                raise
            except BaseException:
                self._drop(talk)
                raise
            self._give_back(talk)

    def run(self, script: str, *, answers: Collection[str]) -> str:
        """Run a script there and hand it the folder; return the line it prints, one of `answers`.

        Raises `FarFailure` or `ProgramFailed`.
        """
        self._leave_to_parent()
        command = ["ssh", "-F", str(self._settings()), _ALIAS, command_of(script)]
        done = self._run(command, _PROGRAM_SECONDS, f"{self.place.folder}\n".encode())
        if done.status != 0:
            words = "the link ended " if done.status == _LOST else ""
            raise FarFailure(f"{words}{done.end()}")
        printed = " ".join(done.output.decode("utf-8", "replace").splitlines())
        if printed not in answers:
            raise _unasked(printed)
        return printed

    def rsync(self, source: Path, names: Sequence[str], target: str) -> None:
        """Send files of a folder here into one below the folder there; goes on with what is there.

        Raises `FarFailure` or `ProgramFailed`.
        """
        self._leave_to_parent()
        self._warm_up()
        total = sum((source / name).stat().st_size for name in names)
        limit = self.place.bandwidth
        command = [
            *("rsync", "--protect-args", "--partial", "--inplace", "--timeout=60"),
            *([f"--bwlimit={max(1, limit >> 10)}"] if limit else []),
            *("--files-from=-", f"--rsh=ssh -F {self._settings()}"),
            *("--", f"{source}/", f"{_ALIAS}:{self.place.folder}/{target}/"),
        ]
        seconds = _PROGRAM_SECONDS + total / min(limit or total + 1, _SLOWEST_BYTES_PER_SECOND)
        done = self._run(command, seconds, "".join(f"{name}\n" for name in names).encode())
        if done.status != 0:
            raise FarFailure(done.errors.decode("utf-8", "replace").strip() or done.end())

    def close(self) -> None:
        """End the connection and forget its settings; it is made again when it is needed."""
        self._leave_to_parent()
        with self._lock:
            self._free.clear()
            _close_all(self._open)
            folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def _run(self, command: Sequence[str], seconds: float, data: bytes) -> Finished:
        with self._programs:
            try:
                return run_program(command, timeout_seconds=seconds, data=data)
            except ProgramFailed:
                self._drop_idle()  # whoever holds the connection may be what hangs
                raise

    def _warm_up(self) -> None:
        """Let a shell hold the connection, so that programs need none of their own."""
        with self._lock:
            is_warm = bool(self._open)
        if not is_warm:
            with self.shell():
                pass

    def _take(self) -> Conversation:
        """Return a shell that waits, or start one."""
        settings = self._settings()
        with self._lock:
            if self._free:
                return self._free.pop()
            command = ["ssh", "-F", str(settings), *_HOLD, _ALIAS, command_of(ANSWERING)]
            talk = Conversation(command, silence_seconds=_SILENCE_SECONDS)
            self._open.append(talk)
        try:
            talk.say(f"{self.place.folder}\n".encode())
            _check_greeting(talk.line().decode("utf-8", "replace"))
        except BaseException:
            self._drop(talk)
            raise
        return talk

    def _give_back(self, talk: Conversation) -> None:
        with self._lock:
            self._free.append(talk)

    def _drop_idle(self) -> None:
        with self._lock:
            idle, self._free = self._free, []
        for talk in idle:
            self._drop(talk)

    def _drop(self, talk: Conversation) -> None:
        talk.close()
        with self._lock:
            if talk in self._open:
                self._open.remove(talk)

    def _settings(self) -> Path:
        """Return the file of settings for ssh, after the host proved to be the right one."""
        with self._lock:
            if self._folder is None or not (self._folder / "config").exists():  # /tmp is swept now and then
                check_endpoint(self.place.host, allow_private=self._allow_private)
                self._folder = self._write_settings()
            return self._folder / "config"

    def _write_settings(self) -> Path:
        key = pinned_key(self.place)
        identity = self.identity()
        if not identity.is_file():
            raise StorageDenied(f"There is no key file {identity}. Nothing was sent.")
        folder = Path(tempfile.mkdtemp(prefix="bk-", dir="/tmp"))
        weakref.finalize(self, _in_process, self._owner, _remove, folder)
        (folder / "known_hosts").write_text(f"{_ALIAS} {key.type} {key.data}\n")
        text = _SETTINGS.format(
            alias=_ALIAS,
            host=self.place.host,
            port=self.place.port,
            user=f'  User "{self.place.user}"\n' if self.place.user else "",
            identity=str(identity).replace("%", "%%"),
            folder=folder,
            algorithms=key.algorithms,
        )
        (folder / "config").write_text(text)
        return folder


def _check_greeting(answer: str) -> None:
    if answer == ABSENT:
        raise FarFailure("The folder is absent.")
    if answer != READY:
        raise _unasked(answer)


def _unasked(said: str) -> FarFailure:
    return FarFailure(f"The host says {said[:200]!r} unasked; its login shell must print nothing.")


def _in_process(owner: int, act: Callable[[T], None], thing: T) -> None:
    """Do something in the process it belongs to; one that was forked off leaves it alone."""
    if owner == os.getpid():
        act(thing)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _close_all(talks: list[Conversation]) -> None:
    while talks:
        talks.pop().close()
