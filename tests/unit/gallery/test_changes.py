import shutil
from pathlib import Path

from examples.gallery.changes import churn, damage
from examples.gallery.compare import (
    GalleryState,
    describe_gallery,
    gallery_differences,
)
from examples.gallery.fill import check_links


def describe(data: Path) -> GalleryState:
    return describe_gallery(data / "storage", data / "gallery.db")


def test_damage_hurts_files_and_rows(data: Path) -> None:
    before = describe(data)

    done = damage(data)

    after = describe(data)
    assert (done.files, done.events, done.scrambled) == (14, 1, 5)
    assert len(after.tree) == len(before.tree) - 14
    assert after.database["table events"].rows == 2
    assert after.database["table photo_feedback"].rows == 0
    assert check_links(data)


def test_a_scrambled_photo_keeps_its_size_and_time(data: Path) -> None:
    before = describe(data).tree

    damage(data)

    changed = {
        name: entry
        for name, entry in describe(data).tree.items()
        if entry.kind == "file" and entry != before[name]
    }
    assert len(changed) == 5
    assert all(entry.mtime_ns == before[name].mtime_ns for name, entry in changed.items())


def test_days_bring_events_and_logs(data: Path) -> None:
    before = describe(data)

    churn(data, 4)

    after = describe(data)
    assert after.database["table events"].rows == 5
    assert after.database["table access_logs"].rows == 300 + 4 * 90
    assert len(after.tree) > len(before.tree)
    assert check_links(data) == []


def test_a_week_sends_one_event_to_the_archive(data: Path) -> None:
    churn(data, 7)

    archives = list((data / "storage/events/archived").iterdir())
    assert [path.suffix for path in archives] == [".zip"]
    assert check_links(data) == []


def test_the_same_days_are_the_same(filled: Path, data: Path, tmp_path: Path) -> None:
    churn(data, 3)
    first = describe(data)
    other = tmp_path / "other"
    shutil.copytree(filled, other, symlinks=True)

    churn(other, 3)

    assert gallery_differences(first, describe(other), folder_times=False) == []
