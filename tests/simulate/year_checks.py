"""The checks of a simulated year: what was promised is restored by the product, and compared with what is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import xxhash

from replicad.errors import ReplicadError
from replicad.plan.target import AtTime, AtTXID, Latest
from replicad.position import TXID
from replicad.restore.request import RestoreRequest
from replicad.restore.restore import restore
from tests.simulate.year_application import digest_of
from tests.simulate.year_oracle import DAY_MS, DELAY_MS, Broken, State, Superfluous, Timeline
from tests.simulate.year_time import BEGIN_MS, YearClock

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence
    from pathlib import Path

    from replicad.plan.target import Target
    from tests.simulate.year_plan import Outcome
    from tests.simulate.year_store import CountedStore

_SETTLING_MS = 500  # what was committed a moment ago may not be read yet


class Checks:
    """Looks at the bucket as somebody would who has nothing else. `restores` counts."""

    def __init__(
        self, store: CountedStore, folder: Path, timeline: Timeline, outcome: Outcome, dice: random.Random
    ) -> None:
        """Restored files are put into `folder`; the bucket is the folder of that name below it."""
        self.restores = 0
        self.store = store
        self.superfluous = Superfluous(folder / "bucket", outcome.plan.policy)
        self._path = folder / "restored.db"
        self._timeline = timeline
        self._outcome = outcome
        self._dice = dice
        self._clock = YearClock()

    async def window(self) -> None:
        """Restore a moment within the window: any, or one just before or just behind a commit."""
        now_ms, timeline = self._clock.now_ms(), self._timeline
        window_ms = round(self._outcome.plan.policy.window_days * DAY_MS)
        first_ms = max(min(one.ms for one in timeline.snapshots) + DELAY_MS, now_ms - window_ms)
        last_ms = now_ms - _SETTLING_MS
        if first_ms >= last_ms:
            return
        at_ms, draw = self._dice.randrange(first_ms, last_ms), self._dice.random()
        imaged = [one for one in timeline.states if one.image is not None and first_ms <= one.noted_ms < last_ms]
        if draw < 0.3 and imaged:
            at_ms = self._dice.choice(imaged).noted_ms
        elif draw < 0.6:
            near = timeline.at(at_ms)[-1:]
            at_ms = max([first_ms, *(one.at_ms + self._dice.choice((-1, 0, DELAY_MS)) for one in near)])
        await self.restored(AtTime(at_ms), timeline.at(at_ms), "a moment in the window")

    async def kept(self) -> None:
        """Restore every snapshot that the rules promise, and what was preserved."""
        for snapshot in self._timeline.promised(self._outcome.plan.policy).values():
            states = self._timeline.at(snapshot.ms)
            await self.restored(AtTXID(TXID(snapshot.txid)), states, "a snapshot that a rule promises")
        for _, mark in self._timeline.preserving(self._clock.now_ms()):
            await self.restored(AtTXID(TXID(mark.txid)), [mark.state], "a preserved state")

    async def newest(self) -> None:
        """Restore what is durable: everything."""
        await self.restored(Latest(), self._timeline.states[-1:], "the newest state")

    async def nothing_superfluous(self) -> None:
        """See that nothing is stored that belongs to nothing, and not too much."""
        self.superfluous.check(self.store.bucket, self._timeline, self._clock.now_ms())
        self._outcome.happened["looked for what belongs to nothing"] += 1

    async def restored(self, target: Target, states: Sequence[State], what: str) -> None:
        """Restore, and see that it gives one of some states.

        Raises:
            Broken: it does not.
        """
        where = f"{what}, {target}, on day {(self._clock.now_ms() - BEGIN_MS) // DAY_MS}"
        self._path.unlink(missing_ok=True)
        try:
            found = await restore(self.store, RestoreRequest(path=self._path, target=target), clock=self._clock)
        except ReplicadError as error:
            raise Broken(f"{where}, cannot be restored: {error}") from error
        number, digest = digest_of(self._path)
        if (number, digest) not in [(state.number, state.digest) for state in states]:
            raise Broken(f"{where}, gives commit {number} instead of {[state.number for state in states]}")
        if len(states) == 1 and states[0].image is not None:
            if xxhash.xxh3_128_digest(self._path.read_bytes()) != states[0].image:
                raise Broken(f"{where}: a page differs from what SQLite had at commit {number}")
            self._outcome.happened["compared page for page"] += 1
        self.restores += 1
        self._outcome.happened[f"restored: {what}"] += 1
        self._outcome.most_requests = max(self._outcome.most_requests, found.requests)
