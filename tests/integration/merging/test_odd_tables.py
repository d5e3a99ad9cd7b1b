"""Keys, names and tables of every kind, on both engines where both have them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from backup_admin.core.errors import NotPermitted, RestoreRefused, UsageError
from backup_admin.sources.merging.merge_model import MergeRequest, OnConflict, TableMerge
from tests.services.small_gallery import PostgresDatabase, SqliteDatabase, postgres_database, table_hash

if TYPE_CHECKING:
    from pathlib import Path

    from tests.services.postgres import PostgresServer
    from tests.services.small_gallery import Database

pytestmark = pytest.mark.integration


def counts(database: Database, request: MergeRequest) -> dict[str, TableMerge]:
    dry = database.merge(request, dry=True)
    report = database.merge(request)
    assert dry == report
    assert not report.is_refused, report
    return {table.table: table for table in report.tables}


def test_composite_keys_with_commas_and_quotes_in_their_values(database: Database) -> None:
    database.run(
        'CREATE TABLE "od""d" (a text, "b,;" text, v int, PRIMARY KEY (a, "b,;"))',
        "CREATE TABLE kid (id int PRIMARY KEY, x text, y text, "
        'FOREIGN KEY (x, y) REFERENCES "od""d" (a, "b,;"))',
        """INSERT INTO "od""d" VALUES ('1,2', 'it''s "x"', 1), ('1', '2', 2)""",
        """INSERT INTO kid VALUES (1, '1,2', 'it''s "x"'), (2, '1', '2'), (3, '1,2', NULL)""",
    )
    database.capture()
    database.run("DELETE FROM kid", 'DELETE FROM "od""d"')

    found = counts(database, MergeRequest(rows=(('od"d', '"1,2","it\'s ""x"""'),)))

    assert found == {"kid": TableMerge("kid", insert=1), 'od"d': TableMerge('od"d', insert=1)}
    assert database.rows('SELECT v FROM "od""d"') == [(1,)]
    assert database.rows("SELECT id FROM kid") == [(1,)]
    wanted = r"2 columns, and '1' has 1 value. Nothing was touched. Write a value of each.*: a,b,;;"
    with pytest.raises(UsageError, match=wanted):
        database.merge(MergeRequest(rows=(('od"d', "1"),)))
    with pytest.raises(UsageError, match=r"cannot be read: .* Nothing was touched. Write its values"):
        database.merge(MergeRequest(rows=(('od"d', '"1'),)))


def test_a_key_of_one_column_may_be_in_double_quotes(database: Database) -> None:
    values = ("a,b", '"a,b"', "x", 'half"', '"', "")
    database.run("CREATE TABLE word (w text PRIMARY KEY, n int)")
    for number, value in enumerate(values):
        database.run(f"INSERT INTO word VALUES ('{value}', {number})")
    database.capture()
    database.run("DELETE FROM word")
    keys = (
        ('"a,b"', 0),
        ("a,b", 0),
        ('"""a,b"""', 1),
        ('"x"', 2),
        ('half"', 3),
        ('"half"""', 3),
        ('"', 4),
        ('""""', 4),
        ('""', 5),
    )

    for key, number in keys:
        database.merge(MergeRequest(rows=(("word", key),)))
        assert database.rows("SELECT n FROM word") == [(number,)], key
        database.run("DELETE FROM word")
    with pytest.raises(RestoreRefused, match="no row of word with the key"):
        database.merge(MergeRequest(rows=(("word", '"a,b'),)))


def test_a_chain_of_rows_of_one_table_comes_back_whole(database: Database) -> None:
    database.run(
        "CREATE TABLE node (id int PRIMARY KEY, parent int REFERENCES node ON DELETE CASCADE, v text)",
        "INSERT INTO node VALUES (1, NULL, 'root'), (2, 1, 'a'), (3, 2, 'b'), (4, 3, 'c'), (9, 1, 'other')",
        "INSERT INTO node VALUES (7, 7, 'itself')",
    )
    database.capture()
    database.run("DELETE FROM node WHERE id IN (2, 7)")

    found = counts(database, MergeRequest(rows=(("node", "2"), ("node", "7"))))

    assert found == {"node": TableMerge("node", insert=4)}
    assert len(database.rows("SELECT * FROM node")) == 6
    database.run("DELETE FROM node")
    found = counts(database, MergeRequest(rows=(("node", "4"),)))
    assert found == {"node": TableMerge("node", insert=1, parents=3)}


