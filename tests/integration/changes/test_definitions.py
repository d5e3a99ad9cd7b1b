"""Definitions of PostgreSQL that change in unusual places are seen: what `pg_dump` writes is the judge."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.changes.test_postgres import Site
from tests.services.postgres_oracle import dump_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.services.postgres import PostgresServer

pytestmark = pytest.mark.integration

SETUP = """CREATE SEQUENCE unused;
CREATE TABLE parent (a int, b int);
CREATE SEQUENCE owned OWNED BY parent.a;
CREATE TABLE child () INHERITS (parent);
CREATE MATERIALIZED VIEW later AS SELECT 1 AS one WITH NO DATA;
CREATE TABLE wide (t text);
CREATE TABLE keyed (id int PRIMARY KEY, x int);
CREATE INDEX of_an_expression ON keyed ((x + 1));
CREATE UNLOGGED TABLE unlogged (x int);
CREATE TABLE parted (id int) PARTITION BY RANGE (id);
CREATE TABLE first_part PARTITION OF parted FOR VALUES FROM (0) TO (10);
CREATE TABLE second_part (id int);
CREATE RULE kept AS ON DELETE TO parent DO INSTEAD NOTHING"""
CHANGES = {
    "an unused sequence set": "SELECT setval('unused', 90, false)",
    "an unused sequence begun anew": "ALTER SEQUENCE unused RESTART WITH 77",
    "a sequence of another column": "ALTER SEQUENCE owned OWNED BY parent.b",
    "a sequence of nobody": "ALTER SEQUENCE owned OWNED BY NONE",
    "a view filled": "REFRESH MATERIALIZED VIEW later",
    "an option of what is beside a table": "ALTER TABLE wide SET (toast.autovacuum_enabled = false)",
    "storage": "ALTER TABLE wide ALTER t SET STORAGE EXTERNAL",
    "order": "ALTER TABLE keyed CLUSTER ON keyed_pkey",
    "statistics of an index": "ALTER INDEX of_an_expression ALTER COLUMN 1 SET STATISTICS 500",
    "logged": "ALTER TABLE unlogged SET LOGGED",
    "a part more": "ALTER TABLE parted ATTACH PARTITION second_part FOR VALUES FROM (10) TO (20)",
    "a part less": "ALTER TABLE parted DETACH PARTITION first_part",
    "no child": "ALTER TABLE child NO INHERIT parent",
    "a rule turned off": "ALTER TABLE parent DISABLE RULE kept",
    "rights to come": "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
    "a right on a column": "GRANT SELECT (a) ON parent TO PUBLIC",
    "extended statistics": "CREATE STATISTICS both_of_them ON a, b FROM parent",
}
OF_A_SUPERUSER = {
    "publication": "CREATE PUBLICATION everything FOR ALL TABLES",
    "cast": "CREATE CAST (text AS int) WITH INOUT",
    "server": "CREATE FOREIGN DATA WRAPPER far;\nCREATE SERVER there FOREIGN DATA WRAPPER far",
    "subscription": "CREATE SUBSCRIPTION from_there CONNECTION 'host=127.0.0.1 dbname=x' PUBLICATION p "
    "WITH (connect = false, slot_name = NONE, enabled = false, create_slot = false)",
}


@pytest.fixture
def site(postgres: PostgresServer, tmp_path: Path) -> Iterator[Site]:
    made = Site(postgres, tmp_path / "state")
    made.run(SETUP)
    made.watched.back_up()
    with made.app:
        yield made


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_change_of_any_definition_is_seen(site: Site, change: str) -> None:
    site.watched.says_skip()
    before = dump_text(site.server, site.name)

    site.in_the_app(change)

    assert site.watched.says_run()
    assert dump_text(site.server, site.name) != before


@pytest.mark.parametrize("change", OF_A_SUPERUSER.values(), ids=OF_A_SUPERUSER.keys())
def test_what_only_a_superuser_changes_is_seen(site: Site, change: str) -> None:
    site.watched.says_skip()

    site.server.run(change, site.name)
    reason = site.watched.look().reason
    if "SUBSCRIPTION" in change:  # else nobody can drop the database
        site.server.run("DROP SUBSCRIPTION from_there", site.name)

    assert reason == "Database app: its schema, or what belongs to the database itself, changed."
