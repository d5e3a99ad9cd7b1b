"""Which storages a page may choose, and which only the deployment may name."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from backup_admin.control.engine import open_chosen
from backup_admin.core.errors import UsageError

if TYPE_CHECKING:
    from tests.unit.web.host import Host

PRIVATE = "s3://backups/app?endpoint=http://127.0.0.1:9000"
METADATA = "s3://backups/app?endpoint=http://169.254.169.254"


def test_a_page_chooses_no_private_address_unless_the_deployment_allows_it(bare_host: Host) -> None:
    settings = bare_host.installation.settings

    with pytest.raises(UsageError, match="private address"):
        open_chosen(PRIVATE, settings)
    assert open_chosen(PRIVATE, replace(settings, private_storage=True)).label


def test_what_the_deployment_pins_may_be_private(bare_host: Host) -> None:
    settings = replace(bare_host.installation.settings, storage=PRIVATE)

    assert open_chosen(PRIVATE, settings).label


@pytest.mark.parametrize("allowed", [False, True])
def test_a_metadata_service_is_no_storage_whoever_says_so(bare_host: Host, allowed: bool) -> None:
    settings = replace(bare_host.installation.settings, private_storage=allowed, storage=METADATA)

    with pytest.raises(UsageError, match="refused"):
        open_chosen(METADATA, settings)
