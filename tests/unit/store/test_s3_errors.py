from __future__ import annotations

import aiohttp
import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    ParamValidationError,
    ReadTimeoutError,
)
from hypothesis import given
from hypothesis import strategies as st

from replicad.errors import (
    ConditionalWritesUnsupported,
    CreateUndecided,
    ObjectExists,
    ObjectMissing,
    ReplicadError,
    StoreRefused,
    StoreUnreachable,
)
from replicad.store.s3_errors import Attempt, translate

GET = Attempt(store="s3://b", operation="get a", key="a")
CREATE = Attempt(store="s3://b", operation="create a", key="a", creating=True)
LIST = Attempt(store="s3://b", operation="list", key="")
URL = "http://127.0.0.1:9/"


def answered(status: int, code: str = "", message: str = "", **headers: str) -> ClientError:
    """Return botocore's error for an answer."""
    error = {"Code": code or str(status), "Message": message}
    metadata = {"HTTPStatusCode": status, "HTTPHeaders": headers}
    return ClientError({"Error": error, "ResponseMetadata": metadata}, "Operation")


@pytest.mark.parametrize(
    ("error", "of_get", "of_create"),
    [
        (answered(404, "NoSuchKey"), ObjectMissing, ObjectMissing),
        (answered(404, "NoSuchBucket"), StoreRefused, StoreRefused),
        (answered(403, "AccessDenied"), StoreRefused, StoreRefused),
        (answered(403, "RequestTimeTooSkewed"), StoreRefused, StoreRefused),
        (answered(400, "ExpiredToken"), StoreRefused, StoreRefused),
        (answered(400, "InvalidArgument"), StoreRefused, StoreRefused),
        (answered(412, "PreconditionFailed"), StoreRefused, ObjectExists),
        (answered(304), StoreRefused, ObjectExists),
        (answered(409, "ConditionalRequestConflict"), StoreUnreachable, CreateUndecided),
        (answered(408), StoreUnreachable, CreateUndecided),
        (answered(400, "RequestTimeout"), StoreUnreachable, StoreUnreachable),
        (answered(429), StoreUnreachable, StoreUnreachable),
        (answered(500, "InternalError"), StoreUnreachable, CreateUndecided),
        (answered(502), StoreUnreachable, CreateUndecided),
        (answered(503, "SlowDown"), StoreUnreachable, StoreUnreachable),
        (answered(503), StoreUnreachable, CreateUndecided),
        (answered(504), StoreUnreachable, CreateUndecided),
        (answered(520), StoreUnreachable, CreateUndecided),
        (answered(501, "NotImplemented"), StoreRefused, ConditionalWritesUnsupported),
        (answered(507), StoreRefused, StoreRefused),
        (EndpointConnectionError(endpoint_url=URL, error=aiohttp.ClientOSError()), StoreUnreachable, CreateUndecided),
        (ConnectTimeoutError(endpoint_url=URL, error=OSError()), StoreUnreachable, StoreUnreachable),
        (ReadTimeoutError(endpoint_url=URL, error=OSError()), StoreUnreachable, CreateUndecided),
        (ConnectionClosedError(endpoint_url=URL, error=OSError()), StoreUnreachable, CreateUndecided),
        (HTTPClientError(error=OSError("odd")), StoreUnreachable, CreateUndecided),
        (aiohttp.ClientPayloadError(), StoreUnreachable, CreateUndecided),
        (ConnectionResetError(), StoreUnreachable, CreateUndecided),
        (TimeoutError(), StoreUnreachable, CreateUndecided),
        (NoCredentialsError(), StoreRefused, StoreRefused),
        (ParamValidationError(report="bad"), StoreRefused, StoreRefused),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else str(value)[-60:],
)
def test_meaning(error: Exception, of_get: type[ReplicadError], of_create: type[ReplicadError]) -> None:
    """Each error means what the caller can do about it; for a create also whether it may have been carried out."""
    assert type(translate(error, GET)) is of_get
    assert type(translate(error, CREATE)) is of_create
    assert "s3://b" in str(translate(error, GET))


@given(st.integers(400, 599), st.sampled_from(["", "SlowDown", "AccessDenied", "NoSuchKey", "Odd"]))
def test_no_server_error_of_a_create_passes_for_a_refusal(status: int, code: str) -> None:
    """Whatever a server error says, a create that may have been carried out is never reported as safely not done."""
    told = translate(answered(status, code), CREATE)
    assert isinstance(told, ReplicadError)
    if status >= 500 and status not in {501, 505, 507} and code != "SlowDown":
        assert isinstance(told, CreateUndecided)


def test_missing_bucket_without_a_name() -> None:
    """A 404 that is about no key is refused: a listing must not take it for nothing stored."""
    assert isinstance(translate(answered(404), LIST), StoreRefused)


@pytest.mark.parametrize(("text", "seconds"), [("7", 7.0), ("9999", 300.0), ("", None), ("soon", None), ("-1", None)])
def test_retry_after(text: str, seconds: float | None) -> None:
    """A Retry-After in seconds is passed on to the policy, up to five minutes."""
    told = translate(answered(503, "SlowDown", **{"retry-after": text}), GET)
    assert told.details["retry_after_seconds"] == seconds


def test_long_and_secret_messages() -> None:
    """What a store says is cut to a bearable length, with secrets taken out first."""
    attempt = Attempt(store="s3://b", operation="get a", key="a", secrets=("topsecret",))
    told = str(translate(answered(403, "AccessDenied", "topsecret " * 1_000), attempt))
    assert "topsecret" not in told
    assert len(told) < 700
