"""The benchmark of remote storages measures real servers, near and far."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench.gates import Gate, Results
from bench.measuring import Cost
from bench.paired import Measurement
from bench.remote import SCENES, scene_gates
from bench.tools import OURS, Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


def measured(tool: str, phase: Phase, seconds: float, *, mib: int = 100) -> Measurement:
    return Measurement(0, tool, phase, Cost(0, seconds, seconds, mib << 20), 0)


@pytest.fixture
def echo_port() -> Iterator[int]:
    """Serve connections that get back what they sent."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                while data := connection.recv(1 << 16):
                    connection.sendall(data)

    threading.Thread(target=serve, daemon=True).start()
    yield server.getsockname()[1]
    server.close()


def test_the_proxy_adds_a_round_trip_and_takes_no_throughput(echo_port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program = [sys.executable, "-m", "bench.delay", str(port), str(echo_port), "100"]
    with subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE) as proxy:
        with _connected(port) as client:
            handshake_and_trip = _seconds_for(client, b"GET /one HTTP/1.1\r\n")
            trip = _seconds_for(client, b"x")
            large = _seconds_for(client, bytes(20 << 20))
        proxy.terminate()
        output, _ = proxy.communicate()

    assert handshake_and_trip >= 0.2
    assert 0.1 <= trip < 0.2
    assert 0.1 <= large < 5
    assert output == b"GET /one\n"


def test_gates_of_a_scene_judge_wall_time_and_memory() -> None:
    phases = (Phase.FIRST, Phase.RESTORE)
    found = [measured(OURS, phase, 3.0, mib=230) for phase in phases]
    found += [measured("restic", phase, 4.0) for phase in phases]

    gates = scene_gates("far", SCENES["s3-far"], Results(found))

    assert gates[0] == Gate("far, restore: wall / restic", 0.75, 0.8)
    assert [gate.passed for gate in gates] == [True, False, False]


@pytest.mark.long(minutes=1)
def test_our_tool_backs_up_and_restores_on_a_real_server_behind_a_delay(tmp_path: Path) -> None:
    arguments = ["--scale", "0.002", "--runs", "1", "--peers", "", "--scenes", "s3-far,s3-large"]
    program = [sys.executable, "-m", "bench", "remote", *arguments]
    program += ["--json", str(tmp_path / "out.json"), "--work", str(tmp_path / "work")]

    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr + (tmp_path / "work/log.txt").read_text()
    found = json.loads((tmp_path / "out.json").read_text())["measurements"]
    assert set(found) == {
        f"{scene}, {corpus}" for scene in ("s3-far", "s3-large") for corpus in ("photos", "small")
    }
    assert all(one["requests"] > 10 for one in found["s3-far, small"])
    assert not [
        one for phases in found.values() for one in phases if one["cost"]["code"] or one["wrong_files"]
    ]


def _connected(port: int) -> socket.socket:
    deadline = time.monotonic() + 20
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=20)
        except OSError:
            if time.monotonic() > deadline:
                raise


def _seconds_for(client: socket.socket, data: bytes) -> float:
    """Send data and wait until all of it came back."""
    began, left = time.monotonic(), len(data)
    sender = threading.Thread(target=client.sendall, args=(data,))
    sender.start()
    while left:
        left -= len(client.recv(1 << 20))
    sender.join()
    return time.monotonic() - began
