"""The store: can it be reached, what may these credentials do, does it keep two owners apart, is its clock ours."""

from __future__ import annotations

import secrets
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from replicad.cli.checks.check import Check, fail, ok, skip, warn
from replicad.cli.checks.encryption import check_encryption
from replicad.errors import CreateUndecided, ReplicadError, StoreRefused, StoreUnreachable
from replicad.layout import PROBES
from replicad.store.create import probe_conditional_writes
from replicad.store.database import stored_objects
from replicad.store.open import open_store

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from replicad.config import DatabaseSettings, Settings
    from replicad.store.protocol import ObjectStore

_RETRY_SECONDS = 5.0  # a doctor is asked by somebody who waits
_PROBE = b"replicad doctor wrote this and may delete it"
_CLOCK_WARN_SECONDS = 10.0
_CLOCK_FAIL_SECONDS = 15 * 60.0  # S3 refuses a signature that is further off
_PERMISSIONS = {"PUT": "s3:PutObject", "GET": "s3:GetObject", "LIST": "s3:ListBucket", "DELETE": "s3:DeleteObject"}


async def check_store(settings: Settings, database: DatabaseSettings) -> list[Check]:
    """Return the checks of one database's replica. Writes, reads and deletes a few bytes below `probes/`."""
    options = replace(
        settings.store_options(concurrency=1), retry_seconds=min(_RETRY_SECONDS, settings.retry_timeout_seconds)
    )
    try:
        opened = await open_store(database.replica, options)
    except ReplicadError as error:
        return [fail("store", str(error), "Set replica and the credentials as docs/configuration.md says.")]
    try:
        objects = stored_objects(opened, database.name)
        checks = await probe_store(objects, fencing=settings.fencing)
        return [*checks, await check_encryption(settings, objects)]
    finally:
        await opened.close()


async def probe_store(store: ObjectStore, *, fencing: str = "auto") -> list[Check]:
    """Return the checks of an open store; `fencing` is the setting, which says what follows from what is found."""
    return await _Probe(store, fencing).checks()


class _WrongAnswer(Exception):
    """The store said yes and did something else."""


class _Probe:
    """Tries each verb once on a random key; a store that is out of reach ends it, a refusal does not."""

    def __init__(self, store: ObjectStore, fencing: str) -> None:
        self._store = store
        self._fencing = fencing
        self._key = f"{PROBES}doctor-{secrets.token_hex(8)}"
        self._checks: list[Check] = []
        self._clock_difference_seconds: float | None = None

    async def checks(self) -> list[Check]:
        """Return all checks, also when the first one fails."""
        steps: tuple[tuple[str, Callable[[], Awaitable[str]]], ...] = (
            ("PUT", self._put),
            ("GET", self._get),
            ("LIST", self._list),
            ("DELETE", self._delete),
        )
        for verb, step in steps:
            try:
                begun = time.monotonic()
                found = await step()
            except StoreUnreachable as error:
                advice = "Check the endpoint, the name resolution and the network from this machine."
                return [fail("store", str(error), advice), *self._checks]
            except (ReplicadError, _WrongAnswer) as error:
                self._checks.append(fail(f"store {verb}", str(error), _permission_advice(verb, error)))
            else:
                self._checks.append(ok(f"store {verb}", f"{found} in {(time.monotonic() - begun) * 1000:.0f} ms"))
        self._checks.append(await self._conditional_writes())
        self._checks.append(self._clock())
        return [ok("store", f"{self._store.url} answers"), *self._checks]

    async def _put(self) -> str:
        await self._store.put(self._key, _PROBE)
        return f"wrote {len(_PROBE)} bytes"

    async def _get(self) -> str:
        body = await self._store.get(self._key)
        if body != _PROBE:
            raise _WrongAnswer("other bytes came back than were written")
        return "read them back"

    async def _list(self) -> str:
        listed = {row.key: row async for row in self._store.list(PROBES)}
        if self._key not in listed:
            raise _WrongAnswer("the new object is not in the listing")
        # Seconds between the PUT and now are within the tolerance; the store's own times have whole seconds.
        self._clock_difference_seconds = listed[self._key].modified_at.timestamp() - time.time()
        return "found the new object"

    async def _delete(self) -> str:
        await self._store.delete([self._key])
        return "deleted it"

    async def _conditional_writes(self) -> Check:
        name = "conditional writes"
        if any(check.advice for check in self._checks):
            return skip(name, "not tried, because a permission is missing")
        try:
            honoured = await probe_conditional_writes(self._store)
        except (StoreRefused, StoreUnreachable, CreateUndecided) as error:
            return fail(name, str(error), "Try again; if it stays so, use a store with conditional writes.")
        if honoured:
            follows = ", though `fencing: advisory` leaves them unused" if self._fencing == "advisory" else ""
            return ok(name, f"honoured: of two instances the store lets one own an epoch{follows}")
        return _without(name, self._fencing)

    def _clock(self) -> Check:
        difference = self._clock_difference_seconds
        if difference is None:
            return skip("clock", "not compared, because the listing failed")
        if abs(difference) < 1:
            return ok("clock", "the store's clock agrees with this machine's")
        found = (
            f"the store's clock is {abs(difference):.0f} s {'ahead of' if difference > 0 else 'behind'} this machine's"
        )
        advice = "Set this machine's clock by NTP; commit times and `--at` follow it."
        if abs(difference) > _CLOCK_FAIL_SECONDS:
            return fail("clock", found, advice)
        return warn("clock", found, advice) if abs(difference) > _CLOCK_WARN_SECONDS else ok("clock", found)


def _without(name: str, fencing: str) -> Check:
    found = "ignored or missing: a second create of one key is not refused"
    stores = "AWS S3, R2, Tigris, MinIO, Google Cloud Storage (with creates=generation-match behind another name)"
    if fencing == "required":
        advice = f"Use a store with conditional writes ({stores}), or set fencing: auto."
        return fail(name, f"{found}, and with `fencing: required` replicad does not start (13)", advice)
    advice = f"Start one instance at a time, or use a store with conditional writes ({stores})."
    return warn(name, f"{found}; fencing is advisory: owners find out about one another by looking", advice)


def _permission_advice(verb: str, error: Exception) -> str:
    if isinstance(error, StoreRefused):
        return f"Allow {_PERMISSIONS[verb]} on this bucket and prefix, and check that the bucket exists."
    return "A store must show at once what it has stored: use another one, or report this one's defect."
