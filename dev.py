#!/usr/bin/env python3
"""Run the demo, the tests, the linters or the benchmarks from a fresh clone.

Needs Python 3.11 and nothing else: the first call makes `.venv` and installs
exactly what the lock file names.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / ".stamp"
UV_VERSION = "0.13.9"
MINIMUM_PYTHON = (3, 11)
DEMO_LOCK = ROOT / "requirements.lock"
TEST_LOCK = ROOT / "requirements-test.lock"
LOCK_EXTRAS = {
    DEMO_LOCK: ("--extra", "demo", "--extra", "metrics"),
    TEST_LOCK: ("--all-extras",),
}
LOCK_OPTIONS = (
    "--universal",
    "--python-version=3.11",
    "--generate-hashes",
    "--no-emit-index-url",
    "--no-emit-find-links",
    "--no-annotate",
    "--no-header",
)


@dataclass(frozen=True)  # no slots: an old Python has to get as far as its message
class Service:
    """A program some tests need, and the Debian package that brings it."""

    name: str
    programs: tuple[str, ...]
    package: str

    @property
    def advice(self) -> str:
        """Return the line that installs it."""
        return f"apt install {self.package}"

    def find(self) -> str | None:
        """Return the path of the first of its programs that is installed."""
        # Debian keeps servers in sbin, and those of PostgreSQL by version, which a PATH leaves out.
        folders = [os.environ.get("PATH", ""), "/usr/sbin", "/sbin", *POSTGRES_FOLDERS.glob("*/bin")]
        found = (shutil.which(program, path=os.pathsep.join(map(str, folders))) for program in self.programs)
        return next((path for path in found if path), None)


POSTGRES_FOLDERS = Path("/usr/lib/postgresql")
BROWSERS = ("chromium-headless-shell", "chromium")
SERVICES = (
    Service("browser", BROWSERS, "chromium-headless-shell"),
    Service("redis", ("redis-server",), "redis-server"),
    Service("sshd", ("sshd",), "openssh-server"),
    Service("rsync", ("rsync",), "rsync"),
    Service("PostgreSQL", ("postgres",), "postgresql"),
    Service("sqlite3", ("sqlite3",), "sqlite3"),
    Service("sqldiff", ("sqldiff",), "sqlite3-tools"),
)

# Its own script would do, but a moved checkout leaves scripts with a dead first line.
LINT_IMPORTS = "from importlinter.cli import lint_imports_command as run; run()"
# One more than a small machine has cores: one always waits, and of the long ones one takes an hour.
STRICT_OPTIONS = ("--numprocesses=3", "--dist=worksteal")
LONG_OPTIONS = ("--numprocesses=3", "--dist=worksteal", "--override-ini=faulthandler_timeout=4500")
FUZZER = "atheris==3.0.0"
LINTERS = (
    ("ruff check", ("-m", "ruff", "check")),
    ("ruff format", ("-m", "ruff", "format", "--check")),
    ("mypy", ("-m", "mypy")),
    ("lint-imports", ("-c", LINT_IMPORTS, "--no-cache")),
)


class Problem(Exception):
    """Something foreseeable is missing; the message says what to do."""


def main(arguments: list[str]) -> int:
    """Run one sub-command and return its exit code."""
    options, rest = parser().parse_known_args(arguments)
    options.rest = rest
    try:
        code: int = options.command(options)
    except Problem as problem:
        print(f"dev.py: {problem}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        command = " ".join(error.cmd)
        print(f"dev.py: exit code {error.returncode} from: {command}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def parser() -> argparse.ArgumentParser:
    """Describe the sub-commands; what they do not know is passed through."""
    top = argparse.ArgumentParser(prog="dev.py", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def add(command: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        text = (command.__doc__ or "").splitlines()[0]
        sub = commands.add_parser(
            command.__name__, help=text, description=command.__doc__, allow_abbrev=False
        )
        sub.set_defaults(command=command)
        return sub

    add(run)
    options = add(test)
    options.add_argument("--strict", action="store_true", help="as CI does")
    options.add_argument("--long", action="store_true", help="also tests marked long")
    options.add_argument("--mutants", action="store_true", help="take safety checks away, see tests fail")
    for command in (lint, bench, lock):
        add(command)
    return top


def run(options: argparse.Namespace) -> int:
    """Start the demo app; other arguments go to it (--once: one backup, then stop).

    It replaces this process, so signals reach it and its exit code is ours.
    """
    ensure_environment(TEST_LOCK if is_installed(TEST_LOCK) else DEMO_LOCK)
    become([str(PYTHON), "-m", "examples.gallery.demo", *options.rest])


def test(options: argparse.Namespace) -> int:
    """Run the tests; other arguments go to pytest.

    Strict, as in CI: linters first, missing services are installed where we may,
    one that is still missing fails its tests instead of skipping them, and three tests
    run at a time. With --long also the tests that take minutes, beside the one that takes
    an hour. With --mutants each safety check is taken away in a copy of the tree, and a
    test must fail.
    """
    strict = options.strict or os.environ.get("CI") == "true"
    ensure_environment(TEST_LOCK)
    if options.mutants:
        become([str(PYTHON), "-m", "tests.mutants.run", *options.rest])
    if strict:
        install_services()
    for service in SERVICES:
        print(f"{service.name}: {service.find() or f'missing: {service.advice}'}")
    if strict:
        if failed := failed_linters():
            raise Problem(f"lint failed ({', '.join(failed)}), so no test was run")
        os.environ["BACKUP_ADMIN_TEST_STRICT"] = "1"
    if options.long:
        os.environ["BACKUP_ADMIN_TEST_LONG"] = "1"
        install_fuzzer()
        options.rest = [*LONG_OPTIONS, *options.rest]
    elif strict:
        options.rest = [*STRICT_OPTIONS, *options.rest]
    become([str(PYTHON), "-m", "pytest", *options.rest])


def lint(options: argparse.Namespace) -> int:
    """Run ruff, mypy and lint-imports; all must pass."""
    if options.rest:
        raise Problem(f"unknown arguments: {' '.join(options.rest)}")
    ensure_environment(TEST_LOCK)
    failed = failed_linters()
    print(f"lint failed: {', '.join(failed)}" if failed else "lint: all clean")
    return 1 if failed else 0


def bench(options: argparse.Namespace) -> int:
    """Run the benchmarks; other arguments go to them (--quick: does it work?)."""
    ensure_environment(TEST_LOCK)
    become([str(PYTHON), "-m", "bench", *options.rest])


def lock(options: argparse.Namespace) -> int:
    """Write both lock files from pyproject.toml, without any host name.

    What is locked already stays as it is; `lock --upgrade` takes the newest.
    """
    ensure_environment(TEST_LOCK)
    if not has_uv():
        raise Problem("locking needs uv, and it could not be installed")
    for path, extras in LOCK_EXTRAS.items():
        program = [str(PYTHON), "-m", "uv", "pip", "compile", "--quiet", *LOCK_OPTIONS]
        wanted = ["pyproject.toml", *extras, *options.rest]
        call([*program, *wanted, "--output-file", path.name])
        print(f"wrote {path.name}")
    return 0


def ensure_environment(lock_file: Path) -> None:
    """Make `.venv` hold what the lock file names; do nothing if it does."""
    if sys.version_info < MINIMUM_PYTHON:
        raise Problem(f"needs Python 3.11 or newer, this is {sys.version.split()[0]}")
    if is_installed(lock_file):
        return
    if not PYTHON.exists():
        make_venv()
    install(lock_file)
    site_packages = next((VENV / "lib").glob("python*/site-packages"))
    (site_packages / "backup_admin_checkout.pth").write_text(f"{ROOT}\n")
    write_command(VENV / "bin" / "backup-admin")
    STAMP.write_text(fingerprint(lock_file))


def write_command(path: Path) -> None:
    """Make the command that a wheel would bring, for this checkout."""
    path.write_text(f"#!{PYTHON}\nfrom backup_admin.cli.main import main\n\nmain()\n")
    path.chmod(0o755)


def is_installed(lock_file: Path) -> bool:
    """Tell whether the stamp matches this lock, this Python and this place."""
    return PYTHON.exists() and STAMP.exists() and STAMP.read_text() == fingerprint(lock_file)


def fingerprint(lock_file: Path) -> str:
    """Return what the stamp says once this lock file is installed."""
    about = [lock_file.name, str(ROOT), (VENV / "pyvenv.cfg").read_text()]
    digest = hashlib.sha256(lock_file.read_bytes() + "\n".join(about).encode())
    return f"{lock_file.name} {digest.hexdigest()}\n"


def make_venv() -> None:
    """Create `.venv`, with Debian's venv package first where it is missing."""
    print("making .venv", flush=True)
    if not has_ensurepip():
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        if not can_install():
            raise Problem("this Python cannot make environments; run: apt install python3-venv")
        apt_install([f"python{version}-venv"])
    program = [sys.executable, "-m", "venv", "--clear", str(VENV)]
    if complaint := complaint_of(program):
        shutil.rmtree(VENV, ignore_errors=True)
        raise Problem(f"could not make .venv\n{complaint}")


