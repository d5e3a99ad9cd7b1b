"""The list of safety checks names what is there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.mutants.checks import CHECKS, Check

ROOT = Path(__file__).parents[2]
each_check = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.title)


def test_at_least_forty_checks_are_listed_each_once() -> None:
    assert len({check.title for check in CHECKS}) == len(CHECKS) >= 40


@each_check
def test_the_text_of_a_check_occurs_once_and_what_replaces_it_is_python(check: Check) -> None:
    text = (ROOT / check.file).read_text()

    assert text.count(check.old) == 1
    ast.parse(text.replace(check.old, check.new))


@each_check
def test_the_tests_that_guard_a_check_are_there(check: Check) -> None:
    assert check.tests
    assert [test for test in check.tests if not (ROOT / test.partition("::")[0]).is_file()] == []
