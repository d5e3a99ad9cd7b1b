"""Tables, references and rows at random: the outcome is what a few lines of Python say it must be."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from backup_admin.sources.merging.merge_model import MergeRequest, OnConflict

if TYPE_CHECKING:
    from tests.services.small_gallery import Database

pytestmark = pytest.mark.integration

ACTIONS = ("NO ACTION", "CASCADE", "RESTRICT", "SET NULL")
Row = dict[str, int | None]
State = dict[str, dict[int, Row]]


@dataclass(frozen=True)
class Key:
    child: str
    column: str
    parent: str
    action: str


@dataclass
class Model:
    """A schema and rows, and what the rules of a merge make of them."""

    chance: random.Random
    tables: list[str] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tables = [f"t{n}" for n in range(self.chance.randint(2, 5))]
        for child in self.tables:
            for n in range(self.chance.randint(0, 3)):
                parent = self.chance.choice(self.tables)
                self.keys.append(Key(child, f"r{n}", parent, self.chance.choice(ACTIONS)))

    def statements(self, *, inline: bool) -> list[str]:
        made, added = [], []
        for table in self.tables:
            columns = ["id int PRIMARY KEY", "v int"]
            for key in (key for key in self.keys if key.child == table):
                clause = f"REFERENCES {key.parent} ON DELETE {key.action}"
                columns.append(f"{key.column} int {clause if inline else ''}")
                added.append(f"ALTER TABLE {table} ADD FOREIGN KEY ({key.column}) {clause}")
            made.append(f"CREATE TABLE {table} ({', '.join(columns)})")
        return made if inline else made + added

    def rows(self) -> State:
        ids = {table: range(1, self.chance.randint(2, 8)) for table in self.tables}
        state: State = {
            table: {number: {"v": self.chance.randint(0, 3)} for number in ids[table]} for table in ids
        }
        for key in self.keys:
            for row in state[key.child].values():
                row[key.column] = self.chance.choice([None, *ids[key.parent]])
        return state

    def changed(self, before: State) -> State:
        """Return what a day of work leaves: rows that are gone, others that are new or different."""
        state = {table: {number: dict(row) for number, row in rows.items()} for table, rows in before.items()}
        for table in self.tables:
            for number in list(state[table]):
                if self.chance.random() < 0.35:
                    del state[table][number]
                elif self.chance.random() < 0.3:
                    state[table][number]["v"] = 9
            if self.chance.random() < 0.5:
                state[table][50] = {"v": 5} | {key.column: None for key in self.keys if key.child == table}
        self._forget_what_is_gone(state)
        return state

    def _forget_what_is_gone(self, state: State) -> None:
        for key in self.keys:
            for row in state[key.child].values():
                if row[key.column] not in state[key.parent]:
                    row[key.column] = None

    def merged(self, then: State, now: State, root: tuple[str, int], policy: OnConflict) -> State:
        owned = {root}
        while True:
            more = {
                (key.child, number)
                for key in self.keys
                if key.action != "SET NULL"
                for number, row in then[key.child].items()
                if (key.parent, row[key.column]) in owned
            }
            if more <= owned:
                break
            owned |= more
        result = {table: dict(rows) for table, rows in now.items()}
        written = [
            (table, number)
            for table, number in owned
            if number not in now[table]
            or (policy is OnConflict.OVERWRITE and now[table][number] != then[table][number])
        ]
        for table, number in written:
            result[table][number] = then[table][number]
        while written:
            table, number = written.pop()
            for key in self.keys:
                wanted = then[table][number][key.column] if key.child == table else None
                if wanted is not None and wanted not in result[key.parent]:
                    result[key.parent][wanted] = then[key.parent][wanted]
                    written.append((key.parent, wanted))
        return result


def write(database: Database, state: State) -> None:
    inserts = [
        f"INSERT INTO {table} (id, {', '.join(row)}) VALUES ({number}, {', '.join(map(shown, row.values()))})"
        for table, rows in state.items()
        for number, row in rows.items()
    ]
    deletes = [f"DELETE FROM {table}" for table in state]
    if database.engine == "sqlite":
        database.run("PRAGMA foreign_keys=OFF", *deletes, *inserts)
        return
    # Keys are taken away and given back: rows of circles come in one by one.
    taken = database.rows(
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) "
        "FROM pg_constraint WHERE contype = 'f'"
    )
    database.run(
        *(f"ALTER TABLE {table} DROP CONSTRAINT {name}" for table, name, _ in taken),
        *deletes,
        *inserts,
        *(f"ALTER TABLE {table} ADD CONSTRAINT {name} {text}" for table, name, text in taken),
    )


def shown(value: int | None) -> str:
    return "NULL" if value is None else str(value)


def read(database: Database, model: Model) -> State:
    state: State = {}
    for table in model.tables:
        names = ["v", *(key.column for key in model.keys if key.child == table)]
        rows = database.rows(f"SELECT id, {', '.join(names)} FROM {table}")
        state[table] = {row[0]: dict(zip(names, row[1:], strict=True)) for row in rows}
    return state


@pytest.mark.parametrize("seed", range(10))
def test_a_merge_does_what_the_rules_say(database: Database, seed: int) -> None:
    model = Model(random.Random(seed))
    database.run(*model.statements(inline=database.engine == "sqlite"))
    then = model.rows()
    write(database, then)
    database.capture()

    for round_ in range(3):
        now = model.changed(then)
        write(database, now)
        table = model.chance.choice(model.tables)
        root = (table, model.chance.choice(list(then[table])))
        policy = model.chance.choice([OnConflict.SKIP, OnConflict.OVERWRITE])
        request = MergeRequest(rows=((root[0], str(root[1])),), on_conflict=policy)

        dry = database.merge(request, dry=True)
        assert read(database, model) == now
        report = database.merge(request)

        assert dry == report
        assert read(database, model) == model.merged(then, now, root, policy), (seed, round_, root, policy)
