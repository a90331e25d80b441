from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import IncompleteReadError
from hypothesis import given
from hypothesis import strategies as st

from replicad.errors import StoreRefused
from replicad.store.s3_rows import cut_to_range, rows_of

BODY = bytes(range(100))
_starts = st.integers(0, 99)
_stops = st.none() | st.integers(1, 200)


@given(_starts, _stops, st.booleans(), st.integers(0, 10), st.integers(0, 10))
def test_range_of_any_answer(start: int, stop: int | None, whole: bool, before: int, behind: int) -> None:  # noqa: FBT001
    """Whether a store sends the whole object, the range or a little more, what comes out is the range."""
    if stop is not None and stop <= start:
        return
    if whole:
        answer: dict[str, Any] = {"ContentLength": len(BODY)}
        sent = BODY
    else:
        first, end = max(0, start - before), min(len(BODY), (stop or len(BODY)) + behind)
        sent = BODY[first:end]
        answer = {"ContentLength": len(sent), "ContentRange": f"bytes {first}-{end - 1}/{len(BODY)}"}
    assert cut_to_range(answer, sent, start=start, stop=stop) == BODY[start:stop]


@given(_starts, st.integers(1, 200), st.integers(1, 99))
def test_shorter_than_asked_for(start: int, stop: int, missing: int) -> None:
    """A range that ends too early is found out by the object's size that comes with it."""
    end = min(stop, len(BODY)) - missing
    if end <= start:
        return
    answer = {"ContentLength": end - start, "ContentRange": f"bytes {start}-{end - 1}/{len(BODY)}"}
    with pytest.raises(IncompleteReadError):
        cut_to_range(answer, BODY[start:end], start=start, stop=stop)


def _row(**changes: object) -> dict[str, object]:
    return {"Key": "a", "Size": 1, "LastModified": "2026-01-02T03:04:05.678Z"} | changes


@pytest.mark.parametrize(
    "text",
    ["2026-01-02T03:04:05.678Z", "2026-01-02T05:04:05.678+02:00", "2026-01-02T03:04:05.678"],
    ids=["Z", "offset", "naive"],
)
def test_times(text: str) -> None:
    """A row's time is aware and UTC, however the store writes it."""
    (row,) = rows_of({"Contents": [_row(LastModified=text)]}, prefix="", after="", store="s3://b")
    assert row.modified_at == datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
    assert row.modified_at.tzinfo is UTC


def test_only_what_was_asked_for() -> None:
    """Rows outside the prefix or not behind `after` are passed over: some stores send them."""
    page = {"Contents": [_row(Key=key) for key in ("app/a", "app/b", "app2/a", "b")]}
    assert [row.key for row in rows_of(page, prefix="app/", after="app/a", store="s3://b")] == ["app/b"]
    assert list(rows_of({}, prefix="", after="", store="s3://b")) == []


@pytest.mark.parametrize("broken", [{"LastModified": "yesterday"}, {"Size": "big"}])
def test_rows_that_are_none(broken: dict[str, object]) -> None:
    """A row that S3 would not send is refused and shown."""
    with pytest.raises(StoreRefused, match=str(next(iter(broken.values())))):
        list(rows_of({"Contents": [_row(**broken)]}, prefix="", after="", store="s3://b"))
