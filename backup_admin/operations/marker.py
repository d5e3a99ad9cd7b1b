"""Make the object `config` again when it is lost: slots and state folder know the identity."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from backup_admin.core.clock import SystemClock
from backup_admin.core.errors import (
    Damaged,
    NotARepository,
    ObjectMissing,
    RepositoryError,
    VerificationFailed,
)
from backup_admin.core.ids import new_ulid
from backup_admin.repository import slots
from backup_admin.repository.config import (
    NAME,
    SINGLE_WRITER,
    Config,
    Parameters,
    check_config,
    read_config,
    seal_config,
)
from backup_admin.repository.epochs import find_epoch
from backup_admin.repository.keys import RepositoryKeys
from backup_admin.storage.probe import probe_storage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from backup_admin.core.state import StateFolder
    from backup_admin.repository.secrets import RepositorySecret
    from backup_admin.storage.base import Storage

_QUARANTINED = f"quarantine/{NAME}"
_IN_TEXT = re.compile(rb'"repo_id":"([0-9a-f]{64})"')
_IN_STATE = re.compile(r"[0-9a-f]{64}")


def open_keys(storage: Storage, secrets: Sequence[RepositorySecret], state: StateFolder) -> RepositoryKeys:
    """Open the keyring without the help of `config`.

    The identity of the repository, which each slot is bound to, is looked for in
    what is left of `config` and among the repositories this machine has seen.
    Raises `Damaged` when none of them fits.
    """
    for repo_id in dict.fromkeys(_identities(storage, state)):
        for secret in secrets:
            try:
                keyring = slots.open_slots(storage, secret, repo_id)
            except RepositoryError:
                continue  # another repository, or another key: the next may fit
            return RepositoryKeys(keyring, repo_id, partial(find_epoch, storage))
    raise Damaged(
        f"No slot in {storage.label} opens with this key for any repository this machine has seen. Use the "
        "state folder of the machine that backed up to it (--state-dir), and its key. Nothing was changed."
    )


def is_config_lost(storage: Storage, keys: RepositoryKeys) -> bool:
    """Say whether `config` is missing or not what was written; one of a newer version is neither."""
    try:
        config, raw = read_config(storage)
        check_config(raw, keys)
    except (NotARepository, Damaged):
        return True
    return config.repo_id != keys.repo_id


def remake_config(storage: Storage, keys: RepositoryKeys) -> None:
    """Write `config` anew, with the default parameters; what was there is kept in quarantine.

    Only writers need the parameters: other ones make new data share fewer chunks with
    old data for once. Raises `VerificationFailed` when it cannot be read back.
    """
    keeps_names = probe_storage(storage, new_ulid(SystemClock().now())).keeps_names
    files = [file for file in slots.survey_slots(storage) if file.info is not None]
    created = min(file.info.created_at for file in files if file.info is not None)
    digests = {file.id: file.digest for file in files}
    features = () if keeps_names else (SINGLE_WRITER,)
    sealed = seal_config(Config(keys.repo_id, created, Parameters(), digests, features), keys)
    try:
        storage.put(_QUARANTINED, storage.get(NAME))
    except ObjectMissing:
        storage.put(NAME, sealed)
    else:
        storage.put(NAME, sealed, if_absent=False)
    if storage.get(NAME) != sealed:
        raise VerificationFailed(f"The object 'config' in {storage.label} is not what was written.")


def _identities(storage: Storage, state: StateFolder) -> Iterator[bytes]:
    try:
        found = _IN_TEXT.search(storage.get(NAME, 0, 64 << 10))
    except ObjectMissing:
        found = None
    if found is not None:
        yield bytes.fromhex(found[1].decode())
    for path in sorted(state.heads.glob("*.json")):
        if _IN_STATE.fullmatch(path.stem):
            yield bytes.fromhex(path.stem)
