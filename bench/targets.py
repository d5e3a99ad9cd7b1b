"""The servers that remote storages are measured on, all on loopback: SeaweedFS and sshd."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

from bench.tools import OURS
from examples.services.server import RunningServer, start_server

KEY, SECRET = "benchmark", "a-secret-of-the-benchmark"
ROOT = Path(__file__).parents[1]
_ALIAS = "bench-server"
_HOST = "127.0.0.1"
_READY_SECONDS = 60.0
_SBIN = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


@dataclass(frozen=True, slots=True)
class Target:
    """A server that answers: where each tool finds a fresh place in it, and what its environment needs.

    `requests` counts what went through the delaying proxy so far; it is 0 without one.
    """

    address: Callable[[str, str], str]
    env: dict[str, str] = field(default_factory=dict)
    proxy_log: Path | None = None

    def requests(self) -> int:
        """Return how many requests of HTTP were counted."""
        return 0 if self.proxy_log is None else self.proxy_log.read_bytes().count(b"\n")


Start = Callable[[Path, float], AbstractContextManager[Target]]
"""Starts a server in an empty folder, with so many milliseconds of round trip before it."""


@contextmanager
def seaweedfs(folder: Path, delay_ms: float) -> Iterator[Target]:
    """Start SeaweedFS; every tool makes buckets of its own."""
    ports = _free_ports(8)
    credentials = [{"accessKey": KEY, "secretKey": SECRET}]
    identity = {"name": "benchmark", "credentials": credentials, "actions": ["Admin"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    names = ("master", "volume", "filer", "s3")
    program = [
        *(str(Path(sys.executable).parent / "weed"), "server", f"-dir={folder}", "-filer", "-s3"),
        *(f"-{name}.port={port}" for name, port in zip(names, ports[:4], strict=True)),
        *(f"-{name}.port.grpc={port}" for name, port in zip(names, ports[4:], strict=True)),
        *(f"-ip={_HOST}", f"-ip.bind={_HOST}", f"-s3.config={folder / 's3.json'}"),
        *("-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"),
        *("-volume.max=400", "-master.volumeSizeLimitMB=256"),
    ]
    with _running(program, ports[3], folder / "weed.log"), _delayed(folder, ports[3], delay_ms) as port:

        def address(tool: str, place: str) -> str:
            endpoint = f"http://{_HOST}:{port}"
            if tool != OURS:
                return f"s3:{endpoint}/{place}"
            return f"s3://{place}/?{urlencode({'endpoint': endpoint, 'create_bucket': 'yes'})}"

        env = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
        yield Target(address, env, _proxy_log(folder) if delay_ms else None)


@contextmanager
def ssh_server(folder: Path, delay_ms: float) -> Iterator[Target]:
    """Start a real sshd for whoever runs the benchmark.

    restic and borg find it under an alias, by a program `ssh` that stands first in their PATH: not
    all of them can be told of a key and a port.
    """
    sshd = shutil.which("sshd", path=_SBIN)
    if sshd is None:
        raise SystemExit("The ssh target needs sshd: apt install openssh-server")
    (port,) = _free_ports(1)
    user, places = getpass.getuser(), folder / "places"
    places.mkdir()
    for name in ("host", "user"):
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(folder / name)]
        subprocess.run(make, check=True)
    shutil.copyfile(folder / "user.pub", folder / "authorized_keys")
    (folder / "sshd_config").write_text(
        f"ListenAddress {_HOST}:{port}\nHostKey {folder / 'host'}\nPidFile none\n"
        f"AuthorizedKeysFile {folder / 'authorized_keys'}\nStrictModes no\nUsePAM no\n"
        "PermitRootLogin yes\nPasswordAuthentication no\nSubsystem sftp internal-sftp\nMaxStartups 100\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    program = [sshd, "-D", "-e", "-f", str(folder / "sshd_config")]
    with _running(program, port, folder / "sshd.log"), _delayed(folder, port, delay_ms) as seen:
        host_key = " ".join((folder / "host.pub").read_text().split()[:2])
        listed = ["ssh-keygen", "-l", "-f", str(folder / "host.pub")]
        fingerprint = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split()[1]

        def address(tool: str, place: str) -> str:
            if tool == OURS:
                options = urlencode({"identity": str(folder / "user"), "host_key": fingerprint})
                return f"ssh://{user}@{_HOST}:{seen}{places / place}?{options}"
            return (
                f"sftp:{_ALIAS}:{places / place}" if tool == "restic" else f"ssh://{_ALIAS}{places / place}"
            )

        _write_ssh_program(folder, host_key, seen)
        yield Target(address, {"PATH": os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])})


TARGETS: dict[str, Start] = {"s3": seaweedfs, "ssh": ssh_server}


def _write_ssh_program(folder: Path, host_key: str, port: int) -> None:
    (folder / "known_hosts").write_text(f"[{_HOST}]:{port} {host_key}\n")
    (folder / "ssh_config").write_text(
        f"Host {_ALIAS}\n HostName {_HOST}\n Port {port}\n User {getpass.getuser()}\n"
        f" IdentityFile {folder / 'user'}\n UserKnownHostsFile {folder / 'known_hosts'}\n BatchMode yes\n"
    )
    ssh = shutil.which("ssh") or "/usr/bin/ssh"
    program = folder / "bin/ssh"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {ssh} -F {folder / "ssh_config"} "$@"\n')
    program.chmod(0o755)


@contextmanager
def _delayed(folder: Path, port: int, delay_ms: float) -> Iterator[int]:
    """Put the delaying proxy before a server when there is a delay; give the port to be asked."""
    if not delay_ms:
        yield port
        return
    (before,) = _free_ports(1)
    program = [sys.executable, "-m", "bench.delay", str(before), str(port), str(delay_ms)]
    with _running(program, before, _proxy_log(folder)):
        yield before


def _proxy_log(folder: Path) -> Path:
    return folder / "requests.log"


@contextmanager
def _running(program: list[str], port: int, log: Path) -> Iterator[RunningServer]:
    server = start_server(
        program,
        url=f"http://{_HOST}:{port}",
        log=log,
        is_ready=lambda: _listens(port),
        ready_seconds=_READY_SECONDS,
    )
    try:
        yield server
    finally:
        if server.process is not None:
            server.process.kill()
        server.stop()


def _listens(port: int) -> bool:
    try:
        with socket.create_connection((_HOST, port), timeout=2):
            return True
    except OSError:
        return False


def _free_ports(count: int) -> list[int]:
    """Return ports nobody listens at, below those the system hands out."""
    found: list[int] = []
    for port in range(20_000 + os.getpid() % 5_000, 32_000):
        with socket.socket() as taken:
            try:
                taken.bind((_HOST, port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise SystemExit("No free port was found.")
