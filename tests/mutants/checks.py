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

CHECKS = (*OBJECTS, *JSON, *KEYS, *HISTORY, *DISKS, *SOURCES, *OPERATIONS, *ACCESS)
