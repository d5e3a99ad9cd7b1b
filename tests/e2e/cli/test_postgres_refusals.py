"""Databases that cannot be entered: what failed, what was not touched and what to do, and no password."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.e2e.cli.test_postgres_in_place import InPlace
from tests.services.postgres import DEBIAN, OWNER, PASSWORD, hand_over, start_postgres, stop
from tests.services.postgres_oracle import dump_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.cli.command import Done, World
    from tests.services.postgres import PostgresServer

pytestmark = pytest.mark.integration


@pytest.fixture
def newest(world: World, newest_postgres: PostgresServer) -> InPlace:
    return InPlace(world, newest_postgres)


@pytest.fixture
def parts(newest: InPlace) -> Path:
    """The parts of a database that was backed up, and then harmed."""
    newest.back_up()
    target = newest.world.root / "out"
    newest.good("restore", "latest", newest.world.storage, "--to", target)
    newest.harm()
    return target / "databases/app"


def attempt(site: InPlace, parts: Path, address: str) -> tuple[Done, Done]:
    """Load into an address, and restore onto it in place."""
    loaded = site.call("load", parts, "--postgres", address)
    where = ("restore", "latest", site.world.storage, "--in-place", "--yes", "--postgres", f"app={address}")
    return loaded, site.call(*where)


def expect_refusal(site: InPlace, parts: Path, address: str, *said: str) -> None:
    """Want both ways to fail with what is to be said, and nothing to change."""
    harmed = dump_text(site.server, site.name)

    loaded, restored = attempt(site, parts, address)

    for done in (loaded, restored):
        assert done.status != 0
        for words in said:
            assert words in done.error["message"], done.out
        for secret in (PASSWORD, quote(PASSWORD, safe=""), "not-the-password"):
            assert secret not in done.out + done.err
    assert loaded.error["message"].endswith("Nothing was loaded.")
    assert restored.error["message"].endswith("Nothing was touched.")
    assert dump_text(site.server, site.name) == harmed
    assert site.databases() == {site.name}


def test_a_wrong_password(newest: InPlace, parts: Path) -> None:
    address = newest.server.address(newest.name, password="not-the-password")

    expect_refusal(newest, parts, address, "password authentication failed", "another password")
    run = newest.call("run", newest.world.storage, "--postgres", f"app={address}")
    away = newest.call("run", newest.world.storage, "--postgres", "app=postgresql://app@127.0.0.1:1/x")
    assert (run.status, run.error["code"]) == (1, "source_denied")
    assert "does not let us in" in run.error["message"]
    assert (away.status, away.error["code"]) == (1, "source_missing")
    for done in (run, away):
        assert done.error["message"].count("Nothing was backed up") == 1


@pytest.mark.parametrize("wrong", ["password", "server", "database"])
def test_rows_exports_and_imports_say_what_was_not_done(newest: InPlace, parts: Path, wrong: str) -> None:
    exported = parts.parent / "exported"
    newest.good("export", "--postgres", newest.address(newest.name), "--format", "json", "--to", exported)
    harmed = dump_text(newest.server, newest.name)
    address, code, advice = {
        "password": (
            newest.server.address(newest.name, password="not-the-password"),
            "source_denied",
            "The server knows no such user, or another password.",
        ),
        "server": ("postgresql://app@127.0.0.1:1/x", "source_missing", "and that the server runs."),
        "database": (newest.address("not_made"), "source_missing", "Check the names in the address."),
    }[wrong]
    rows = ("--table", "app.events", "--yes", "--postgres", f"app={address}")
    target = parts.parent / "never"

    restored = newest.call("restore", "latest", newest.world.storage, *rows)
    out = newest.call("export", "--postgres", address, "--format", "json", "--to", target)
    back = newest.call("import", exported, "--postgres", address)

    for done, left in ((restored, "touched"), (out, "exported"), (back, "imported")):
        assert (done.status, done.error["code"]) == (1, code)
        assert done.error["message"].endswith(f"{advice} Nothing was {left}.")
        assert "not-the-password" not in done.out + done.err
    assert not target.exists()
    assert dump_text(newest.server, newest.name) == harmed


@pytest.mark.parametrize("what", ["rows", "whole"])
def test_an_undo_that_is_not_let_in_leaves_the_restore_as_it_stands(
    newest: InPlace, parts: Path, what: str
) -> None:
    del parts
    more = ("--table", "app.events") if what == "rows" else ("--in-place",)
    place = f"app={newest.address(newest.name)}"
    newest.server.run("DROP TABLE newer CASCADE", newest.name)
    newest.good("restore", "latest", newest.world.storage, *more, "--yes", "--postgres", place)
    restored = dump_text(newest.server, newest.name)
    wrong = newest.server.address(newest.name, password="not-the-password")

    refused = newest.call("undo", "--yes", "--postgres", f"app={wrong}")

    assert (refused.status, refused.error["code"]) == (1, "source_denied")
    assert refused.error["message"].endswith(
        "Nothing was undone; the restore stands as it was. Mend that, then undo again. "
        "A password is given with --postgres NAME=ADDRESS."
    )
    assert dump_text(newest.server, newest.name) == restored
    newest.good("undo", "--yes")


def test_a_database_that_is_not_there_and_a_user_who_may_make_none(newest: InPlace, parts: Path) -> None:
    del parts
    harmed = dump_text(newest.server, newest.name)
    place = f"app={newest.address('not_made')}"
    newest.server.run(f"ALTER ROLE {OWNER} NOCREATEDB")
    try:
        done = newest.call(
            "restore", "latest", newest.world.storage, "--in-place", "--yes", "--postgres", place
        )
    finally:
        newest.server.run(f"ALTER ROLE {OWNER} CREATEDB")

    assert done.error["code"] == "restore_refused"
    assert f"is not there, and {OWNER} may make no databases. Let somebody" in done.error["message"]
    assert "belongs to" not in done.out
    assert dump_text(newest.server, newest.name) == harmed
    assert newest.databases() == {newest.name}


def test_a_database_the_user_may_not_enter(newest: InPlace, parts: Path) -> None:
    other = newest.server.new_database(owner="postgres")
    newest.server.run(f"REVOKE CONNECT ON DATABASE {other} FROM PUBLIC")

    loaded, restored = attempt(newest, parts, newest.address(other))

    assert "its owner can GRANT CONNECT. Nothing was loaded." in loaded.error["message"]
    assert restored.error["message"].endswith("its owner can GRANT CONNECT. Nothing was touched.")


def test_a_server_without_tls_where_the_address_wants_it(newest: InPlace, parts: Path) -> None:
    address = f"{newest.address(newest.name)}?sslmode=verify-full&sslrootcert=system"

    expect_refusal(newest, parts, address, "server does not support SSL", "ssl = on", "sslmode")


def test_a_server_whose_certificate_is_out_of_date(
    newest: InPlace, parts: Path, pytestconfig: pytest.Config, tmp_path: Path
) -> None:
    with serving_expired(pytestconfig) as (server, certificate):
        address = f"{server.address('postgres', password=None)}?sslmode=verify-full&sslrootcert={certificate}"

        expect_refusal(newest, parts, address, "certificate verify failed", "out of date")


@contextmanager
def serving_expired(config: pytest.Config) -> Iterator[tuple[PostgresServer, Path]]:
    """Run a server whose certificate was good until yesterday."""
    folder = Path(tempfile.mkdtemp(prefix="bk-postgres-"))
    folder.chmod(0o711)
    try:
        key, certificate = folder / "tls.key", folder / "tls.crt"
        write_expired(key, certificate)
        settings = {"ssl": "on", "ssl_cert_file": str(certificate), "ssl_key_file": str(key)}
        process, server = start_postgres(config, DEBIAN, folder, settings)  # the wheel has no TLS
        yield server, certificate
        stop(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_expired(key: Path, certificate: Path) -> None:
    secret = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(secret.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=9))
        .not_valid_after(now - timedelta(days=1))
        .sign(secret, hashes.SHA256())
    )
    key.write_bytes(
        secret.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    key.chmod(0o600)
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    for path in (key, certificate):
        hand_over(path)