def has_ensurepip() -> bool:
    """Tell whether this Python can put pip into a new environment."""
    probe = [sys.executable, "-c", "import ensurepip, venv"]
    return not complaint_of(probe)


def install(lock_file: Path) -> None:
    """Install exactly the locked files: by uv or else, more slowly, by pip."""
    count = sum("==" in line for line in lock_file.read_text().splitlines())
    print(f"installing {count} packages of {lock_file.name}", flush=True)
    pip = [str(PYTHON), "-m", "pip"]
    uv = [str(PYTHON), "-m", "uv", "pip"]
    locked = ["install", "--no-deps", "--require-hashes", "-r", str(lock_file)]
    complaint = "" if has_uv() else complaint_of([*pip, "install", f"uv=={UV_VERSION}"])
    complaint = complaint or complaint_of([*uv, *locked, "--compile-bytecode"])
    if complaint:
        print(f"uv could not do it, pip tries\n{complaint}", flush=True)
        complaint = complaint_of([*pip, *locked])
    if complaint:
        advice = "is the package index reachable?"
        raise Problem(f"could not install {lock_file.name}; {advice}\n{complaint}")


def has_uv() -> bool:
    """Tell whether the pinned uv is in the environment."""
    pattern = f"lib/python*/site-packages/uv-{UV_VERSION}.dist-info"
    return any(VENV.glob(pattern))