def test_a_key_to_a_unique_column_that_is_not_the_primary_one(database: Database) -> None:
    database.run(
        "CREATE TABLE genre (id int PRIMARY KEY, code text UNIQUE NOT NULL)",
        "CREATE TABLE book (id int PRIMARY KEY, genre text REFERENCES genre (code))",
        "INSERT INTO genre VALUES (1, 'sf'), (2, 'crime')",
        "INSERT INTO book VALUES (1, 'sf'), (2, 'crime'), (3, NULL)",
    )
    database.capture()
    database.run("DELETE FROM book", "DELETE FROM genre")

    found = counts(database, MergeRequest(rows=(("book", "1"), ("book", "3"))))

    assert found == {"book": TableMerge("book", insert=2), "genre": TableMerge("genre", parents=1)}
    database.run("DELETE FROM book", "UPDATE genre SET id = 2")
    request = MergeRequest(rows=(("book", "2"),), on_conflict=OnConflict.OVERWRITE)
    assert database.merge(request).refusals == (
        "1 row of book refers (genre) to rows of genre that are not live and cannot come along.",
    )
    assert database.rows("SELECT * FROM genre") == [(2, "sf")]
    assert database.rows("SELECT * FROM book") == []


def test_a_loop_of_tables_comes_back(database: Database) -> None:
    database.run(
        "CREATE TABLE a (id int PRIMARY KEY, b int NOT NULL)",
        "CREATE TABLE b (id int PRIMARY KEY, a int NOT NULL REFERENCES a)",
    )
    if isinstance(database, PostgresDatabase):
        database.run('ALTER TABLE a ADD CONSTRAINT "a\'s b" FOREIGN KEY (b) REFERENCES b DEFERRABLE')
        database.run(
            "BEGIN; SET CONSTRAINTS ALL DEFERRED; INSERT INTO a VALUES (1, 1), (2, 2);"
            "INSERT INTO b VALUES (1, 1), (2, 2); COMMIT",
            'ALTER TABLE a ALTER CONSTRAINT "a\'s b" NOT DEFERRABLE',
        )
    else:
        database.run("DROP TABLE a", "CREATE TABLE a (id int PRIMARY KEY, b int NOT NULL REFERENCES b)")
        database.run(
            "PRAGMA foreign_keys=OFF",
            "INSERT INTO a VALUES (1, 1), (2, 2)",
            "INSERT INTO b VALUES (1, 1), (2, 2)",
        )
    database.capture()
    before = database.dump()
    if isinstance(database, PostgresDatabase):
        database.run("TRUNCATE a, b")
    else:
        database.run("PRAGMA foreign_keys=OFF", "DELETE FROM a", "DELETE FROM b")

    found = counts(database, MergeRequest(rows=(("a", "1"), ("a", "2"))))

    assert found == {"a": TableMerge("a", insert=2), "b": TableMerge("b", insert=2)}
    assert database.dump() == before


def test_rows_without_a_key_come_back_as_often_as_they_were(database: Database) -> None:
    database.run(
        "CREATE TABLE thing (id int PRIMARY KEY)",
        "CREATE TABLE tag (thing int REFERENCES thing, word text)",
        "INSERT INTO thing VALUES (1), (2)",
        "INSERT INTO tag VALUES (1, 'x'), (1, 'x'), (1, NULL), (1, ''), (2, 'x')",
    )
    database.capture()
    database.run("DELETE FROM tag", "INSERT INTO tag VALUES (1, 'x'), (2, 'new')")

    found = counts(database, MergeRequest(rows=(("thing", "1"),)))

    assert found == {"thing": TableMerge("thing", equal=1), "tag": TableMerge("tag", insert=3, equal=1)}
    rows = database.rows("SELECT thing, word FROM tag ORDER BY thing, word NULLS FIRST")
    assert rows == [(1, None), (1, ""), (1, "x"), (1, "x"), (2, "new")]
    with pytest.raises(RestoreRefused, match="no primary key"):
        database.merge(MergeRequest(rows=(("tag", "1"),)))


