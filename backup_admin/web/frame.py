"""What stands around every page: the app, the person, the verdict, what runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from flask import request, url_for

from backup_admin.access.permissions import Permission
from backup_admin.control import overview
from backup_admin.control.verdict import Protection
from backup_admin.core.version import VERSION
from backup_admin.records import BackupRun, RestoreOperation
from backup_admin.web import current
from backup_admin.web.addresses import line_url
from backup_admin.web.flashes import waiting
from backup_admin.web.job_view import of_restore, of_run

if TYPE_CHECKING:
    from collections.abc import Iterator


THEME_COOKIE = "backup_admin_theme"
THEMES = ("light", "dark")
_LEVELS = {Protection.PROTECTED: "ok", Protection.AT_RISK: "warn", Protection.NOT_PROTECTED: "bad"}
_NAVIGATION = (
    ("Dashboard", "dashboard", "home", Permission.VIEW, ("dashboard", "setup")),
    ("Backups", "backups", "backups", Permission.VIEW, ("backup",)),
    ("Restore", "restore_select", "restore", Permission.PLAN_RESTORE, ("restore",)),
    (
        "Settings",
        "sources",
        "settings",
        Permission.VIEW,
        ("sources", "storage", "schedule", "security", "allowlist", "factor"),
    ),
    ("Audit", "audit", "audit", Permission.AUDIT, ("audit",)),
)


@dataclass(frozen=True, slots=True)
class NavItem:
    """One entry of the navigation."""

    label: str
    url: str
    icon: str
    current: bool


@dataclass(frozen=True, slots=True)
class RunningJob:
    """What runs now, in one line."""

    id: str
    title: str
    stage: str
    percent: int | None
    url: str


@dataclass(frozen=True, slots=True)
class VerdictBar:
    """Whether the app is protected, in one sentence."""

    level: str
    sentence: str
    details: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Frame:
    """Everything the base template shows besides the page itself."""

    app_name: str
    environment: str
    timezone: str
    version: str
    path: str
    here: str
    theme: str
    flashes: tuple[tuple[str, str], ...]
    user: str = ""
    sign_out_url: str = ""
    nav: tuple[NavItem, ...] = ()
    verdict: VerdictBar | None = None
    running: tuple[RunningJob, ...] = ()


def plain_frame() -> Frame:
    """Return the frame of a page that asks neither database nor person."""
    settings = current.settings()
    return Frame(
        app_name=settings.app_name,
        environment=settings.environment,
        timezone=settings.timezone,
        version=VERSION,
        here=request.args.get("on", request.path),
        path=request.full_path.rstrip("?") if request.method == "GET" else url_for("backup_admin.dashboard"),
        theme=_theme(),
        flashes=tuple(waiting()),
    )


def build_frame() -> Frame:
    """Return the frame of a page for a person who is signed in."""
    actor = current.actor()
    if actor is None:
        return plain_frame()
    return replace(
        plain_frame(),
        user=actor.name,
        sign_out_url=current.sign_out_url(),
        nav=tuple(_navigation()),
        verdict=_verdict_bar(),
        running=running_jobs(),
    )


def running_jobs() -> tuple[RunningJob, ...]:
    """Return what waits or runs now."""
    return tuple(_running_job(job) for job in overview.active(current.session()))


def _verdict_bar() -> VerdictBar:
    verdict = current.verdict()
    return VerdictBar(_LEVELS[verdict.state], verdict.sentence, verdict.details)


def _running_job(job: BackupRun | RestoreOperation) -> RunningJob:
    now = current.now()
    if isinstance(job, RestoreOperation):
        progress, line = of_restore(job, now), overview.restore_line(job)
    else:
        progress, line = of_run(job, now), overview.run_line(job)
    return RunningJob(job.id, progress.title, progress.text, progress.percent, line_url(line))


def _navigation() -> Iterator[NavItem]:
    endpoint = str(request.endpoint or "").rpartition(".")[2]
    may = current.permissions()
    for label, target, icon, permission, stems in _NAVIGATION:
        if may.has(permission):
            here = any(endpoint.startswith(stem) for stem in stems)
            yield NavItem(label, url_for(f"backup_admin.{target}"), icon, here)


def _theme() -> str:
    chosen = request.cookies.get(THEME_COOKIE, "")
    return chosen if chosen in THEMES else ""
