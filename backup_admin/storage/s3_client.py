"""The client of an S3 service, and bodies that go in and out of it without being copied whole."""

from __future__ import annotations

import io
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

if TYPE_CHECKING:
    from backup_admin.storage.s3_place import S3Place
    from backup_admin.storage.throttle import Throttle

_READ_SECONDS = 60
_SIGNED_BYTES = 1 << 20
_SLOWEST_BYTES_PER_SECOND = 1024
_PIECE = 256 << 10


class ViewBody(io.RawIOBase):
    """Bytes that the client library reads as from a file, again when it must: nothing is copied whole."""

    def __init__(self, view: memoryview, throttle: Throttle | None = None) -> None:
        """With a throttle, reading waits as long as sending shall take."""
        self._view = view
        self._at = 0
        self._throttle = throttle

    def __len__(self) -> int:
        return len(self._view)

    def readable(self) -> bool:
        """It can be read."""
        return True

    def seekable(self) -> bool:
        """It can be read again."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        end = len(self._view) if size < 0 else min(self._at + size, len(self._view))
        part = bytes(self._view[self._at : end])
        self._at = end
        # Who signs a body reads it too, by the MiB; who sends it takes small pieces.
        if self._throttle is not None and 0 < size < _SIGNED_BYTES:
            self._throttle.wait(len(part))
        return part

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go on from another place."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._view)}[whence]
        self._at = max(0, start + offset)
        return self._at

    def tell(self) -> int:
        """Return the place."""
        return self._at


def make_client(place: S3Place, credentials: tuple[str, ...] | None, connect_seconds: float) -> Any:
    """Make a client for the service; sends nothing and tries nothing again by itself."""
    key, secret, token = (*(credentials or ()), None, None, None)[:3]
    # Servers other than AWS often know nothing of the checksums that are new and optional.
    checksums = "when_supported" if place.is_aws else "when_required"
    style = {None: "auto", True: "path", False: "virtual"}[place.path_style]
    session = boto3.session.Session(profile_name=place.profile or None)
    client = session.client(
        "s3",
        endpoint_url=place.endpoint or None,
        region_name=place.region or session.region_name or "us-east-1",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        aws_session_token=token,
        verify=place.ca_file or None,
        config=Config(
            connect_timeout=connect_seconds,
            read_timeout=_READ_SECONDS,
            max_pool_connections=16,
            retries={"total_max_attempts": 1},
            request_checksum_calculation=checksums,
            response_checksum_validation=checksums,
            s3={"addressing_style": "path" if style == "auto" and not place.is_aws else style},
            signature_version="s3v4",
        ),
    )
    client.meta.events.register("before-sign.s3.PutObject", _send_little_at_once)
    return client


def _send_little_at_once(request: Any, **_: object) -> None:
    """Do not ask first whether the service wants a small body: that takes a round trip."""
    if int(request.headers.get("Content-Length", _SIGNED_BYTES)) < _SIGNED_BYTES:
        del request.headers["Expect"]


def read_body(answer: dict[str, Any], view: memoryview) -> None:
    """Read the body of an answer; raise when it is cut short, or comes too slowly to be waited for."""
    began, done = time.monotonic(), 0
    with closing(answer["Body"]) as body:
        # What the library's own reading returns is whole or nothing: a server that lets bytes drip
        # would keep us for days. The response below it gives what there is.
        read = getattr(getattr(body, "_raw_stream", None), "read1", body.read)
        while done < len(view):
            piece = read(min(_PIECE, len(view) - done))
            if not piece:
                raise ConnectionError("the answer was cut short")
            view[done : done + len(piece)] = piece
            done += len(piece)
            seconds = time.monotonic() - began
            if seconds > _READ_SECONDS and done < seconds * _SLOWEST_BYTES_PER_SECOND:
                raise TimeoutError("the answer comes too slowly")
