"""When the next round over a WAL is worth its price.

A round reads, and takes a thread: 0.3 ms. A glance looks at nothing but where the WAL ends, on the event loop: 10 µs,
and ten times that to wake up for it. So the file system says when a WAL is written to, as long as that is seldom;
glances tell how far it has come; and a round comes when something is to be sent, when much is unread, or when the pin
has to move. Where commits follow one another, and none of them is waited for, glances are taken in a fixed rhythm,
unasked for, by a timer of the event loop: an event costs a thread's waking and a task's, ten times as much.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from replicad.replicate.beat import BUSY_INTERVAL_SECONDS, STILL_INTERVAL_SECONDS
from replicad.replicate.following import wait_for
from replicad.replicate.reading import Reached

if TYPE_CHECKING:
    from replicad.config.model import Settings
    from replicad.host.clock import Clock
    from replicad.host.watcher import Watch
    from replicad.replicate.beat import Beat, Glance, Round
    from replicad.replicate.following import Turn

_LINGER_SECONDS = 0.1  # a WAL is written before it is committed; with an fsync between, events come that much early
_FIRST_TICK_SECONDS = 0.0005  # behind an event, until what was written is committed; doubles
_LONGEST_TICK_SECONDS = 0.016
_BUSY_SECONDS = 0.01  # between two commits, at most, for a rhythm to be kept though each is to be sent at once
_RHYTHM_SECONDS = 0.1  # between two commits, at most, for it to be kept while nothing is to be sent
_LEISURE_SECONDS = 0.01  # between two glances then: no commit's time is noted later than that
_READ_BYTES = 4 << 20  # unread so far, a round is taken without further waiting: as much as is read at once
_LEAD_SECONDS = 0.01  # before a segment is closed, so that the newest commits are in it


class Sending(Protocol):
    """When the next segment is sent, and whether one is under way: see `ShipLoop`."""

    in_flight_ms: int | None

    @property
    def due_at(self) -> float:
        """When the next one is to be sent, at the earliest: seconds, monotonic."""
        ...


class Lookout:
    """Keeps watch between the rounds of one session."""

    def __init__(  # noqa: PLR0913 - one of each
        self,
        turn: Turn,
        beat: Beat,
        sending: Sending,
        settings: Settings,
        clock: Clock,
        *,
        watch: Watch,
        nudge: asyncio.Event,
    ) -> None:
        """`watch` sets `nudge`; so may others, to have the database looked at now."""
        self._clock = clock
        self._safety_seconds = settings.safety_poll_interval_seconds
        self._poll_seconds = settings.poll_interval_seconds
        self._turn = turn
        self._beat = beat
        self._sending = sending
        self._watch = watch
        self._nudge = nudge
        self._tick_seconds: float | None = None  # until the next glance; None: until the file system says something
        self._news_at = float("-inf")
        self._gap_seconds = float("inf")  # between the last two times that there were news
        self._announced_at = float("-inf")  # by an event, and nothing was committed since
        self._expecting = False  # a commit that an event has announced: none has come since

    async def until_wanted(self, last: Round) -> None:
        """Return when another round is wanted; `last` says what the last one found."""
        began = now = self._clock.monotonic()
        wanted_at = now + min(self._safety_seconds, last.pause_seconds or self._safety_seconds)
        if last.reached is not Reached.END:  # there is no room; whoever makes some says so
            await wait_for(self._nudge, wanted_at - now)
            self._nudge.clear()
            return
        while now < wanted_at:
            if self._keeps_rhythm(now) and await self._rhythm(last, began):
                return
            wanted_at = await self._by_events(last, began, wanted_at)
            now = self._clock.monotonic()

    async def _by_events(self, last: Round, began: float, wanted_at: float) -> float:
        """Glance once, and wait for the next event; return when a round is wanted."""
        now = self._clock.monotonic()
        if self._nudge.is_set():
            self._nudge.clear()
            self._announced_at, self._tick_seconds, self._expecting = now, _FIRST_TICK_SECONDS, True
        glance = self._glance()
        if glance is None:
            if now - self._announced_at < _LINGER_SECONDS:
                await wait_for(self._nudge, self._poll_seconds)
                return now
        elif glance.news:
            self._expecting = False
            if last.pause_seconds is None or self._is_due(glance, now, began):
                return now
            # No sooner than it has to be: there may be more by then.
            wanted_at = min(began + BUSY_INTERVAL_SECONDS, now + STILL_INTERVAL_SECONDS, self._closing_at)
        self._set_tick(glance, now)
        if not self._is_awaited and not self._watch.armed and self._watch.arm():
            return wanted_at if glance else now  # one more glance, for what changed before the watch stood
        pause = wanted_at - now
        await wait_for(self._nudge, min(pause, pause if self._tick_seconds is None else self._tick_seconds))
        return wanted_at

    @property
    def _is_awaited(self) -> bool:
        """Whether glances will find the commit that is coming: no event is needed, of which it makes many.

        The first commit that is found may be an older one, and what the event announced still to come, without another
        event. So glances go on behind it, but events have to tell of others then.
        """
        return self._tick_seconds is not None and self._expecting

    def _keeps_rhythm(self, now: float) -> bool:
        """Return whether glances are to be taken in a rhythm: commits follow one another, and nobody waits for one."""
        gap_seconds = max(self._gap_seconds, now - self._news_at)
        return gap_seconds < (_BUSY_SECONDS if self._closing_at <= now else _RHYTHM_SECONDS)

    async def _rhythm(self, last: Round, began: float) -> bool:
        """Glance in a rhythm; return whether a round is wanted, which is False when it is time to look otherwise."""
        loop, timer = asyncio.get_running_loop(), None
        wanted: asyncio.Future[bool] = loop.create_future()

        def glance() -> None:
            nonlocal timer
            try:
                found = self._rhythmic(last, began)
            except BaseException as error:  # noqa: BLE001 - it is the task's, which would wait for ever
                wanted.set_exception(error)
            else:
                if found is None:
                    timer = loop.call_later(self._beat_seconds(), glance)
                else:
                    wanted.set_result(found)

        timer = loop.call_later(self._beat_seconds(), glance)
        try:
            return await wanted
        finally:
            if timer is not None:
                timer.cancel()

    def _rhythmic(self, last: Round, began: float) -> bool | None:
        """Glance once; return whether a round is wanted, None to go on in the rhythm."""
        glance, now = self._glance(), self._clock.monotonic()
        if glance is None:
            return False
        if glance.news:
            self._note_news(now)
        on_zero = glance.news and last.pause_seconds is None
        if on_zero or self._is_due(glance, now, began) or now - began >= BUSY_INTERVAL_SECONDS:
            return True
        return None if self._keeps_rhythm(now) else False

    def _beat_seconds(self) -> float:
        """Return how long until the next glance of the rhythm."""
        left_seconds = self._closing_at - self._clock.monotonic()
        if left_seconds <= 0:
            return self._poll_seconds
        return min(max(self._poll_seconds, _LEISURE_SECONDS), left_seconds)

    @property
    def _closing_at(self) -> float:
        """When the next segment is about to be closed."""
        return self._sending.due_at - _LEAD_SECONDS

    def _note_news(self, now: float) -> None:
        self._gap_seconds, self._news_at, self._announced_at = now - self._news_at, now, float("-inf")

    def _glance(self) -> Glance | None:
        if self._turn.lock.locked() or not self._turn.reading.is_set():
            return None
        return self._beat.glance()

    def _is_due(self, glance: Glance, now: float, began: float) -> bool:
        """Return whether what is unread is to be read now."""
        if glance.unread_bytes >= _READ_BYTES:
            return True
        ready = self._sending.in_flight_ms is None or now - began >= self._poll_seconds
        return glance.unread_bytes > 0 and ready and self._closing_at <= now

    def _set_tick(self, glance: Glance | None, now: float) -> None:
        if glance is not None and glance.news:
            self._note_news(now)
            self._tick_seconds = None
        elif self._tick_seconds is not None:
            waiting = now - self._announced_at < _LINGER_SECONDS
            self._tick_seconds = min(2 * self._tick_seconds, _LONGEST_TICK_SECONDS) if waiting else None
