"""Signature Version 4 of a request without a body, as S3 wants it. Pure.

Source: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

_NO_BODY = hashlib.sha256(b"").hexdigest()
_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Who asks; kept out of `repr`."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


def query_string(query: Mapping[str, str]) -> str:
    """Return the query as it is both sent and signed: sorted, all but unreserved characters escaped."""
    return "&".join(f"{quote(name, safe='')}={quote(text, safe='')}" for name, text in sorted(query.items()))


def signed_headers(  # noqa: PLR0913 - what a signature is made of
    credentials: Credentials, *, region: str, host: str, path: str, query: str, now: datetime
) -> dict[str, str]:
    """Return the headers of a signed GET, `Host` among them.

    Args:
        credentials: who asks.
        region: of the bucket.
        host: with the port when it is not the scheme's own.
        path: escaped, as it is sent.
        query: as `query_string` returns it.
        now: aware, UTC; a server refuses what is minutes off.
    """
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    headers = {"host": host, "x-amz-content-sha256": _NO_BODY, "x-amz-date": stamp}
    if credentials.session_token is not None:
        headers["x-amz-security-token"] = credentials.session_token
    names = ";".join(headers)  # sorted already
    listed = "".join(f"{name}:{text}\n" for name, text in headers.items())
    request = f"GET\n{path}\n{query}\n{listed}\n{names}\n{_NO_BODY}"
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    text = f"{_ALGORITHM}\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{credentials.secret_access_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    who = f"Credential={credentials.access_key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**headers, "authorization": f"{_ALGORITHM} {who}"}
