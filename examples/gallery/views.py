"""The gallery's pages."""

import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from flask import (
    Blueprint,
    Response,
    abort,
    current_app,
    flash,
    redirect,
    render_template,
    request,
    send_from_directory,
    url_for,
)
from flask_login import login_required, login_user, logout_user
from sqlalchemy import func, select
from werkzeug.security import check_password_hash
from werkzeug.wrappers import Response as WerkzeugResponse

from examples.gallery.changes import damage
from examples.gallery.extensions import db
from examples.gallery.folders import Folders
from examples.gallery.library import derived_path
from examples.gallery.models import AdminUser, Base, Event, Photo

gallery = Blueprint("gallery", __name__)

_PAGE_SIZE = 60
_LARGEST_UPLOAD = 64_000_000
_PICTURE_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")


@gallery.app_context_processor
def mounted_pages() -> dict[str, bool]:
    """Tell the templates whether there is a backup page to link to."""
    return {"has_backups": "backup_admin" in current_app.blueprints}


@gallery.route("/sign-in", methods=["GET", "POST"])
def sign_in() -> str | WerkzeugResponse:
    """Let an administrator in."""
    if request.method == "GET":
        return render_template("gallery/sign_in.html")
    name = request.form.get("username", "")
    user = db.session.scalar(select(AdminUser).where(AdminUser.username == name))
    if user is None or not _may_enter(user, request.form.get("password", "")):
        flash("Name or password is wrong.", "problem")
        return render_template("gallery/sign_in.html")
    login_user(user)
    return redirect(_local_path(request.args.get("next", "")) or url_for("gallery.events"))


@gallery.post("/sign-out")
@login_required  # type: ignore[untyped-decorator]  # publishes no types
def sign_out() -> WerkzeugResponse:
    """End the session."""
    logout_user()
    return redirect(url_for("gallery.sign_in"))


@gallery.get("/")
@login_required  # type: ignore[untyped-decorator]  # publishes no types
def events() -> str:
    """List all events, newest first."""
    listing = db.session.scalars(select(Event).order_by(Event.event_date.desc()))
    amounts = select(Photo.event_id, func.count()).group_by(Photo.event_id)
    counts = dict(db.session.execute(amounts).all())
    return render_template("gallery/events.html", events=listing.all(), counts=counts)


