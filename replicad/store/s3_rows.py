"""Reading S3's answers: the rows of a listing, and the part of a body that was asked for."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from replicad.errors import StoreRefused
from replicad.store.protocol import StoredObject

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_CONTENT_RANGE = re.compile(r"bytes (?P<first>\d+)-(?P<last>\d+)/(?P<total>\d+|\*)")


def rows_of(page: Mapping[str, Any], *, prefix: str, after: str, store: str) -> Iterator[StoredObject]:
    """Yield the rows of one page of ListObjectsV2 that were asked for; a store may ignore `after`.

    Raises:
        StoreRefused: a row is not what S3 describes.
    """
    for row in page.get("Contents", ()):
        try:
            key, size_bytes, modified_at = row["Key"], int(row["Size"]), datetime.fromisoformat(row["LastModified"])
        except (KeyError, ValueError) as error:
            raise StoreRefused(store=store, operation=f"list {prefix}", found=f"the row {row!r}") from error
        if key > after and key.startswith(prefix):
            aware = modified_at if modified_at.tzinfo else modified_at.replace(tzinfo=UTC)
            yield StoredObject(key=key, size_bytes=size_bytes, modified_at=aware.astimezone(UTC))


def parse_page(body: bytes, *, prefix: str, after: str, store: str) -> tuple[list[StoredObject], str]:
    """Return the rows of one page of a listing, and how to ask for the next: "" when there is none.

    Raises:
        ValueError: it is not what S3 describes, or not in order.
        StoreRefused: a row is not.
    """
    from xml.etree import ElementTree as ET  # noqa: PLC0415 - most of what runs lists nothing here

    try:
        root = ET.fromstring(body)  # noqa: S314 - the SDK parses the same answers with it
    except ET.ParseError as error:
        raise ValueError(str(error)) from error
    space = root.tag.rpartition("}")[0] + "}" if root.tag.startswith("{") else ""
    goes_on = {"true": True, "false": False}.get(root.findtext(f"{space}IsTruncated", ""))
    following = root.findtext(f"{space}NextContinuationToken", "") if goes_on else ""
    if root.tag != f"{space}ListBucketResult" or goes_on is None or goes_on != bool(following):
        raise ValueError(root.tag)
    page = {
        "Contents": [
            {name: row.findtext(f"{space}{name}", "") for name in ("Key", "Size", "LastModified")}
            for row in root.findall(f"{space}Contents")
        ]
    }
    rows = list(rows_of(page, prefix=prefix, after=after, store=store))
    if any(later.key <= earlier.key for earlier, later in pairwise(rows)):
        raise ValueError("rows that are not in order")
    return rows, following


def cut_to_range(answer: Mapping[str, Any], body: bytes, *, start: int, stop: int | None) -> bytes:
    """Return the bytes [start, stop) of the object that an answer to GetObject came from.

    A store may answer a request for a range with the range (and say so in Content-Range, whatever the status)
    or with the whole object.

    Raises:
        IncompleteReadError: botocore's: the body is shorter than was announced or asked for.
    """
    from botocore.exceptions import IncompleteReadError  # noqa: PLC0415 - rows are read without the SDK, too

    announced = answer.get("ContentLength")
    if announced is not None and len(body) != announced:
        raise IncompleteReadError(actual_bytes=len(body), expected_bytes=announced)
    sent = _CONTENT_RANGE.fullmatch(str(answer.get("ContentRange", "")))
    if sent is None:
        return body[start:stop] if start or stop is not None else body
    first, end = int(sent["first"]), int(sent["last"]) + 1
    total = end if sent["total"] == "*" else int(sent["total"])
    wanted_end = total if stop is None else min(stop, total)
    if first > start or end < wanted_end or end - first != len(body):
        raise IncompleteReadError(actual_bytes=len(body), expected_bytes=f"{wanted_end - start}, sent as {sent[0]!r}")
    return body if first == start and end == wanted_end else body[start - first : wanted_end - first]
