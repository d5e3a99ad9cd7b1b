"""A PostgreSQL database that a user with no rights on the machine backs up and brings back."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.services.postgres import OWNER, PASSWORD, as_server, hand_over
from tests.services.postgres_archiving import environment_in, interpreter_for_server
from tests.services.postgres_oracle import GALLERY, dump_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.services.postgres import PostgresServer

pytestmark = pytest.mark.integration


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of the user that runs the servers, who is nobody when the tests run as root."""
    made = Path(tempfile.mkdtemp(prefix="bk-other-user-"))
    hand_over(made)
    yield made
    shutil.rmtree(made)


def test_a_user_that_is_nobody_backs_up_verifies_restores_and_loads(
    postgres: PostgresServer, pytestconfig: pytest.Config, folder: Path
) -> None:
    environment = {**environment_in(folder), "PGPASSWORD": PASSWORD}
    python = interpreter_for_server(pytestconfig, environment)

    def good(*arguments: object) -> dict[str, Any]:
        command = [*as_server(), *python, "-m", "backup_admin.cli", *map(str, arguments), "--json"]
        done = subprocess.run(
            command, env=environment, cwd=folder, capture_output=True, text=True, check=False, timeout=180
        )
        assert done.returncode == 0, done.stdout + done.stderr
        value: dict[str, Any] = json.loads(done.stdout)["result"]
        return value

    name, new, storage = postgres.new_database(), postgres.new_database(), folder / "repository"
    with psycopg.connect(postgres.address(name), autocommit=True) as connection:
        connection.execute(GALLERY.encode())
    before = dump_text(postgres, name)
    place = f"app={postgres.address(name, password=None)}"
    good("init", storage, "--key-file", folder / "key", "--recovery-file", folder / "recovery")

    good("run", storage, "--postgres", place)
    good("verify", "latest", storage)
    good("restore", "latest", storage, "--to", folder / "out")
    good("load", folder / "out/databases/app", "--postgres", postgres.address(new, password=None))
    postgres.run("TRUNCATE photos, events CASCADE", name, user=OWNER)
    good("restore", "latest", storage, "--in-place", "--yes", "--postgres", place)

    assert dump_text(postgres, new) == before
    assert dump_text(postgres, name) == before
    owners = {path.stat().st_uid for path in (storage, *(folder / "out").rglob("*"))}
    assert owners == {folder.stat().st_uid}
    assert 0 not in owners
