"""The strip of the last days as an SVG made here: no script, no inline style."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

from backup_admin.web.formats import count, day
from backup_admin.web.words import word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backup_admin.control.overview import Day

_STEP, _TOP, _HEIGHT = 24, 18, 52
_GOOD = Markup('<circle class="ba-ok" cx="{x}" cy="{y}" r="7"/>')
_SHAPES = {
    "completed": _GOOD,
    "degraded": Markup('<path class="ba-warn" d="M{x} {up}l8.5 15h-17z"/>'),
    "failed": Markup(
        '<path class="ba-bad" d="m{left} {up2} 12 12m0-12-12 12" stroke-width="4" stroke-linecap="round"/>'
    ),
    "skipped": Markup('<circle class="ba-skip-mark" cx="{x}" cy="{y}" r="6" fill="none" stroke-width="2"/>'),
    "running": Markup(
        '<circle class="ba-run" cx="{x}" cy="{y}" r="6" fill="none" stroke-width="2" stroke-dasharray="4 3"/>'
    ),
    "": Markup('<circle class="ba-none" cx="{x}" cy="{y}" r="1.8"/>'),
}
_SAME_SHAPE = {"interrupted": "failed", "cancelled": "skipped", "queued": "running"}


def strips(days: Sequence[Day]) -> Markup:
    """Draw the days in two halves, which stand below each other on a phone."""
    middle = len(days) // 2
    halves = (strip(days[:middle], "first"), strip(days[middle:], "last"))
    return Markup('<div class="ba-strips">{}</div>').format(Markup("").join(halves))


def strip(days: Sequence[Day], name: str) -> Markup:
    """Draw one mark for each day: disc good, triangle degraded, cross failed, ring skipped."""
    width = _STEP * len(days)
    marks = Markup("").join(_mark(index, item) for index, item in enumerate(days))
    labels = Markup("").join(_label(index, item) for index, item in enumerate(days) if index % 5 == 0)
    first, last = (day(days[index].date) for index in (0, -1))
    return Markup(
        '<svg class="ba-strip" viewBox="0 0 {width} {height}" role="img" '
        'aria-labelledby="ba-strip-{name} ba-strip-{name}-text">'
        '<title id="ba-strip-{name}">Backups from {first} to {last}</title>'
        '<desc id="ba-strip-{name}-text">{text}</desc>'
        '<path class="ba-axis" d="M0 {axis}h{width}"/>{marks}{labels}</svg>'
    ).format(
        name=name,
        width=width,
        height=_HEIGHT,
        first=first,
        last=last,
        text=_summary(days),
        axis=_TOP + 14,
        marks=marks,
        labels=labels,
    )


def _mark(index: int, item: Day) -> Markup:
    x = index * _STEP + _STEP // 2
    shape = _SHAPES.get(_SAME_SHAPE.get(item.status, item.status), _SHAPES[""])
    drawn = shape.format(x=x, y=_TOP, up=_TOP - 9, up2=_TOP - 6, left=x - 6)
    said = word(item.status).label if item.status else "no run"
    return Markup("<g><title>{day}: {said}</title>{drawn}</g>").format(
        day=day(item.date), said=said, drawn=drawn
    )


def _label(index: int, item: Day) -> Markup:
    return Markup('<text x="{x}" y="{y}">{day}</text>').format(
        x=index * _STEP + 2, y=_HEIGHT - 4, day=day(item.date)
    )


def _summary(days: Sequence[Day]) -> str:
    with_runs = [item for item in days if item.status]
    good = sum(item.status == "completed" for item in with_runs)
    bad = sum(item.status in ("failed", "interrupted", "degraded") for item in with_runs)
    return f"{count(good, 'day')} good, {bad} with trouble, {len(days) - len(with_runs)} without a run."
