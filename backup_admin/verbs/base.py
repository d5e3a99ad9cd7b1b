"""Verbs that both commands have: `backup-admin` on any storage, `flask backup` on the app's.

A verb says here what it takes and does; each command adds how it comes to its
repository, and prints the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from backup_admin.core.clock import Clock
    from backup_admin.core.progress import Reporter
    from backup_admin.core.state import StateFolder
    from backup_admin.operations.answers import Answer
    from backup_admin.repository.repository import Repository

Function = Callable[..., Any]
Parameter = Callable[[Function], Function]

STORAGE: Parameter = click.argument("storage")
"""Where `backup-admin` takes the storage among the arguments; `flask backup` leaves it out."""


AT: Parameter = click.option(
    "--at",
    default="",
    metavar="TIME",
    help="With SNAPSHOT `latest`: the newest at that time (2026-03-10T14:30, 2h, 3d).",
)
"""The point in time of the verbs that take one snapshot."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a verb works with. `reporting(stopped)` gives a reporter; `stopped` is said on Ctrl-C."""

    repository: Repository
    state: StateFolder
    clock: Clock
    actor: str
    as_json: bool
    reporting: Callable[[str], AbstractContextManager[Reporter]]


@dataclass(frozen=True, slots=True)
class SharedVerb:
    """A verb: its name, what it does, what it takes, and whether it `changes` the repository."""

    name: str
    function: Callable[..., Answer]
    parameters: tuple[Parameter, ...]
    changes: bool


def shared_verb(
    name: str, *parameters: Parameter, changes: bool = False
) -> Callable[[Callable[..., Answer]], SharedVerb]:
    """Make a verb of a function that takes `Work` and one keyword for each parameter.

    Its docstring is the help of both commands.
    """

    def make(function: Callable[..., Answer]) -> SharedVerb:
        return SharedVerb(name, function, parameters, changes)

    return make


def click_command(verb: SharedVerb, call: Function, parameters: tuple[Parameter, ...]) -> click.Command:
    """Return a click command of this verb that runs `call` with the options given."""
    call.__doc__ = verb.function.__doc__
    for parameter in reversed(parameters):
        call = parameter(call)
    return click.command(verb.name)(call)
