"""How each state is shown: a level for the colour, a shape, and words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Word:
    """One state for people. `level` is ok, warn, bad, info or none."""

    level: str
    icon: str
    label: str


_WORDS = {
    # runs
    "queued": Word("info", "none", "Waiting"),
    "running": Word("info", "run", "Running"),
    "completed": Word("ok", "ok", "Good"),
    "degraded": Word("warn", "warn", "Degraded"),
    "skipped": Word("none", "skip", "Skipped"),
    "failed": Word("bad", "bad", "Failed"),
    "cancelled": Word("none", "skip", "Cancelled"),
    "interrupted": Word("bad", "bad", "Interrupted"),
    # restores
    "draft": Word("none", "none", "Draft"),
    "restored": Word("ok", "ok", "Restored"),
    "rolled_back": Word("warn", "warn", "Rolled back"),
    "needs_attention": Word("bad", "bad", "Needs attention"),
    "undone": Word("info", "undo", "Undone"),
    # snapshots
    "verified": Word("ok", "ok", "Read back"),
    "unverified": Word("none", "none", "Not read back"),
    "problem": Word("bad", "bad", "Damaged"),
    "missing": Word("bad", "bad", "Missing"),
    "safety": Word("info", "info", "Safety backup"),
    # checks, sources and settings
    "ok": Word("ok", "ok", "Fine"),
    "warn": Word("warn", "warn", "With warnings"),
    "block": Word("bad", "bad", "Not now"),
    "as_expected": Word("ok", "ok", "As expected"),
    "differs": Word("bad", "bad", "Differs"),
    "as_planned": Word("ok", "ok", "As planned"),
    "not_as_planned": Word("warn", "warn", "Not as planned"),
    "found": Word("ok", "ok", "Found"),
    "on": Word("ok", "ok", "On"),
    "off": Word("warn", "warn", "Off"),
    "open": Word("none", "none", "From everywhere"),
    "limited": Word("ok", "ok", "Limited"),
    "confirmed": Word("ok", "ok", "Confirmed"),
    "unconfirmed": Word("warn", "warn", "Not confirmed"),
    # storages
    "holds_all": Word("ok", "ok", "Complete"),
    "problem_there": Word("bad", "bad", "Behind"),
    "rule_kept": Word("ok", "ok", "3-2-1 kept"),
    "rule_open": Word("warn", "warn", "3-2-1 not kept"),
    # streams
    "streams": Word("ok", "run", "Follows"),
    "begins": Word("info", "none", "Begins"),
    "stands": Word("bad", "bad", "Does not follow"),
    # steps of a test of the storage
    "warning": Word("warn", "warn", "Warning"),
    "unknown": Word("none", "none", "Not told"),
    # audit
    "done": Word("ok", "ok", "Done"),
    "denied": Word("warn", "warn", "Denied"),
}


def word(state: str) -> Word:
    """Return how a state is shown; an unknown one is shown as it is written."""
    return _WORDS.get(state) or Word("none", "info", state.replace("_", " ").capitalize())
