import io
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from examples.gallery.app import create_app
from examples.gallery.extensions import db
from examples.gallery.fill import set_password
from examples.gallery.models import Event, Photo
from examples.gallery.pictures import make_picture

PASSWORD = "a password for tests"


@pytest.fixture
def app(data: Path) -> Flask:
    set_password(data, PASSWORD)
    return create_app({"GALLERY_DATA": data, "TESTING": True}, mount=False)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    client = app.test_client()
    post(client, "/sign-in", username="admin", password=PASSWORD)
    return client


def post(client: FlaskClient, path: str, **form: object) -> str:
    """Send a form with the token its page would carry, and follow to the next page."""
    page = client.get("/sign-in").text
    token = re.findall(r'name="csrf_token" value="([^"]+)"', page)[0]
    return client.post(path, data={"csrf_token": token, **form}, follow_redirects=True).text


def first_photo(app: Flask) -> tuple[int, int, list[str]]:
    with app.app_context():
        photo = db.session.get_one(Photo, 1)
        return photo.id, photo.event_id, [photo.path, photo.thumbnail_path, photo.preview_path]


@pytest.mark.parametrize("path", ["/", "/events/1", "/counts", "/photos/1/original"])
def test_strangers_are_sent_to_the_sign_in_page(app: Flask, path: str) -> None:
    answer = app.test_client().get(path)

    assert answer.status_code == 302
    assert answer.location.startswith("/sign-in")


@pytest.mark.parametrize(
    ("wanted", "leads"),
    [
        ("/backup-admin/", "/backup-admin/"),
        ("/events/1?page=2", "/events/1?page=2"),
        ("//elsewhere.example/", "/"),
        ("/\\elsewhere.example/", "/"),
        ("/\telsewhere.example/", "/"),
        ("https://elsewhere.example/", "/"),
        ("", "/"),
    ],
)
def test_signing_in_leads_to_the_page_that_was_asked_for(app: Flask, wanted: str, leads: str) -> None:
    client = app.test_client()
    token = re.findall(r'name="csrf_token" value="([^"]+)"', client.get("/sign-in").text)[0]
    form = {"csrf_token": token, "username": "admin", "password": PASSWORD}

    answer = client.post("/sign-in", query_string={"next": wanted}, data=form)

    assert answer.location == leads


def test_a_wrong_password_opens_nothing(app: Flask) -> None:
    assert "is wrong" in post(app.test_client(), "/sign-in", username="admin", password="no")


def test_an_imported_hash_opens_nothing(app: Flask) -> None:
    assert "is wrong" in post(app.test_client(), "/sign-in", username="editor", password="")


def test_a_form_without_token_is_refused(client: FlaskClient) -> None:
    assert client.post("/events/1/delete").status_code == 400


def test_all_events_are_listed(client: FlaskClient) -> None:
    page = client.get("/").text

    assert page.count('<li class="card">') == 3
    assert "Zoë ❤️ Müller&#39;s Hochzeit" in page


@pytest.mark.parametrize("kind", ["original", "preview", "thumbnail"])
def test_every_photo_is_shown(app: Flask, client: FlaskClient, kind: str) -> None:
    with app.app_context():
        ids = list(db.session.scalars(db.select(Photo.id)))

    answers = [client.get(f"/photos/{number}/{kind}") for number in ids]

    assert {answer.status_code for answer in answers} == {200}
    assert all(answer.data.startswith(b"\xff\xd8") for answer in answers)
    for answer in answers:
        answer.close()


def test_a_title_can_be_changed(app: Flask, client: FlaskClient) -> None:
    page = post(client, "/events/1/edit", title=" Neuer Titel 🎈 ")

    assert "Neuer Titel 🎈" in page
    with app.app_context():
        assert db.session.get_one(Event, 1).title == "Neuer Titel 🎈"


def test_an_empty_title_is_refused(client: FlaskClient) -> None:
    assert "1 to 200 characters" in post(client, "/events/1/edit", title="  ")


def test_a_deleted_photo_takes_its_files_along(app: Flask, client: FlaskClient, data: Path) -> None:
    photo_id, _, files = first_photo(app)

    post(client, f"/photos/{photo_id}/delete")

    assert not [name for name in files if (data / "storage" / name).exists()]
    assert client.get(f"/photos/{photo_id}/original").status_code == 404


def test_a_deleted_event_takes_its_photos_along(app: Flask, client: FlaskClient, data: Path) -> None:
    _, event_id, files = first_photo(app)
    left = "SELECT count(*) FROM events WHERE id = ? UNION ALL SELECT count(*) FROM photos WHERE event_id = ?"

    page = post(client, f"/events/{event_id}/delete")

    assert "Deleted “" in page
    assert not [name for name in files if (data / "storage" / name).exists()]
    with closing(sqlite3.connect(data / "gallery.db")) as database:
        assert database.execute(left, (event_id, event_id)).fetchall() == [(0,), (0,)]


def test_an_uploaded_picture_is_shown_and_other_files_are_refused(app: Flask, client: FlaskClient) -> None:
    content = make_picture(0, width=96, header="x", seed=1, size_bytes=9_000)
    uploads = [(io.BytesIO(content), "../evil.jpg"), (io.BytesIO(b"#!/bin/sh"), "b.jpg")]

    page = post(client, "/events/2/photos", photos=uploads)

    assert "Pictures added: 1." in page
    assert "Only JPEG and PNG" in page
    with app.app_context():
        newest = db.session.scalars(db.select(Photo).order_by(Photo.id.desc())).first()
        assert newest is not None
        with client.get(f"/photos/{newest.id}/thumbnail") as answer:
            assert answer.data == content


def test_the_counts_tell_that_photos_are_missing(client: FlaskClient) -> None:
    assert "Every photo has its files." in client.get("/counts").text

    page = post(client, "/damage")

    assert "Now restore it." in page
    assert "photos have lost a file." in page


def test_the_pages_load_nothing_from_other_hosts(client: FlaskClient) -> None:
    pages = [client.get(path).text for path in ("/", "/events/1", "/counts")]

    assert not re.findall(r'(?:src|href|action)="(?:https?:)?//', "".join(pages))
