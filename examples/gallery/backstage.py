"""The processes behind the demo: a queue server and a worker, gone when the demo is."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flask import Flask

from examples.gallery.product import worker_command, worker_is_ready
from examples.services.server import start_server
from examples.services.valkey import start_valkey

_CALM_SECONDS = 20
_FIRM_SECONDS = 5


@contextmanager
def running_queue(data: Path) -> Iterator[str]:
    """Yield the address of a queue: the one in REDIS_URL, or a server of our own.

    The address also goes into the environment, for the worker and the app.
    """
    given = os.environ.get("REDIS_URL")
    if given:
        os.environ["BACKUP_ADMIN_REDIS_URL"] = given
        yield given
        return
    server = start_valkey(data / "queue", persistent=True)
    os.environ["BACKUP_ADMIN_REDIS_URL"] = server.url
    try:
        yield server.url
    finally:
        server.stop()


@contextmanager
def running_worker(app: Flask, data: Path) -> Iterator[None]:
    """Keep a worker running for the gallery in `data`; its output goes to a log there."""
    os.environ["GALLERY_DATA"] = str(data)
    worker = start_server(
        worker_command(),
        url="",
        log=data / "worker.log",
        is_ready=lambda: worker_is_ready(app),
    )
    try:
        yield
    finally:
        if worker.process is not None:
            stop_worker(worker.process)


def stop_worker(process: subprocess.Popen[bytes]) -> None:
    """End a worker: first let it finish its job, then make it drop the job, then kill it.

    The second signal is what makes a worker end the process that does its job.
    """
    for seconds in (_CALM_SECONDS, _FIRM_SECONDS):
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
        return
    process.kill()
    process.wait()
