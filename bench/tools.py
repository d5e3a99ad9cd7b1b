"""The command lines of our tool and of its peers."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from bench.measuring import version_of

_OURS = Path(__file__).with_name("peers.json")
OURS = "ours"
OLDEST = {"restic": (0, 14), "borg": (1, 4)}


class Phase(StrEnum):
    """What each tool does, in this order; the values are the fields of `peers.json`."""

    INIT = "init"
    FIRST = "backup1"
    UNCHANGED = "backup2"
    DAY_2 = "backup3"
    RESTORE = "restore"
    ONE = "one"
    CHECK = "check"
    PRUNE = "prune"


@dataclass(frozen=True, slots=True)
class Tool:
    """A backup program: a shell command for each phase, and where a restore puts the tree.

    In all texts {repo}, {src}, {out}, {one} and {tmp} stand for paths.
    """

    name: str
    version: str
    commands: dict[Phase, str]
    tree: str
    env: dict[str, str] = field(default_factory=dict)

    @property
    def usable(self) -> bool:
        """Tell whether the program is installed and not older than what we compare with."""
        found = re.search(r"(\d+)\.(\d+)", self.version)
        return found is not None and (int(found[1]), int(found[2])) >= OLDEST.get(self.name, (0, 0))

    def command(self, phase: Phase, places: dict[str, str]) -> str:
        """Return the command line of a phase."""
        quoted = {name: shlex.quote(path) for name, path in places.items()}
        return self.commands[phase].format(**quoted)

    def environment(self, places: dict[str, str]) -> dict[str, str]:
        """Return what its environment holds besides ours."""
        return {name: value.format(**places) for name, value in self.env.items()}


def our_tool() -> Tool:
    """Return the tool that `peers.json` describes."""
    values = json.loads(_OURS.read_text())
    again = {Phase.UNCHANGED: values["backup1"], Phase.DAY_2: values["backup1"]}
    commands = again | {phase: values[phase] for phase in Phase if phase in values}
    return Tool(OURS, version_of("backup-admin"), commands, values["tree"], values["env"])


def restic(program: str) -> Tool:
    """Return restic with its own defaults."""
    base = f"{program} --quiet --repo {{repo}} --cache-dir {{tmp}}/cache"
    backup = f"{base} backup {{src}}"
    restore = f"{base} restore latest --target {{out}}"
    return Tool(
        "restic",
        version_of(program),
        {
            Phase.INIT: f"{base} init --repository-version 2",
            Phase.FIRST: backup,
            Phase.UNCHANGED: backup,
            Phase.DAY_2: backup,
            Phase.RESTORE: restore,
            Phase.ONE: f"{restore} --include {{src}}/{{one}}",
            Phase.CHECK: f"{base} check --read-data",
            Phase.PRUNE: f"{base} forget --keep-last 1 --prune",
        },
        tree="{out}{src}",
        env={"RESTIC_PASSWORD": "benchmark"},
    )


def borg(program: str) -> Tool:
    """Return borg with its own defaults and the encryption it recommends."""
    restore = f"cd {{out}} && {program} extract {{repo}}::third"
    return Tool(
        "borg",
        version_of(program),
        {
            Phase.INIT: f"{program} init --encryption repokey-blake2 {{repo}}",
            Phase.FIRST: f"{program} create {{repo}}::first {{src}}",
            Phase.UNCHANGED: f"{program} create {{repo}}::second {{src}}",
            Phase.DAY_2: f"{program} create {{repo}}::third {{src}}",
            Phase.RESTORE: restore,
            Phase.ONE: f'one={{src}}/{{one}}; {restore} "${{{{one#/}}}}"',
            Phase.CHECK: f"{program} check --verify-data {{repo}}",
            Phase.PRUNE: f"{program} prune --keep-last 1 {{repo}} && {program} compact {{repo}}",
        },
        tree="{out}{src}",
        env={
            "BORG_PASSPHRASE": "benchmark",
            "BORG_BASE_DIR": "{tmp}",
            "BORG_REMOTE_PATH": shutil.which(program) or program,
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
        },
    )