def test_columns_that_came_or_went_since_are_told_and_the_rest_is_restored(database: Database) -> None:
    database.run(
        "CREATE TABLE t (id int PRIMARY KEY, gone text, v text)",
        "INSERT INTO t VALUES (1, 'x', 'y')",
        "CREATE TABLE dropped (id int PRIMARY KEY, t int REFERENCES t)",
    )
    database.capture()
    database.run(
        "DROP TABLE dropped",
        "ALTER TABLE t DROP COLUMN gone",
        "ALTER TABLE t ADD COLUMN new int DEFAULT 5",
        "DELETE FROM t",
    )

    report = database.merge(MergeRequest(rows=(("t", "1"),)))

    assert database.rows("SELECT id, v, new FROM t") == [(1, "y", 5)]
    assert "t: the snapshot does not have new; new rows get the default." in report.notes
    assert "t: live takes no value for gone; what the snapshot has is left out." in report.notes
    assert (
        "The live database does not have dropped: what belongs to these rows there does not come back."
        in report.notes
    )


def test_tables_that_are_not_live_are_named_where_their_rows_belong_to_what_comes_back(
    database: Database,
) -> None:
    database.run(
        "CREATE TABLE event (id int PRIMARY KEY)",
        "CREATE TABLE people (id int PRIMARY KEY)",
        "CREATE TABLE mail (id int PRIMARY KEY, event int REFERENCES event (id) ON DELETE SET NULL)",
        "CREATE TABLE photo (id int PRIMARY KEY, event int REFERENCES event (id) ON DELETE CASCADE)",
        "CREATE TABLE vote (id int PRIMARY KEY, photo int REFERENCES photo (id))",
        "INSERT INTO event VALUES (1)",
        "INSERT INTO people VALUES (1)",
    )
    database.capture()
    database.run("DROP TABLE vote", "DROP TABLE photo", "DROP TABLE mail", "DELETE FROM event")

    of_event = database.merge(MergeRequest(rows=(("event", "1"),)), dry=True).notes
    of_people = database.merge(MergeRequest(rows=(("people", "1"),)), dry=True).notes

    def note(names: str) -> tuple[str, ...]:
        return (
            f"The live database does not have {names}: what belongs to these rows there does not come back.",
        )

    if isinstance(database, PostgresDatabase):  # its snapshot tells no foreign keys
        assert of_event == of_people == note("mail, photo, vote")
    else:
        assert (of_event, of_people) == (note("photo, vote"), ())


def test_generated_columns_are_made_anew(database: Database) -> None:
    database.run(
        "CREATE TABLE t (id int PRIMARY KEY, a int, b int GENERATED ALWAYS AS (a * 2) STORED)",
        "INSERT INTO t (id, a) VALUES (1, 4), (2, 5)",
    )
    database.capture()
    database.run("DELETE FROM t WHERE id = 1", "UPDATE t SET a = 9")

    counts(database, MergeRequest(tables=("t",), on_conflict=OnConflict.OVERWRITE))

    assert database.rows("SELECT * FROM t ORDER BY id") == [(1, 4, 8), (2, 5, 10)]


