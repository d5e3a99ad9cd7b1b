"""The gallery's tables, with the traits that break a careless dump and restore.

Foreign keys in circles, a table that points at itself, JSON, decimals, numbers above
2^31, checks, partial indexes, unique keys and sequences with gaps. The classes know
nothing of Flask; `examples.gallery.app` lends them its session.
"""

from datetime import date, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    Numeric,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    """The gallery's own metadata."""

    type_annotation_map = {dict[str, Any]: JSON}  # noqa: RUF012  # read by SQLAlchemy


_GAPS = {"sqlite_autoincrement": True}


def _one_of(column: str, *values: str) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=f"{column}_known")


class AdminUser(Base):
    """Someone who may sign in."""

    __tablename__ = "admin_users"

    id: Mapped[int] = mapped_column(primary_key=True)
    username: Mapped[str] = mapped_column(String(80), unique=True)
    email: Mapped[str] = mapped_column(String(254), unique=True)
    password_hash: Mapped[str] = mapped_column(String(255))
    role_id: Mapped[int] = mapped_column(ForeignKey("roles.id"))
    created_by: Mapped[int | None] = mapped_column(ForeignKey("admin_users.id"))
    is_active: Mapped[bool]
    created_at: Mapped[datetime]
    last_login_at: Mapped[datetime | None]

    role: Mapped["Role"] = relationship()

    is_authenticated = True  # what Flask-Login asks of a user
    is_anonymous = False

    def get_id(self) -> str:
        """Return what the session remembers."""
        return str(self.id)


class Role(Base):
    """A named set of permissions."""

    __tablename__ = "roles"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40), unique=True)


class Permission(Base):
    """One thing a role may do."""

    __tablename__ = "permissions"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(80), unique=True)


class RolePermission(Base):
    """Which role may do what."""

    __tablename__ = "role_permissions"

    role_id: Mapped[int] = mapped_column(ForeignKey("roles.id"), primary_key=True)
    permission_id: Mapped[int] = mapped_column(ForeignKey("permissions.id"), primary_key=True)


class CustomerAccount(Base):
    """Who ordered an event."""

    __tablename__ = "customer_accounts"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(120))
    email: Mapped[str] = mapped_column(String(254), unique=True)
    notes: Mapped[str] = mapped_column(Text)
    balance_cents: Mapped[int] = mapped_column(BigInteger)


class EventType(Base):
    """Wedding, birthday and the like."""

    __tablename__ = "event_types"

    id: Mapped[int] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column(String(40), unique=True)
    name: Mapped[str] = mapped_column(String(80))
    emoji: Mapped[str] = mapped_column(String(16))


class Event(Base):
    """A day of photographs; its hero photo is one of its own photos."""

    __tablename__ = "events"
    __table_args__ = (
        _one_of("status", "draft", "active", "archived"),
        Index("ix_events_active", "event_date", sqlite_where=text("status = 'active'")),
        _GAPS,
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column(String(120), unique=True)
    title: Mapped[str] = mapped_column(String(200))
    type_id: Mapped[int] = mapped_column(ForeignKey("event_types.id"))
    customer_id: Mapped[int | None] = mapped_column(ForeignKey("customer_accounts.id", ondelete="SET NULL"))
    event_date: Mapped[date]
    status: Mapped[str] = mapped_column(String(16))
    password_hash: Mapped[str] = mapped_column(String(60))
    share_token: Mapped[str] = mapped_column(String(64), unique=True)
    welcome_message: Mapped[str] = mapped_column(Text)
    theme: Mapped[dict[str, Any]]
    allow_downloads: Mapped[bool]
    average_rating: Mapped[float | None] = mapped_column(Numeric(4, 2, asdecimal=False))
    total_bytes: Mapped[int] = mapped_column(BigInteger)
    view_count: Mapped[int] = mapped_column(BigInteger)
    hero_photo_id: Mapped[int | None] = mapped_column(ForeignKey("photos.id", ondelete="SET NULL"))
    created_by: Mapped[int | None] = mapped_column(ForeignKey("admin_users.id"))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]

    type: Mapped[EventType] = relationship()
    hero_photo: Mapped["Photo | None"] = relationship(foreign_keys=hero_photo_id)


