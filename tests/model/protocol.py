"""The protocol between writers and collectors as a machine that can be tried out whole.

One chunk A, needed by a first snapshot that is going to be forgotten and by every writer,
and one chunk B that a snapshot needs for ever. Pack 0 holds both, so that it is worth
writing anew once A is not needed. Each step is one call that others can come between;
whoever stops for ever just takes no further step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

WRITERS = 3
COLLECTORS = 2
ATTEMPTS = 2
FIRST = 1 << 0  # pack 0: A and B
_FRESH = [
    [1 << (1 + ATTEMPTS * writer + attempt) for attempt in range(ATTEMPTS)] for writer in range(WRITERS)
]
_REPACKED = [
    [1 << (1 + ATTEMPTS * WRITERS + ATTEMPTS * collector + attempt) for attempt in range(ATTEMPTS)]
    for collector in range(COLLECTORS)
]
HOLDS_A = FIRST | sum(sum(row) for row in _FRESH)
HOLDS_B = FIRST | sum(sum(row) for row in _REPACKED)
OLD_SNAPSHOT = 1 << WRITERS
# Where a process stands.
LOOK, PUT, PROVE, COMMIT, DONE = range(5)
MARK, LIST, TAKE, DELETE, END, FINISHED = range(6)


class Writer(NamedTuple):
    """A backup: its own pack, and what it knows of entries since it began."""

    at: int = LOOK
    attempt: int = 0
    own: int = 0
    stale: bool = False
    taken: int = 0


class Collector(NamedTuple):
    """A prune: what it wants to take, what it stored anew, what it goes on to delete."""

    at: int = MARK
    wanted: int = 0
    stored: int = 0
    put: int = 0
    attempt: int = 0
    taken: int = 0
    stale: bool = False
    left: int = 0
    done: int = 0


class State(NamedTuple):
    """What the chain says (`listed`, `collected`, `live`), what is stored, and everybody's place."""

    listed: int
    collected: int
    stored: int
    live: int
    writers: tuple[Writer, ...]
    collectors: tuple[Collector, ...]


def begin(writers: int) -> State:
    """Return the state in which nobody has done anything."""
    return State(FIRST, 0, FIRST, OLD_SNAPSHOT, (Writer(),) * writers, (Collector(),) * COLLECTORS)


@dataclass(frozen=True)
class Rules:
    """Which rules hold, a mutant lacks one; and how much may happen."""

    writer_looks_again: bool = True
    collector_marks_again: bool = True
    taken_names_never_return: bool = True
    collector_checks_its_own: bool = True
    puts_may_come_late: bool = True
    unknown_packs_go: int = 2
    """How many of the collectors delete packs that nothing names."""


def is_sound(state: State) -> bool:
    """Say whether every pack on the books is stored, and every snapshot has its chunks."""
    books = state.listed & ~state.collected
    return not books & ~state.stored and bool(books & HOLDS_B) and (not state.live or bool(books & HOLDS_A))


def next_states(state: State, rules: Rules) -> Iterator[State]:
    """Yield every state that one step of anybody leads to."""
    if state.live & OLD_SNAPSHOT:
        yield _chain_moved(state._replace(live=state.live & ~OLD_SNAPSHOT), 0)
    for number, writer in enumerate(state.writers):
        if writer.at != DONE:
            yield from _write(state, number, writer, rules)
    for number, collector in enumerate(state.collectors):
        if collector.at != FINISHED:
            yield from _collect(state, number, collector, rules)


def _write(state: State, number: int, writer: Writer, rules: Rules) -> Iterator[State]:
    if writer.at == LOOK:
        known = state.listed & ~state.collected & HOLDS_A
        if known:
            yield _set_writer(state, number, Writer(PROVE, writer.attempt))
        elif writer.attempt < ATTEMPTS:
            fresh = _FRESH[number][writer.attempt if rules.taken_names_never_return else 0]
            yield _set_writer(state, number, Writer(PUT, writer.attempt + 1, fresh))
    elif writer.at == PUT:
        put = state._replace(stored=state.stored | writer.own)
        yield _set_writer(put, number, writer._replace(at=PROVE))
    elif writer.at == PROVE:
        if writer.own & ~state.stored:
            yield _set_writer(state, number, Writer(LOOK, writer.attempt))
        else:
            yield _set_writer(state, number, writer._replace(at=COMMIT))
    else:
        yield from _commit(state, number, writer, rules)


