"""Those who use a web application while it is deployed anew: they write to whichever instance takes it, and note it.

with Clients(fleet_of_one) as clients:
    clients.route(old, new)                 # as a load balancer does once both are healthy
    clients.until_acknowledged(20, by=new)
"""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Self

from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.support.fleet import Instance

_PAUSE_SECONDS = 0.02
_REQUEST_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One request and its answer; times are monotonic seconds."""

    number: int
    instance: str
    began_at: float
    ended_at: float


class Clients:
    """One that writes, each number until it is acknowledged, and one that reads the first instance."""

    def __init__(self, *instances: Instance) -> None:
        self.acknowledged: list[Answered] = []
        self.refused: list[Answered] = []
        self.reads: list[Answered] = []
        self.refused_reads: list[Answered] = []
        self._route = list(instances)
        self._read = instances[0]
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=loop, name="client") for loop in (self._keep_writing, self._keep_reading)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Make no more requests."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def route(self, *instances: Instance) -> None:
        """Write to these from now on: to the first until it refuses, then to the next one."""
        self._route = list(instances)

    def by(self, instance: Instance) -> list[Answered]:
        """Return what this instance has acknowledged."""
        return [answered for answered in list(self.acknowledged) if answered.instance == instance.name]

    def until_acknowledged(self, count: int, *, by: Instance, seconds: float = 20.0) -> None:
        """Wait until an instance has acknowledged so many more writes than now."""
        goal = len(self.by(by)) + count
        wait_until(lambda: len(self.by(by)) >= goal, seconds)

    @property
    def numbers(self) -> set[int]:
        """What was acknowledged."""
        return {answered.number for answered in self.acknowledged}

    def outage_seconds(self) -> float:
        """Return the longest time between two acknowledged writes, whoever acknowledged them."""
        ends = sorted(answered.ended_at for answered in self.acknowledged)
        return max(later - earlier for earlier, later in pairwise(ends))

    def _keep_writing(self) -> None:
        with contextlib.ExitStack() as stack:
            lines: dict[int, Line] = {}
            number = turn = 0
            while not self._stopping.wait(_PAUSE_SECONDS):
                route = self._route
                instance = route[turn % len(route)]
                if id(instance) not in lines:
                    lines[id(instance)] = stack.enter_context(Line(instance))
                if self._ask(lines[id(instance)], "POST", number):
                    number += 1
                else:
                    turn += 1

    def _keep_reading(self) -> None:
        number = 0
        with Line(self._read) as line:
            while not self._stopping.wait(_PAUSE_SECONDS):
                self._ask(line, "GET", number)
                number += 1

    def _ask(self, line: Line, method: str, number: int) -> bool:
        began_at = time.monotonic()
        done = line.ask(method, f"/{number}")
        answered = Answered(number=number, instance=line.instance.name, began_at=began_at, ended_at=time.monotonic())
        if method == "GET":
            (self.reads if done else self.refused_reads).append(answered)
        else:
            (self.acknowledged if done else self.refused).append(answered)
        return done


class Line:
    """A connection to an instance's application, made anew when it breaks."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self._connection: http.client.HTTPConnection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def ask(self, method: str, path: str) -> bool:
        """Return whether the answer was 200."""
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection("127.0.0.1", self.instance.port, timeout=_REQUEST_SECONDS)
            self._connection.request(method, path)
            response = self._connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException):
            self._close()
            return False
        return response.status == http.HTTPStatus.OK

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
