"""A minute of coverage-guided fuzzing for each parser, where atheris is installed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.proof.parsers import PARSERS, Parser

ROOT = Path(__file__).parents[2]
SECONDS = 60


@pytest.mark.long
@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.name)
def test_a_minute_of_fuzzing_finds_nothing(parser: Parser, tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed: pip install atheris")
    (tmp_path / "corpus").mkdir()

    done = subprocess.run(
        [sys.executable, "-m", "tests.proof.fuzz_one", parser.name, str(SECONDS), str(tmp_path / "corpus")],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS * 4,
    )

    assert done.returncode == 0, done.stderr[-4000:]
