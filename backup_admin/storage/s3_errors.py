"""What an S3 service, or the way to it, means by an error, and what to do about it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from botocore import exceptions as boto
from urllib3.exceptions import HTTPError

from backup_admin.core.errors import (
    ObjectMissing,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageUnavailable,
)
from backup_admin.storage.retrying import Failure
from backup_admin.storage.s3_lock import is_without_locks

if TYPE_CHECKING:
    from backup_admin.storage.s3_place import S3Place

_PASSING_STATUS = (408, 429, 500, 502, 503, 504, 509)
_PASSING_CODES = (
    "InternalError",
    "ConditionalRequestConflict",
    "OperationAborted",
    "RequestTimeout",
    "RequestTimeoutException",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
)
_KEY_WRONG = (StorageDenied, "the server does not know the access key, or the secret key is wrong.")
_KEY_OLD = (StorageDenied, "the access key has expired. Give a new one, then run this again.")
_CLOCKS = (StorageUnavailable, "the clocks differ too much. Set this machine's clock, by NTP best.")
_ELSEWHERE = (StorageDenied, "the bucket is in another region{region}. Name it with region=….")
_DENIED = (StorageDenied, "the access key may not do that. {message}")
_FULL = (StorageFull, "the service has no space left, or the quota is used up.")
_LOCKED = (StorageDenied, "the object is locked until its time of retention is over.")
_NO_LOCKS = (
    StorageDenied,
    "the bucket keeps no locks. Make one with Object Lock, or leave lock_days out of the address.",
)
_NO_ANSWER = (
    StorageDenied,
    "the server said 403 and no more: the access key or its secret is wrong, or may not do that. "
    "It needs s3:ListBucket to be told that something is not there.",
)
_NO_BUCKET = (
    StorageUnavailable,
    "there is no bucket {bucket}. Make it, or add create_bucket=true to the address.",
)
_PERHAPS_TLS = (
    StorageUnavailable,
    "the server said 400; perhaps it speaks https. Try endpoint=https://….",
)
_OTHER = (StorageError, "the server said {code}. {message}")
_MEANINGS: dict[str, tuple[type[StorageError], str]] = {
    "AccessDenied": _DENIED,
    "AuthorizationHeaderMalformed": _ELSEWHERE,
    "ExpiredToken": _KEY_OLD,
    "ExpiredTokenException": _KEY_OLD,
    "IllegalLocationConstraint": _ELSEWHERE,
    "IllegalLocationConstraintException": _ELSEWHERE,
    "InvalidAccessKeyId": _KEY_WRONG,
    "InvalidObjectState": _LOCKED,
    "InvalidToken": _KEY_WRONG,
    "NoSuchBucket": _NO_BUCKET,
    "ObjectLocked": _LOCKED,
    "PermanentRedirect": _ELSEWHERE,
    "QuotaExceeded": _FULL,
    "RequestExpired": _CLOCKS,
    "RequestTimeTooSkewed": _CLOCKS,
    "SignatureDoesNotMatch": _KEY_WRONG,
    "TokenRefreshRequired": _KEY_OLD,
    "XMinioStorageFull": _FULL,
    "301": _ELSEWHERE,
    "307": _ELSEWHERE,
    "401": _DENIED,
    "403": _NO_ANSWER,
    "507": _FULL,
}
NO_KEY = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.ProfileNotFound,
)
NETWORK = (boto.HTTPClientError, boto.BotoCoreError, HTTPError, ConnectionError, TimeoutError)
_LONGEST_ASKED_SECONDS = 120.0


def explain(error: Exception, place: S3Place, name: str, act: str) -> Failure | None:
    """Tell what an exception of the client library means; None for one that is not its own."""
    what = f"{name or 'The bucket'} in {place.label} could not be {act}"
    if isinstance(error, boto.ClientError):
        return _answered(error, place, name, what)
    if isinstance(error, NO_KEY):
        return _lasting(StorageDenied(f"{what}: {_key_advice(error, place)}"))
    if isinstance(error, boto.SSLError):
        return _lasting(StorageUnavailable(f"{what}: {_tls_advice(error, place)}"))
    if isinstance(error, NETWORK):
        return Failure(StorageUnavailable(f"{what}: {_network_advice(error, place)}"), passes=True)
    return None


def code_of(error: boto.ClientError) -> str:
    """Return the code a service answered with, or nothing."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: boto.ClientError) -> int:
    """Return the HTTP status a service answered with, or 0."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_missing(error: boto.ClientError) -> bool:
    """Say whether an answer means: there is no such object."""
    return code_of(error) in ("NoSuchKey", "NotFound", "404")


def _answered(error: boto.ClientError, place: S3Place, name: str, what: str) -> Failure:
    code, status = code_of(error), status_of(error)
    if is_missing(error) and name:
        return _lasting(ObjectMissing(f"{name} is not in {place.label}."))
    if code in _PASSING_CODES or (status in _PASSING_STATUS and code not in _MEANINGS):
        problem = f"{what}: the server said {code or status} and did not recover in time. Try again later."
        return Failure(StorageUnavailable(problem), passes=True, wait_seconds=_asked_wait(error))
    kind, meaning = _NO_BUCKET if is_missing(error) else _meaning(code, status)
    if code == "400" and place.endpoint.startswith("http:"):  # no answer of an S3 service
        kind, meaning = _PERHAPS_TLS
    if code == "404" and kind is StorageUnavailable and error.operation_name != "HeadBucket":
        meaning += " Or this is no S3 service at all: check the endpoint."  # S3 says more than a number
    if place.lock_days and is_without_locks(error):
        kind, meaning = _NO_LOCKS
    message = str(error.response.get("Error", {}).get("Message", ""))
    advice = meaning.format(
        bucket=place.bucket, code=code or status, message=message, region=_region_hint(error)
    )
    return _lasting(kind(f"{what}: {advice}".rstrip()))


def _meaning(code: str, status: int) -> tuple[type[StorageError], str]:
    return _MEANINGS.get(code) or _MEANINGS.get(str(status)) or _OTHER


def _lasting(error: StorageError) -> Failure:
    return Failure(error, passes=False)


def _asked_wait(error: boto.ClientError) -> float:
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    with suppress(ValueError):  # it may be a date, which the growing waits make up for
        return min(float(headers.get("retry-after", 0)), _LONGEST_ASKED_SECONDS)
    return 0.0


def _region_hint(error: boto.ClientError) -> str:
    details = error.response.get("Error", {})
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = details.get("Region") or headers.get("x-amz-bucket-region")
    return f", {region}" if region else ""


def _key_advice(error: Exception, place: S3Place) -> str:
    if isinstance(error, boto.ProfileNotFound):
        return f"the AWS configuration has no profile {place.profile!r}."
    return "no access key was found. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile."


def _tls_advice(error: Exception, place: S3Place) -> str:
    text = str(error)
    if "WRONG_VERSION_NUMBER" in text or "wrong version number" in text.lower():
        return f"the server speaks http, not https. Write endpoint=http://{place.host}:PORT if that is meant."
    if "CERTIFICATE_VERIFY_FAILED" in text or "doesn't match" in text:
        return (
            "its certificate is not one this machine trusts. Name the file of its authority with ca_file=…; "
            "check the host name and this machine's clock."
        )
    return f"TLS failed: {text[:300]}"


def _network_advice(error: Exception, place: S3Place) -> str:
    text = f"{error} {getattr(error, 'kwargs', {}).get('error', '')}".strip()
    host = place.host or "AWS"
    if "Name or service not known" in text or "NameResolution" in text or "name resolution" in text:
        return f"the name {host} cannot be resolved. Check how the endpoint is spelled, and DNS."
    if "refused" in text:
        return f"nothing listens at {host}. Check the port, and that the server runs."
    if isinstance(error, boto.ConnectTimeoutError):
        return f"{host} does not answer. Check the address and the firewall."
    if place.endpoint.startswith("http:") and ("reset" in text or "closed" in text):
        return f"{host} ended the connection; perhaps it speaks https. Try endpoint=https://…."
    return f"the connection failed: {text[:300]}"
