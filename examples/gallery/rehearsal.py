"""One full round without a person: back up, destroy, restore, compare."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from examples.gallery.app import create_app
from examples.gallery.backstage import running_queue, running_worker
from examples.gallery.changes import damage
from examples.gallery.compare import GalleryState, describe_gallery, gallery_differences
from examples.gallery.fill import Profile, check_links
from examples.gallery.folders import EXCLUDED_FOLDERS, Folders
from examples.gallery.household import keep_house, lose_everything
from examples.gallery.product import (
    ProductError,
    RunOutcome,
    init_repository,
    restore_latest,
    trigger_backup,
    wait_for_run,
)

_Result = TypeVar("_Result")


def rehearse(profile: Profile) -> list[str]:
    """Play the whole story in a temporary folder; return what a restore got wrong."""
    with tempfile.TemporaryDirectory(prefix="gallery-") as folder:
        data = Path(folder) / "data"
        _step("filled", lambda: keep_house(data, profile))
        before = describe(data)
        with running_queue(data):
            app = create_app({"GALLERY_DATA": data})
            _step("repository made", lambda: init_repository(app))
            with running_worker(app, data):
                run_id = trigger_backup(app)
                _expect_success(_step("backed up", lambda: wait_for_run(app, run_id)))
                _step("destroyed", lambda: destroy(data))
                _expect_success(_step("restored", lambda: restore_latest(app)))
        return gallery_differences(before, describe(data)) + [
            f"A photo has lost {path}." for path in check_links(data)
        ]


def describe(data: Path) -> GalleryState:
    """Describe what a restore must bring back: all but the scratch folders."""
    folders = Folders(data)
    return describe_gallery(folders.storage, folders.database, exclude=EXCLUDED_FOLDERS)


def destroy(data: Path) -> None:
    """Damage the rows and lose every file."""
    damage(data)
    lose_everything(data)


def _step(name: str, act: Callable[[], _Result]) -> _Result:
    began = time.monotonic()
    result = act()
    click.echo(f"{name} in {time.monotonic() - began:.1f} s")
    return result


def _expect_success(outcome: RunOutcome) -> None:
    click.echo(f"  {outcome.summary}")
    if not outcome.succeeded:
        raise ProductError(f"{outcome.id} did not succeed: {outcome.summary}")
