"""A row of a folder tree that is not as it should be is damage, whatever is wrong with it."""

from __future__ import annotations

import pytest

from backup_admin.core.errors import Damaged
from backup_admin.repository.entries import read_entry

CHUNK = b"00" * 32


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[",
        b"[]",
        b"{}",
        b"1",
        b'["a","d",0,420,0,0,1] ',
        b'["a","d",0,420,0,0,1],["b","d",0,420,0,0,1]',
        b'["a","d",0.5,420,0,0,1]',
        b'["../a","d",0,420,0,0,1]',
        b'["a","x",0,420,0,0,1]',
        b'["a","f",1,420,0,0,1,"digest",[["' + CHUNK + b'",1e999]]]',
        b'["a","f",1,420,0,0,1,"digest",[["' + CHUNK + b'",Infinity]]]',
        b'["a","f",1,420,0,0,1,"digest",7]',
        b'["a","f",1,420,0,0,1]',
        b"[" * 100_000,
        b"\xff",
    ],
)
def test_a_row_that_cannot_be_read_is_damage(line: bytes) -> None:
    with pytest.raises(Damaged):
        read_entry(line)


def test_a_row_is_read() -> None:
    entry = read_entry(b'["a/b","f",3,420,5,6,7,"digest",[["' + CHUNK + b'",3]]]')

    assert (entry.path, entry.kind, entry.size, entry.mode, entry.mtime_ns) == (b"a/b", "file", 3, 420, 5)
    assert entry.content is not None
    assert [(ref.id, ref.size) for ref in entry.content.chunks] == [(bytes(32), 3)]
