"""What an S3 client's error means to the caller of a store.

Two questions decide everything: is another attempt worth it, and may the request have been carried out?
The second matters to `create` alone: without an answer nobody knows, so the key has to be read back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import aiohttp
from botocore.exceptions import (
    BotoCoreError,
    ChecksumError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    MetadataRetrievalError,
    ProxyConnectionError,
    SSLError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.parsers import ResponseParserError

from replicad.errors import (
    ConditionalWritesUnsupported,
    CreateUndecided,
    ObjectExists,
    ObjectMissing,
    ReplicadError,
    StoreRefused,
    StoreUnreachable,
)
from replicad.observe.scrub import Scrubber

CLIENT_ERRORS = (BotoCoreError, ClientError, ResponseParserError, aiohttp.ClientError, OSError)
"""All that aiobotocore raises for a request; TimeoutError is an OSError."""

_TRANSIENT = (
    HTTPClientError,
    BotoConnectionError,
    IncompleteReadError,
    ChecksumError,
    FlexibleChecksumError,
    CredentialRetrievalError,
    MetadataRetrievalError,
    ResponseParserError,
    aiohttp.ClientError,
    OSError,
)
_BUSY_CODES = frozenset(
    {
        "BandwidthLimitExceeded",
        "InternalError",
        "OperationAborted",
        "ConditionalRequestConflict",
        "PriorRequestNotComplete",
        "RequestLimitExceeded",
        "RequestTimeout",  # S3 sends this with status 400
        "RequestThrottled",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "TransactionInProgress",
    }
)
_NOT_FOUND = 404
_EXISTS = frozenset({304, 412})
_SERVER_ERRORS = 500
_NOT_IMPLEMENTED = 501
_BUSY_STATUSES = frozenset({408, 409, 425, 429})
_FINAL_SERVER_STATUSES = frozenset({501, 505, 507})
_CREDENTIAL_CODES = {
    "ExpiredToken": "the session token has expired; renew it",
    "ExpiredTokenException": "the session token has expired; renew it",
    "TokenRefreshRequired": "the session token has to be renewed",
    "InvalidToken": "the session token is not valid",
    "InvalidAccessKeyId": "the store does not know this access key",
    "SignatureDoesNotMatch": "the secret key does not belong to the access key",
}
_MAX_FOUND_CHARACTERS = 300
_MAX_RETRY_AFTER_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What was tried, for messages and for telling what an answer to it means."""

    store: str  # the store's URL for messages
    operation: str  # "get app.db/end.json"
    key: str  # the object it was about; "" when it was about none or many
    creating: bool = False  # whether it was a conditional put
    secrets: tuple[str, ...] = field(default=(), repr=False)  # to be blotted out of whatever the store said


def translate(error: Exception, attempt: Attempt) -> ReplicadError:
    """Return the error to raise instead of `error`, one of `CLIENT_ERRORS`, with no secret in it."""
    where = {"store": attempt.store, "operation": attempt.operation}
    if isinstance(error, ClientError):
        return _from_answer(_Answer(error, attempt.secrets), attempt)
    found = _for_message(_describe(error), attempt.secrets)
    if isinstance(error, SSLError) and isinstance(_inner(error), aiohttp.ClientConnectorCertificateError):
        return StoreRefused(**where, found=f"{found}; name the certificate authority with AWS_CA_BUNDLE")
    if not isinstance(error, _TRANSIENT):
        return StoreRefused(**where, found=found)
    if isinstance(_inner(error), FileNotFoundError | PermissionError):
        return StoreRefused(**where, found=f"{found}; a certificate file cannot be read, see AWS_CA_BUNDLE")
    if attempt.creating and not _never_sent(error):
        return CreateUndecided(store=attempt.store, key=attempt.key, found=found)
    return StoreUnreachable(**where, found=found)


def _for_message(text: str, secrets: tuple[str, ...]) -> str:
    text = Scrubber(secrets).text(text)
    return text if len(text) <= _MAX_FOUND_CHARACTERS else f"{text[:_MAX_FOUND_CHARACTERS]}…"


