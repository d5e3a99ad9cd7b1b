"""The safety checks of the product: where each stands, how it is taken away, which tests must fail.

The old text must occur exactly once in its file; a test sees to that. Whoever moves a
check moves its entry here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One check, the text that stands in its place when it is gone, and the tests that notice."""

    title: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def _check(title: str, file: str, old: str, new: str, *tests: str) -> Check:
    return Check(title, f"backup_admin/{file}", old, new, tuple(f"tests/{test}" for test in tests))


POWER_CUT = "proof/test_power_cuts.py::test_what_was_reported_done_survives_a_power_cut[backup]"
SINGLE = "proof/test_single_checks.py"
FLIPPED_BIT = "proof/test_every_byte.py::test_a_flipped_bit_anywhere_is_named_and_never_gives_wrong_bytes"
UNDO_ROWS = "integration/merging/test_undo.py"
CELL_TESTS = "integration/sources/test_cells.py"

OBJECTS = (
    _check(
        "the last frame of an object is marked",
        "repository/objects.py",
        '(b"\\x01" if last else b"\\x00")',
        'b"\\x00"',
        "unit/repository/test_objects.py",
    ),
    _check(
        "an object is bound to its name",
        "repository/objects.py",
        "header + keys.repo_id + sha256(logical_name.encode())",
        "header + keys.repo_id",
        "unit/repository/test_objects.py",
    ),
    _check(
        "an object is bound to its type",
        "repository/objects.py",
        "    if header[5] != kind:",
        "    if False:",
        "unit/repository/test_objects.py",
    ),
    _check(
        "unknown versions, ciphers and flags of an object are refused",
        "repository/objects.py",
        "    if header[4] != _VERSION or header[6] != _CIPHER or header[7] != 0 or",
        "    if header[4] != _VERSION or False and",
        "unit/repository/test_objects.py",
    ),
    _check(
        "an object without frames is refused",
        "repository/objects.py",
        "    if not spans:",
        "    if False:",
        "unit/repository/test_objects.py",
    ),
    _check(
        "a chunk in a pack is compared with its name",
        "repository/packs.py",
        "view[chunk.offset : chunk.offset + chunk.length]) != chunk.id:",
        "view[chunk.offset : chunk.offset + chunk.length]) is None:",
        "unit/repository/test_packs.py",
    ),
    _check(
        "a segment that claims too much is not decompressed",
        "repository/packs.py",
        "        if zstandard.frame_content_size(data) > MAX_SEGMENT_BYTES:",
        "        if False:",
        "unit/repository/test_packs.py",
    ),
    _check(
        "a pack's table of contents names only segments that are there",
        "repository/packs.py",
        "    if at != end:",
        "    if False:",
        "unit/repository/test_packs.py",
    ),
    _check(
        "a pack that is proved is compared with its name",
        "repository/pack_proof.py",
        "        if digest != pack.name:",
        "        if False:",
        "unit/repository/test_pack_proof.py",
        FLIPPED_BIT,
    ),
    _check(
        "a chunk that is read is compared with its name",
        "repository/reader.py",
        "len(data) != ref.size or self._keys.chunk_id(kind, data) != ref.id:",
        "len(data) != ref.size:",
        "unit/repository/test_content_writer.py",
        "unit/repository/test_index.py",
    ),
    _check(
        "an index object is compared with its name",
        "repository/index.py",
        "    if PREFIX + blake3(data).hexdigest() != name:",
        "    if False:",
        "unit/repository/test_index.py",
        FLIPPED_BIT,
    ),
    _check(
        "the cache of the index is compared with its sums",
        "repository/index_file.py",
        "                    if _block_sum(part) != view[place : place + _SUM_BYTES]:",
        "                    if False:",
        "unit/repository/test_index.py",
    ),
    _check(
        "the body of a manifest fits its header",
        "repository/manifests.py",
        "    if len(frames) != 2 or sha256(frames[1]).hex() != digest:",
        "    if len(frames) != 2:",
        "unit/repository/test_manifests.py",
    ),
    _check(
        "a body that claims too much is not decompressed",
        "repository/manifests.py",
        "    if block[0] != Method.ZSTD or size > _MAX_BODY:",
        "    if block[0] != Method.ZSTD:",
        SINGLE,
    ),
    _check(
        "a tree out of order or with a path twice is refused",
        "repository/entries.py",
        "            if key <= before:",
        "            if False:",
        "unit/repository/test_manifests.py",
    ),
    _check(
        "a path that leaves its folder is refused",
        "core/paths.py",
        '        if part in (b"", b".", b".."):',
        '        if part in (b"", b"."):',
        "unit/core/test_paths.py",
    ),
)

