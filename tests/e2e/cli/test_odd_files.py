"""Trees that are not what one expects come back as they were."""

from __future__ import annotations

import os
import socket
import sqlite3
import stat
from typing import TYPE_CHECKING

from examples.gallery.compare import describe_database, describe_tree, differences
from tests.e2e.cli.command import World, make_database

if TYPE_CHECKING:
    from pathlib import Path

ODD_NAMES = (
    b"new\nline",
    b"tab\there",
    b"\x1b[31mred",
    b"not utf-8 \xff\xfe",
    "ü ä ö".encode(),
    "u\u0308 decomposed".encode(),
    "\u202egnp.exe".encode(),
    b"-rf",
    b"--json",
    b"$(touch pwned)",
    b"'quotes\"",
    b" leading and trailing ",
    b"back\\slash",
    b"*?[x]",
    b"CON",
    b"n" * 255,
)


def cycle(world: World, *more: object) -> Path:
    """Back up, check everything, restore; return where the files came back."""
    world.init()
    made = world.back_up("--json", *more)
    assert made.status == 0, made.out
    assert world.call("check", "--read-data").status == 0
    assert world.call("verify", "latest").status == 0
    done = world.restore(world.root / "out")
    assert done.status == 0, done.out
    return world.root / "out" / "files" / "files"


def test_odd_names_come_back_and_cannot_steer_a_terminal(world: World) -> None:
    root = os.fsencode(world.files)
    for name in ODD_NAMES:
        (world.files / os.fsdecode(name)).write_bytes(name)
        folder = root + b"/in-" + name[:200]
        os.mkdir(folder)  # noqa: PTH102  a path in bytes
        with open(folder + b"/" + name, "wb") as file:  # noqa: PTH123
            file.write(name)
    before = describe_tree(world.files)

    out = cycle(world)
    (world.files / "new\nline").write_text("changed")
    (world.files / os.fsdecode(ODD_NAMES[3])).write_text("changed")
    world.back_up()
    ids = [one["id"] for one in world.call("list").result["snapshots"]]
    shown = world.call("diff", *ids, json=False).out

    assert differences(before, describe_tree(out)) == []
    assert shown.isprintable() or all(line.isprintable() for line in shown.splitlines())
    assert len(shown.splitlines()) == 2


def test_root_with_an_odd_name_is_backed_up(world: World) -> None:
    odd = world.root / os.fsdecode(b"r\xffoot\n")
    world.files.rename(odd)
    before = describe_tree(odd)
    world.init()

    database = odd / os.fsdecode(b"\xfe.db")
    make_database(database)
    sources = (b"--files", b"files=" + os.fsencode(odd), b"--sqlite", b"app=" + os.fsencode(database))

    done = world.run("run", world.storage, "--key-file", world.key, *sources, "--json")

    assert done.status == 0, done.out
    assert world.restore(world.root / "out").status == 0
    restored = describe_tree(world.root / "out/files/files")
    assert differences(before, restored) == []
    assert (
        differences(describe_database(database), describe_database(world.root / "out/databases/app.sqlite"))
        == []
    )


def test_links_empty_folders_modes_and_times_come_back(world: World) -> None:
    files = world.files
    (files / "to-file").symlink_to("readme.txt")
    (files / "to-nothing").symlink_to("nowhere/at all")
    (files / "to-outside").symlink_to("/etc/passwd")
    (files / "to-folder").symlink_to("photos")
    os.link(files / "readme.txt", files / "photos" / "second name.txt")
    (files / "run.sh").write_text("#!/bin/sh\n")
    (files / "run.sh").chmod(0o755)
    (files / "locked").mkdir()
    (files / "locked" / "inside").write_text("x")
    (files / "deep" / "er").mkdir(parents=True)
    (files / "zero").write_bytes(b"")
    os.utime(files / "zero", ns=(1, 999_999_999))
    os.utime(files / "empty", ns=(1_000_000_000_000_000_001, 1_000_000_000_000_000_001))
    os.utime(files / "to-nothing", ns=(5, 1_234_567_890_123_456_789), follow_symlinks=False)
    (files / "locked").chmod(0o500)
    before = describe_tree(files)

    out = cycle(world)

    assert differences(before, describe_tree(out)) == []
    assert (out / "readme.txt").stat().st_ino == (out / "photos" / "second name.txt").stat().st_ino


