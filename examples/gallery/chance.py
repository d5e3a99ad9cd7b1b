"""Repeatable chance: everything the gallery invents comes from a numbered seed."""

from random import Random


def seeded(*parts: object) -> Random:
    """Return a generator that gives the same values for the same parts, on any machine."""
    return Random("/".join(map(str, parts)))  # noqa: S311  # invented data, not secrets