JSON = (
    _check(
        "JSON with a doubled key is refused",
        "core/canonical.py",
        "    if len(result) != len(pairs):",
        "    if False:",
        "unit/core/test_canonical.py",
    ),
    _check(
        "JSON nested too deeply is refused",
        "core/canonical.py",
        "        if depth > _MAX_DEPTH:",
        "        if False:",
        "unit/core/test_canonical.py",
    ),
    _check(
        "JSON with half a surrogate pair is refused",
        "core/canonical.py",
        "    if _SURROGATE.search(raw):",
        "    if False:",
        "unit/core/test_canonical.py",
    ),
    _check(
        "JSON with an endless number is refused",
        "core/canonical.py",
        "    if len(text) > _MAX_DIGITS:",
        "    if False:",
        "unit/core/test_canonical.py",
    ),
)

KEYS = (
    _check(
        "the commitment of a slot is compared",
        "repository/slots.py",
        "    if not hmac.compare_digest(commit, slot.commit):",
        "    if False:",
        "unit/repository/test_slots.py",
    ),
    _check(
        "weak or hostile scrypt parameters are refused",
        "repository/slots.py",
        "    if not strong or 128 * r << log2n > _MAX_MEMORY or len(slot.salt) < 16:",
        "    if False:",
        "unit/repository/test_slots.py",
    ),
    _check(
        "more slots than allowed are refused",
        "repository/slots.py",
        "    if len(infos) > MOST_FILES:",
        "    if False:",
        "unit/repository/test_slots.py",
    ),
    _check(
        "the seal of the configuration is compared",
        "repository/config.py",
        "not hmac.compare_digest(",
        "not isinstance(b'', bytes) and hmac.compare_digest(",
        "unit/repository/test_create_and_open.py",
        FLIPPED_BIT,
    ),
    _check(
        "a configuration with unknown features is refused",
        "repository/config.py",
        '    if body["format"] != FORMAT_VERSION or unknown:',
        "    if False:",
        "unit/repository/test_create_and_open.py",
    ),
    _check(
        "a key file that others can read is refused",
        "repository/secrets.py",
        "        if stat.S_IMODE(status.st_mode) & 0o077:",
        "        if False:",
        "unit/repository/test_secrets.py",
    ),
    _check(
        "the check characters of a key are compared",
        "repository/secrets.py",
        "    if _encode(raw, purpose) != text:",
        "    if False:",
        "unit/repository/test_secrets.py",
    ),
)

HISTORY = (
    _check(
        "only an entry that opens is taken for another's",
        "repository/chain.py",
        "                if self._is_entry(seq, found):\n                    return False",
        "                return False",
        "unit/repository/test_chain.py",
    ),
    _check(
        "an entry continues the chain",
        "repository/chain.py",
        "        if entry.prev != self.head.digest or entry.base != self.base:",
        "        if False:",
        "unit/repository/test_chain.py",
    ),
    _check(
        "an entry of an unknown operation is refused",
        "repository/chain.py",
        "            if entry.op not in OPERATIONS:",
        "            if False:",
        "unit/repository/test_chain.py",
    ),
    _check(
        "a history that ends too early is noticed",
        "repository/chain.py",
        "        if seen is not None and seen.head.seq > self.head.seq:",
        "        if False:",
        "unit/repository/test_chain.py",
    ),
    _check(
        "an entry other than the one seen before is noticed",
        "repository/chain.py",
        "seen.head.seq == self.head.seq and seen.head.digest != self.head.digest:",
        "seen.head.seq == 0:",
        "unit/repository/test_chain.py",
    ),
    _check(
        "nothing is written to a history that was changed",
        "repository/chain.py",
        "        if self.warning:\n            raise",
        "        if False:\n            raise",
        "unit/repository/test_chain.py",
    ),
    _check(
        "an entry is read back after it was put",
        "repository/chain.py",
        "                found = self._storage.get(name)",
        "                found = data if failure is None else self._storage.get(name)",
        "unit/repository/test_chain.py",
        "unit/operations/test_backup_faults.py",
    ),
    _check(
        "an entry that may not survive is no success",
        "repository/chain.py",
        "        except NotDurable:\n            raise",
        "        except NotDurable as error:\n            failure = error",
        SINGLE,
    ),
    _check(
        "the manifest is the one the chain names",
        "repository/repository.py",
        "            if sha256(data).hex() != self._chain.state.manifests[snapshot_id].digest:",
        "            if False:",
        SINGLE,
    ),
    _check(
        "a manifest is read back before its entry",
        "repository/repository.py",
        "        if self.storage.get(name) != data:",
        "        if False:",
        "unit/operations/test_backup_faults.py",
    ),
    _check(
        "a commit stands only while nothing it needs was taken",
        "repository/repository.py",
        "        if taken:\n            index = self.new_index(store.new_indexes)",
        "        if False:\n            index = self.new_index(store.new_indexes)",
        "unit/repository/test_chain.py",
        "unit/operations/test_prune.py",
    ),
)