def test_special_files_are_left_out_and_named(world: World) -> None:
    os.mkfifo(world.files / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(world.files / "socket"))
        world.init()
        done = world.back_up("--json")

    assert done.status == 0
    assert sorted("pipe" in one or "socket" in one for one in done.result["notices"]) == [True, True]


def test_privileged_modes_do_not_come_back(world: World) -> None:
    (world.files / "tool").write_text("x")
    (world.files / "tool").chmod(0o4755)

    out = cycle(world)

    assert stat.S_IMODE((out / "tool").stat().st_mode) == 0o755


def test_sparse_and_large_files_come_back(world: World) -> None:
    with (world.files / "sparse").open("wb") as file:
        file.seek(30_000_000)
        file.write(b"end")
    (world.files / "random").write_bytes(os.urandom(9_000_001))
    before = describe_tree(world.files)

    assert differences(before, describe_tree(cycle(world))) == []


def test_deep_folders_come_back(world: World) -> None:
    deep = world.files
    for number in range(120):
        deep /= f"level {number}"
    deep.mkdir(parents=True)
    (deep / "bottom").write_text("here")
    before = describe_tree(world.files)

    assert differences(before, describe_tree(cycle(world))) == []


def test_excludes_and_cache_folders_are_left_out(world: World) -> None:
    for name in ("cache/a", "photos/cache/b", "keep/cache", "tmp/x.tmp", "top", "photos/top"):
        path = world.files / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    tagged = world.files / "thumbs"
    tagged.mkdir()
    (tagged / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n")
    (tagged / "thumb").write_text("x")

    out = cycle(world, "--exclude", "cache/", "--exclude", "*.tmp", "--exclude", "/top")

    found = {str(path.relative_to(out)) for path in out.rglob("*")}
    assert found >= {"keep/cache", "photos/top", "tmp", "thumbs/CACHEDIR.TAG"}
    assert found.isdisjoint({"cache", "cache/a", "photos/cache", "tmp/x.tmp", "top", "thumbs/thumb"})


def test_undeclared_live_database_is_copied_soundly(world: World) -> None:
    inside = world.files / "inside.db"
    make_database(inside, rows=500)
    writer = sqlite3.connect(inside)
    writer.execute("PRAGMA wal_autocheckpoint=0")
    with writer:
        writer.execute("INSERT INTO item VALUES (9999, 'only in the log', x'00')")

    out = cycle(world)
    writer.close()

    assert not (out / "inside.db-wal").exists()
    assert differences(describe_database(inside), describe_database(out / "inside.db")) == []


def test_declared_database_in_a_folder_is_kept_once(world: World) -> None:
    inside = world.files / "app.db"
    world.database.rename(inside)
    writer = sqlite3.connect(inside)
    with writer:
        writer.execute("INSERT INTO item VALUES (9999, 'in the log', x'00')")
    world.init()

    done = world.run(
        "run",
        world.storage,
        "--key-file",
        world.key,
        "--files",
        f"files={world.files}",
        "--sqlite",
        f"app={inside}",
        "--json",
    )
    writer.close()
    assert (done.status, done.result["snapshot"]["files"]) == (0, 3)
    assert world.restore(world.root / "out").status == 0
    out = world.root / "out"
    assert not list((out / "files" / "files").glob("app.db*"))
    assert differences(describe_database(inside), describe_database(out / "databases" / "app.sqlite")) == []


def test_key_and_state_folder_in_a_source_are_not_backed_up(world: World) -> None:
    world.state = world.files / "state"
    world.init()
    key = world.files / "key"
    world.key.rename(key)

    done = world.run("run", world.storage, "--key-file", key, "--files", f"files={world.files}", "--json")
    manifest = world.run("show", "latest", world.storage, "--key-file", key).out

    assert done.status == 0
    assert '"path": "key"' not in manifest
    assert '"path": "state/' not in manifest
