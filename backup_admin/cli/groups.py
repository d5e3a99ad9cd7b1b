"""Groups of verbs that load only what is used."""

from __future__ import annotations

import importlib

import click


class RarelyLoaded(click.Group):
    """A group whose rarer verbs lie in other modules of `cli`, loaded when they are used."""

    elsewhere: dict[str, str]
    """From the name of a verb to its module."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all verbs."""
        return sorted({*super().list_commands(ctx), *self.elsewhere})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a verb, loading its module where it lies elsewhere."""
        if cmd_name in self.elsewhere:
            module = importlib.import_module(f"backup_admin.cli.{self.elsewhere[cmd_name]}")
            command: click.Command = getattr(module, f"{cmd_name}_verb")
            return command
        return super().get_command(ctx, cmd_name)
