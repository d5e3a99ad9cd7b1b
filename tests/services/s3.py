"""Real S3 servers on loopback: SeaweedFS, which knows most of S3, and rclone, which knows little."""

from __future__ import annotations

import json
import random
import re
import socket
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode
from uuid import uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from backup_admin.storage.s3_client import make_client
from backup_admin.storage.s3_place import parse_s3_address
from examples.services.server import ServerError, start_server
from tests.services.report import announce, missing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from examples.services.server import RunningServer

KEY, SECRET = "tester", "a secret of/tests+"
BUCKET = "backups"
WRITER = ("writer", "the writer's secret")
READER = ("reader", "the reader's secret")
ADVICE = "python3 dev.py test installs it on Linux"
_READY_SECONDS = 60.0
_PORTS = range(20_000, 30_000)


@dataclass(frozen=True, slots=True)
class S3Server:
    """A server that answers, and the keys it knows."""

    endpoint: str
    key: str = KEY
    secret: str = SECRET
    ca_file: str = ""

    def address(self, prefix: str = "", *, bucket: str = BUCKET, **options: str) -> str:
        """Return an address of a storage in it."""
        query = urlencode({"endpoint": self.endpoint} | options)
        return f"s3://{bucket}/{quote(prefix)}?{query}"


@pytest.fixture(scope="session")
def seaweedfs(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """SeaweedFS: checks signatures, knows conditions, versions and locks. Without any bucket.

    Besides the key that may do everything it knows `WRITER`, who may lock and never bypass a lock, and
    `READER`. What it calls writing includes deleting: `forbid_deletes` takes that away in a bucket.
    """
    server = start_seaweedfs(pytestconfig, tmp_path_factory.mktemp("seaweedfs"))
    yield S3Server(server.url)
    kill(server)


@pytest.fixture(scope="session")
def rclone_https(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The poor kind of server over TLS, at localhost, with an authority of its own."""
    folder = tmp_path_factory.mktemp("rclone-https")
    write_certificate(folder / "cert.pem", folder / "key.pem", "localhost")
    server = start_rclone(pytestconfig, folder, tls=True)
    yield S3Server(server.url, ca_file=str(folder / "cert.pem"))
    kill(server)


@pytest.fixture(scope="session")
def rclone_s3(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The poor kind of server, `rclone serve s3`: conditions are ignored. With the bucket `backups`."""
    server = start_rclone(pytestconfig, tmp_path_factory.mktemp("rclone"))
    yield S3Server(server.url)
    kill(server)


def start_seaweedfs(
    config: pytest.Config, folder: Path, *, ports: Sequence[int] | None = None
) -> RunningServer:
    """Start a server that keeps everything in a folder; on eight given ports where it ran before."""
    program = _find(config, "weed")
    identities = [
        _identity((KEY, SECRET), "Admin"),
        _identity(WRITER, "Read", "Write", "List", "PutObjectRetention", "GetObjectRetention"),
        _identity(READER, "Read", "List"),
    ]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    ports = list(ports or free_ports(8))
    names = ("master", "volume", "filer", "s3")
    options = [
        *(f"-{name}.port={port}" for name, port in zip(names, ports[:4], strict=True)),
        *(f"-{name}.port.grpc={port}" for name, port in zip(names, ports[4:], strict=True)),
        *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}", "-filer", "-s3"),
        *("-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={folder / 's3.json'}"),
        *("-volume.max=200", "-master.volumeSizeLimitMB=64", "-master.telemetry=false"),
    ]
    return _started(config, "seaweedfs", [str(program), "server", *options], ports[3], folder)


def _identity(keys: tuple[str, str], *actions: str) -> dict[str, object]:
    credentials = [{"accessKey": keys[0], "secretKey": keys[1]}]
    return {"name": keys[0], "credentials": credentials, "actions": list(actions)}


def plain_client(server: S3Server) -> Any:
    """Return a client of the library with the key that may do everything."""
    return make_client(parse_s3_address(server.address()), (server.key, server.secret), 10)


def make_locking_bucket(server: S3Server) -> str:
    """Make a bucket that keeps locks and from which `WRITER` may not delete; return its name."""
    bucket = f"locks-{uuid4().hex[:12]}"
    plain_client(server).create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    forbid_deletes(server, bucket)
    return bucket


def forbid_deletes(server: S3Server, bucket: str) -> None:
    """Let `WRITER` delete nothing in a bucket."""
    accounts = ("", "000000000000")  # this server names none
    statement = {
        "Effect": "Deny",
        "Principal": {"AWS": [f"arn:aws:iam::{account}:user/{WRITER[0]}" for account in accounts]},
        "Action": ["s3:DeleteObject", "s3:DeleteObjectVersion"],
        "Resource": f"arn:aws:s3:::{bucket}/*",
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    plain_client(server).put_bucket_policy(Bucket=bucket, Policy=policy)


def start_rclone(config: pytest.Config, folder: Path, *, tls: bool = False) -> RunningServer:
    """Start a server whose buckets are folders below one; over TLS with the certificate that lies there."""
    program = _find(config, "rclone")
    (folder / "data" / BUCKET).mkdir(parents=True)
    (port,) = free_ports(1)
    arguments = [str(program), "serve", "s3", str(folder / "data"), "--addr", f"127.0.0.1:{port}"]
    arguments += ["--auth-key", f"{KEY},{SECRET}"]
    if not tls:
        return _started(config, "rclone", arguments, port, folder)
    arguments += ["--cert", str(folder / "cert.pem"), "--key", str(folder / "key.pem")]
    return _started(config, "rclone", arguments, port, folder, url=f"https://localhost:{port}")


def write_certificate(certificate: Path, key: Path, host: str) -> None:
    """Make a certificate for a host that is signed by itself, and its key."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(Encoding.PEM))
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def kill(server: RunningServer) -> None:
    """End a server at once, as a power cut would."""
    if server.process is not None:
        server.process.kill()
    server.stop()


def free_ports(count: int) -> list[int]:
    """Return ports nobody listens at, low enough for what servers add to them."""
    found: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as taken:
            try:
                taken.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise ServerError("No free port was found.")


def _started(
    config: pytest.Config, name: str, arguments: list[str], port: int, folder: Path, *, url: str = ""
) -> RunningServer:
    url = url or f"http://127.0.0.1:{port}"
    server = start_server(
        arguments,
        url=url,
        log=folder / f"{name}.log",
        is_ready=lambda: _listens(port),
        ready_seconds=_READY_SECONDS,
    )
    version = subprocess.run([arguments[0], "version"], capture_output=True, text=True, check=True).stdout
    shown = re.search(r"\d+\.\d+(\.\d+)?", version)
    source = f"{Path(arguments[0]).name} wheel"
    announce(config, name, shown[0] if shown else "?", source, server.start_seconds)
    return server


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2):
            return True
    except OSError:
        return False


def _find(config: pytest.Config, name: str) -> Path:
    program = Path(sys.executable).parent / name
    if not program.exists():
        missing(config, name, ADVICE)
    return program