def test_copies_get_new_keys_and_refer_to_each_other(database: Database) -> None:
    serial = "serial PRIMARY KEY" if database.engine == "postgresql" else "INTEGER PRIMARY KEY AUTOINCREMENT"
    database.run(
        f"CREATE TABLE album (id {serial}, name text, cover int, parent int REFERENCES album)",
        f"CREATE TABLE track (id {serial}, album int NOT NULL REFERENCES album, name text)",
        "CREATE TABLE listed (album int REFERENCES album, place int, track int REFERENCES track, "
        "PRIMARY KEY (album, place))",
        "INSERT INTO album (name) VALUES ('one'), ('two')",
        "INSERT INTO track (album, name) VALUES (1, 'a'), (1, 'b'), (2, 'c')",
        "INSERT INTO listed VALUES (1, 1, 2), (1, 2, 1), (2, 1, 3)",
        "UPDATE album SET parent = 2 WHERE id = 1",
    )
    if database.engine == "postgresql":
        database.run("ALTER TABLE album ADD FOREIGN KEY (cover) REFERENCES track ON DELETE SET NULL")
    database.run("UPDATE album SET cover = 2 WHERE id = 1")
    database.capture()
    rest = {name: table_hash(database, name) for name in ("album", "track", "listed")}

    found = counts(database, MergeRequest(rows=(("album", "1"),), on_conflict=OnConflict.COPY))

    assert found == {
        "album": TableMerge("album", insert=1),
        "listed": TableMerge("listed", insert=2),
        "track": TableMerge("track", insert=2),
    }
    cover = 5 if database.engine == "postgresql" else 2
    assert database.rows("SELECT * FROM album WHERE id > 2") == [(3, "one", cover, 2)]
    assert database.rows("SELECT * FROM track WHERE id > 3 ORDER BY id") == [(4, 3, "a"), (5, 3, "b")]
    assert database.rows("SELECT * FROM listed WHERE album = 3 ORDER BY place") == [(3, 1, 5), (3, 2, 4)]
    assert rest == {
        "album": table_hash(database, "album", "id <= 2"),
        "track": table_hash(database, "track", "id <= 3"),
        "listed": table_hash(database, "listed", "album <= 2"),
    }
    database.run("INSERT INTO track (album, name) VALUES (1, 'new')")
    assert database.rows("SELECT max(id) FROM track") == [(6,)]


def test_a_copy_that_meets_a_unique_value_is_refused(database: Database) -> None:
    database.run(
        "CREATE TABLE t (id int PRIMARY KEY, slug text UNIQUE)",
        "CREATE TABLE words (word text PRIMARY KEY, t int REFERENCES t)",
        "INSERT INTO t VALUES (1, 's')",
        "INSERT INTO words VALUES ('w', 1)",
    )
    if isinstance(database, SqliteDatabase):
        database.run(
            "DROP TABLE words", "DROP TABLE t", "CREATE TABLE t (id INTEGER PRIMARY KEY, slug text UNIQUE)"
        )
        database.run("CREATE TABLE words (word text PRIMARY KEY, t int REFERENCES t)")
        database.run("INSERT INTO t VALUES (1, 's')", "INSERT INTO words VALUES ('w', 1)")
    database.capture()
    before = database.dump()

    report = database.merge(MergeRequest(rows=(("t", "1"),), on_conflict=OnConflict.COPY))

    assert {(clash.table, clash.live_row) for clash in report.clashes} == {("t", "1"), ("words", "w")}
    assert database.dump() == before


def test_a_view_is_no_table_to_restore(database: Database) -> None:
    database.run("CREATE TABLE t (id int PRIMARY KEY)", "CREATE VIEW seen AS SELECT id FROM t")
    database.capture()

    with pytest.raises(RestoreRefused) as refused:
        database.merge(MergeRequest(rows=(("seen", "1"),)))

    assert str(refused.value) == (
        "seen is a view, which cannot be restored alone. Nothing was touched. Restore the database as a "
        "whole, or write it elsewhere with restore --to and take from there what you need."
    )