DISKS = (
    _check(
        "a file is synced before it gets its name",
        "core/durable.py",
        "        os.fsync(handle)\n    except BaseException as error:",
        "        pass\n    except BaseException as error:",
        POWER_CUT,
    ),
    _check(
        "a folder is synced after it got a name",
        "core/durable.py",
        "    sync_folder(path.parent)\n    return True",
        "    return True",
        POWER_CUT,
    ),
    _check(
        "a new folder is synced into its parent",
        "core/durable.py",
        "            sync_folder(folder.parent)",
        "            pass",
        SINGLE,
        POWER_CUT,
    ),
    _check(
        "a folder that could not be synced does not stay",
        "core/durable.py",
        "                folder.rmdir()  #",
        "                pass  #",
        SINGLE,
    ),
    _check(
        "a put never replaces an object",
        "core/durable.py",
        "        os.link(temporary, path)\n    except FileExistsError:",
        "        path.write_bytes(temporary.read_bytes())\n    except FileExistsError:",
        "contract/test_local_storage.py",
        "contract/test_storage.py",
    ),
    _check(
        "a name that is taken is compared with what was to be stored",
        "repository/store.py",
        "    if storage.put(name, data) is PutResult.EXISTS and storage.get(name) != bytes(data):",
        "    if storage.put(name, data) is None:",
        SINGLE,
    ),
    _check(
        "an unmounted disk is no empty storage",
        "storage/local.py",
        "        if not self.folder.is_dir():\n            raise",
        "        if False:\n            raise",
        "contract/test_local_storage.py",
    ),
)

SOURCES = (
    _check(
        "a change that only the ctime shows is seen",
        "sources/files.py",
        "        and found.st_ctime_ns == entry.ctime_ns\n",
        "",
        SINGLE,
    ),
    _check(
        "a file whose ctime differs is read again",
        "operations/known.py",
        "            and old.ctime_ns == found.ctime_ns\n",
        "",
        "unit/operations/test_unchanged.py",
    ),
    _check(
        "a file that was touched just before the scan is read again",
        "operations/known.py",
        "            and max(old.mtime_ns, old.ctime_ns) < self._trusted_before_ns\n",
        "",
        "unit/operations/test_unchanged.py",
        "unit/operations/test_backup.py",
    ),
    _check(
        "no symlink is followed below a folder",
        "sources/beneath.py",
        "    flags |= os.O_NOFOLLOW | os.O_CLOEXEC",
        "    return os.open(path, flags, mode, dir_fd=root)",
        "unit/sources/test_files.py",
        "unit/sources/test_tree.py",
    ),
    _check(
        "a database that was read without a lock stayed as it was",
        "sources/sqlite_worker.py",
        "stamp if stamp == stamp_of(file) else None",
        "stamp",
        "integration/sources/test_sqlite.py",
    ),
    _check(
        "only a database that is at rest is read without a lock",
        "sources/sqlite_worker.py",
        "if is_file_alone(file, path) and is_settled(file):",
        "if is_file_alone(file, path):",
        "integration/sources/test_sqlite.py",
    ),
    _check(
        "a snapshot puts no live database into WAL mode",
        "sources/sqlite_open.py",
        "        _leave_wal(copy)\n        yield copy\n        return",
        "        yield copy\n        return",
        "integration/sources/test_sqlite.py",
    ),
    _check(
        "a database with damaged pages is no good copy",
        "sources/sqlite_digest.py",
        'if lines != ["ok"]:',
        "if False:",
        "integration/sources/test_sqlite.py",
    ),
    _check(
        "a database that is damaged does not keep a restore from replacing it",
        "operations/safety_backup.py",
        "tuple(one for one in found.databases if one.name not in lost)",
        "found.databases",
        "integration/restore/test_in_place.py",
    ),
    _check(
        "a database that cannot be copied, but is not damaged, is not moved aside",
        "operations/sqlite_part.py",
        "        except (SourceInvalid, SourceMissing):\n            return False",
        "        except SourceError:\n            return False",
        "integration/restore/test_harm.py",
    ),
    _check(
        "no symlink is followed beside a kept folder",
        "sources/files.py",
        "flags | os.O_NOFOLLOW | os.O_CLOEXEC",
        "flags | os.O_CLOEXEC",
        "unit/sources/test_files.py",
    ),
    _check(
        "a disk that failed while files were sent to it fails the restore",
        "operations/stage_tree.py",
        "            self._sending.result()",
        "            self._sending.exception()",
        "unit/operations/test_extract.py",
    ),
)


