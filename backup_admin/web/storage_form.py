"""The form that chooses a storage: what was typed, the address it makes, and each mistake at its field."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from backup_admin.control import engine, s3_keys
from backup_admin.control.s3_settings import S3Fields, address_of, fields_of, find_mistakes
from backup_admin.core.errors import (
    BackupAdminError,
    StorageDenied,
    StorageError,
    StorageUnavailable,
    UsageError,
)
from backup_admin.storage.base import Hurdle
from backup_admin.storage.ssh_errors import HostUnknown, NotLetIn
from backup_admin.storage.ssh_place import parse_ssh_address

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backup_admin.core.settings import Settings
    from backup_admin.storage.s3_place import S3Credentials
    from backup_admin.storage.ssh_place import SshPlace

_TEXTS = (
    *("folder", "storage"),
    *("s3_endpoint", "s3_bucket", "s3_prefix", "s3_region", "s3_path_style", "s3_ca_file", "s3_access_key"),
    *("ssh_user", "ssh_host", "ssh_port", "ssh_folder", "ssh_host_key"),
)
_PATH_STYLES = {"": None, "true": True, "false": False}


class Kind(StrEnum):
    """Which part of the form counts."""

    FOLDER = "folder"
    BUCKET = "s3"
    HOST = "ssh"
    ADDRESS = "address"


# Where a first contact that failed is told: which field one would change.
_FIELD_OF: dict[tuple[Kind, Hurdle], str] = {
    (Kind.BUCKET, Hurdle.REACH): "s3_endpoint",
    (Kind.BUCKET, Hurdle.NO_CREDENTIALS): "s3_access_key",
    (Kind.BUCKET, Hurdle.CREDENTIALS): "s3_access_key",
    (Kind.BUCKET, Hurdle.RIGHTS): "s3_access_key",
    (Kind.BUCKET, Hurdle.PLACE): "s3_bucket",
    (Kind.HOST, Hurdle.REACH): "ssh_host",
    (Kind.HOST, Hurdle.CREDENTIALS): "ssh_host_key",
    (Kind.HOST, Hurdle.RIGHTS): "ssh_folder",
    (Kind.HOST, Hurdle.PLACE): "ssh_folder",
}


_UNOPENED = ((StorageUnavailable, Hurdle.REACH), (StorageDenied, Hurdle.CREDENTIALS))


class FormMistakes(UsageError):
    """Some fields cannot be as they were typed; nothing was sent."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        super().__init__("Correct what is marked in the form. Nothing was sent.")
        self.fields = fields


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a form says without a mistake."""

    address: str
    credentials: S3Credentials | None


@dataclass(frozen=True, slots=True)
class StorageForm:
    """What is in the form, and what was wrong with it. The secret key is never in it."""

    kind: Kind = Kind.FOLDER
    text: Mapping[str, str] = field(default_factory=lambda: dict.fromkeys(_TEXTS, ""))
    use_ssl: bool = True
    errors: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    """What failed and belongs to no field."""
    unknown_host: HostUnknown | None = None
    """A host whose fingerprint a person has to confirm."""
    line: str = ""
    """What the host needs in `authorized_keys` before it lets us in."""

    @property
    def failed(self) -> bool:
        """Say whether it was sent and could not be used."""
        return bool(self.errors or self.problem or self.unknown_host or self.line)


def read_form(sent: Mapping[str, str]) -> StorageForm:
    """Return what was sent; an address alone, as scripts send it, will do."""
    kind = sent.get("kind", Kind.ADDRESS)
    return StorageForm(
        kind=Kind(kind) if kind in set(Kind) else Kind.ADDRESS,
        text={name: sent.get(name, "").strip() for name in _TEXTS},
        use_ssl=sent.get("s3_use_ssl") == "on",
    )


def form_of(address: str) -> StorageForm:
    """Return the form an address would have been typed into; what no field says goes into the address."""
    try:
        return _form_of(address)
    except UsageError:  # a deployment may pin anything; whoever opens it says what is wrong
        return StorageForm(Kind.ADDRESS, _texts(storage=address))


def _form_of(address: str) -> StorageForm:
    if not address:
        return StorageForm()
    if address.startswith("s3://") and not fields_of(address).options:
        return _bucket_form(fields_of(address))
    if address.startswith("ssh://"):
        place = parse_ssh_address(address)
        if not (place.identity or place.bandwidth):
            return _host_form(place)
    kind, name = (Kind.ADDRESS, "storage") if "://" in address else (Kind.FOLDER, "folder")
    return StorageForm(kind, _texts(**{name: address}))


def understand(form: StorageForm, sent: Mapping[str, str], *, pinned: str = "") -> Chosen:
    """Return address and keys; raise `FormMistakes`. Where the address is pinned, only keys are read."""
    mistakes: dict[str, str] = {}
    address = pinned or _address(form, mistakes)
    credentials = None
    if form.kind is Kind.BUCKET:
        try:
            credentials = s3_keys.parse_keys(form.text["s3_access_key"], sent.get("s3_secret_key", ""))
        except UsageError as error:
            mistakes["s3_access_key"] = str(error)
    if mistakes:
        raise FormMistakes(mistakes)
    return Chosen(address, credentials)


def after(form: StorageForm, error: BackupAdminError, settings: Settings) -> StorageForm:
    """Return the form with an error where it belongs."""
    if isinstance(error, FormMistakes):
        return replace(form, errors=error.fields)
    if isinstance(error, HostUnknown):
        return replace(form, unknown_host=error)
    if isinstance(error, NotLetIn):
        return replace(form_of(_address(form, {})), line=error.line)
    name = _field_of(form, error, settings) if isinstance(error, StorageError) else ""
    return replace(form, errors={name: str(error)}) if name else replace(form, problem=str(error))


def _field_of(form: StorageForm, error: StorageError, settings: Settings) -> str:
    if form.kind is Kind.FOLDER:
        return "folder"
    if form.kind is Kind.ADDRESS:
        return "storage"
    hurdle = engine.hurdle_of(_address(form, {}), settings, error)
    if hurdle is None:  # it could not even be opened
        hurdle = next((one for kind, one in _UNOPENED if isinstance(error, kind)), None)
    return _FIELD_OF.get((form.kind, hurdle), "") if hurdle is not None else ""


def _address(form: StorageForm, mistakes: dict[str, str]) -> str:
    if form.kind is Kind.BUCKET:
        return _bucket_address(form, mistakes)
    if form.kind is Kind.HOST:
        return _host_address(form, mistakes)
    name = "folder" if form.kind is Kind.FOLDER else "storage"
    typed = form.text[name]
    if not typed:
        mistakes[name] = "Say where the backups shall go."
    elif form.kind is Kind.FOLDER and "://" in typed:
        mistakes[name] = "This is an address, not a folder; choose the kind of storage it belongs to."
    return typed


def _bucket_address(form: StorageForm, mistakes: dict[str, str]) -> str:
    given = S3Fields(
        bucket=form.text["s3_bucket"],
        prefix=form.text["s3_prefix"],
        endpoint=form.text["s3_endpoint"],
        region=form.text["s3_region"],
        use_ssl=form.use_ssl,
        path_style=_PATH_STYLES.get(form.text["s3_path_style"]),
        ca_file=form.text["s3_ca_file"],
    )
    found = {f"s3_{name}": said for name, said in find_mistakes(given).items()}
    mistakes.update(found)
    return "" if "s3_endpoint" in found else address_of(given)


def _host_address(form: StorageForm, mistakes: dict[str, str]) -> str:
    text = form.text
    folder = text["ssh_folder"] if text["ssh_folder"].startswith("/") else f"/{text['ssh_folder']}"
    port = text["ssh_port"] or "22"
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        mistakes["ssh_port"] = f"{port!r} is no port; it is a number, usually 22."
        return ""
    alone = {
        "ssh_host": _ssh_address(host=text["ssh_host"]),
        "ssh_user": _ssh_address(user=text["ssh_user"]),
        "ssh_folder": _ssh_address(folder=folder),
        "ssh_host_key": _ssh_address(host_key=text["ssh_host_key"]),
    }
    for name, one in alone.items():
        try:
            parse_ssh_address(one)
        except UsageError as error:
            mistakes[name] = str(error)
    return _ssh_address(
        user=text["ssh_user"], host=text["ssh_host"], port=port, folder=folder, host_key=text["ssh_host_key"]
    )


def _ssh_address(
    *, user: str = "", host: str = "any", port: str = "22", folder: str = "/any", host_key: str = ""
) -> str:
    """Write an address so that no part can be taken for another one."""
    name = f"{quote(user, safe='@')}@" if user else ""
    server = f"[{host}]" if ":" in host else quote(host, safe="")
    where = f"ssh://{name}{server}{'' if port == '22' else f':{port}'}{quote(folder, safe='/~')}"
    return f"{where}?{urlencode({'host_key': host_key}, safe='/:+')}" if host_key else where


def _bucket_form(given: S3Fields) -> StorageForm:
    style = {value: name for name, value in _PATH_STYLES.items()}[given.path_style]
    text = _texts(
        s3_endpoint=given.endpoint,
        s3_bucket=given.bucket,
        s3_prefix=given.prefix,
        s3_region=given.region,
        s3_path_style=style,
        s3_ca_file=given.ca_file,
    )
    return StorageForm(Kind.BUCKET, text, given.use_ssl)


def _host_form(place: SshPlace) -> StorageForm:
    folder = f"/~{place.folder.removeprefix('.')}" if place.folder.startswith(".") else place.folder
    text = _texts(
        ssh_user=place.user,
        ssh_host=place.host,
        ssh_port="" if place.port == 22 else str(place.port),
        ssh_folder=folder,
        ssh_host_key=place.host_key,
    )
    return StorageForm(Kind.HOST, text)


def _texts(**given: str) -> dict[str, str]:
    return dict.fromkeys(_TEXTS, "") | given