@pytest.mark.parametrize("level", ["ROW", "STATEMENT"])
def test_triggers_are_told_of_where_they_fire_only(database: Database, tmp_path: Path, level: str) -> None:
    database.run(
        "CREATE TABLE t (id int PRIMARY KEY, v text)",
        "CREATE TABLE told (v text)",
        "INSERT INTO t VALUES (1, 'x'), (2, 'y')",
    )
    if isinstance(database, PostgresDatabase):
        database.run(
            "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN INSERT INTO public.told VALUES ('told'); RETURN NULL; END $$",
            f"CREATE TRIGGER log_update AFTER INSERT ON t FOR EACH {level} EXECUTE FUNCTION tell()",
        )
    else:
        told = "BEGIN INSERT INTO told VALUES ('told'); END"
        database.run(f"CREATE TRIGGER log_update AFTER INSERT ON t {told}")
    database.capture()
    database.run("UPDATE t SET v = 'other' WHERE id = 1")
    row = MergeRequest(rows=(("t", "1"),), on_conflict=OnConflict.OVERWRITE)

    over = database.merge(row, record=tmp_path / "over")
    assert (over.notes, database.undo(tmp_path / "over").notes) == ((), ())
    assert database.rows("SELECT count(*) FROM told") == [(0,)]
    database.run("DELETE FROM t WHERE id = 1")
    new = database.merge(row, record=tmp_path / "new")
    assert database.rows("SELECT count(*) FROM told") == [(1,)]
    assert new.notes == ("Triggers of the app fire for what is written to t.",)
    assert database.undo(tmp_path / "new").notes == (
        "What triggers of the app wrote elsewhere when t was restored into stays.",
    )
    database.run("INSERT INTO t VALUES (3, 'since')")
    request = MergeRequest(tables=("t",), on_conflict=OnConflict.REPLACE)
    database.merge(request, record=tmp_path / "gone")
    assert database.undo(tmp_path / "gone").notes == (
        "Triggers of the app fire for what is taken back in t.",
        "What triggers of the app wrote elsewhere when t was restored into stays.",
    )


# --- PostgreSQL alone --------------------------------------------------------


def test_partitions_identities_schemas_and_inheritance(postgres: PostgresServer) -> None:
    database = postgres_database(
        postgres,
        'CREATE SCHEMA "My S"',
        'CREATE TABLE "My S"."Owner" ("Id" uuid PRIMARY KEY DEFAULT gen_random_uuid(), n int)',
        "CREATE TABLE log (id bigint GENERATED ALWAYS AS IDENTITY, at date, "
        'owner uuid REFERENCES "My S"."Owner" '
        "ON DELETE CASCADE, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)",
        "CREATE TABLE log_2025 PARTITION OF log FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')",
        "CREATE TABLE log_rest PARTITION OF log DEFAULT",
        "CREATE TABLE base (id int PRIMARY KEY)",
        "CREATE TABLE derived (PRIMARY KEY (id)) INHERITS (base)",
        "INSERT INTO base VALUES (1)",
        "INSERT INTO derived VALUES (1), (2)",
        'INSERT INTO "My S"."Owner" VALUES (\'00000000-0000-0000-0000-00000000000a\', 1), '
        "('00000000-0000-0000-0000-00000000000b', 2)",
        "INSERT INTO log (at, owner) SELECT date '2025-12-30' + n, "
        "('00000000-0000-0000-0000-00000000000' || CASE WHEN n < 3 THEN 'a' ELSE 'b' END)::uuid "
        "FROM generate_series(1, 4) n",
    )
    database.capture()
    before = database.dump()
    database.run(
        'DELETE FROM "My S"."Owner" WHERE n = 1', "DELETE FROM ONLY base", "SELECT setval('log_id_seq', 1)"
    )

    owner = MergeRequest(rows=(("My S.Owner", "00000000-0000-0000-0000-00000000000A"),))
    found = counts(database, owner)
    assert found == {"My S.Owner": TableMerge("My S.Owner", insert=1), "log": TableMerge("log", insert=2)}
    assert counts(database, MergeRequest(tables=("base",))) == {"base": TableMerge("base", insert=1)}
    assert database.rows("SELECT count(*) FROM log_2025") == [(1,)]
    assert database.dump() == before
    database.run("INSERT INTO log (at) VALUES ('2025-05-05')")
    assert database.rows("SELECT max(id) FROM log") == [(5,)]

    database.run("DELETE FROM log")
    assert counts(database, MergeRequest(tables=("log_rest",))) == {"log": TableMerge("log", insert=3)}
    assert database.rows("SELECT count(*) FROM log_2025") == [(0,)]
    assert counts(database, MergeRequest(rows=(("log_2025", "1,2025-12-31"),)))["log"].insert == 1
    with pytest.raises(UsageError, match="no value of Id"):
        database.merge(MergeRequest(rows=(("My S.Owner", "nonsense"),)))


