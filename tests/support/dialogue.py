"""Holding a dialogue with a protocol: what it must ask next, and what it is answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from replicad.errors import StoreUnreachable
from replicad.ownership.requests import Log, Now, NowMs, Pause

if TYPE_CHECKING:
    from replicad.ownership.requests import Happened, Request, Steps

AWAY = StoreUnreachable(store="the store", operation="a request", found="no answer")
NOW_MS = 1_763_690_400_000


class Dialogue:
    """Drives one protocol by hand; the clock stands still but for its pauses, and logging is only noted."""

    def __init__(self, steps: Steps[Any]) -> None:
        self.now = 1000.0
        self.happened: list[Happened] = []
        self.result: object = None
        self.is_over = False
        self._steps = steps
        self._asked: Request | None = None
        self._go_on(None)

    def answer(self, expected: Request, answer: object = None) -> None:
        """Check what is asked, and answer it; an exception is thrown in."""
        assert not self.is_over, f"ended with {self.result}, expected {expected}"
        assert self._asked == expected
        self._go_on(answer)

    def pause(self, *, longer_by: float = 0.0) -> float:
        """Check that it pauses, and let that time go by, or more; return how long it wanted."""
        assert isinstance(self._asked, Pause), f"asks for {self._asked}"
        seconds = self._asked.seconds
        self.now += seconds + longer_by
        self._go_on(None)
        return seconds

    @property
    def asked(self) -> Request | None:
        """What is asked now."""
        return self._asked

    def _go_on(self, answer: object) -> None:
        try:
            request = self._steps.throw(answer) if isinstance(answer, Exception) else self._steps.send(answer)
            while isinstance(request, Now | NowMs | Log):
                request = self._steps.send(self._at_once(request))
        except StopIteration as stop:
            self._asked, self.result, self.is_over = None, stop.value, True
        else:
            self._asked = request

    def _at_once(self, request: Now | NowMs | Log) -> float | None:
        if isinstance(request, Log):
            self.happened.append(request.happened)
            return None
        return self.now if isinstance(request, Now) else NOW_MS
