"""A real sshd on loopback, with keys of its own, for the user the tests run as."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import pytest

from examples.services.server import start_server
from tests.services.report import announce, missing
from tests.services.s3 import free_ports, kill

if TYPE_CHECKING:
    from collections.abc import Iterator

    from examples.services.server import RunningServer

_SBIN = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
_SETTINGS = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
UsePAM no
StrictModes no
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
PidFile {folder}/pid
"""


@dataclass(frozen=True, slots=True)
class SshServer:
    """An sshd that answers, the key that opens it and the fingerprint of its own."""

    port: int
    folder: Path
    host_key: str

    @property
    def user(self) -> str:
        """Return who logs in: the user the tests run as."""
        return pwd.getpwuid(os.geteuid()).pw_name

    @property
    def identity(self) -> Path:
        """Return the private key that the server lets in."""
        return self.folder / "id"

    @property
    def authorized_keys(self) -> Path:
        """Return the file of the keys that are let in."""
        return self.folder / "authorized_keys"

    def address(self, folder: Path | str, **options: str) -> str:
        """Return an address of a storage there; options that are empty are left out."""
        given = {"identity": str(self.identity), "host_key": self.host_key} | options
        query = urlencode({name: value for name, value in given.items() if value})
        return f"ssh://{self.user}@127.0.0.1:{self.port}{quote(str(folder))}?{query}"


@pytest.fixture(scope="session")
def sshd(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    """A server that runs for all tests."""
    folder = tmp_path_factory.mktemp("sshd")
    process, server = start_sshd(pytestconfig, folder)
    yield server
    kill(process)


def start_sshd(
    config: pytest.Config, folder: Path, *, port: int | None = None, more: str = ""
) -> tuple[RunningServer, SshServer]:
    """Start a server whose keys lie in a folder, made when they are not there; at a port, or any free one.

    `more` are lines of its settings.
    """
    program = _find(config, "sshd", "openssh-server")
    _find(config, "rsync", "rsync")
    for name in ("host_key", "id"):
        if not (folder / name).exists():
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
    if not (folder / "authorized_keys").exists():
        shutil.copy(folder / "id.pub", folder / "authorized_keys")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where it locks itself in before anybody proved who they are
    chosen = port or free_ports(1)[0]
    (folder / "sshd_config").write_text(_SETTINGS.format(port=chosen, folder=folder) + more)
    process = start_server(
        [program, "-D", "-e", "-f", str(folder / "sshd_config")],
        url=f"ssh://127.0.0.1:{chosen}",
        log=folder / "sshd.log",
        is_ready=lambda: _greets(chosen),
    )
    shown = _run("ssh-keygen", "-lf", str(folder / "host_key.pub"))
    greeting = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True).stderr
    version = re.search(r"OpenSSH_([\w.]+)", greeting)
    announce(config, "sshd", version[1] if version else "?", program, process.start_seconds)
    return process, SshServer(chosen, folder, shown.split()[1])


def _greets(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _find(config: pytest.Config, name: str, package: str) -> str:
    program = shutil.which(name, path=_SBIN)
    if program is None:
        missing(config, name, f"apt install {package}")
    return program
