from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from replicad.cli.checks.store import probe_store
from replicad.errors import StoreRefused, StoreUnreachable
from replicad.store.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from replicad.cli.checks.check import Check
    from replicad.store.protocol import ObjectStore, StoredObject


async def _checks(store: ObjectStore, fencing: str = "auto") -> dict[str, Check]:
    return {check.name: check for check in await probe_store(store, fencing=fencing)}


class NoDelete(MemoryStore):
    """Credentials that may not delete."""

    async def delete(self, keys: Sequence[str]) -> None:
        """Refuse."""
        raise StoreRefused(store=self.url, operation=f"DELETE {keys[0]}", found="AccessDenied")


class ReadOnly(MemoryStore):
    """Credentials that may not write."""

    async def put(self, key: str, body: bytes) -> None:
        """Refuse."""
        raise StoreRefused(store=self.url, operation=f"PUT {key} {len(body)}", found="AccessDenied")


class Away(MemoryStore):
    """A store out of reach."""

    async def put(self, key: str, body: bytes) -> None:
        """Fail."""
        raise StoreUnreachable(store=self.url, operation=f"PUT {key} {len(body)}", found="connection refused")


class Overwriting(MemoryStore):
    """A store that ignores If-None-Match."""

    async def create(self, key: str, body: bytes) -> None:
        """Write in any case."""
        await self.put(key, body)


class Forgetful(MemoryStore):
    """A store that says yes and keeps nothing to be seen."""

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        """Return something else."""
        return b"something else"[start:stop] + key[:0].encode()

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[StoredObject]:
        """Return nothing."""
        async for row in super().list(f"{prefix}nothing", after=after):
            yield row


async def test_a_store_as_it_should_be() -> None:
    """Every verb, conditional writes and the clock are ok, and nothing is left behind."""
    store = MemoryStore()
    checks = await _checks(store)
    names = ["store", "store PUT", "store GET", "store LIST", "store DELETE", "conditional writes", "clock"]
    assert list(checks) == names
    assert {check.verdict for check in checks.values()} == {"ok"}
    assert [row async for row in store.list("")] == []


async def test_a_missing_permission_is_named() -> None:
    """A refused verb is a failure that names the permission; the other verbs are checked all the same."""
    checks = await _checks(NoDelete())
    assert checks["store DELETE"].verdict == "fail"
    assert "s3:DeleteObject" in checks["store DELETE"].advice
    assert {checks[f"store {verb}"].verdict for verb in ("PUT", "GET", "LIST")} == {"ok"}
    assert checks["conditional writes"].verdict == "skip"
    read_only = await _checks(ReadOnly())
    assert read_only["store PUT"].verdict == "fail"
    assert "s3:PutObject" in read_only["store PUT"].advice


async def test_a_store_out_of_reach_is_one_failure() -> None:
    """What cannot be reached is said once, not once per verb."""
    checks = await _checks(Away())
    assert list(checks) == ["store"]
    assert checks["store"].verdict == "fail"
    assert "connection refused" in checks["store"].found


@pytest.mark.parametrize(
    ("fencing", "verdict", "found", "advice"),
    [
        ("auto", "warn", "fencing is advisory", "one instance at a time"),
        ("advisory", "warn", "fencing is advisory", "one instance at a time"),
        ("required", "fail", "does not start (13)", "fencing: auto"),
    ],
)
async def test_a_store_that_ignores_conditions(fencing: str, verdict: str, found: str, advice: str) -> None:
    """On a store where a create overwrites, what follows depends on `fencing`: a warning, or no start at all."""
    store = Overwriting()
    check = (await _checks(store, fencing))["conditional writes"]
    assert check.verdict == verdict
    assert found in check.found
    assert advice in check.advice
    assert [row async for row in store.list("")] == []


async def test_conditions_that_are_left_unused() -> None:
    """Where the store could and `fencing: advisory` does not want it to, the check says so."""
    check = (await _checks(MemoryStore(), "advisory"))["conditional writes"]
    assert check.verdict == "ok"
    assert "fencing: advisory" in check.found


async def test_a_store_that_does_not_show_what_it_stored() -> None:
    """Other bytes, or a listing without the new object, are failures although no request failed."""
    checks = await _checks(Forgetful())
    assert checks["store GET"].verdict == "fail"
    assert checks["store LIST"].verdict == "fail"
    assert checks["clock"].verdict == "skip"


@pytest.mark.parametrize(
    ("seconds", "verdict", "found"),
    [(0.5, "ok", "agrees"), (5, "ok", "5 s ahead"), (-60, "warn", "60 s behind"), (3600, "fail", "3600 s ahead of")],
)
async def test_the_clock_difference(seconds: float, verdict: str, found: str) -> None:
    """A small difference is fine, a larger one a warning, and one that signatures do not survive a failure."""
    store = MemoryStore(now=lambda: datetime.now(UTC) + timedelta(seconds=seconds))
    check = (await _checks(store))["clock"]
    assert check.verdict == verdict
    assert found in check.found
