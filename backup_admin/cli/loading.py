"""The verb that makes a PostgreSQL database of what `restore --to` wrote."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from backup_admin.cli.opening import json_option
from backup_admin.core.shown import count_of, show_size
from backup_admin.operations.answers import Answer
from backup_admin.sources.postgres.address import parse_postgres_address
from backup_admin.sources.postgres.clients import find_clients

if TYPE_CHECKING:
    from backup_admin.cli.opening import Surroundings


@click.command("load")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--postgres",
    "address",
    required=True,
    metavar="ADDRESS",
    help="An empty PostgreSQL database to load into.",
)
@click.option("--no-owner", is_flag=True, help="Give no owners and rights: all belongs to who loads it.")
@click.option(
    "--programs",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where pg_restore lies; otherwise all versions that are installed are looked at.",
)
@json_option
@click.pass_obj
def load_verb(
    _surroundings: Surroundings, *, folder: Path, address: str, no_owner: bool, programs: Path | None
) -> Answer:
    """Load a PostgreSQL database that `restore --to` wrote into an empty one.

    FOLDER is DIR/databases/NAME of that restore. All rows are read back and compared. Needs
    no repository and no key.
    """
    target = parse_postgres_address(address)
    from backup_admin.sources.postgres.load import LoadOptions, load  # noqa: PLC0415 - needs psycopg

    loaded = load(folder, target, find_clients(programs), LoadOptions(no_owner=no_owner))
    return Answer(
        result={
            "database": target.label,
            "tables": loaded.tables,
            "rows": loaded.rows,
            "bytes": loaded.bytes,
            "notices": list(loaded.notices),
        },
        lines=(
            f"Loaded {count_of(loaded.tables, 'table')} with {count_of(loaded.rows, 'row')} "
            f"({show_size(loaded.bytes)}) into {target.label}; all of it was read back and compared.",
        ),
        notes=tuple(f"note: {notice}" for notice in loaded.notices),
    )
