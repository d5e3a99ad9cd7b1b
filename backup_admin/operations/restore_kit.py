"""The restore kit: one page on paper, from which a bare machine gets everything back."""

from __future__ import annotations

import html
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.core.clock import parse_time
from backup_admin.core.shown import count_of, show_text
from backup_admin.core.version import VERSION
from backup_admin.operations.key_slots import SlotState, view_slots
from backup_admin.repository.slots import secret_word

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from backup_admin.repository.repository import Repository

_GROUPS = 8
_GROUP_LETTERS = 7
_WIDTH = 78
_STYLE = """
@page { size: A4; margin: 13mm 16mm; }
* { box-sizing: border-box; }
body { font: 9.5pt/1.36 "Helvetica Neue", Arial, "Liberation Sans", sans-serif; color: #111;
  max-width: 178mm; margin: 8mm auto; padding: 0 4mm; }
@media print { body { margin: 0; padding: 0; max-width: none; } }
header { border-bottom: 2.5pt solid #111; padding-bottom: 2.5mm; margin-bottom: 4mm; }
h1 { font-size: 19pt; margin: 0; letter-spacing: -0.3pt; }
header p { margin: 1mm 0 0; color: #333; }
h2 { font-size: 11pt; margin: 3.6mm 0 1.2mm; break-after: avoid; }
p { margin: 0 0 2mm; }
dl { display: grid; grid-template-columns: 34mm 1fr; gap: 1mm 3mm; margin: 0; }
dt { font-weight: 600; } dd { margin: 0; overflow-wrap: anywhere; }
code, pre { font-family: "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: 8.5pt; }
pre { margin: 0.8mm 0 1.5mm; padding: 1.2mm 2.2mm; background: #f3f3f3; border-left: 2pt solid #777;
  white-space: pre-wrap; overflow-wrap: anywhere; print-color-adjust: exact; }
table { border-collapse: collapse; width: 100%; font-size: 9pt; }
th { text-align: left; border-bottom: 1pt solid #111; padding: 0.7mm 2mm 0.7mm 0; }
td { border-bottom: 0.5pt solid #bbb; padding: 1mm 2mm 1mm 0; overflow-wrap: anywhere; }
.key { display: grid; grid-template-columns: repeat(4, 1fr); gap: 2mm; margin: 1.5mm 0; break-inside: avoid; }
.key span { border: 1pt solid #111; height: 11mm; display: flex; align-items: center;
  justify-content: center;
  font: 600 13pt "DejaVu Sans Mono", Menlo, Consolas, monospace; letter-spacing: 1.5pt; position: relative; }
.key i { position: absolute; left: 1mm; top: 0.3mm; font: 6.5pt Arial, sans-serif; color: #555;
  letter-spacing: 0; }
ol { margin: 0; padding-left: 5.5mm; } li { break-inside: avoid; margin-bottom: 1mm; }
.line { border-bottom: 0.7pt solid #777; height: 6.5mm; }
footer { margin-top: 4mm; border-top: 0.7pt solid #777; padding-top: 1.5mm; font-size: 8.5pt; color: #333; }
"""


@dataclass(frozen=True, slots=True)
class KitSlot:
    """One way in, as it stands on the page."""

    id: str
    word: str
    made: str
    label: str


@dataclass(frozen=True, slots=True, repr=False)
class Kit:
    """What stands on the page. `recovery_key` has eight groups, empty to be filled in by hand."""

    storage: str
    repository: str
    made_at: datetime
    snapshots: int
    newest: str
    slots: tuple[KitSlot, ...]
    recovery_key: tuple[str, ...]


def collect_kit(repository: Repository, *, now: datetime, recovery_key: tuple[str, ...] = ()) -> Kit:
    """Gather what the page says."""
    ids = repository.snapshot_ids()
    slots = [
        KitSlot(view.id, secret_word(view.kind), _day(view.created_at), view.label)
        for view in view_slots(repository)
        if view.state is SlotState.IN_USE
    ]
    return Kit(
        storage=repository.label,
        repository=repository.repo_id,
        made_at=now,
        snapshots=len(ids),
        newest=ids[-1] if ids else "",
        slots=tuple(slots),
        recovery_key=recovery_key,
    )


def render_text(kit: Kit) -> str:
    """Write the page as plain text."""
    return "\n".join(_text_lines(kit)) + "\n"


def render_html(kit: Kit) -> str:
    """Write the page as one HTML file without anything from elsewhere."""
    return "\n".join(_html_lines(kit)) + "\n"


