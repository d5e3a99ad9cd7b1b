"""The sizes and names ARCHITECTURE and STYLE promise hold for every module."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "backup_admin"
MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST_FUNCTION = 50
LONGEST_MODULE = 400
# ARCHITECTURE names both core/errors.py and web/errors.py.
NAMES_THAT_MAY_REPEAT = {"__init__.py", "__main__.py", "open.py", "base.py", "errors.py"}
VAGUE_NAMES = {"utils.py", "helpers.py", "common.py", "manager.py"}


def name(module: Path) -> str:
    return str(module.relative_to(PACKAGE.parent))


def lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def test_no_function_is_longer_than_fifty_lines() -> None:
    long = [
        f"{name(module)}: {node.name} has {lines(node)} lines"
        for module in MODULES
        for node in ast.walk(ast.parse(module.read_bytes()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and lines(node) > LONGEST_FUNCTION
    ]

    assert long == []


def test_no_module_is_longer_than_four_hundred_lines() -> None:
    sizes = {name(module): len(module.read_text().splitlines()) for module in MODULES}

    assert {key: size for key, size in sizes.items() if size > LONGEST_MODULE} == {}


def test_no_two_modules_share_a_name() -> None:
    names = Counter(module.name for module in MODULES)

    shared = {key for key, count in names.items() if count > 1}

    assert shared - NAMES_THAT_MAY_REPEAT == set()


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [name(module) for module in MODULES if module.name in VAGUE_NAMES] == []


def test_every_module_says_what_it_is_for() -> None:
    trees = {name(module): ast.parse(module.read_bytes()) for module in MODULES}

    # An __init__.py without a single statement needs no explanation.
    silent = [key for key, tree in trees.items() if tree.body]
    silent = [key for key in silent if ast.get_docstring(trees[key]) is None]

    assert silent == []