def _commit(state: State, number: int, writer: Writer, rules: Rules) -> Iterator[State]:
    if rules.puts_may_come_late and writer.own and not state.stored & writer.own:
        # A put whose answer was lost is tried again, and may come after a collector.
        yield state._replace(stored=state.stored | writer.own)
    if not writer.stale:
        committed = state._replace(listed=state.listed | writer.own, live=state.live | 1 << number)
        yield _set_writer(_chain_moved(committed, 0), number, Writer(DONE))
        return
    books = (state.listed | writer.own) & ~state.collected & ~writer.taken
    if rules.writer_looks_again and (writer.taken & writer.own or not books & HOLDS_A):
        yield _set_writer(state, number, Writer(LOOK, writer.attempt))
    else:
        yield _set_writer(state, number, writer._replace(stale=False))


def _collect(state: State, number: int, collector: Collector, rules: Rules) -> Iterator[State]:
    if collector.at == MARK:
        yield from _mark(state, number, collector, rules)
    elif collector.at == LIST:
        with_own = state
        if collector.stored & ~collector.put:
            with_own = state._replace(stored=state.stored | collector.stored)
        ready = collector._replace(at=TAKE, put=collector.stored)
        yield _set_collector(with_own, number, ready)
        unknown = state.stored & ~state.listed & ~state.collected & ~collector.stored
        if unknown and number < rules.unknown_packs_go:
            yield _set_collector(with_own, number, ready._replace(wanted=collector.wanted | unknown))
    elif collector.at == TAKE:
        if collector.stale and rules.collector_marks_again:
            again = collector._replace(at=MARK, wanted=0, stale=False)
            yield _set_collector(state, number, again)
        else:
            yield _take(state, number, collector)
    elif collector.at == DELETE:
        pack = collector.left & -collector.left
        deleted = state._replace(stored=state.stored & ~pack)
        left = collector.left & ~pack
        then = collector._replace(at=DELETE if left else END, left=left, done=collector.done | pack)
        yield _set_collector(deleted, number, then)
    else:
        ended = state._replace(collected=state.collected & ~collector.done)
        yield _set_collector(_chain_moved(ended, 0), number, Collector(FINISHED))


def _mark(state: State, number: int, collector: Collector, rules: Rules) -> Iterator[State]:
    """Decide what may go and what has to be stored anew before, as the chain stands now."""
    books = state.listed & ~state.collected
    own = collector.stored
    if rules.collector_checks_its_own and own & collector.taken:
        own = 0
    ready = collector._replace(at=LIST, stored=own, taken=0)
    home_b = own or _lowest(books & HOLDS_B)
    home_a = _lowest(books & HOLDS_A) if state.live else 0
    wanted = books & ~home_a & ~home_b
    yield _set_collector(state, number, ready._replace(wanted=wanted))
    if home_b == FIRST != home_a and collector.attempt < ATTEMPTS:
        fresh = _REPACKED[number][collector.attempt]
        anew = ready._replace(wanted=wanted | FIRST, stored=fresh, attempt=collector.attempt + 1)
        yield _set_collector(state, number, anew)


def _take(state: State, number: int, collector: Collector) -> State:
    wanted = collector.wanted
    if not wanted and not state.collected:
        return _set_collector(state, number, Collector(FINISHED))
    collected = state.collected | wanted
    taken = state._replace(listed=(state.listed | collector.stored) & ~wanted, collected=collected)
    return _set_collector(_chain_moved(taken, wanted), number, Collector(DELETE, left=collected))


def _lowest(packs: int) -> int:
    return packs & -packs


def _chain_moved(state: State, taken: int) -> State:
    """Let everybody who read the chain before be behind it, and learn what was taken when he looks."""
    return state._replace(
        writers=tuple(
            w._replace(stale=True, taken=w.taken | taken) if LOOK < w.at < DONE else w for w in state.writers
        ),
        collectors=tuple(
            c._replace(stale=c.at > MARK, taken=c.taken | taken & c.stored) if c.at < DELETE else c
            for c in state.collectors
        ),
    )


def _set_writer(state: State, number: int, writer: Writer) -> State:
    writers = state.writers
    return state._replace(writers=(*writers[:number], writer, *writers[number + 1 :]))


def _set_collector(state: State, number: int, collector: Collector) -> State:
    collectors = state.collectors
    return state._replace(collectors=(*collectors[:number], collector, *collectors[number + 1 :]))