OPERATIONS = (
    _check(
        "what was verified has the digest of the manifest",
        "operations/captured.py",
        "    if size != content.size or digest.hexdigest() != content.sha256:\n"
        '        raise Damaged("its bytes do not have the digest the manifest gives")\n'
        "    return size",
        "    return size",
        SINGLE,
    ),
    _check(
        "a prune looks again when somebody else commits",
        "operations/prune.py",
        "        def look_again(_entries: Sequence[ChainEntry]) -> None:\n            raise _Stale",
        "        def look_again(_entries: Sequence[ChainEntry]) -> None:\n            return",
        "unit/operations/test_prune.py",
    ),
    _check(
        "a line of the restore journal follows the one before",
        "operations/journal.py",
        '            if value["prev"] != digest:',
        "            if False:",
        "unit/operations/test_journal.py",
    ),
    _check(
        "a safety backup is taken before anything is swapped",
        "operations/restore.py",
        "            self._take_safety_backup()\n            self._swap()",
        "            self._swap()",
        "integration/restore/test_in_place.py",
    ),
    _check(
        "a restore plan fits the repository it is carried out with",
        "operations/planned.py",
        "    if repository.repo_id != plan.repo_id or not same:",
        "    if False:",
        "integration/restore/test_harm.py",
        "integration/restore/test_in_place.py",
    ),
    _check(
        "a lock that could not be extended makes a run degraded",
        "operations/backup.py",
        "Outcome.DEGRADED if lock_problems else Outcome(snapshot.outcome)",
        "Outcome(snapshot.outcome)",
        "unit/operations/test_locking.py",
    ),
    _check(
        "a lock that ends soon is extended",
        "operations/locking.py",
        "            if until is None or until <= self._enough:",
        "            if until is None:",
        "unit/operations/test_locking.py",
    ),
    _check(
        "nothing is committed when the repository went away",
        "operations/read_back.py",
        "    if repository.storage.stat(CONFIG) is None:",
        "    if False:",
        "unit/operations/test_read_back.py",
    ),
    _check(
        "a pinned snapshot is not forgotten",
        "operations/forget.py",
        "        if snapshot in pinned:",
        "        if False:",
        "unit/operations/test_forget.py",
    ),
)