def code_of(error: ClientError) -> str:
    """Return S3's name for an error, or its status when the store gave none."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: ClientError) -> int:
    """Return the HTTP status of an error answer; 0 when there is none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_busy_code(code: str) -> bool:
    """Return whether S3's name for an error says to come again later."""
    return code in _BUSY_CODES


class _Answer:
    """An answer that reports an error, with what it said made fit for a message."""

    def __init__(self, error: ClientError, secrets: tuple[str, ...]) -> None:
        self.status = status_of(error)
        self.code = code_of(error)
        self.headers: dict[str, Any] = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        said = str(error.response.get("Error", {}).get("Message", ""))
        self.found = _for_message(f"{self.status} {self.code} {said}".strip(), secrets)

    @property
    def retry_after_seconds(self) -> float | None:
        text = str(self.headers.get("retry-after", ""))
        return min(float(text), _MAX_RETRY_AFTER_SECONDS) if text.isascii() and text.isdigit() else None


def _from_answer(answer: _Answer, attempt: Attempt) -> ReplicadError:
    decided = _of_create(answer, attempt) if attempt.creating else None
    if decided is not None:
        return decided
    no_object = answer.status == _NOT_FOUND and attempt.key and answer.code != "NoSuchBucket"
    if no_object or answer.code in {"NoSuchKey", "NoSuchUpload"}:
        return ObjectMissing(key=attempt.key, store=attempt.store)
    where = {"store": attempt.store, "operation": attempt.operation}
    if _is_busy(answer):
        return StoreUnreachable(**where, found=answer.found, retry_after_seconds=answer.retry_after_seconds)
    return StoreRefused(**where, found=_advice(answer))


def _of_create(answer: _Answer, attempt: Attempt) -> ReplicadError | None:
    """Return what an answer to a conditional put says about the key, or None when it is not about the key."""
    if answer.status in _EXISTS:
        return ObjectExists(key=attempt.key, store=attempt.store)
    if answer.status == _NOT_IMPLEMENTED:
        return ConditionalWritesUnsupported(store=attempt.store, operation=attempt.operation, found=answer.found)
    # Of server errors only SlowDown says that nothing was done. Another may come from a balancer behind which the
    # request went through.
    unclear = answer.status >= _SERVER_ERRORS and answer.status not in _FINAL_SERVER_STATUSES
    if answer.status in {408, 409} or (unclear and answer.code != "SlowDown"):
        return CreateUndecided(store=attempt.store, key=attempt.key, found=answer.found)
    return None


def _is_busy(answer: _Answer) -> bool:
    if answer.status in _FINAL_SERVER_STATUSES:
        return False
    return answer.code in _BUSY_CODES or answer.status in _BUSY_STATUSES or answer.status >= _SERVER_ERRORS


def _advice(answer: _Answer) -> str:
    if answer.code == "RequestTimeTooSkewed":
        theirs = answer.headers.get("date", "unknown")
        return f"{answer.found}: this machine's clock is wrong, the store's says {theirs}; set the clock"
    if answer.code == "NoSuchBucket":
        return f"{answer.found}: create the bucket, or correct its name in the replica URL"
    region = answer.headers.get("x-amz-bucket-region")
    if region and answer.status in {301, 307, 400}:
        return f"{answer.found}: the bucket is in another region; add region={region} to the replica URL"
    advice = _CREDENTIAL_CODES.get(answer.code)
    return f"{answer.found}: {advice}" if advice else answer.found


def _describe(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no complete answer in time"
    cause = _inner(error)
    return f"{type(error).__name__}: {error}" + (f" ({cause})" if cause is not None and str(cause) else "")


def _inner(error: Exception) -> BaseException | None:
    """Return the error of the HTTP layer that botocore wrapped."""
    found = error.kwargs.get("error") if isinstance(error, BotoCoreError) else None
    return found if isinstance(found, BaseException) else None


def _never_sent(error: Exception) -> bool:
    """Return whether the connection was not even made, so that the store cannot have seen the request."""
    if isinstance(error, EndpointConnectionError):
        return isinstance(_inner(error), aiohttp.ClientConnectorError)
    return isinstance(
        error,
        ConnectTimeoutError | ProxyConnectionError | SSLError | CredentialRetrievalError | MetadataRetrievalError,
    )
