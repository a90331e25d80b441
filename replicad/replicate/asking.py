"""Owning a database for the time of one command: its owner is asked for it, and never overruled while it lives."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from replicad.errors import OwnedByAnother, ReplicadError
from replicad.layout import claim_key, handover_key
from replicad.ownership.newcomer import Refused, take_if_given
from replicad.ownership.records import decode_claim
from replicad.position import Epoch
from replicad.replicate.own import Owned

if TYPE_CHECKING:
    from replicad.ownership.claim import Me
    from replicad.ownership.timing import Timing
    from replicad.position import Position
    from replicad.replicate.protocol import Driver
    from replicad.store.protocol import ObjectStore

_WITHDRAW_SECONDS = 5.0


class Asking:
    """Whom a command asks. Implements protocol.Host, for a command that has no database of its own."""

    def __init__(self, store: ObjectStore, database: str) -> None:
        self.owner: str | None = None  # the instance that was asked; None: nobody had to be
        self._store = store
        self._database = database
        self._asked: Epoch | None = None

    async def own(self, driver: Driver, me: Me, timing: Timing) -> Owned:
        """Claim the next epoch, when nobody lives who owns the one before, or when it was handed over.

        Raises:
            OwnedByAnother: the owner lives, and has not handed over within `patience_seconds`.
            StoreUnreachable, StoreRefused, CreateUndecided, ConditionalWritesUnsupported: nothing is owned.
        """
        try:
            outcome = await driver.run(take_if_given(me, timing))
        except BaseException:
            await self._withdraw()
            raise
        if self._asked is not None:
            self.owner = await self._claimant(Epoch(self._asked - 1))
        if isinstance(outcome, Refused):
            await self._withdraw()
            epoch, seconds = outcome.asked - 1, timing.patience_seconds
            raise OwnedByAnother(
                database=self._database,
                found=f"{self.owner} has epoch {epoch}, and did not hand it over within {seconds:g} s",
                hint="Nothing was stored. Stop that instance and try again, or wait longer with --timeout.",
            )
        return Owned(epoch=outcome.epoch, claim_id=outcome.claim_id, continued=False)

    def overtaken(self) -> OwnedByAnother:
        """Return the error for a command whose epoch another instance has gone past."""
        return OwnedByAnother(
            database=self._database,
            found="it took over while this one was at work",
            hint="What was sent is no part of the history; try again.",
        )

    async def _withdraw(self) -> None:
        """Take the request back: an owner that finds it later would keep its writers out for nobody."""
        if self._asked is not None:
            with suppress(ReplicadError, TimeoutError):
                async with asyncio.timeout(_WITHDRAW_SECONDS):
                    await self._store.delete([handover_key(self._asked)])

    async def _claimant(self, epoch: Epoch) -> str:
        key = claim_key(epoch)
        with suppress(ReplicadError):
            return decode_claim(await self._store.get(key), what=key).instance
        return "an instance"

    # --- protocol.Host -----------------------------------------------------------------------------

    async def warm(self, epoch: Epoch) -> None:
        """Take note of what is asked for: there is nothing to restore into."""
        self._asked = Epoch(epoch + 1)

    async def freeze(self) -> None:
        """There are no writers."""
        raise AssertionError

    async def ship_rest(self, seconds: float) -> Position | None:
        """There is nothing to ship."""
        raise AssertionError(seconds)

    async def thaw(self, *, ship: bool) -> None:
        """There are no writers."""
        raise AssertionError(ship)