def _steps(kit: Kit) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return each step with the commands in it."""
    storage = _quoted(kit.storage)
    return (
        (
            "On any Linux machine with Python 3.11 or later, install the program. No app, queue or "
            f"database is needed. This page was made with version {VERSION}; a later one does as well.",
            ("python3 -m venv restore && . restore/bin/activate", "pip install backup_admin"),
        ),
        (
            "Connect or mount the storage, so that it is found under the address above. If it is "
            "somewhere else now, use that address.",
            (f"ls {storage}/config",),
        ),
        (
            "Type the recovery key into a file that only you can read; end with Enter and Ctrl-D. "
            "Small letters, spaces and missing dashes do not matter; 0, 1 and 8 are read as O, I and B; "
            "a mistake is noticed.",
            ("umask 077", "cat > recovery.key"),
        ),
        (
            "See which snapshots there are, and restore one into an empty folder. Every file and "
            "table is compared with what was backed up.",
            (
                f"backup-admin list {storage} --key-file recovery.key",
                f"backup-admin restore latest {storage} --key-file recovery.key --to ./restored",
            ),
        ),
        (
            "Folders are in restored/files, databases in restored/databases, settings in "
            "restored/settings.json. Put them in their places, start the app, and delete recovery.key.",
            (),
        ),
    )


def _facts(kit: Kit) -> tuple[tuple[str, str], ...]:
    state = "none yet"
    if kit.newest:
        state = f"{count_of(kit.snapshots, 'snapshot')}, the newest is {kit.newest}"
    return (
        ("Storage", show_text(kit.storage)),
        ("Repository", " ".join(kit.repository[at : at + 8] for at in range(0, len(kit.repository), 8))),
        ("Made", f"{kit.made_at:%Y-%m-%d %H:%M} UTC"),
        ("Snapshots then", state),
    )


def _text_lines(kit: Kit) -> Iterator[str]:
    yield "RESTORE KIT"
    yield "=" * _WIDTH
    yield "With this page, the storage and the recovery key everything can be restored."
    yield "Keep it away from the server, and a second copy somewhere else."
    yield ""
    for name, value in _facts(kit):
        yield f"{name:<16}{value}"
    yield ""
    yield "RECOVERY KEY"
    yield "-" * _WIDTH
    groups = kit.recovery_key or ("_" * _GROUP_LETTERS,) * _GROUPS
    yield "  " + "   ".join(groups[: _GROUPS // 2])
    yield "  " + "   ".join(groups[_GROUPS // 2 :])
    yield ""
    yield "WAYS IN"
    yield "-" * _WIDTH
    for slot in kit.slots:
        yield f"  {slot.id}  {slot.word:<16} {slot.made}  {show_text(slot.label)}"
    yield ""
    yield "HOW TO RESTORE"
    yield "-" * _WIDTH
    for number, (text, commands) in enumerate(_steps(kit), 1):
        yield from _wrapped(f"{number}. ", text)
        yield from (f"       {command}" for command in commands)
        yield ""
    yield "WHERE THE STORAGE IS, WHO HAS ACCESS, WHERE THE SECOND COPY IS"
    yield "-" * _WIDTH
    yield from ("", "_" * _WIDTH) * 3


def _html_lines(kit: Kit) -> Iterator[str]:
    yield '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width">'
    yield f"<title>Restore kit</title><style>{_STYLE}</style></head><body>"
    yield "<header><h1>Restore kit</h1><p>With this page, the storage and the recovery key everything can be "
    yield "restored. Keep it away from the server, and a second copy somewhere else.</p></header>"
    facts = "".join(
        f"<dt>{name}</dt><dd><code>{html.escape(value)}</code></dd>" for name, value in _facts(kit)
    )
    yield f"<dl>{facts}</dl>"
    yield f"<h2>Recovery key</h2>{_key_boxes(kit)}"
    rows = "".join(
        f"<tr><td><code>{html.escape(slot.id)}</code></td><td>{html.escape(slot.word)}</td>"
        f"<td>{html.escape(slot.made)}</td><td>{html.escape(show_text(slot.label))}</td></tr>"
        for slot in kit.slots
    )
    yield "<h2>Ways in</h2><table>"
    yield "<thead><tr><th>Slot</th><th>Secret</th><th>Made</th><th>Label</th></tr></thead>"
    yield f"<tbody>{rows}</tbody></table>"
    yield "<h2>How to restore</h2><ol>"
    for text, commands in _steps(kit):
        shown = html.escape("\n".join(commands))
        yield f"<li>{html.escape(text)}{f'<pre>{shown}</pre>' if commands else ''}</li>"
    yield "</ol><h2>Where the storage is, who has access, where the second copy is</h2>"
    yield '<div class="line"></div><div class="line"></div><div class="line"></div>'
    yield "<footer>Try it once a year: restore into an empty folder on another machine. After the keys were "
    yield "changed, print this page again.</footer></body></html>"


def _key_boxes(kit: Kit) -> str:
    groups = kit.recovery_key or ("",) * _GROUPS
    boxes = "".join(
        f"<span><i>{number}</i>{html.escape(group)}</span>" for number, group in enumerate(groups, 1)
    )
    hint = "" if kit.recovery_key else "<p>Eight groups of seven letters and digits, written by hand.</p>"
    return f'{hint}<div class="key">{boxes}</div>'


def _wrapped(head: str, text: str) -> Iterator[str]:
    line = head
    for word in text.split():
        if len(line) + len(word) >= _WIDTH:
            yield line.rstrip()
            line = " " * len(head)
        line += f"{word} "
    yield line.rstrip()


def _day(text: str) -> str:
    try:
        return f"{parse_time(text):%Y-%m-%d}"
    except ValueError:
        return show_text(text)


def _quoted(text: str) -> str:
    """Write an address as a shell takes it."""
    return shlex.quote(show_text(text))