ACCESS = (
    _check(
        "a code of the authenticator works once",
        "access/second_factor.py",
        "SecondFactor.last_step < step)",
        "SecondFactor.last_step >= 0)",
        "unit/access/test_second_factor.py",
    ),
    _check(
        "a step-up works once",
        "access/step_up.py",
        "unused.values(used_at=clock.now()).returning(StepUp.id)",
        "unused.values(used_at=None).returning(StepUp.id)",
        "unit/access/test_second_factor.py",
    ),
    _check(
        "a step-up is for one plan",
        "access/step_up.py",
        "            StepUp.plan_digest == act.digest,\n",
        "",
        "unit/access/test_second_factor.py",
    ),
    _check(
        "a step-up expires",
        "access/step_up.py",
        "            StepUp.expires_at > clock.now(),\n",
        "",
        "unit/access/test_second_factor.py",
    ),
    _check(
        "an address that is not on the list is denied",
        "access/allowlist.py",
        '    return AllowDecision(False, str(address), f"denied: {address} is not on the list")',
        '    return AllowDecision(True, str(address), "")',
        "unit/access/test_allowlist.py",
    ),
    _check(
        "an entry of the audit log carries a seal",
        "access/audit.py",
        '        if not hmac.compare_digest(str(record["mac"]), self._mac(record)):',
        "        if False:",
        "unit/access/test_audit.py",
    ),
    _check(
        "an entry of the audit log follows the one before",
        "access/audit.py",
        '        if record["prev"] != before:',
        "        if False:",
        "unit/access/test_audit.py",
    ),
    _check(
        "a permission is asked for",
        "access/permissions.py",
        "    if not actor.may(permission):",
        "    if False:",
        "unit/web/test_guards.py",
        "unit/control/test_restores.py",
        "unit/web/test_pages.py",
    ),
    _check(
        "every guarded view refuses who may not",
        "web/guards.py",
        "            return refusal if refusal is not None else view(*args, **kwargs)",
        "            return view(*args, **kwargs)",
        "unit/web/test_guards.py",
        "unit/web/test_pages.py",
    ),
    _check(
        "a form carries our token",
        "web/forgery.py",
        '    _check_token(request.form.get(FIELD) or request.headers.get(HEADER) or "")',
        "    return",
        "unit/web/test_forgery.py",
    ),
    _check(
        "a change from another site is refused",
        "web/forgery.py",
        '    if request.headers.get("Sec-Fetch-Site", "same-origin") not in _OWN_PAGE:',
        "    if False:",
        "unit/web/test_forgery.py",
    ),
    _check(
        "a restore starts with a step-up for its plan",
        "control/restores.py",
        "        step_up.consume(session, installation.clock, actor=confirmation.actor, act=act)\n\n"
        '    _audited(installation, confirmation, operation, "restore.start", check)',
        '        del act\n\n    _audited(installation, confirmation, operation, "restore.start", check)',
        "unit/control/test_restores.py",
    ),
)

ROWS = (
    _check(
        "the undo of rows touches no row that was changed since",
        "sources/merging/undoing.py",
        'THEN {_LEFT} "\n        f"ELSE {_CHANGED} END FROM {live} AS l WHERE {after.key_matches',
        'THEN {_LEFT} "\n        f"ELSE {_LEFT} END FROM {live} AS l WHERE {after.key_matches',
        f"{UNDO_ROWS}::test_a_row_that_somebody_changed_since_keeps_all_of_it_as_it_is",
    ),
    _check(
        "the undo of rows is all of them or none",
        "sources/merging/undoing.py",
        "    if not report.is_refused:\n        _put_back(",
        "    if True:\n        _put_back(",
        f"{UNDO_ROWS}::test_a_row_that_somebody_changed_since_keeps_all_of_it_as_it_is",
    ),
    _check(
        "the undo of rows takes no row that another refers to",
        "sources/merging/undoing.py",
        "    refusals = tuple(_find_referring(engine, graph, kept))",
        "    refusals = ()",
        f"{UNDO_ROWS}::test_rows_that_others_refer_to_since_do_not_go",
    ),
    _check(
        "the undo of rows asks for a record that is whole",
        "sources/merging/record.py",
        '    if _read(last) != {"end": count - 1, "sha256": digest.hexdigest()}:',
        "    if False:",
        f"{UNDO_ROWS}::test_a_record_that_is_not_whole_is_refused",
    ),
    _check(
        "the undo of rows asks for the key that a table had",
        "sources/merging/record.py",
        '    if list(table.key) != header["key"]:',
        "    if False:",
        f"{UNDO_ROWS}::test_a_table_that_has_another_key_than_before_refuses_the_undo",
    ),
    _check(
        "the undo of rows drops no table that is in use",
        "sources/sqlite_undo.py",
        "        if table is not None and not engine",
        "        if table is not None or engine",
        f"{UNDO_ROWS}::test_a_table_that_the_restore_made_goes_again_unless_it_is_in_use",
    ),
    _check(
        "the undo of rows takes away no file that was changed since",
        "operations/linked_undo.py",
        '        if has_digest(root, path, line["sha256"]):',
        "        if stat_beneath(root, path) is not None:",
        "unit/control/test_restore_of_rows.py::"
        "test_a_row_or_file_that_somebody_changed_since_is_not_touched_by_the_undo",
    ),
    _check(
        "the undo of rows is not for a database that was replaced since",
        "operations/undo.py",
        " and not is_beneath_another(journal, journals):",
        ":",
        "e2e/cli/test_rows.py::test_rows_of_a_database_that_was_replaced_are_undone_after_that_is",
    ),
    _check(
        "a restore of rows that was interrupted is no restore when no row is there",
        "operations/rows_undo.py",
        "    if found.already and not found.left and not found.changed:",
        "    if False:",
        "unit/control/test_restore_of_rows.py::test_after_a_crash_it_is_found_out_whether_the_rows_are_there",
    ),
    _check(
        "what was live and stands aside is not dropped when a restore is put back",
        "sources/postgres/server.py",
        "        if exists(connection, names.old):\n            raise",
        "        if False:\n            raise",
        "e2e/cli/test_postgres_put_back.py::"
        "test_the_database_that_was_live_is_not_dropped_where_it_stands_aside",
    ),
)

