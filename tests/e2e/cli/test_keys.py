"""Keys through the command line: what opens a repository, what does not, and how it is got back."""

from __future__ import annotations

import fcntl
import os
import shlex
import stat
import subprocess
import sys
import termios
from typing import TYPE_CHECKING, Any

import pytest

from examples.gallery.compare import describe_tree, differences
from tests.e2e.cli.command import flip

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.cli.command import Done, World


def keys(
    world: World, verb: str, *before: object, key: Path | None = None, more: tuple[object, ...] = ()
) -> Done:
    """Call a verb about keys that takes the storage last."""
    return world.run("keys", verb, *before, world.storage, "--key-file", key or world.key, "--json", *more)


def secret_file(world: World, name: str, text: str) -> Path:
    path = world.root / name
    path.write_text(text)
    path.chmod(0o600)
    return path


def opens(world: World, key: Path) -> int:
    return world.run("list", world.storage, "--key-file", key).status


def slots(world: World, key: Path | None = None) -> dict[str, dict[str, Any]]:
    """Return what `keys list` says, by kind."""
    return {slot["kind"]: slot for slot in keys(world, "list", key=key).result["slots"]}


def test_everything_comes_back_by_each_secret_after_a_life_of_changes(repository: World) -> None:
    phrase = secret_file(repository, "phrase", "correct horse battery staple")
    (repository.files / "later.txt").write_text("later\n")

    done = [
        keys(repository, "add", more=("--passphrase-file", phrase)),
        keys(repository, "rotate"),
        repository.back_up("--json"),
        keys(repository, "retire", 1, more=("--with", repository.recovery, "--with-passphrase", phrase)),
        keys(repository, "application", more=("--new-key-file", repository.root / "key-2")),
    ]

    assert [one.status for one in done] == [0] * 5, [one.err for one in done]
    assert (done[3].result["retired"], done[3].result["packs"] > 0) == (True, True)
    named = {"key": repository.root / "key-2", "recovery": repository.recovery}
    for name, given in named.items():
        target = repository.root / f"back-{name}"
        restored = repository.run(
            "restore", "latest", repository.storage, "--key-file", given, "--to", target
        )
        assert restored.status == 0, restored.err
        assert differences(describe_tree(repository.files), describe_tree(target / "files" / "files")) == []
    by_phrase = repository.run(
        "check", repository.storage, "--read-data", environment={"BACKUP_ADMIN_PASSPHRASE_FILE": str(phrase)}
    )
    assert by_phrase.status == 0, by_phrase.out + by_phrase.err
    assert opens(repository, repository.key) == 12


def test_the_list_says_which_slot_is_used_and_which_is_damaged(repository: World) -> None:
    listed = slots(repository)
    assert {kind: slot["used"] for kind, slot in listed.items()} == {"raw": True, "recovery": False}
    assert {(tuple(slot["keys"]), slot["state"]) for slot in listed.values()} == {((1,), "in use")}

    flip(repository.storage / "keys" / listed["recovery"]["id"])
    done = keys(repository, "list")

    assert done.status == 4
    assert [slot["state"] for slot in done.result["slots"]].count("damaged") == 1
    shown = repository.run("keys", "list", repository.storage, "--key-file", repository.key)
    assert f"problem: Slot {listed['recovery']['id']} is damaged" in shown.err
    assert repository.call("check").status == 4


def test_a_new_recovery_key_is_made_for_the_owner_only_and_opens(repository: World) -> None:
    second = repository.root / "recovery-2"

    done = keys(repository, "add", more=("--recovery-file", second, "--label", "safe"))
    again = keys(repository, "add", more=("--recovery-file", second))

    assert (done.status, again.status) == (0, 0), done.err + again.err
    assert again.result["added"] == done.result["added"]
    assert stat.S_IMODE(second.stat().st_mode) == 0o600
    assert second.read_text().strip() not in done.out + done.err
    assert opens(repository, second) == 0
    assert "safe" in repository.run("keys", "list", repository.storage, "--key-file", second).out


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("--recovery-file", "a", "--new-key-file", "b"),
        ("--passphrase",),
        ("--new-key-file", "bkm1_aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dypqmxj3"),
        ("--new-key-file", "storage/key"),
    ],
)
def test_a_new_secret_that_is_not_clear_or_not_safe_is_refused(
    repository: World, more: tuple[object, ...]
) -> None:
    before = describe_tree(repository.root)

    done = keys(repository, "add", more=more)

    assert (done.status, done.error["code"]) == (2, "usage")
    assert [one for one in differences(before, describe_tree(repository.root)) if "state" not in one] == []


def test_a_passphrase_is_changed_and_the_old_one_is_gone(repository: World) -> None:
    old = secret_file(repository, "old", "correct horse battery staple")
    new = secret_file(repository, "new", "correct horse battery staple two")
    assert keys(repository, "add", more=("--passphrase-file", old)).status == 0

    done = repository.run(
        "keys", "passphrase", repository.storage, "--passphrase-file", new,
        environment={"BACKUP_ADMIN_PASSPHRASE_FILE": str(old)},
    )  # fmt: skip

    ends = [
        repository.run(
            "list", repository.storage, environment={"BACKUP_ADMIN_PASSPHRASE_FILE": str(one)}
        ).status
        for one in (old, new)
    ]
    assert (done.status, ends) == (0, [12, 0]), done.err


