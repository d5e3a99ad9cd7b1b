import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from examples.gallery.backstage import stop_worker
from examples.gallery.changes import damage
from examples.gallery.demo import listening_socket
from examples.gallery.fill import TINY
from examples.gallery.household import FolderRefused, keep_house, lose_everything


def test_the_first_start_fills_and_the_second_leaves_things_alone(tmp_path: Path) -> None:
    first = keep_house(tmp_path / "demo", TINY)
    damage(first.data)
    events = (first.data / "gallery.db").read_bytes()

    second = keep_house(tmp_path / "demo", TINY)

    assert (first.is_new, second.is_new) == (True, False)
    assert second.password == first.password
    assert (second.data / "gallery.db").read_bytes() == events


def test_a_fresh_start_throws_the_old_data_away(tmp_path: Path) -> None:
    first = keep_house(tmp_path / "demo", TINY)
    (first.data / "backups").mkdir()

    second = keep_house(tmp_path / "demo", TINY, fresh=True)

    assert second.is_new
    assert second.password != first.password
    assert not (second.data / "backups").exists()


def test_a_fill_that_broke_off_is_done_again(tmp_path: Path) -> None:
    first = keep_house(tmp_path / "demo", TINY)
    (first.data / "filled").unlink()
    (first.data / "gallery.db").write_bytes(b"half")

    assert keep_house(tmp_path / "demo", TINY).is_new


@pytest.mark.parametrize("fresh", [False, True])
def test_a_folder_with_other_things_is_refused(tmp_path: Path, fresh: bool) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")

    with pytest.raises(FolderRefused, match="holds something else"):
        keep_house(tmp_path, TINY, fresh=fresh)

    assert (tmp_path / "thesis.txt").exists()


def test_secrets_are_private(tmp_path: Path) -> None:
    house = keep_house(tmp_path / "demo", TINY)

    modes = [stat.S_IMODE((house.data / name).stat().st_mode) for name in ("password", "secret.key")]
    assert modes == [0o600, 0o600]


def test_losing_everything_keeps_the_storage_folder(data: Path) -> None:
    lose_everything(data)

    assert list((data / "storage").iterdir()) == []


def test_a_taken_port_gives_the_next_one() -> None:
    with listening_socket(45_050) as first:
        first.listen()
        port = first.getsockname()[1]

        with listening_socket(port) as second:
            assert port < second.getsockname()[1] <= port + 50
            assert second.family == socket.AF_INET


def test_a_worker_that_ignores_the_first_signal_gets_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("examples.gallery.backstage._CALM_SECONDS", 0.2)
    program = (
        "import signal\n"
        "signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))\n"
        "print('up', flush=True)\n"
        "while True: signal.pause()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()

        stop_worker(process)

        assert process.returncode == -15
