"""Creating an object only if it is not there, on Google Cloud Storage: a header and a signature of its own.

Google speaks S3's protocol, with two differences that matter to a create (docs/decisions/0011-google-cloud-storage.md):

- `If-None-Match: *` counts for reads alone. On a put it is ignored, without a word: the second owner's claim replaces
  the first one's. What counts is `x-goog-if-generation-match: 0`.
- That header is refused (400 ExcessHeaderValues) beside any `x-amz-*` header, and AWS' signature consists of those. So
  this one kind of request is signed by Google's twin of it: the same keys, the same arithmetic, other words.

All other requests go as they go to every S3 store.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from botocore import UNSIGNED

if TYPE_CHECKING:
    from collections.abc import Mapping

_ALGORITHM = "GOOG4-HMAC-SHA256"
_KEY_PREFIX = "GOOG4"
_SCOPE = ("auto", "storage", "goog4_request")  # any region of Google's, its service, and the end of a scope
_OURS = "replicad_generation_match"  # in a request's context: this is such a create
_DEFAULT_PORTS = {"http": 80, "https": 443}


def create_by_generation(client: Any, credentials: Any) -> None:  # noqa: ANN401 - aiobotocore's, without types
    """Let the client's conditional puts go out as Google wants them.

    Args:
        client: an S3 client.
        credentials: what it signs with: a key pair made for interoperability (HMAC). Such a pair has no session token.
    """

    async def sign(request: Any, **_: object) -> None:  # noqa: ANN401 - botocore's AWSRequest
        if not request.context.get(_OURS):
            return
        frozen = await credentials.get_frozen_credentials()
        headers = signed(
            request.method,
            request.url,
            {name: str(text) for name, text in request.headers.items()},
            request.body,
            key=(frozen.access_key, frozen.secret_key),
            now=datetime.now(UTC),
        )
        for name in tuple(request.headers):
            del request.headers[name]
        for name, text in headers.items():
            request.headers[name] = text

    events = client.meta.events
    events.register_last("before-call.s3.PutObject", _translate)
    events.register_first("choose-signer.s3.PutObject", _leave_unsigned)
    events.register_last("before-sign.s3.PutObject", sign)


def signed(  # noqa: PLR0913 - what a signature covers
    method: str, url: str, headers: Mapping[str, str], body: object, *, key: tuple[str, str], now: datetime
) -> dict[str, str]:
    """Return the headers of a request with its signature among them.

    Everything in `headers` is signed but what Google's front end rewrites on the way, and `x-amz-*` is left out.

    Args:
        method: "PUT".
        url: whole, its path percent-encoded; without a query.
        headers: the request's.
        body: the bytes, whose hash is signed as well; anything that is read piece by piece is left out of it.
        key: access id and secret.
        now: aware, UTC.

    Source: https://cloud.google.com/storage/docs/authentication/signatures and .../canonical-requests.
    """
    access_id, secret = key
    parts, at = urlsplit(url), now.strftime("%Y%m%dT%H%M%SZ")
    sent = {name: text for name, text in headers.items() if not name.lower().startswith("x-amz-")}
    digest = hashlib.sha256(body).hexdigest() if isinstance(body, bytes) else "UNSIGNED-PAYLOAD"
    sent |= {"x-goog-date": at, "x-goog-content-sha256": digest}
    covered = {name.lower(): " ".join(text.split()) for name, text in sent.items() if _is_covered(name)}
    covered["host"] = _host(parts)
    names = ";".join(sorted(covered))
    lines = [f"{name}:{covered[name]}" for name in sorted(covered)]
    canonical = "\n".join([method, parts.path or "/", "", *lines, "", names, digest])
    scope = "/".join((at[:8], *_SCOPE))
    to_sign = "\n".join([_ALGORITHM, at, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    signing_key = f"{_KEY_PREFIX}{secret}".encode()
    for part in scope.split("/"):
        signing_key = hmac.digest(signing_key, part.encode(), "sha256")
    signature = hmac.digest(signing_key, to_sign.encode(), "sha256").hex()
    authorization = f"{_ALGORITHM} Credential={access_id}/{scope}, SignedHeaders={names}, Signature={signature}"
    return sent | {"Authorization": authorization}


def _host(parts: SplitResult) -> str:
    """Return the Host header that the HTTP client will send."""
    named = parts.port is not None and parts.port != _DEFAULT_PORTS.get(parts.scheme)
    return f"{parts.hostname}:{parts.port}" if named else str(parts.hostname)


def _is_covered(name: str) -> bool:
    """Return whether a header is signed: Google's own must be; of others, those that proxies leave alone."""
    return name.lower().startswith("x-goog-") or name.lower() in {"content-type", "content-md5"}


def _translate(params: dict[str, Any], **_: object) -> None:
    headers = params["headers"]
    if headers.pop("If-None-Match", None) == "*":
        headers["x-goog-if-generation-match"] = "0"
        params["context"][_OURS] = True


def _leave_unsigned(context: Mapping[str, object], **_: object) -> object:
    return UNSIGNED if context.get(_OURS) else None