def test_a_domain_that_demands_more_by_now_holds_for_chosen_rows_only(
    debian_postgres: PostgresServer,
) -> None:
    database = postgres_database(
        debian_postgres,
        'CREATE DOMAIN low AS text COLLATE "C"',
        "CREATE DOMAIN mail AS low",
        "CREATE TABLE t (id int PRIMARY KEY, m mail UNIQUE)",
        "INSERT INTO t VALUES (1, 'a@b'), (2, 'nothing')",
    )
    database.capture()
    database.run("TRUNCATE t", "ALTER DOMAIN low ADD CONSTRAINT at CHECK (VALUE ~ '@')")

    assert counts(database, MergeRequest(rows=(("t", "1"),))) == {"t": TableMerge("t", insert=1)}
    with pytest.raises(RestoreRefused, match="violates check constraint"):
        database.merge(MergeRequest(rows=(("t", "2"),)))
    assert database.rows("SELECT * FROM t") == [(1, "a@b")]


def test_triggers_fire_and_what_they_change_is_told(debian_postgres: PostgresServer) -> None:
    database = postgres_database(
        debian_postgres,
        "CREATE TABLE t (id int PRIMARY KEY, v text)",
        "CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN NEW.v := NEW.v || '!'; RETURN NEW; END $$",
        "INSERT INTO t VALUES (1, 'x'), (2, 'y')",
        "CREATE TRIGGER shout BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION shout()",
    )
    database.capture()
    database.run("DELETE FROM t WHERE id = 1")

    report = database.merge(MergeRequest(rows=(("t", "1"),)))

    assert database.rows("SELECT v FROM t WHERE id = 1") == [("x!",)]
    assert report.notes == (
        "t: triggers of the app changed 1 of the rows that were written.",
        "Triggers of the app fire for what is written to t.",
    )


def test_who_owns_no_table_is_told_so_where_a_loop_needs_it(debian_postgres: PostgresServer) -> None:
    database = postgres_database(
        debian_postgres,
        "CREATE TABLE a (id int PRIMARY KEY, b int)",
        "CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a)",
        "ALTER TABLE a ADD CONSTRAINT a_b FOREIGN KEY (b) REFERENCES b",
        "INSERT INTO a VALUES (1)",
        "INSERT INTO b VALUES (1, 1)",
        "UPDATE a SET b = 1",
    )
    database.capture()
    database.run("TRUNCATE a, b")
    debian_postgres.run("DROP ROLE IF EXISTS guest;\nCREATE ROLE guest LOGIN PASSWORD 'g'")
    database.run("GRANT ALL ON a, b TO guest")
    assert database.captured is not None

    from backup_admin.sources.postgres.address import parse_postgres_address  # noqa: PLC0415
    from backup_admin.sources.postgres.merge_rows import merge_into_postgres  # noqa: PLC0415

    address = parse_postgres_address(debian_postgres.address(database.name, user="guest", password="g"))
    with pytest.raises(NotPermitted, match="owner of"):
        merge_into_postgres(address, database.captured, MergeRequest(rows=(("a", "1"),)), dry=False)
    assert database.rows("SELECT count(*) FROM a") == [(0,)]


