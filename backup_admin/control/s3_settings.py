"""The settings of a bucket, one by one under their names in the plan, and the address they make."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from sqlalchemy import delete, select

from backup_admin.control.stored import write_value
from backup_admin.core.errors import UsageError
from backup_admin.records import StoredSetting
from backup_admin.storage.s3_place import endpoint, parse_s3_address

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from backup_admin.core.clock import Clock

SCHEME = "s3://"
_ROW = "backup_s3_"
_OWN_FIELDS = ("endpoint", "region", "path_style", "use_ssl", "ca_file")


@dataclass(frozen=True, slots=True)
class S3Fields:
    """A bucket as a form asks for it. Each field is the row `backup_s3_<name>`."""

    bucket: str = ""
    prefix: str = ""
    endpoint: str = ""
    """Empty means AWS; without a scheme, `use_ssl` decides."""
    region: str = ""
    use_ssl: bool = True
    path_style: bool | None = None
    """None leaves it to what the service usually wants."""
    ca_file: str = ""
    options: tuple[tuple[str, str], ...] = ()
    """What else an address can say, such as `lock_days`, by name."""


def address_of(given: S3Fields) -> str:
    """Return the address these settings make; raise `UsageError` for an endpoint that is none."""
    query = {
        "endpoint": endpoint(given.endpoint, use_ssl=given.use_ssl),
        "region": given.region,
        "path_style": "" if given.path_style is None else str(given.path_style).lower(),
        "ca_file": given.ca_file,
    }
    kept = {name: value for name, value in query.items() if value} | dict(given.options)
    where = f"{SCHEME}{quote(given.bucket, safe='')}/{quote(given.prefix.strip('/'))}".rstrip("/")
    return f"{where}?{urlencode(kept, safe='/:')}" if kept else where


def fields_of(address: str) -> S3Fields:
    """Return the settings an `s3://` address stands for; raise `UsageError`."""
    place = parse_s3_address(address)
    options = parse_qsl(urlsplit(address).query, keep_blank_values=True)
    return S3Fields(
        bucket=place.bucket,
        prefix=place.prefix,
        endpoint=place.endpoint,
        region=place.region,
        use_ssl=not place.endpoint.startswith("http:"),
        path_style=place.path_style,
        ca_file=place.ca_file,
        options=tuple(sorted((name, value) for name, value in options if name not in _OWN_FIELDS)),
    )


def find_mistakes(given: S3Fields) -> dict[str, str]:
    """Say what is wrong with which field, before anything is sent."""
    alone = {
        "bucket": S3Fields(given.bucket),
        "prefix": S3Fields("any", given.prefix),
        "endpoint": S3Fields("any", endpoint=given.endpoint, use_ssl=given.use_ssl),
        "region": S3Fields("any", region=given.region),
    }
    found = {}
    for name, one in alone.items():
        try:
            parse_s3_address(address_of(one))
        except UsageError as error:
            found[name] = str(error)
    return found


def read_address(session: Session) -> str:
    """Return the address the stored settings make, or nothing where no bucket is set."""
    rows = select(StoredSetting).where(StoredSetting.name.in_(_row_names()))
    values = {row.name.removeprefix(_ROW): row.value for row in session.scalars(rows)}
    if not values.get("bucket"):
        return ""
    options = tuple((str(name), str(value)) for name, value in values.pop("options", []))
    return address_of(S3Fields(**values, options=options))


def write_fields(session: Session, clock: Clock, given: S3Fields, *, by: str) -> None:
    """Store the settings of a bucket; the caller commits."""
    for each in fields(given):
        value = getattr(given, each.name)
        stored = [list(pair) for pair in value] if each.name == "options" else value
        write_value(session, clock, _ROW + each.name, stored, by=by)


def forget_fields(session: Session) -> None:
    """Remove the settings of a bucket, not its keys; the caller commits."""
    session.execute(delete(StoredSetting).where(StoredSetting.name.in_(_row_names())))


def _row_names() -> tuple[str, ...]:
    return tuple(_ROW + each.name for each in fields(S3Fields))
