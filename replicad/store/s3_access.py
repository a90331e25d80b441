"""Where an S3 bucket is and who asks, when location, options and environment say all of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from replicad.store.s3_signature import Credentials

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicad.store.options import StoreOptions
    from replicad.store.url import S3Location

_AWS_BUCKET = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_AWS_REGION = re.compile(r"(us|eu|ap|sa|ca|me|af|il|mx)-[a-z]+-\d")
_ELSEWHERE = re.compile(r"AWS_(DEFAULT_)?PROFILE|AWS_ENDPOINT_URL.*|AWS_USE_.*|(?i:.*_PROXY)")
"""Variables that send the SDK another way than the location says."""

_OTHER_ROOTS = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE")
"""Variables that have the SDK trust other certificates than Python does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Where a bucket is, and who asks."""

    secure: bool
    host: str  # with the port, when the location names one
    root: str  # what stands before a key in the path, ends with a slash
    region: str
    credentials: Credentials


def plain_access(location: S3Location, options: StoreOptions, environ: Mapping[str, str]) -> Access | None:
    """Return how to get at the bucket, when location, options and environment say all of it; None: ask the SDK."""
    if any(_ELSEWHERE.fullmatch(name) and text for name, text in environ.items()):
        return None
    credentials = _credentials(options, environ)
    region = location.region or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    if region is None and not (environ.get("AWS_CONFIG_FILE") or Path("~/.aws/config").expanduser().exists()):
        region = "us-east-1"
    address = _address(location, region or "")
    if credentials is None or region is None or address is None:
        return None
    secure, host, root = address
    if secure and any(environ.get(name) for name in _OTHER_ROOTS):
        return None
    return Access(secure=secure, host=host, root=root, region=region, credentials=credentials)


def _address(location: S3Location, region: str) -> tuple[bool, str, str] | None:
    """Return whether it is TLS, the host, and what stands before a key in the path; None: it takes more to know."""
    if location.endpoint is None:
        simple = _AWS_BUCKET.fullmatch(location.bucket) and _AWS_REGION.fullmatch(region)
        return (
            (True, f"{location.bucket}.s3.{region}.amazonaws.com", "/") if simple and not location.path_style else None
        )
    endpoint = urlsplit(location.endpoint)
    if endpoint.path.strip("/") or location.path_style is False:
        return None
    return endpoint.scheme == "https", endpoint.netloc, f"/{quote(location.bucket)}/"


def _credentials(options: StoreOptions, environ: Mapping[str, str]) -> Credentials | None:
    key, secret, token = options.access_key_id, options.secret_access_key, options.session_token
    if key is None or secret is None:
        key, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
        token = environ.get("AWS_SESSION_TOKEN")
    return (
        Credentials(access_key_id=key, secret_access_key=secret, session_token=token or None)
        if key and secret
        else None
    )
