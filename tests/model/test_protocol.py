"""Every order of steps of three writers and two collectors is tried: no snapshot loses anything."""

from __future__ import annotations

import gc

import pytest

from tests.model.protocol import Rules, State, begin, is_sound, next_states


def explore(rules: Rules, writers: int = 3) -> tuple[int, int | None]:
    """Visit every state there is; return how many, and the fewest steps to one that is not sound."""
    gc.disable()  # nothing here is ever dropped, and looking for it takes half of the time
    try:
        return _explore(rules, writers)
    finally:
        gc.enable()


def _explore(rules: Rules, writers: int) -> tuple[int, int | None]:
    frontier = [begin(writers)]
    seen: set[State] = set(frontier)
    steps = 0
    while frontier:
        steps += 1
        found: list[State] = []
        for state in frontier:
            for after in next_states(state, rules):
                if after not in seen:
                    if not is_sound(after):
                        return len(seen), steps
                    seen.add(after)
                    found.append(after)
        frontier = found
    return len(seen), None


@pytest.mark.parametrize(
    ("writers", "rules", "states"),
    [
        pytest.param(3, Rules(unknown_packs_go=0), 180_000, id="three writers"),
        pytest.param(2, Rules(), 90_000, id="two writers beside packs that nothing names"),
        pytest.param(
            3,
            Rules(unknown_packs_go=1, puts_may_come_late=False),
            640_000,
            id="three writers beside packs that nothing names",
            marks=pytest.mark.long,
        ),
    ],
)
def test_no_order_of_steps_loses_what_a_snapshot_needs(writers: int, rules: Rules, states: int) -> None:
    count, violation = explore(rules, writers)

    assert violation is None
    assert count >= states


@pytest.mark.parametrize(
    ("rules", "steps"),
    [
        pytest.param(Rules(writer_looks_again=False), 8, id="a writer that does not look again"),
        pytest.param(Rules(collector_marks_again=False), 7, id="a collector that does not mark again"),
        pytest.param(Rules(taken_names_never_return=False), 15, id="a name that was taken and comes back"),
        pytest.param(Rules(collector_checks_its_own=False), 10, id="a collector that relies on what is gone"),
    ],
)
def test_without_one_of_the_rules_something_is_lost(rules: Rules, steps: int) -> None:
    assert explore(rules, writers=2)[1] == steps
