"""Make ready what is measured, as it is where it was installed."""

from __future__ import annotations

import compileall
import sysconfig
from pathlib import Path

import backup_admin


def compile_modules() -> None:
    """Compile our modules and their libraries as `pip install` does, also where Python may not do it."""
    for folder in (Path(backup_admin.__file__).parent, Path(sysconfig.get_path("purelib"))):
        compileall.compile_dir(folder, quiet=2)
