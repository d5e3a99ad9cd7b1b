"""Fuzz one parser with atheris: `python -m tests.proof.fuzz_one PARSER SECONDS CORPUS`.

Ends with an error when the parser raises anything but our errors, or takes too much memory or time.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from backup_admin.core.errors import BackupAdminError
from tests.proof.parsers import PARSERS

MEMORY_MIB = 768
SECONDS_FOR_ONE = 10


def main(name: str, seconds: str, corpus: Path) -> None:
    """Fuzz from what is valid."""
    atheris = import_module("atheris")
    parser = next(parser for parser in PARSERS if parser.name == name)
    (corpus / "valid").write_bytes(parser.valid)

    def try_one(data: bytes) -> None:
        with suppress(BackupAdminError):
            parser.parse(data)

    limits = [
        f"-max_total_time={seconds}",
        f"-rss_limit_mb={MEMORY_MIB}",
        f"-timeout={SECONDS_FOR_ONE}",
        f"-artifact_prefix={corpus.parent}/",
        "-verbosity=0",
    ]
    atheris.instrument_all()
    atheris.Setup([sys.argv[0], *limits, str(corpus)], try_one)
    atheris.Fuzz()


if __name__ == "__main__":
    # The fuzzer asks for the most memory this process ever had, and what it was started from
    # counts in that: pytest, which is large after a thousand tests. A child begins anew.
    if child := os.fork():
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