CELLS = (
    _check(
        "what fills up a short cell is not digested",
        "sources/sqlite_btree.py",
        "        if min(sizes) <= _LEAST_CELL or max",
        "        if max",
        CELL_TESTS,
    ),
    _check(
        "a long row is not digested without its overflow pages",
        "sources/sqlite_btree.py",
        " or max(sizes) >= self._least_local:",
        ":",
        CELL_TESTS,
    ),
    _check(
        "what was removed from a page is not digested",
        "sources/sqlite_btree.py",
        "            if free or scattered or not self._take_whole",
        "            if not self._take_whole",
        CELL_TESTS,
    ),
    _check(
        "a cell beyond its page is damage",
        "sources/sqlite_btree.py",
        "            if at + local > usable:",
        "            if False:",
        CELL_TESTS,
    ),
    _check(
        "pages that refer to each other in a circle are damage",
        "sources/sqlite_btree.py",
        "        if self._pages_left < 0:",
        "        if False:",
        CELL_TESTS,
    ),
    _check(
        "a digest of the older kind is kept while the table is the same",
        "sources/sqlite_digest.py",
        "            if name == COUNTERS or found",
        "            if name == COUNTERS and found",
        CELL_TESTS,
    ),
)

SIDE_BY_SIDE = (
    _check(
        "a table that somebody waits to drop is read where it is locked",
        "sources/postgres/capture.py",
        "        if _locks_at_once(connection, table):",
        "        if True:",
        "integration/postgres/test_capture.py::"
        "test_who_waits_to_drop_a_table_does_not_stop_a_capture_for_ever",
    ),
    _check(
        "an archive divided by an enumeration is loaded by one job",
        "sources/postgres/load.py",
        "self._archives.restore_whole(1 if divided else self._archives.jobs)",
        "self._archives.restore_whole(self._archives.jobs)",
        "integration/postgres/test_odd_databases.py::"
        "test_an_archive_of_a_table_divided_by_a_hash_is_loaded_by_one_job",
    ),
    _check(
        "a drill fails when the heartbeat is too old",
        "operations/cluster_drill.py",
        "    if moment - newest > canary.within:",
        "    if False:",
        "integration/postgres/test_point_in_time.py::"
        "test_a_drill_goes_to_any_time_and_fails_when_the_heartbeat_there_is_too_old",
    ),
)

COMPANIONS = (
    _check(
        "a companion of the worker that ended is started again",
        "control/companions.py",
        "            if not process.is_alive():\n                self.start(",
        "            if False:\n                self.start(",
        "integration/test_streams_of_an_app.py::test_killed_it_is_started_again_and_has_lost_nothing",
    ),
    _check(
        "a companion of the worker ends when the worker is killed",
        "control/companions.py",
        "    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)\n",
        "",
        "integration/test_jobs.py::test_no_process_outlives_a_killed_worker",
    ),
    _check(
        "a job starts no companion of its worker",
        "control/companions.py",
        "        if os.getpid() != self._owner:",
        "        if False:",
        "integration/test_jobs.py::test_the_loop_beside_the_worker_starts_what_is_due_and_ends_with_it",
        "integration/test_streams_of_an_app.py::test_what_happened_between_two_backups_comes_back",
    ),
)

CHECKS = (
    *OBJECTS,
    *JSON,
    *KEYS,
    *HISTORY,
    *DISKS,
    *SOURCES,
    *OPERATIONS,
    *ACCESS,
    *ROWS,
    *CELLS,
    *SIDE_BY_SIDE,
    *COMPANIONS,
)
