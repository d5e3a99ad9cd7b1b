"""Tables of people: second factors, step-ups, and standalone sign-in."""

from datetime import datetime

from sqlalchemy import BigInteger, Boolean, ForeignKey, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from backup_admin.records.base import Base


class SecondFactor(Base):
    """The authenticator of one person; active once a code has confirmed it."""

    __tablename__ = "backup_second_factors"

    user_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    sealed_secret: Mapped[str] = mapped_column(Text)
    pending_secret: Mapped[str] = mapped_column(Text, default="")
    """A secret waiting for its first code; replaces the other one then."""
    confirmed_at: Mapped[datetime | None]
    last_step: Mapped[int] = mapped_column(BigInteger, default=0)
    """The newest time step a code was accepted for: none older counts again."""
    created_at: Mapped[datetime]


class RecoveryCode(Base):
    """A code for a person whose authenticator is gone; works once."""

    __tablename__ = "backup_recovery_codes"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(
        ForeignKey("backup_second_factors.user_id", ondelete="CASCADE"), index=True
    )
    salt: Mapped[str] = mapped_column(String(32))
    hash: Mapped[str] = mapped_column(String(64))
    used_at: Mapped[datetime | None]


class StepUp(Base):
    """Proof that a person just showed the second factor, for one purpose, once."""

    __tablename__ = "backup_step_ups"
    __table_args__ = (Index("ix_backup_step_ups_user_id_purpose", "user_id", "purpose"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    user_id: Mapped[str] = mapped_column(String(255))
    login_id: Mapped[str] = mapped_column(String(64))
    """Digest of the login it was made in; no other login may use it."""
    purpose: Mapped[str] = mapped_column(String(40))
    plan_digest: Mapped[str] = mapped_column(String(64), default="")
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class User(Base):
    """A person who signs in to the standalone app; hosts bring their own."""

    __tablename__ = "backup_users"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(120), unique=True)
    password_hash: Mapped[str] = mapped_column(Text)
    role: Mapped[str] = mapped_column(String(20))
    active: Mapped[bool] = mapped_column(Boolean, default=True)
    auth_epoch: Mapped[int] = mapped_column(Integer, default=1)
    """Raised to end all logins of the person."""
    created_at: Mapped[datetime]
    last_login_at: Mapped[datetime | None]
