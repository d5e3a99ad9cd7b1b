"""The page says what is there, fits one sheet, and lets nothing hostile into it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from backup_admin.operations.key_slots import NewSlot, add_secret
from backup_admin.operations.restore_kit import collect_kit, render_html, render_text
from tests.factories import CLOCK
from tests.keyed import NEW_RAW, make_site

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)


def test_the_page_names_storage_repository_slots_and_newest_snapshot(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    repository = site.open()

    kit = collect_kit(repository, now=NOW)

    for page in (render_text(kit), render_html(kit)):
        assert all(f"{slot.id}" in page for slot in kit.slots)
        assert site.snapshots[-1] in page
        assert repository.repo_id[:8] in page
        assert "2026-03-10 12:00 UTC" in page
    assert {slot.word for slot in kit.slots} == {"application key", "recovery key"}
    assert max(len(line) for line in render_text(kit).splitlines()) <= 100


def test_the_recovery_key_has_room_or_stands_in_its_groups(tmp_path: Path) -> None:
    repository = make_site(tmp_path).open()
    groups = tuple(f"GROUP{number:02d}" for number in range(8))

    empty, full = collect_kit(repository, now=NOW), collect_kit(repository, now=NOW, recovery_key=groups)

    assert render_text(empty).count("_______   _______") == 4
    assert all(group in render_text(full) and f"</i>{group}</span>" in render_html(full) for group in groups)
    assert "GROUP00" not in repr(full)


def test_nothing_hostile_gets_into_the_page(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    hostile = NewSlot(NEW_RAW, "<script>alert(1)</script>\x1b[2J")
    add_secret(site.open(), hostile, actor="tests", clock=CLOCK)

    kit = collect_kit(site.open(), now=NOW)

    assert "<script" not in render_html(kit)
    assert "\x1b" not in render_text(kit) + render_html(kit)
    assert "http" not in render_html(kit)