def test_a_passphrase_is_asked_for_only_on_a_terminal(repository: World) -> None:
    done = keys(repository, "passphrase")

    assert (done.status, done.error["code"]) == (2, "usage")


def test_a_slot_goes_only_when_enough_others_remain(repository: World) -> None:
    listed = slots(repository)
    own, paper = listed["raw"]["id"], listed["recovery"]["id"]

    refused = [
        keys(repository, "remove", paper),
        keys(repository, "remove", own, more=("--force",)),
        keys(repository, "remove", own, more=("--prove-with", repository.recovery)),
    ]
    assert [(one.status, one.error["code"]) for one in refused] == [(1, "key_refused")] * 3

    done = keys(repository, "remove", own[:5], more=("--prove-with", repository.recovery, "--force"))

    assert (done.status, done.result["removed"]) == (0, [own])
    assert (opens(repository, repository.key), opens(repository, repository.recovery)) == (12, 0)
    last = keys(repository, "remove", paper, key=repository.recovery, more=("--force",))
    assert (last.status, last.error["code"]) == (1, "key_refused")


def test_a_secret_is_proven_on_exactly_one_slot(repository: World) -> None:
    listed = slots(repository)

    right = keys(repository, "verify", key=repository.recovery, more=("--slot", listed["recovery"]["id"]))
    wrong = keys(repository, "verify", more=("--slot", listed["recovery"]["id"]))

    assert (right.status, right.result["slots"]) == (0, [listed["recovery"]["id"]])
    assert right.result["snapshot"] is not None
    assert (wrong.status, wrong.error["code"]) == (12, "wrong_key")


def test_a_cut_off_needs_all_secrets_and_retiring_says_which(repository: World) -> None:
    cut = keys(repository, "rotate", more=("--cut-off",))
    assert (cut.status, cut.error["code"]) == (1, "key_refused")
    assert keys(repository, "rotate", more=("--cut-off", "--with", repository.recovery)).status == 0

    refused = keys(repository, "retire", 1)
    done = keys(repository, "retire", 1, more=("--with", repository.recovery))

    assert (refused.status, refused.error["code"]) == (1, "key_refused")
    assert (done.status, done.result["retired"]) == (0, True)
    assert keys(repository, "retire", 1).status == 2


def test_the_printed_kit_brings_everything_back_step_by_step(repository: World) -> None:
    page = repository.root / "kit.txt"
    made = keys(repository, "kit", more=("--text", page, "--html", repository.root / "kit.html"))
    assert (made.status, made.result["has_recovery_key"]) == (0, False), made.err
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    secret_file(repository, "recovery.key", repository.recovery.read_text().lower().replace("-", " "))

    commands = [
        line.strip() for line in page.read_text().splitlines() if line.strip().startswith("backup-admin ")
    ]
    done = [repository.run(*shlex.split(command)[1:]) for command in commands]

    assert [one.status for one in done] == [0, 0], [one.err for one in done]
    assert (
        differences(
            describe_tree(repository.files), describe_tree(repository.root / "restored" / "files" / "files")
        )
        == []
    )


def test_a_kit_holds_the_recovery_key_only_when_asked_and_only_one_that_opens(repository: World) -> None:
    key = repository.recovery.read_text().strip()
    without = keys(repository, "kit")
    given = keys(repository, "kit", more=("--with-recovery-key", repository.recovery))
    other = secret_file(
        repository, "other", "AAAQEAY-EAUDAOC-AJBIFQY-DIOB4IB-CEQTCQK-RMFYYDE-NBWHA5D-YPQHUKR"
    )
    wrong = keys(repository, "kit", more=("--with-recovery-key", other))
    taken = keys(repository, "kit", more=("--html", other))

    assert not any(group in without.out for group in key.split("-"))
    assert all(group in given.out for group in key.split("-"))
    assert (wrong.status, taken.status) == (12, 2)
    assert other.read_text().startswith("AAAQEAY")


def test_a_passphrase_is_typed_twice_on_a_terminal_and_never_shown(repository: World) -> None:
    typed = "correct horse battery staple"
    command = [sys.executable, "-m", "backup_admin.cli", "keys", "add", "--state-dir", str(repository.state)]
    ends = {}
    for answers in ((typed, typed + "!"), (typed, typed)):
        ours, theirs = os.openpty()
        process = subprocess.Popen(
            [*command, str(repository.storage), "--passphrase", "--key-file", str(repository.key)],
            stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  no threads here
        )  # fmt: skip
        os.close(theirs)
        shown = b""
        for answer, prompt in zip(answers, (b"New passphrase: ", b"The same again: "), strict=True):
            while prompt not in shown:
                shown += os.read(ours, 4096)
            os.write(ours, answer.encode() + b"\n")
        out, _ = process.communicate(timeout=60)
        assert typed.encode() not in shown + out
        os.close(ours)
        ends[answers[1] == typed] = process.returncode

    assert ends == {False: 12, True: 0}
    by_phrase = {"BACKUP_ADMIN_PASSPHRASE": typed}
    assert repository.run("list", repository.storage, environment=by_phrase).status == 0