class PhotoCategory(Base):
    """A part of an event; its hero photo is a photo that belongs to it."""

    __tablename__ = "photo_categories"
    __table_args__ = (UniqueConstraint("event_id", "slug"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    event_id: Mapped[int] = mapped_column(ForeignKey("events.id", ondelete="CASCADE"))
    slug: Mapped[str] = mapped_column(String(40))
    name: Mapped[str] = mapped_column(String(80))
    hero_photo_id: Mapped[int | None] = mapped_column(ForeignKey("photos.id", ondelete="SET NULL"))


class Photo(Base):
    """One picture: paths are relative to the storage folder."""

    __tablename__ = "photos"
    __table_args__ = (
        _one_of("visibility", "visible", "hidden", "client_only"),
        Index("ix_photos_event", "event_id", "id"),
        Index("ix_photos_hidden", "event_id", sqlite_where=text("visibility = 'hidden'")),
        _GAPS,
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    event_id: Mapped[int] = mapped_column(ForeignKey("events.id", ondelete="CASCADE"))
    category_id: Mapped[int | None] = mapped_column(ForeignKey("photo_categories.id", ondelete="SET NULL"))
    filename: Mapped[str] = mapped_column(String(255))
    path: Mapped[str] = mapped_column(String(600), unique=True)
    thumbnail_path: Mapped[str] = mapped_column(String(600))
    preview_path: Mapped[str] = mapped_column(String(600))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    width: Mapped[int]
    height: Mapped[int]
    visibility: Mapped[str] = mapped_column(String(16))
    is_favorite: Mapped[bool]
    caption: Mapped[str | None] = mapped_column(Text)
    exif: Mapped[dict[str, Any]]
    taken_at: Mapped[datetime]
    uploaded_at: Mapped[datetime]


class GalleryGuest(Base):
    """A visitor who left a name."""

    __tablename__ = "gallery_guests"

    id: Mapped[int] = mapped_column(primary_key=True)
    event_id: Mapped[int] = mapped_column(ForeignKey("events.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(120))
    invite_token: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime]


class PhotoFeedback(Base):
    """A star, a like or a comment."""

    __tablename__ = "photo_feedback"
    __table_args__ = (
        _one_of("kind", "like", "rating", "comment"),
        CheckConstraint("rating BETWEEN 1 AND 5", name="rating_range"),
        _GAPS,
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    photo_id: Mapped[int] = mapped_column(ForeignKey("photos.id", ondelete="CASCADE"))
    guest_id: Mapped[int | None] = mapped_column(ForeignKey("gallery_guests.id", ondelete="SET NULL"))
    kind: Mapped[str] = mapped_column(String(16))
    rating: Mapped[int | None]
    comment: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]


class AccessLog(Base):
    """One request for a gallery page."""

    __tablename__ = "access_logs"
    __table_args__ = (_GAPS,)

    id: Mapped[int] = mapped_column(primary_key=True)
    event_id: Mapped[int | None] = mapped_column(index=True)
    ip_address: Mapped[str] = mapped_column(String(45))
    user_agent: Mapped[str] = mapped_column(String(255))
    action: Mapped[str] = mapped_column(String(40))
    bytes_sent: Mapped[int] = mapped_column(BigInteger)
    at: Mapped[datetime]


class ImageAccessLog(Base):
    """One request for a picture."""

    __tablename__ = "image_access_logs"
    __table_args__ = (_GAPS,)

    id: Mapped[int] = mapped_column(primary_key=True)
    photo_id: Mapped[int] = mapped_column(index=True)
    ip_address: Mapped[str] = mapped_column(String(45))
    fingerprint: Mapped[str] = mapped_column(String(64))
    at: Mapped[datetime]


class ActivityLog(Base):
    """What an administrator or a guest did."""

    __tablename__ = "activity_logs"

    id: Mapped[int] = mapped_column(primary_key=True)
    actor: Mapped[str] = mapped_column(String(80))
    activity: Mapped[str] = mapped_column(String(80))
    details: Mapped[dict[str, Any]]
    at: Mapped[datetime]


class SecurityLog(Base):
    """Failed sign-ins and the like."""

    __tablename__ = "security_logs"

    id: Mapped[int] = mapped_column(primary_key=True)
    ip_address: Mapped[str] = mapped_column(String(45))
    event: Mapped[str] = mapped_column(String(80))
    at: Mapped[datetime]


class EmailTemplate(Base):
    """A mail text in one language."""

    __tablename__ = "email_templates"
    __table_args__ = (UniqueConstraint("key", "language"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(60))
    language: Mapped[str] = mapped_column(String(8))
    subject: Mapped[str] = mapped_column(String(200))
    body: Mapped[str] = mapped_column(Text)


class EmailQueue(Base):
    """Mail that waits, went out or failed; a restore must not send it twice."""

    __tablename__ = "email_queue"
    __table_args__ = (
        _one_of("status", "pending", "sent", "failed"),
        Index("ix_email_queue_pending", "created_at", sqlite_where=text("status = 'pending'")),
        _GAPS,
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    event_id: Mapped[int | None] = mapped_column(ForeignKey("events.id", ondelete="SET NULL"))
    recipient: Mapped[str] = mapped_column(String(254))
    template_key: Mapped[str] = mapped_column(String(60))
    variables: Mapped[dict[str, Any]]
    status: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int]
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]
    sent_at: Mapped[datetime | None]


class ApiToken(Base):
    """A token for programs, kept as a hash."""

    __tablename__ = "api_tokens"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("admin_users.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(80))
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    expires_at: Mapped[datetime | None]


class RevokedToken(Base):
    """A sign-in token that no longer counts; forgetting one re-opens a door."""

    __tablename__ = "revoked_tokens"

    token_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    revoked_at: Mapped[datetime]


class AppSetting(Base):
    """One setting; the value is JSON, secrets among them are sealed."""

    __tablename__ = "app_settings"
    __table_args__ = (_one_of("setting_type", "string", "number", "boolean", "json"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    setting_key: Mapped[str] = mapped_column(String(100), unique=True)
    setting_value: Mapped[Any] = mapped_column(JSON)
    setting_type: Mapped[str] = mapped_column(String(16))
    updated_at: Mapped[datetime]


class FeatureFlag(Base):
    """A switch."""

    __tablename__ = "feature_flags"

    name: Mapped[str] = mapped_column(String(60), primary_key=True)
    is_enabled: Mapped[bool]


class CmsPage(Base):
    """A page of text: imprint, privacy and the like."""

    __tablename__ = "cms_pages"

    id: Mapped[int] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column(String(60), unique=True)
    title: Mapped[str] = mapped_column(String(200))
    body_markdown: Mapped[str] = mapped_column(Text)


class CssTemplate(Base):
    """A look that customers choose."""

    __tablename__ = "css_templates"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(60), unique=True)
    css: Mapped[str] = mapped_column(Text)


class Migration(Base):
    """The file names of an older migration tool."""

    __tablename__ = "migrations"

    id: Mapped[int] = mapped_column(primary_key=True)
    filename: Mapped[str] = mapped_column(String(120), unique=True)
    applied_at: Mapped[datetime]


class KnexMigration(Base):
    """A migration table that another tool made and nobody fills."""

    __tablename__ = "knex_migrations"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(String(255))


class WebhookDelivery(Base):
    """Calls to other systems; empty in a small gallery."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (_GAPS,)

    id: Mapped[int] = mapped_column(primary_key=True)
    url: Mapped[str] = mapped_column(String(600))
    payload: Mapped[dict[str, Any]]
    statistics: Mapped[dict[str, Any] | None]
