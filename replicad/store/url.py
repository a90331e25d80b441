"""Replica URLs: `s3://bucket/prefix?endpoint=…&region=…&path_style=…&creates=…`, `file:///folder`, `memory://name`.

Paths are percent-decoded once, as in any URL. Credentials have no place in a URL: it stands in process
lists, logs and status pages. One that holds any is refused, and no part of it is repeated in the message.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from replicad.errors import UsageError

_S3_KEYS = ("endpoint", "region", "path_style", "creates")
_FORMS = "s3://bucket/prefix?endpoint=…&region=…&path_style=true|false or file:///absolute/folder"
_CREATES = ("if-none-match", "generation-match")
_GOOGLE_HOST = "storage.googleapis.com"
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_REGION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_HARMLESS_NAME = re.compile(r"[a-z][a-z_-]{0,30}")  # of a query key: nothing that could be a secret itself
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_CREDENTIALS_HINT = (
    "Give credentials by environment variables, files or the platform's own chain, and take them out of the URL."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Location:
    """A bucket, and a prefix in it without slashes at its ends ("" for the whole bucket)."""

    bucket: str
    prefix: str = ""
    endpoint: str | None = None  # None: AWS, by region
    region: str | None = None  # None: what the platform says
    path_style: bool | None = None  # None: path style with an endpoint, virtual hosts with AWS
    creates: str | None = None  # how an object is created only if it is not there; None: as the endpoint has it

    @property
    def creates_by_generation(self) -> bool:
        """Whether a create is told by Google's `x-goog-if-generation-match: 0` instead of `If-None-Match: *`."""
        if self.creates is not None:
            return self.creates == "generation-match"
        host = urlsplit(self.endpoint or "").hostname or ""
        return host == _GOOGLE_HOST or host.endswith(f".{_GOOGLE_HOST}")

    def __str__(self) -> str:
        slash = "/" if self.prefix else ""
        style = None if self.path_style is None else str(self.path_style).lower()
        query = {"endpoint": self.endpoint, "region": self.region, "path_style": style, "creates": self.creates}
        pairs = "&".join(f"{name}={quote(text, safe='/:.')}" for name, text in query.items() if text is not None)
        return f"s3://{self.bucket}{slash}{quote(self.prefix)}{'?' if pairs else ''}{pairs}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryLocation:
    """A folder; absolute."""

    root: Path

    def __str__(self) -> str:
        return f"file://{quote(str(self.root))}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryLocation:
    """A store inside this process, for tests; the same name is the same store."""

    name: str

    def __str__(self) -> str:
        return f"memory://{self.name}"


StoreLocation = S3Location | DirectoryLocation | MemoryLocation


def parse_url(url: str, *, where: str = "replica URL") -> StoreLocation:
    """Return the location a replica URL names.

    Args:
        url: The URL.
        where: What to call it in a message, for example the configuration key it was read from.

    Raises:
        UsageError: it is not a replica URL; the message never holds a secret.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _refusal(where, found="something that is no URL") from None
    _refuse_credentials(parts, where)
    if _CONTROL.search(unquote(url)):
        raise _refusal(where, found="a control character")
    if parts.fragment or url.endswith("#"):
        raise _refusal(where, found="a '#'", hint="Write %23 for a '#' that belongs to the path.")
    match parts.scheme:
        case "s3":
            return _s3(parts, where)
        case "file":
            return _directory(parts, where)
        case "memory":
            return _memory(parts, where)
    found = f"the scheme {parts.scheme!r}" if _HARMLESS_NAME.fullmatch(parts.scheme) else "no scheme"
    raise _refusal(where, found=found)


def without_secrets(url: str) -> str:
    """Return a URL for logs and messages; whatever could be a secret in it is replaced by `***`. Never raises."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "***"
    if not parts.scheme:
        return "***"
    host = parts.netloc.rpartition("@")[2]
    netloc = f"***@{host}" if "@" in parts.netloc else host
    pairs = [
        f"{name}={without_secrets(text) if '://' in text else text}" if name in _S3_KEYS else "***"
        for name, text in parse_qsl(parts.query, keep_blank_values=True)
    ]
    query = f"?{'&'.join(pairs)}" if pairs else ""
    return f"{parts.scheme}://{netloc}{parts.path}{query}"