def test_others_who_keep_a_table_locked_are_waited_for_only_so_long(
    debian_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from backup_admin.core.errors import Busy  # noqa: PLC0415
    from backup_admin.sources.postgres import merge_rows  # noqa: PLC0415

    monkeypatch.setattr(merge_rows, "_LOCK_WAIT", "200ms")
    database = postgres_database(
        debian_postgres, "CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)"
    )
    database.capture()
    with psycopg.connect(database.address) as other:
        other.execute("DELETE FROM t")
        with pytest.raises(Busy, match="nothing live was changed"):
            database.merge(MergeRequest(tables=("t",)))


def test_what_a_person_writes_stays_a_value_whatever_the_role_is_set_to(
    debian_postgres: PostgresServer,
) -> None:
    database = postgres_database(
        debian_postgres,
        "CREATE TABLE t (k text PRIMARY KEY)",
        "CREATE TABLE other (id int PRIMARY KEY)",
        "INSERT INTO other VALUES (1)",
        r"""INSERT INTO t VALUES (E'\\'' OR true; DELETE FROM other; --')""",
    )
    debian_postgres.run(
        f'ALTER DATABASE "{database.name}" SET standard_conforming_strings = off;\n'
        f"ALTER DATABASE \"{database.name}\" SET default_transaction_isolation = 'serializable';\n"
        f'ALTER DATABASE "{database.name}" SET default_transaction_read_only = on'
    )
    ((key,),) = database.rows("SELECT k FROM t")
    database.capture()
    database.run("SET default_transaction_read_only = off", "DELETE FROM t")

    assert counts(database, MergeRequest(rows=(("t", key),))) == {"t": TableMerge("t", insert=1)}
    with pytest.raises(RestoreRefused, match="no row of t"):
        database.merge(MergeRequest(rows=(("t", key + "x"),)))
    assert database.rows("SELECT k FROM t") == [(key,)]
    assert database.rows("SELECT id FROM other") == [(1,)]


def test_two_tables_of_one_name_are_not_mistaken_for_each_other(debian_postgres: PostgresServer) -> None:
    database = postgres_database(
        debian_postgres,
        "CREATE SCHEMA a",
        "CREATE TABLE a.b (id int PRIMARY KEY)",
        'CREATE TABLE "a.b" (id int PRIMARY KEY)',
    )
    database.capture()

    with pytest.raises(RestoreRefused, match=r"Two tables are both called a\.b"):
        database.merge(MergeRequest(tables=("a.b",)))


def test_rows_that_may_not_be_seen_end_it(debian_postgres: PostgresServer) -> None:
    database = postgres_database(
        debian_postgres,
        "CREATE TABLE t (id int PRIMARY KEY)",
        "INSERT INTO t VALUES (1)",
    )
    database.capture()
    database.run(
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE t FORCE ROW LEVEL SECURITY",
        "CREATE POLICY none ON t USING (false)",
    )

    with pytest.raises(NotPermitted, match="row-level security"):
        database.merge(MergeRequest(tables=("t",)))


# --- SQLite alone ------------------------------------------------------------


def test_tables_of_every_kind_in_sqlite(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "app.db")
    database.run(
        "CREATE TABLE w (k TEXT COLLATE NOCASE PRIMARY KEY, v ANY) WITHOUT ROWID",
        "CREATE TABLE s (id INTEGER PRIMARY KEY, v ANY, r REAL) STRICT",
        "CREATE TABLE plain (v)",
        "CREATE VIRTUAL TABLE fts USING fts5 (text)",
        "CREATE TABLE b (id BLOB PRIMARY KEY, v TEXT)",
        "INSERT INTO w VALUES ('Key', x'00ff'), ('other', 1.5)",
        "INSERT INTO s VALUES (1, '5', 0.1), (2, 5, 1e300), (3, NULL, NULL)",
        "INSERT INTO plain VALUES (1), ('1'), (x'31'), (1.0), (NULL), ('a' || char(0) || 'b')",
        "INSERT INTO fts VALUES ('hello')",
        "INSERT INTO b VALUES (x'0a0b', 'ü')",
    )
    database.capture()
    before = database.dump()
    database.run("DELETE FROM w WHERE k = 'key'", "DELETE FROM s", "DELETE FROM plain", "DELETE FROM b")

    counts(database, MergeRequest(rows=(("w", "KEY"), ("s", "1"), ("b", "0A0B"))))
    counts(database, MergeRequest(tables=("s", "plain")))

    assert database.dump() == before
    for name in ("fts", "FTS"):
        with pytest.raises(RestoreRefused, match=f"^{name} is a virtual table, which cannot be"):
            database.merge(MergeRequest(tables=(name,)))
    with pytest.raises(RestoreRefused, match=r"^fts_data is a table in which a virtual table keeps"):
        database.merge(MergeRequest(tables=("fts_data",)))


@pytest.mark.parametrize(
    ("head", "note"),
    [
        ("log_insert BEFORE DELETE", False),
        ('"insert on" /* INSERT */ AFTER\n UPDATE OF v', False),
        ("[a b]DELETE", False),
        ("`x`--INSERT\nINSERT", True),
        ("log_delete insert", True),
        ("backup_admin_changes_0_insert AFTER INSERT", False),  # one of ours
    ],
)
def test_what_a_trigger_of_sqlite_fires_for_is_read_from_it(tmp_path: Path, head: str, note: bool) -> None:
    database = SqliteDatabase(tmp_path / "app.db")
    database.run("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)", "INSERT INTO t VALUES (1, 'x')")
    database.run(f"CREATE TRIGGER {head} ON t BEGIN SELECT 1; END")
    database.capture()
    database.run("DELETE FROM t")

    assert bool(database.merge(MergeRequest(tables=("t",))).notes) is note


def test_sqlite_in_another_encoding_and_page_size(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "app.db")
    database.run(
        "PRAGMA encoding = 'UTF-16le'",
        "PRAGMA page_size = 1024",
        "CREATE TABLE t (k TEXT PRIMARY KEY, v TEXT UNIQUE)",
        "INSERT INTO t VALUES ('ü,1', '😀'), ('b', CAST(x'ff' AS TEXT))",
    )
    database.capture()
    before = database.rows("SELECT k, hex(v) FROM t ORDER BY k")
    database.run("DELETE FROM t")

    counts(database, MergeRequest(rows=(("t", "ü,1"), ("t", "b"))))

    assert database.rows("SELECT k, hex(v) FROM t ORDER BY k") == before


def test_text_that_is_none_is_shown_when_it_clashes(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "app.db")
    database.run(
        "CREATE TABLE t (k TEXT PRIMARY KEY, v TEXT UNIQUE)",
        "INSERT INTO t VALUES (CAST(x'61ff' AS TEXT), 'v')",
    )
    database.capture()
    database.run("UPDATE t SET k = CAST(x'62ff' AS TEXT)")

    report = database.merge(MergeRequest(tables=("t",)))

    ((clash,),) = (report.clashes,)
    assert (clash.row, clash.live_row) == (r"a\udcff", r"b\udcff")


def test_rows_with_large_objects_say_that_those_do_not_come(debian_postgres: PostgresServer) -> None:
    database = postgres_database(
        debian_postgres,
        "CREATE TABLE doc (id int PRIMARY KEY, body oid)",
        "INSERT INTO doc VALUES (1, lo_from_bytea(0, 'x'))",
    )
    database.capture()
    database.run("DELETE FROM doc")

    for dry in (True, False):
        (note,) = database.merge(MergeRequest(tables=("doc",)), dry=dry).notes
        assert note.startswith("doc: where body has the number of a large object, that object does not come")
    assert database.merge(MergeRequest(tables=("doc",))).notes == ()


def test_a_copy_that_clashes_names_the_unique_columns(database: Database) -> None:
    database.run(
        "CREATE TABLE page (id int PRIMARY KEY, site int, slug text, UNIQUE (site, slug))",
        "INSERT INTO page VALUES (1, 7, 'home')",
    )
    database.capture()
    before = database.dump()

    report = database.merge(MergeRequest(rows=(("page", "1"),), on_conflict=OnConflict.COPY))

    (clash,) = report.clashes
    assert (clash.table, clash.row, clash.live_row) == ("page", "2", "1")
    assert "site" in clash.unique
    assert "slug" in clash.unique
    assert database.dump() == before
