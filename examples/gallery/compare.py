"""Compare two states of a gallery with nothing but the standard library.

It shares no code with the product it judges: what it calls the same is the same.
"""

import hashlib
import os
import sqlite3
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

_READ_BYTES = 1 << 20
_MOST_SENTENCES_PER_KIND = 20


class Entry(NamedTuple):
    """One entry of a folder tree; `content` is a SHA-256, or where a link points to."""

    kind: str
    mode: int
    mtime_ns: int
    content: str


class TableState(NamedTuple):
    """One table, view, index or trigger: how it was made and what it holds."""

    schema: str
    rows: int
    content: str


@dataclass(frozen=True, slots=True)
class GalleryState:
    """Everything a restore must bring back."""

    tree: Mapping[bytes, Entry]
    database: Mapping[str, TableState]


def describe_gallery(storage: Path, database: Path, *, exclude: Sequence[str] = ()) -> GalleryState:
    """Describe the storage tree and the database together."""
    return GalleryState(describe_tree(storage, exclude=exclude), describe_database(database))


def gallery_differences(before: GalleryState, after: GalleryState, *, folder_times: bool = True) -> list[str]:
    """Return what differs in the tree, then what differs in the database."""
    return differences(
        _comparable(before.tree, folder_times), _comparable(after.tree, folder_times)
    ) + differences(before.database, after.database)


def describe_tree(path: Path, *, exclude: Sequence[str] = ()) -> dict[bytes, Entry]:
    """Map each entry below `path`, by its relative name in bytes, to what it is.

    `exclude` names folders that are left out wherever they are, such as `temp/`.
    """
    root = os.fsencode(path)
    skipped = {os.fsencode(name.rstrip("/")) for name in exclude}
    return {os.path.relpath(found, root): _describe_entry(found) for found in _walk(root, skipped)}


def _walk(root: bytes, skipped: set[bytes]) -> Iterator[bytes]:
    with os.scandir(root) as listing:
        entries = sorted(listing, key=lambda entry: entry.name)
    for entry in entries:
        is_folder = entry.is_dir(follow_symlinks=False)
        if is_folder and entry.name in skipped:
            continue
        yield entry.path
        if is_folder:
            yield from _walk(entry.path, skipped)


def _describe_entry(path: bytes) -> Entry:
    info = os.lstat(path)
    mode = stat.S_IMODE(info.st_mode)
    if stat.S_ISLNK(info.st_mode):
        target = os.readlink(path)  # noqa: PTH115  # a path in bytes
        return Entry("link", 0o777, info.st_mtime_ns, target.decode(errors="replace"))
    if stat.S_ISDIR(info.st_mode):
        return Entry("folder", mode, info.st_mtime_ns, "")
    if stat.S_ISREG(info.st_mode):
        return Entry("file", mode, info.st_mtime_ns, _hash_file(path))
    return Entry("special", mode, info.st_mtime_ns, "")


def _hash_file(path: bytes) -> str:
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123  # names may not be text
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def describe_database(path: Path) -> dict[str, TableState]:
    """Map each table, index, view and trigger of an SQLite file to what it is."""
    connection = sqlite3.connect(f"file:{path.absolute()}?mode=ro", uri=True)
    connection.text_factory = bytes
    try:
        listing = connection.execute("SELECT type, name, sql FROM sqlite_master")
        return {
            f"{kind.decode()} {name.decode()}": _describe_object(connection, kind, name, sql or b"")
            for kind, name, sql in sorted(listing.fetchall(), key=lambda row: row[:2])
        }
    finally:
        connection.close()


def _describe_object(connection: sqlite3.Connection, kind: bytes, name: bytes, sql: bytes) -> TableState:
    if kind != b"table":
        return TableState(sql.decode(), 0, "")
    digest = hashlib.sha256()
    count = 0
    for row in _ordered_rows(connection, name.decode()):
        count += 1
        digest.update(repr(row).encode())
        digest.update(b"\n")
    return TableState(sql.decode(), count, digest.hexdigest())


def _ordered_rows(connection: sqlite3.Connection, name: str) -> sqlite3.Cursor:
    """Read a table by rowid, or by its primary key where it has no rowid."""
    quoted = '"' + name.replace('"', '""') + '"'
    try:
        return connection.execute(
            f"SELECT rowid, * FROM {quoted} ORDER BY rowid"  # noqa: S608  # quoted
        )
    except sqlite3.OperationalError:
        keys = connection.execute(f"PRAGMA table_info({quoted})").fetchall()
        order = ", ".join(str(column[0] + 1) for column in keys if column[5])
        return connection.execute(
            f"SELECT * FROM {quoted} ORDER BY {order}"  # noqa: S608  # quoted, numbers
        )


def differences(before: Mapping[Any, Any], after: Mapping[Any, Any]) -> list[str]:
    """Say in one sentence each what is missing, new or changed; empty means equal.

    Takes two answers of `describe_tree`, or two of `describe_database`.
    """
    missing = [f"{_show(key)} is missing." for key in before if key not in after]
    added = [f"{_show(key)} was not there before." for key in after if key not in before]
    changed = [
        f"{_show(key)} differs in {_changed_fields(before[key], after[key])}."
        for key in before
        if key in after and before[key] != after[key]
    ]
    return [*_shorten(missing), *_shorten(added), *_shorten(changed)]


def _show(key: str | bytes) -> str:
    return repr(os.fsdecode(key))


def _changed_fields(before: Any, after: Any) -> str:
    return ", ".join(
        f"{name} ({_brief(old)} became {_brief(new)})"
        for name, old, new in zip(before._fields, before, after, strict=True)
        if old != new
    )


def _brief(value: str | int) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _shorten(sentences: list[str]) -> list[str]:
    if len(sentences) <= _MOST_SENTENCES_PER_KIND:
        return sentences
    rest = len(sentences) - _MOST_SENTENCES_PER_KIND
    return [*sentences[:_MOST_SENTENCES_PER_KIND], f"And {rest} more like these."]


def _comparable(tree: Mapping[bytes, Entry], folder_times: bool) -> dict[bytes, Entry]:
    if folder_times:
        return dict(tree)
    return {
        path: entry._replace(mtime_ns=0) if entry.kind == "folder" else entry for path, entry in tree.items()
    }
