"""Make a repository whose packs have 64 MiB, which no command offers.

`python -m bench.large_packs ADDRESS KEY_FILE` makes the key file as well.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from backup_admin.core.clock import SystemClock
from backup_admin.repository.config import Parameters
from backup_admin.repository.creation import create_repository
from backup_admin.repository.secrets import generate_application_key, parse_application_key
from backup_admin.storage.open import open_storage

PACK_BYTES = 64 << 20


def make_repository(address: str, key_file: Path) -> None:
    """Make a key and a repository it opens."""
    key = generate_application_key().reveal()
    key_file.write_text(f"{key}\n")
    key_file.chmod(0o600)
    parameters = replace(Parameters(), pack=PACK_BYTES)
    secrets = [(parse_application_key(key), "application key")]
    create_repository(
        open_storage(address, state=Path(tempfile.gettempdir())),
        secrets,
        clock=SystemClock(),
        parameters=parameters,
    )


if __name__ == "__main__":
    make_repository(sys.argv[1], Path(sys.argv[2]))