@gallery.get("/events/<int:event_id>")
@login_required  # type: ignore[untyped-decorator]  # publishes no types
def event(event_id: int) -> str:
    """Show one event with a page of its photos."""
    found = _event_or_404(event_id)
    page = max(1, request.args.get("page", 1, type=int))
    query = select(Photo).where(Photo.event_id == event_id).order_by(Photo.taken_at)
    total = db.session.scalar(select(func.count()).select_from(query.subquery())) or 0
    photos = db.session.scalars(query.offset((page - 1) * _PAGE_SIZE).limit(_PAGE_SIZE))
    pages = max(1, -(-total // _PAGE_SIZE))
    return render_template(
        "gallery/event.html",
        event=found,
        photos=photos.all(),
        total=total,
        page=page,
        pages=pages,
    )


@gallery.route("/events/<int:event_id>/edit", methods=["GET", "POST"])
@login_required  # type: ignore[untyped-decorator]  # publishes no types
def edit_event(event_id: int) -> str | WerkzeugResponse:
    """Change an event's title."""
    found = _event_or_404(event_id)
    if request.method == "GET":
        return render_template("gallery/edit_event.html", event=found)
    title = request.form.get("title", "").strip()
    if not 0 < len(title) <= 200:
        flash("A title has 1 to 200 characters.", "problem")
        return render_template("gallery/edit_event.html", event=found)
    found.title = title
    db.session.commit()
    flash("Title saved.", "done")
    return redirect(url_for("gallery.event", event_id=event_id))


@gallery.post("/events/<int:event_id>/delete")
@login_required  # type: ignore[untyped-decorator]  # publishes no types
def delete_event(event_id: int) -> WerkzeugResponse:
    """Delete an event with its photos, their files too."""
    found = _event_or_404(event_id)
    photos = db.session.scalars(select(Photo).where(Photo.event_id == event_id)).all()
    files = [path for photo in photos for path in _files_of(photo)]
    db.session.delete(found)
    db.session.commit()
    _unlink(files)
    flash(f"Deleted “{found.title}” with {len(photos)} photos.", "done")
    return redirect(url_for("gallery.events"))


@gallery.post("/events/<int:event_id>/photos")
@login_required  # type: ignore[untyped-decorator]  # publishes no types
def upload_photos(event_id: int) -> WerkzeugResponse:
    """Add the uploaded pictures to an event."""
    request.max_content_length = _LARGEST_UPLOAD
    found = _event_or_404(event_id)
    contents = [upload.read() for upload in request.files.getlist("photos")]
    pictures = [content for content in contents if content.startswith(_PICTURE_STARTS)]
    for content in pictures:
        db.session.add(_store_picture(found, content))
    db.session.commit()
    _report_upload(len(pictures), len(contents) - len(pictures))
    return redirect(url_for("gallery.event", event_id=event_id))


@gallery.post("/photos/<int:photo_id>/delete")
@login_required  # type: ignore[untyped-decorator]  # publishes no types
def delete_photo(photo_id: int) -> WerkzeugResponse:
    """Delete one photo and its files."""
    photo = db.session.get(Photo, photo_id) or abort(404)
    files = _files_of(photo)
    event_id = photo.event_id
    db.session.delete(photo)
    db.session.commit()
    _unlink(files)
    flash(f"Deleted {photo.filename}.", "done")
    return redirect(url_for("gallery.event", event_id=event_id))


@gallery.get("/photos/<int:photo_id>/<any(original,preview,thumbnail):kind>")
@login_required  # type: ignore[untyped-decorator]  # publishes no types
def picture(photo_id: int, kind: str) -> Response:
    """Send one file of a photo."""
    photo = db.session.get(Photo, photo_id) or abort(404)
    path, thumbnail, preview = _files_of(photo)
    chosen = {"original": path, "thumbnail": thumbnail, "preview": preview}[kind]
    response = send_from_directory(_folders().storage, chosen, max_age=0)
    response.headers["Cache-Control"] = "private, no-cache"
    return response


@gallery.get("/counts")
@login_required  # type: ignore[untyped-decorator]  # publishes no types
def counts() -> str:
    """Show how much there is, to see at a glance what a restore brought back."""
    tables = [
        (table.name, db.session.scalar(select(func.count()).select_from(table)) or 0)
        for table in sorted(Base.metadata.tables.values(), key=lambda table: table.name)
    ]
    return render_template(
        "gallery/counts.html",
        tables=tables,
        folders=_folder_sums(_folders().storage),
        missing=_missing_photos(),
    )


@gallery.post("/damage")
@login_required  # type: ignore[untyped-decorator]  # publishes no types
def wreck() -> WerkzeugResponse:
    """Destroy files and rows, for the demo: then a restore has something to do."""
    db.session.rollback()
    done = damage(_folders().data)
    flash(f"{done}. Now restore it.", "problem")
    return redirect(url_for("gallery.counts"))


def show_bytes(size: int) -> str:
    """Write a number of bytes for people."""
    if size < 1_000_000:
        return f"{size / 1000:.0f} kB"
    return f"{size / 1_000_000:.1f} MB"


def _local_path(address: str) -> str:
    """Return the address of a page of this site, and nothing for any other.

    Browsers read `//`, `/\\` and control characters as the start of another host.
    """
    is_local = address.startswith("/") and address[1:2] not in ("/", "\\") and address.isprintable()
    return address if is_local else ""


def _may_enter(user: AdminUser, password: str) -> bool:
    """Check the password; the old bcrypt hashes of imported users open nothing."""
    if not user.is_active or user.password_hash.startswith("$2b$"):
        return False
    return check_password_hash(user.password_hash, password)


def _event_or_404(event_id: int) -> Event:
    return db.session.get(Event, event_id) or abort(404)


def _folders() -> Folders:
    folders: Folders = current_app.extensions["gallery.folders"]
    return folders


def _files_of(photo: Photo) -> tuple[str, str, str]:
    return photo.path, photo.thumbnail_path, photo.preview_path


def _unlink(files: Iterable[str]) -> None:
    for file in files:
        (_folders().storage / file).unlink(missing_ok=True)


def _store_picture(event: Event, content: bytes) -> Photo:
    """Write a picture and its derivatives, which here are copies: we resize nothing."""
    ending = "jpg" if content.startswith(_PICTURE_STARTS[0]) else "png"
    filename = f"upload_{secrets.token_hex(6)}.{ending}"
    now = datetime.now(UTC).replace(tzinfo=None)
    photo = Photo(
        event_id=event.id,
        filename=filename,
        path=f"events/active/{event.slug}/{filename}",
        thumbnail_path=derived_path("thumbnails", "thumb", filename),
        preview_path=derived_path("previews", "preview", filename),
        size_bytes=len(content),
        width=0,
        height=0,
        visibility="visible",
        is_favorite=False,
        exif={},
        taken_at=now,
        uploaded_at=now,
    )
    for path in _files_of(photo):
        target = _folders().storage / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return photo


def _report_upload(stored: int, refused: int) -> None:
    if stored:
        flash(f"Pictures added: {stored}.", "done")
    if refused or not stored:
        flash("Only JPEG and PNG pictures can be added.", "problem")


def _folder_sums(storage: Path) -> list[tuple[str, int, int]]:
    """Return name, number of files and bytes of each folder of the storage tree."""
    sums = []
    for folder in sorted(storage.iterdir()) if storage.is_dir() else ():
        files = [path for path in folder.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        sums.append((folder.name, len(files), size))
    return sums


def _missing_photos() -> int:
    storage = _folders().storage
    rows = db.session.execute(select(Photo.path, Photo.thumbnail_path))
    return sum(not all((storage / path).is_file() for path in row) for row in rows)
