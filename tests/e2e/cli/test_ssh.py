"""A host that is used for the first time, and one that goes away or whose client is killed in the middle."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from examples.gallery.compare import describe_tree, differences
from tests.services.relay import relay_before
from tests.services.s3 import kill
from tests.services.ssh import SshServer, start_sshd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.cli.command import Done, World

pytestmark = pytest.mark.integration


@pytest.fixture
def own_sshd(pytestconfig: pytest.Config, tmp_path: Path) -> Iterator[SshServer]:
    folder = tmp_path / "sshd"
    folder.mkdir()
    process, server = start_sshd(pytestconfig, folder)
    yield server
    kill(process)


def call(world: World, *arguments: object) -> Done:
    return world.run(*arguments, environment={"BACKUP_ADMIN_KEY_FILE": str(world.key)})


def fill(world: World, megabytes: int) -> None:
    for number in range(megabytes):
        (world.files / f"{number:03d}.bin").write_bytes(os.urandom(1 << 20))


def init(world: World, address: str) -> Done:
    return call(world, "init", address, "--key-file", world.key, "--recovery-file", world.recovery)


def test_the_command_leads_from_a_bare_address_to_a_repository(world: World, own_sshd: SshServer) -> None:
    bare = own_sshd.address(world.root / "far", identity="", host_key="")

    unknown = init(world, bare)
    address = unknown.err.partition("then use '")[2].partition("'")[0]
    locked_out = init(world, address)
    own_sshd.authorized_keys.write_text(locked_out.err.partition("of that user there: ")[2])
    done = init(world, address)

    assert (unknown.status, locked_out.status, done.status) == (6, 6, 0), done.err
    assert own_sshd.host_key in unknown.err
    assert (world.root / "far" / "config").is_file()


def test_a_killed_run_leaves_no_connection_and_the_next_one_finishes(world: World, sshd: SshServer) -> None:
    fill(world, 60)
    address = sshd.address(world.root / "far")
    assert init(world, address).status == 0
    run = ("run", address, "--files", f"files={world.files}")
    process = world.start(*run, environment={"BACKUP_ADMIN_KEY_FILE": str(world.key)})
    wait_for(lambda: any((world.root / "far" / "packs").rglob("*")) or process.poll() is not None)
    process.kill()
    process.communicate()

    wait_for(lambda: not connections_to(sshd.port))
    assert call(world, "list", address).status == 0
    done = call(world, *run)
    assert done.status == 0, done.err
    assert call(world, "check", address, "--read-data").status == 0
    assert call(world, "restore", "latest", address, "--to", world.root / "out").status == 0
    assert differences(describe_tree(world.files), describe_tree(world.root / "out/files/files")) == []


def test_a_run_goes_on_when_the_connection_breaks_again_and_again(world: World, sshd: SshServer) -> None:
    fill(world, 40)
    with relay_before(sshd.port) as relay:
        address = SshServer(relay.port, sshd.folder, sshd.host_key).address(world.root / "far")
        assert init(world, address).status == 0
        relay.cut(3_000_000, 11_000_000, 4_000_000, 2_000_000)
        done = call(world, "run", address, "--files", f"files={world.files}")

        assert done.status == 0, done.err
        assert relay.ended == 4
    there = sshd.address(world.root / "far")
    assert call(world, "check", there, "--read-data").status == 0
    assert call(world, "restore", "latest", there, "--to", world.root / "out").status == 0
    assert differences(describe_tree(world.files), describe_tree(world.root / "out/files/files")) == []


def wait_for(condition: object, seconds: float = 30.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


def connections_to(port: int) -> list[str]:
    """Return the programs that were started to speak with a port of this machine."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            arguments = (process / "cmdline").read_bytes().split(b"\0")
            settings = Path(os.fsdecode(arguments[2])) if arguments[:2] == [b"ssh", b"-F"] else None
            if settings is not None and f"Port {port}\n" in settings.read_text():
                found.append(process.name)
        except OSError:
            continue
    return found
