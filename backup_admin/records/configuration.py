"""Tables of what an administrator edits, and of who is alive."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from backup_admin.records.base import Base


class StoredSetting(Base):
    """One setting an administrator made; secrets are sealed."""

    __tablename__ = "backup_settings"

    name: Mapped[str] = mapped_column(String(80), primary_key=True)
    value: Mapped[Any] = mapped_column(JSON, default=None)
    sealed: Mapped[str] = mapped_column(Text, default="")
    updated_at: Mapped[datetime]
    updated_by: Mapped[str] = mapped_column(String(255), default="")


class Heartbeat(Base):
    """When a worker or a scheduler was last alive."""

    __tablename__ = "backup_heartbeats"

    name: Mapped[str] = mapped_column(String(160), primary_key=True)
    """`worker:<host>:<pid>` or `scheduler:<host>:<pid>`."""
    role: Mapped[str] = mapped_column(String(20))
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]
