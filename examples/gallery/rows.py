"""Write the gallery's rows: one insert per table, whatever the number of rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from sqlalchemy import Connection, insert, update

from examples.gallery import models, texts
from examples.gallery.library import NEWEST, YEARS_BACK, Library, PlannedPhoto

Row = dict[str, Any]

_SETTING_COUNT = 113
_LANGUAGES = ("en", "de", "fr", "es", "ar", "nl")
_MAILS = ("gallery_created", "reminder", "expiry", "archived", "invite")


@dataclass(frozen=True, slots=True)
class Amounts:
    """How many rows the growing tables get."""

    access_logs: int
    image_access_logs: int
    activity_logs: int
    security_logs: int
    feedback: int
    guests: int
    mails: int


def write_rows(connection: Connection, random: Random, library: Library, amounts: Amounts) -> None:
    """Fill every table; parents first, the circles closed at the end."""
    _write_people(connection, random)
    _write_fixed(connection, random)
    write_library(connection, random, library)
    _write_guests(connection, random, library, amounts)
    write_logs(connection, random, library, amounts)
    _write_mails(connection, random, library, amounts.mails)


def write_library(connection: Connection, random: Random, library: Library) -> None:
    """Write events, categories and photos, then point each hero at its photo."""
    by_event: dict[int, list[PlannedPhoto]] = {event.id: [] for event in library.events}
    by_category: dict[int, int] = {}
    for photo in library.photos:
        by_event[photo.event_id].append(photo)
        by_category.setdefault(photo.category_id, photo.id)
    _insert(connection, models.Event, _event_rows(random, library, by_event))
    _insert(connection, models.PhotoCategory, _category_rows(library))
    _insert(connection, models.Photo, [_photo_row(random, p) for p in library.photos])
    for event_id, photos in by_event.items():
        hero = update(models.Event).where(models.Event.id == event_id)
        connection.execute(hero.values(hero_photo_id=photos[0].id))
    for category_id, photo_id in by_category.items():
        category = update(models.PhotoCategory)
        category = category.where(models.PhotoCategory.id == category_id)
        connection.execute(category.values(hero_photo_id=photo_id))


def write_logs(connection: Connection, random: Random, library: Library, amounts: Amounts) -> None:
    """Append to the four logs."""
    events = [event.id for event in library.events]
    photos = [photo.id for photo in library.photos]
    _insert(connection, models.AccessLog, _access_rows(random, events, amounts))
    _insert(connection, models.ImageAccessLog, _image_rows(random, photos, amounts))
    activity: list[Row] = [
        {
            "actor": random.choice(("admin", "guest", "system")),
            "activity": random.choice(("event_created", "photos_uploaded", "download")),
            "details": {"event": random.choice(events), "note": "ok ✓", "n": number},
            "at": _moment(random),
        }
        for number in range(amounts.activity_logs)
    ]
    _insert(connection, models.ActivityLog, activity)
    security: list[Row] = [
        {
            "ip_address": texts.ip_address(random),
            "event": random.choice(("login_failed", "locked_out", "token_refused")),
            "at": _moment(random),
        }
        for _ in range(amounts.security_logs)
    ]
    _insert(connection, models.SecurityLog, security)


def naive_utc(at: datetime) -> datetime:
    """Return what SQLite stores for this moment."""
    return at.astimezone(UTC).replace(tzinfo=None)


def _insert(connection: Connection, model: type[models.Base], rows: Sequence[Row]) -> None:
    if rows:
        connection.execute(insert(model), rows)


def _moment(random: Random) -> datetime:
    return naive_utc(NEWEST - YEARS_BACK * random.random() ** 2)


def _write_people(connection: Connection, random: Random) -> None:
    roles = ("admin", "editor", "viewer", "customer")
    permissions = [f"{thing}.{verb}" for thing in _THINGS for verb in _VERBS]
    _insert(connection, models.Role, _numbered("name", roles))
    _insert(connection, models.Permission, _numbered("name", permissions))
    granted: list[Row] = [
        {"role_id": role, "permission_id": permission}
        for role in range(1, 5)
        for permission in range(1, len(permissions) + 1)
        if permission % role == 0
    ]
    _insert(connection, models.RolePermission, granted)
    users: list[Row] = [
        {
            "id": number,
            "username": name,
            "email": f"{name}@gallery.example",
            "password_hash": texts.bcrypt_like(random),
            "role_id": min(number, 3),
            "created_by": number - 1 or None,
            "is_active": number < 4,
            "created_at": naive_utc(NEWEST - YEARS_BACK),
            "last_login_at": None,
        }
        for number, name in enumerate(("admin", "editor", "viewer", "left"), start=1)
    ]
    _insert(connection, models.AdminUser, users)
    customers: list[Row] = [
        {
            "id": number,
            "name": f"{random.choice(texts.GUESTS)} & family",
            "email": f"customer{number}@mail.example",
            "notes": texts.markdown(random, 3),
            "balance_cents": random.randrange(2**31, 2**33) * (-1) ** number,
        }
        for number in range(1, 13)
    ]
    _insert(connection, models.CustomerAccount, customers)


_THINGS = ("event", "photo", "user", "setting", "mail", "archive", "customer", "backup")
_VERBS = ("view", "create", "edit", "delete")


def _numbered(column: str, values: Sequence[str]) -> list[Row]:
    return [{"id": number, column: value} for number, value in enumerate(values, 1)]


def _write_fixed(connection: Connection, random: Random) -> None:
    """Write the tables that every install has in about the same size."""
    types = [
        {"id": number, "slug": slug, "name": name, "emoji": emoji}
        for number, (slug, name, emoji) in enumerate(texts.EVENT_TYPES, start=1)
    ]
    _insert(connection, models.EventType, types)
    _insert(connection, models.AppSetting, _setting_rows(random))
    _insert(connection, models.EmailTemplate, _template_rows(random))
    flags = [{"name": f"feature_{n:02d}", "is_enabled": n % 3 == 0} for n in range(11)]
    _insert(connection, models.FeatureFlag, flags)
    pages = [
        {"slug": slug, "title": slug.title(), "body_markdown": texts.markdown(random, 60)}
        for slug in texts.PAGES
    ]
    _insert(connection, models.CmsPage, pages)
    looks = [{"name": name, "css": _css(random)} for name in ("Quiet", "Bold “2”", "Ночь")]
    _insert(connection, models.CssTemplate, looks)
    migrations = [{"filename": f"{n:03d}_step.js", "applied_at": _moment(random)} for n in range(1, 84)]
    _insert(connection, models.Migration, migrations)
    _write_tokens(connection, random)


def _write_tokens(connection: Connection, random: Random) -> None:
    tokens = [
        {
            "id": number,
            "user_id": number % 3 + 1,
            "name": f"script {number}",
            "token_hash": texts.token(random),
            "expires_at": None if number % 2 else naive_utc(NEWEST),
        }
        for number in (1, 2, 5, 9, 40)
    ]
    _insert(connection, models.ApiToken, tokens)
    revoked = [{"token_id": texts.token(random), "revoked_at": _moment(random)} for _ in range(60)]
    _insert(connection, models.RevokedToken, revoked)


def _setting_rows(random: Random) -> list[Row]:
    samples: tuple[tuple[str, Any], ...] = (
        ("string", "Studio “Lumière” 📸"),
        ("number", 9_007_199_254_740_991),
        ("number", 0.1),
        ("boolean", True),
        ("json", {"a": [1, 2.5, None, "ü"], "nested": {"": []}}),
        ("string", "enc:v1:" + texts.token(random)),
        ("string", None),
        ("boolean", False),
    )
    return [
        {
            "id": number,
            "setting_key": f"gallery_setting_{number:03d}",
            "setting_value": samples[number % len(samples)][1],
            "setting_type": samples[number % len(samples)][0],
            "updated_at": _moment(random),
        }
        for number in range(1, _SETTING_COUNT + 1)
    ]


def _template_rows(random: Random) -> list[Row]:
    return [
        {
            "key": key,
            "language": language,
            "subject": f"{{{{event}}}} — {key} 📷",
            "body": texts.markdown(random, 8),
        }
        for key in _MAILS
        for language in _LANGUAGES
    ]


def _css(random: Random) -> str:
    rules = [
        f".ph-{n}::before {{ content: '\\201C'; color: #{random.getrandbits(24):06x} }}" for n in range(120)
    ]
    return '@charset "utf-8";\n' + "\n".join(rules)


def _event_rows(random: Random, library: Library, photos: dict[int, list[PlannedPhoto]]) -> list[Row]:
    types = [slug for slug, _, _ in texts.EVENT_TYPES]
    return [
        {
            "id": event.id,
            "slug": event.slug,
            "title": event.title,
            "type_id": types.index(event.subject.type_slug) + 1,
            "customer_id": random.randrange(1, 13),
            "event_date": event.happened_at.date(),
            "status": "active",
            "password_hash": texts.bcrypt_like(random),
            "share_token": texts.token(random),
            "welcome_message": texts.markdown(random, 6),
            "theme": {"primary": f"#{random.getrandbits(24):06x}", "font": "Inter"},
            "allow_downloads": random.random() < 0.8,
            "average_rating": random.choice((None, 4.25, 3.9, 5.0)),
            "total_bytes": sum(p.size_bytes for p in photos[event.id]) + 2**33,
            "view_count": random.randrange(2**31, 2**35),
            "created_by": 1,
            "created_at": naive_utc(event.happened_at + timedelta(days=1)),
            "expires_at": naive_utc(event.happened_at + timedelta(days=366)),
        }
        for event in library.events
    ]


def _category_rows(library: Library) -> list[Row]:
    return [
        {
            "id": category.id,
            "event_id": category.event_id,
            "slug": category.name.lower().replace(" ", "-"),
            "name": category.name,
        }
        for category in library.categories
    ]


def _photo_row(random: Random, photo: PlannedPhoto) -> Row:
    return {
        "id": photo.id,
        "event_id": photo.event_id,
        "category_id": photo.category_id,
        "filename": photo.filename,
        "path": photo.path,
        "thumbnail_path": photo.thumbnail_path,
        "preview_path": photo.preview_path,
        "size_bytes": photo.size_bytes,
        "width": 6240,
        "height": 4160,
        "visibility": random.choice(("visible",) * 18 + ("hidden", "client_only")),
        "is_favorite": random.random() < 0.1,
        "caption": random.choice(texts.COMMENTS) if random.random() < 0.2 else None,
        "exif": _exif(random, photo),
        "taken_at": naive_utc(photo.taken_at),
        "uploaded_at": naive_utc(photo.taken_at + timedelta(days=1)),
    }


def _exif(random: Random, photo: PlannedPhoto) -> dict[str, Any]:
    return {
        "Model": f"Camera {photo.header[7]}",
        "ExposureTime": f"1/{random.choice((60, 125, 250, 500))}",
        "FNumber": random.choice((1.4, 2.8, 4.0)),
        "ISO": random.choice((100, 400, 3200)),
        "GPS": [52.0 + random.random(), 13.0 + random.random()],
        "MakerNote": random.randbytes(1_700).hex(),
    }


def _write_guests(connection: Connection, random: Random, library: Library, amounts: Amounts) -> None:
    events = [event.id for event in library.events]
    photos = [photo.id for photo in library.photos]
    guests: list[Row] = [
        {
            "id": number,
            "event_id": random.choice(events),
            "name": random.choice(texts.GUESTS),
            "invite_token": texts.token(random),
            "created_at": _moment(random),
        }
        for number in range(1, amounts.guests + 1)
    ]
    _insert(connection, models.GalleryGuest, guests)
    feedback = [_feedback_row(random, photos, amounts.guests) for _ in range(amounts.feedback)]
    _insert(connection, models.PhotoFeedback, feedback)


def _feedback_row(random: Random, photos: Sequence[int], guests: int) -> Row:
    kind = random.choice(("like", "rating", "comment"))
    return {
        "photo_id": random.choice(photos),
        "guest_id": random.randint(1, guests),
        "kind": kind,
        "rating": random.randint(1, 5) if kind == "rating" else None,
        "comment": random.choice(texts.COMMENTS) if kind == "comment" else None,
        "created_at": _moment(random),
    }


def _access_rows(random: Random, events: Sequence[int], amounts: Amounts) -> list[Row]:
    return [
        {
            "event_id": event,
            "ip_address": texts.ip_address(random),
            "user_agent": random.choice(texts.USER_AGENTS),
            "action": random.choice(("view", "download", "login_ok")),
            "bytes_sent": random.randrange(2**34),
            "at": at,
        }
        for event, at in _sorted_moments(random, events, amounts.access_logs)
    ]


def _image_rows(random: Random, photos: Sequence[int], amounts: Amounts) -> list[Row]:
    return [
        {
            "photo_id": photo,
            "ip_address": texts.ip_address(random),
            "fingerprint": texts.token(random),
            "at": at,
        }
        for photo, at in _sorted_moments(random, photos, amounts.image_access_logs)
    ]


def _sorted_moments(random: Random, ids: Sequence[int], amount: int) -> Iterator[tuple[int, datetime]]:
    for at in sorted(_moment(random) for _ in range(amount)):
        yield random.choice(ids), at


def _write_mails(connection: Connection, random: Random, library: Library, amount: int) -> None:
    rows: list[Row] = []
    for number in range(amount):
        status = "pending" if number >= amount - 8 else random.choice(("sent",) * 9 + ("failed",))
        event = random.choice(library.events)
        at = _moment(random)
        rows.append(
            {
                "event_id": event.id,
                "recipient": f"guest{number}@mail.example",
                "template_key": random.choice(_MAILS),
                "variables": {"event": event.title, "link": texts.token(random)},
                "status": status,
                "attempts": {"pending": 0, "sent": 1, "failed": 3}[status],
                "error": "550 mailbox unavailable" if status == "failed" else None,
                "created_at": at,
                "sent_at": at + timedelta(seconds=9) if status == "sent" else None,
            }
        )
    _insert(connection, models.EmailQueue, rows)
