"""A database with most of what PostgreSQL knows, and what programs that are not ours say of one."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.services.postgres import PostgresServer

GALLERY = Path(__file__).with_name("gallery.sql").read_text()


def dump_text(server: PostgresServer, database: str, programs: Path | None = None) -> list[str]:
    """Return what `pg_dump` of the server's own version writes, the rows of each table sorted."""
    command = [
        str(programs / "pg_dump") if programs else server.program("pg_dump"),
        "-d",
        server.by_socket(database),
        "--restrict-key=x",
    ]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    parts = re.split(r"(?ms)^(COPY .*?;\n.*?^\\\.\n)", text)
    return ["\n".join(sorted(part.split("\n"))) if part.startswith("COPY ") else part for part in parts]
