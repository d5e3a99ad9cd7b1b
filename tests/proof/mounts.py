"""Small file systems of their own for a test, where this machine lets us mount some."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class CannotMount(Exception):
    """This machine does not let us."""


@contextmanager
def mounted(folder: Path, *arguments: str) -> Iterator[Path]:
    """Mount something on a folder for a while; raise `CannotMount`."""
    folder.mkdir(parents=True, exist_ok=True)
    _call("mount", *arguments, str(folder))
    try:
        yield folder
    finally:
        gc.collect()  # an index that is still mapped keeps its disk busy
        _call("umount", "--lazy", str(folder))


def remount(folder: Path, options: str) -> None:
    """Change the options of what is mounted."""
    _call("mount", "-o", f"remount,{options}", str(folder))


def make_image(path: Path, size_bytes: int) -> None:
    """Make an image file with an ext4 file system."""
    with path.open("xb") as file:
        file.truncate(size_bytes)
    _call("mkfs.ext4", "-q", "-E", "lazy_itable_init=0", str(path))


def skip_unless_mounts_work(scratch: Path, kind: str) -> None:
    """Skip, saying why, where this user or machine cannot mount such a file system."""
    if os.geteuid() != 0:
        pytest.skip(f"mounting {kind} needs root")
    try:
        if kind == "tmpfs":
            with mounted(scratch, "-t", "tmpfs", "tmpfs"):
                return
        make_image(scratch.with_suffix(".img"), 4 << 20)
        with mounted(scratch, "-o", "loop", str(scratch.with_suffix(".img"))):
            return
    except CannotMount as error:
        pytest.skip(f"this machine cannot mount {kind}: {error}")


def _call(program: str, *arguments: str) -> None:
    path = shutil.which(program, path="/usr/sbin:/sbin:/usr/bin:/bin")
    if path is None:
        raise CannotMount(f"{program} is not installed")
    done = subprocess.run([path, *arguments], check=False, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise CannotMount(done.stderr.strip() or f"{program} ended with {done.returncode}")