def join_url(url: str, prefix: str) -> str:
    """Return the URL of what lies below `prefix` ("app.db/" or "a/b/") in the store of that URL."""
    base, mark, query = url.partition("?")
    return f"{base.rstrip('/')}/{quote(prefix.strip('/'))}{mark}{query}"


def _s3(parts: SplitResult, where: str) -> S3Location:
    if not parts.netloc:
        raise _refusal(where, found="no bucket", hint="The bucket stands after s3://, before the next slash.")
    if not _BUCKET.fullmatch(parts.netloc):
        raise _refusal(
            where, expected="a bucket of letters, digits, '.', '-' and '_'", found=f"the bucket {parts.netloc!r}"
        )
    query = _query(parts, where)
    style = query.get("path_style")
    if style not in {None, "true", "false"}:
        raise _refusal(where, expected="path_style to be true or false", found=repr(style))
    region = query.get("region")
    if region is not None and not _REGION.fullmatch(region):
        raise _refusal(where, expected="a region such as eu-central-1 or auto", found=repr(region))
    creates = query.get("creates")
    if creates not in {None, *_CREATES}:
        raise _refusal(where, expected=f"creates to be {' or '.join(_CREATES)}", found=repr(creates))
    endpoint = query.get("endpoint")
    return S3Location(
        bucket=parts.netloc,
        prefix=_prefix(parts.path, where),
        endpoint=None if endpoint is None else _endpoint(endpoint, where),
        region=region,
        path_style=None if style is None else style == "true",
        creates=creates,
    )


def _prefix(path: str, where: str) -> str:
    prefix = unquote(path).strip("/")
    if prefix and any(segment in {"", ".", ".."} for segment in prefix.split("/")):
        raise _refusal(where, expected="a prefix without empty, '.' or '..' parts", found=f"the prefix {prefix!r}")
    return prefix


def _query(parts: SplitResult, where: str) -> dict[str, str]:
    query: dict[str, str] = {}
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        shown = f"the key {name!r}" if _HARMLESS_NAME.fullmatch(name) else "an unknown key"
        if name not in _S3_KEYS:
            raise _refusal(where, expected=f"after the '?' only the keys {', '.join(_S3_KEYS)}", found=shown)
        if name in query or not text:
            problem = "twice" if name in query else "without one"
            raise _refusal(where, expected="each key once, with a value", found=f"{shown} {problem}")
        query[name] = text
    return query


def _endpoint(endpoint: str, where: str) -> str:
    expected = "an endpoint such as https://s3.example.com"
    try:
        parts = urlsplit(endpoint)
        port = parts.port
    except ValueError:
        raise _refusal(where, expected=expected, found="an endpoint that is no URL") from None
    _refuse_credentials(parts, where)
    if "://" not in endpoint:
        raise _refusal(where, expected=expected, found="an endpoint without https:// or http:// before it")
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        raise _refusal(where, expected=expected, found=f"the endpoint {without_secrets(endpoint)!r}")
    if parts.query or parts.fragment:
        raise _refusal(
            where, expected=expected, found="an endpoint with a query", hint="Put '&' between the URL's own keys."
        )
    return endpoint.rstrip("/")


def _directory(parts: SplitResult, where: str) -> DirectoryLocation:
    if parts.netloc not in {"", "localhost"}:
        raise _refusal(
            where, expected="an absolute folder", found="a host", hint="Write three slashes: file:///var/backup."
        )
    if parts.query:
        raise _refusal(where, expected="no keys after the folder", found="a '?'", hint="Write %3F for one in the path.")
    path = unquote(parts.path)
    if not path.startswith("/") or not path.strip("/.") or ".." in path.split("/"):
        raise _refusal(where, expected="an absolute folder without '..'", found=f"the path {path!r}")
    return DirectoryLocation(root=Path(path))


def _memory(parts: SplitResult, where: str) -> MemoryLocation:
    if not parts.netloc or parts.path.strip("/") or parts.query:
        raise _refusal(where, expected="memory://name", found="something else after memory://")
    return MemoryLocation(name=parts.netloc)


def _refuse_credentials(parts: SplitResult, where: str) -> None:
    if "@" in parts.netloc:
        raise _refusal(
            where, expected="a URL without credentials", found="credentials before an '@'", hint=_CREDENTIALS_HINT
        )


def _refusal(where: str, *, expected: str = _FORMS, found: str, hint: str = "") -> UsageError:
    return UsageError(where=where, expected=expected, found=found, hint=hint or "See docs/cli.md.")
