"""What a restore in place would do to a PostgreSQL database, and what stands in its way; reads only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backup_admin.core.errors import BackupAdminError, RestoreRefused, SourceError, UsageError
from backup_admin.core.telling import telling
from backup_admin.operations.issues import NOT_THERE, Issue, Level
from backup_admin.operations.plans import DatabasePart, TableEffect

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from backup_admin.operations.results import SourceSet
    from backup_admin.repository.types import DatabaseEntry
    from backup_admin.sources.postgres.source import PostgresSource
    from backup_admin.sources.postgres.survey import Survey

RENAME, IN_PLACE = "rename", "in_place"
_UNREADABLE = (
    "What is live cannot be read as a whole, so nothing says what would be lost, and no safety backup can be "
    "made of it. As a database of its own it is kept until the undo time is over."
)
_HOW = {
    RENAME: "A new database is made and read back beside {place}, then takes its name: connections end for a "
    "moment, and what is live now stays for an undo.",
    IN_PLACE: "The role may make no databases, so everything in {place} is dropped and loaded in one "
    "transaction: whoever uses the database waits until that is done.",
}
_MADE = "A new database is made and read back, then takes the name {place}."
_CANNOT_BE_MADE = (
    "{0} is not there, and {1} may make no databases. Let somebody make it for {1}, empty; or let {1} make "
    "databases (CREATEDB)."
)
_STAYS = (
    "All that is in the database has to be dropped, and {1} may not drop {0}. Let whoever it belongs to do "
    "that, and make it again afterwards; or let {1} make databases (CREATEDB): then nothing is dropped."
)
_SET_UP_AGAIN = {
    RENAME: "These stay with the old database and must be set up again: {}.",
    IN_PLACE: "These go on beside tables that are new to them, and must be set up again: {}.",
}


def plan_postgres(entry: DatabaseEntry, source: PostgresSource) -> DatabasePart:
    """Compare a captured database with what is live, all rows of which are read.

    What is live may be damaged or hold what we may not read: then it counts as not found.
    Raises `UsageError`, `SourceMissing`, `SourceError` or `NoClient`.
    """
    if entry.tree is None:
        raise UsageError(
            f"The database {entry.name!r} of the snapshot is {entry.engine}, and its place is a PostgreSQL "
            "server. Nothing was touched."
        )
    from backup_admin.sources.postgres.survey import read_tables, survey  # noqa: PLC0415 - needs psycopg

    with telling("Nothing was touched."):
        found = survey(source)
    now, is_readable = {}, found.found
    try:
        now = {table.name: table for table in read_tables(source)} if found.found else {}
    except SourceError:
        is_readable = False
    then = {table.name: table for table in entry.tables}
    way = RENAME if found.may_make and found.owns else IN_PLACE
    if way == IN_PLACE and entry.format == "archive":
        raise RestoreRefused(
            f"The database {entry.name!r} was stored as an archive, which makes a new database: the role "
            f"{found.role} needs CREATEDB and to own it. Nothing was touched."
        )
    return DatabasePart(
        entry.name,
        source.address.label,
        entry.size,
        is_readable,
        tuple(
            TableEffect(
                table,
                now[table].rows if table in now else -1,
                then[table].rows if table in then else -1,
                table in now and table in then and now[table].checksum == then[table].checksum,
            )
            for table in sorted(now.keys() | then.keys())
        ),
        engine=entry.engine,
        way=way,
    )


def look_at_server(part: DatabasePart, targets: SourceSet) -> Iterator[Issue]:
    """Yield what speaks for and against a restore of one database, here and now."""
    topic = f"Database {part.name}"
    source = next((one for one in targets.postgres if one.name == part.name), None)
    if source is None:
        yield Issue(Level.BLOCK, topic, "There is no place given for it.")
        return
    from backup_admin.sources.postgres.survey import survey  # noqa: PLC0415 - needs psycopg

    try:
        found = survey(source)
    except BackupAdminError as error:
        yield Issue(Level.BLOCK, topic, str(error))
        return
    if part.way == IN_PLACE and not found.found:
        yield Issue(Level.BLOCK, topic, _CANNOT_BE_MADE.format(part.path, found.role))
        return
    how = _HOW[part.way] if found.found else _MADE
    yield Issue(Level.OK if part.way == RENAME else Level.WARN, topic, how.format(place=part.path))
    yield from _look_at(part, found, source, topic)


def look_at_needs(part: DatabasePart, targets: SourceSet, contents: bytes) -> Iterator[Issue]:
    """Block what the server would refuse when everything else is done: roles, extensions, policies."""
    source = next((one for one in targets.postgres if one.name == part.name), None)
    if source is None:
        return
    from backup_admin.sources.postgres.survey import lacks  # noqa: PLC0415 - needs psycopg

    try:
        text = lacks(source, contents, replaced=part.way == IN_PLACE)
    except (BackupAdminError, ValueError, KeyError, TypeError):
        return  # told of where the server and the backup are looked at
    if text:
        yield Issue(Level.BLOCK, f"Database {part.name}", text)


def look_for_one_of_two_names(parts: Sequence[DatabasePart], targets: SourceSet) -> Iterator[Issue]:
    """Block what would restore two databases onto one, however their addresses are written."""
    names = {part.name for part in parts if part.way}
    sources = [source for source in targets.postgres if source.name in names]
    if len(sources) < 2:
        return
    from backup_admin.sources.postgres.survey import place_of  # noqa: PLC0415 - needs psycopg

    found: dict[tuple[str, str], str] = {}
    for source in sources:
        try:
            first = found.setdefault(place_of(source), source.name)
        except BackupAdminError:
            continue  # told of where that database is looked at
        if first != source.name:
            text = f"{first} and {source.name} are one database, {source.address.label}: name it once."
            yield Issue(Level.BLOCK, f"Database {source.name}", text)


def _look_at(part: DatabasePart, found: Survey, source: PostgresSource, topic: str) -> Iterator[Issue]:
    yield from _look_at_role(part, found, source, topic)
    if not found.found:
        yield Issue(Level.WARN, topic, NOT_THERE.format(place=part.path))
    elif not part.live_found:
        yield Issue(Level.WARN, topic, _UNREADABLE)
    if found.staying:
        text = f"Sessions of {', '.join(found.staying)} cannot be ended from here; stop those programs."
        yield Issue(Level.WARN if part.way == IN_PLACE else Level.BLOCK, topic, text)
    if found.prepared:
        text = f"Prepared transactions hold the database: {', '.join(found.prepared[:5])}. End them first."
        yield Issue(Level.BLOCK, topic, text)
    if part.way == IN_PLACE and found.undroppable:
        yield Issue(Level.BLOCK, topic, _STAYS.format(", ".join(found.undroppable), found.role))
    if found.elsewhere:
        text = _SET_UP_AGAIN[part.way].format(", ".join(found.elsewhere))
        yield Issue(Level.WARN, topic, text)


def _look_at_role(part: DatabasePart, found: Survey, source: PostgresSource, topic: str) -> Iterator[Issue]:
    if part.way == RENAME and not (found.may_make and found.owns):
        yield Issue(Level.BLOCK, topic, f"The role {found.role} lost the rights it had; plan again.")
    if part.way == IN_PLACE and not found.owns:
        text = f"The database belongs to {found.owner}, and {found.role} is no member of that role."
        yield Issue(Level.BLOCK, topic, text)
    if found.is_superuser:
        text = f"{found.role} is a superuser: what the backup defines runs with all rights on that server."
        if source.as_superuser:
            yield Issue(Level.WARN, topic, f"{text} Go on only with a backup you trust.")
        else:
            yield Issue(Level.BLOCK, topic, f"{text} Use the owner of the database, or --as-superuser.")