def install_services() -> None:
    """As root, install what the tests need and this machine lacks."""
    packages = [service.package for service in SERVICES if not service.find()]
    if packages and can_install():
        apt_install(packages)


def install_fuzzer() -> None:
    """Install the fuzzer, which has no wheel for some machines: there its tests are skipped."""
    if complaint := complaint_of([str(PYTHON), "-m", "uv", "pip", "install", "--no-build", FUZZER]):
        print(f"{FUZZER} cannot be installed here\n{complaint}", flush=True)


def can_install() -> bool:
    """Tell whether we may install Debian packages here."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def apt_install(packages: list[str]) -> None:
    """Install Debian packages without a question."""
    print(f"installing {' '.join(packages)}", flush=True)
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    apt = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300"]
    call([*apt, "update"], quiet=True)
    call([*apt, "install", "-y", "--no-install-recommends", *packages], quiet=True)


def failed_linters() -> list[str]:
    """Run every linter and return the names of those that complain."""
    return [name for name, arguments in LINTERS if not linter_passes(name, arguments)]


def linter_passes(name: str, arguments: tuple[str, ...]) -> bool:
    """Run one linter; show what it says only if it complains."""
    program = [str(PYTHON), *arguments]
    done = subprocess.run(program, check=False, cwd=ROOT, capture_output=True, text=True)
    passed = done.returncode == 0
    print(f"{name}: {'ok' if passed else 'FAILED'}", flush=True)
    if not passed:
        print(done.stdout + done.stderr, flush=True)
    return passed


def complaint_of(program: list[str]) -> str:
    """Run a program; return the end of what it complained of, empty if all is well."""
    done = subprocess.run(program, check=False, cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 0:
        return ""
    lines = [line for line in done.stderr.splitlines() if not line.startswith("WARNING")]
    return "\n".join(lines[-3:] or [f"exit code {done.returncode}"])


def call(program: list[str], *, quiet: bool = False) -> None:
    """Run a program that has to succeed."""
    output = subprocess.DEVNULL if quiet else None
    subprocess.run(program, check=True, cwd=ROOT, stdout=output)


def become(program: list[str]) -> NoReturn:
    """Replace this process: no parent stays to hold signals or leave orphans."""
    os.chdir(ROOT)
    sys.stdout.flush()
    os.execv(program[0], program)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
