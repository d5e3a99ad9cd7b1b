"""The two keys of an ssh connection: ours, which opens the host, and the host's, which we insist on."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from backup_admin.core.durable import make_folders
from backup_admin.core.errors import StorageDenied, StorageError
from backup_admin.core.programs import run_program
from backup_admin.storage.ssh_errors import HostSilent, HostUnknown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from backup_admin.storage.ssh_place import SshPlace

OWN_NAME = "id_ed25519"
_KINDS = ("ed25519", "ecdsa", "rsa")
_SCAN_SECONDS = 10
_GREETING = b" SSH-"  # `ssh-keyscan` repeats it also where the host has no key of the kind
_RSA = "ssh-rsa"
_BEST_FIRST = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", _RSA)


class HostKey(NamedTuple):
    """A public key of a host."""

    type: str
    data: str

    @property
    def fingerprint(self) -> str:
        """Return what `ssh-keygen -l` shows for it."""
        digest = hashlib.sha256(base64.b64decode(self.data)).digest()
        return f"SHA256:{base64.b64encode(digest).decode('ascii').rstrip('=')}"

    @property
    def algorithms(self) -> str:
        """Return the ways a host may prove that it has this key."""
        return "rsa-sha2-512,rsa-sha2-256" if self.type == _RSA else self.type


def own_key(folder: Path) -> Path:
    """Return the file of our private key (mode 0600) in a folder, made when it is not there."""
    path = folder / OWN_NAME
    if not path.exists():
        make_folders(folder)
        fresh = folder / f".new-{os.getpid()}-{os.urandom(4).hex()}"
        made = run_program(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "backup-admin", "-f", str(fresh)],
            timeout_seconds=60,
        )
        if made.status != 0:
            raise StorageError(f"No key could be made in {folder}: ssh-keygen ended {made.end()}")
        public = fresh.with_name(f"{fresh.name}.pub")
        with suppress(FileExistsError):  # another process of ours was first: its key is the key
            os.link(fresh, path)
            public.replace(path.with_name(f"{OWN_NAME}.pub"))
        fresh.unlink()
        public.unlink(missing_ok=True)
    return path


def public_part(private: Path) -> str:
    """Return the line for `authorized_keys` that belongs to a private key; raise `StorageError`."""
    shown = run_program(["ssh-keygen", "-y", "-P", "", "-f", str(private)], timeout_seconds=60)
    if shown.status != 0:
        raise StorageError(f"The key file {private} cannot be used: ssh-keygen ended {shown.end()}")
    return shown.output.decode("utf-8", "replace").strip()


def pinned_key(place: SshPlace) -> HostKey:
    """Ask the host for its keys and return the one whose fingerprint the address names.

    Raises `StorageDenied` when there is none, telling what the host shows, and `HostSilent`
    when the host does not answer.
    """
    best: HostKey | None = None
    for key in shown_keys(place):
        if key.fingerprint == place.host_key:
            return key
        best = best or key
    if best is None:
        raise _silent(place)
    if not place.host_key:
        address = place.address_with(best.fingerprint)
        raise HostUnknown(
            f"The address names no key of the host {place.host}, which shows {best.fingerprint} "
            f"({best.type}). Compare that with `ssh-keygen -lf` on the host itself, then use "
            f"'{address}'. Nothing was sent.",
            fingerprint=best.fingerprint,
            address=address,
        )
    raise StorageDenied(
        f"The host {place.host} shows another key than {place.host_key}: now {best.fingerprint}. Either it "
        "was set up anew, or somebody stands in between. Ask who runs it before you change host_key=. "
        "Nothing was sent."
    )


def shown_keys(place: SshPlace) -> Iterator[HostKey]:
    """Ask the host for its keys one kind after the other, the best first.

    Each kind takes a connection, and a busy host lets in few that have not proven who they are. Raises
    `HostSilent` when one of them was not answered: the key that is missing may be the one.
    """
    for kind in _KINDS:
        command = [
            "ssh-keyscan",
            "-T",
            str(_SCAN_SECONDS),
            "-p",
            str(place.port),
            "-t",
            kind,
            "--",
            place.host,
        ]
        seen = run_program(command, timeout_seconds=4 * _SCAN_SECONDS)
        keys = _parse(seen.output.decode("utf-8", "replace").splitlines())
        if not keys and _GREETING not in seen.output + seen.errors:
            raise _silent(place)
        yield from keys


def _silent(place: SshPlace) -> HostSilent:
    """Find out why no key came by connecting once without a word: `ssh-keyscan` does not say."""
    where = f"{place.label} cannot be reached"
    try:
        socket.create_connection((place.host, place.port), timeout=_SCAN_SECONDS).close()
    except socket.gaierror:
        return HostSilent(
            f"{where}: the name {place.host} cannot be resolved. Check how it is spelled, and DNS.",
            passes=False,
        )
    except ConnectionRefusedError:
        return HostSilent(
            f"{where}: nothing listens at port {place.port}. Check the port, and that sshd runs."
        )
    except OSError as error:
        return HostSilent(
            f"{where}: {place.host} does not answer ({error}). Check the address and the firewall."
        )
    return HostSilent(
        f"{where}: what answers at port {place.port} of {place.host} is no ssh server, or too slow a one."
    )


def _parse(lines: Sequence[str]) -> tuple[HostKey, ...]:
    found = []
    for line in lines:
        fields = line.split()
        if line.startswith("#") or len(fields) < 3 or fields[1] not in _BEST_FIRST:
            continue
        with suppress(binascii.Error):
            base64.b64decode(fields[2], validate=True)
            found.append(HostKey(fields[1], fields[2]))
    return tuple(sorted(found, key=lambda key: _BEST_FIRST.index(key.type)))
