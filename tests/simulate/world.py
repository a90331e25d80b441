"""Virtual time, a model store, and a network that loses, delays and repeats.

Everything that happens is an event on one heap, drawn from one seeded generator: a seed is a schedule. Requests are
applied some time after they are sent and answered some time after that, so that the steps of all processes
interleave in every order. A process may be gone, or stopped, when its request is applied or its answer comes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any

from replicad.errors import StoreUnreachable
from replicad.layout import CLAIMS, EPOCHS, parse_claim
from replicad.ownership.requests import (
    Claims,
    Create,
    Created,
    Exists,
    Get,
    Happened,
    Log,
    Now,
    NowMs,
    Pause,
    Put,
    Request,
)
from replicad.position import Epoch
from tests.simulate.history import Reported, Violation

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from tests.simulate.process import Process

REQUEST_TIMEOUT_SECONDS = 2.0
T0_MS = 1_763_690_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ListEpochs:
    """The driver's LIST of all epochs; answered with the keys found.

    Pages of a listing are read one after the other, so the later keys are read later.
    """


Asked = Request | ListEpochs
StoreRequest = Get | Exists | Put | Create | Claims | ListEpochs


@dataclass(slots=True, kw_only=True)
class Network:
    """How bad it is."""

    delay_seconds: float = 0.2  # mean time to the store, and back
    fault_share: float = 0.0  # of all requests
    late_seconds: float = 20.0  # how long after its timeout a write may still arrive
    repeats_creates: bool = False  # sabotage: an HTTP layer that resends whatever got no answer
    away_until: float = 0.0  # for all


class Thread:
    """One protocol being driven."""

    __slots__ = ("alive", "process", "steps")

    def __init__(self, process: Process, steps: Generator[Any, Any, Any]) -> None:
        self.process = process
        self.steps = steps
        self.alive = True

    def kill(self) -> None:
        """Stop at the request under way; what that one does at the store it does."""
        self.alive = False


class World:
    """Time, store and network of one schedule."""

    def __init__(self, seed: int, *, tracing: bool = False) -> None:
        self.random = Random(seed)
        self.now = 0.0
        self.network = Network()
        self.objects: dict[str, bytes] = {}
        self.writers: dict[str, str] = {}  # which process stored a key
        self.highest = Epoch(0)
        self.accepted_at: list[float] = []  # by transaction
        self.reported = Reported()
        self.newest_reported_at = -1.0  # when the newest of what was reported had been committed
        self.coverage: Counter[str] = Counter()
        self.trace: list[str] | None = [] if tracing else None
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = count()
        self._folders: dict[str, str] = {}

    # --- time ----------------------------------------------------------------------------------

    def after(self, seconds: float, action: Callable[..., None], *arguments: object) -> None:
        """Let something happen later."""
        heappush(self._heap, (self.now + seconds, next(self._order), action, arguments))

    def run(self, until: float, is_done: Callable[[], bool]) -> None:
        """Let things happen until a time, or until it is done."""
        heap = self._heap
        while heap and heap[0][0] <= until and not is_done():
            self.now, _, action, arguments = heappop(heap)
            action(*arguments)

    def let_everything_arrive(self) -> None:
        """Apply what is still on its way, however late, with nobody left to act on it."""
        for _, _, action, arguments in sorted(self._heap, key=lambda event: event[:2]):
            if action == self._arrive:
                self._arrive(*arguments)

    def say(self, who: str, what: object) -> None:
        """Note something for the reader of a trace."""
        if self.trace is not None:
            self.trace.append(f"{self.now:8.3f} {who:8} {what}")

    # --- transactions --------------------------------------------------------------------------

    def accept(self) -> int:
        """Return the number of a transaction that some application commits now."""
        self.accepted_at.append(self.now)
        return len(self.accepted_at) - 1

    def report(self, txid: int, transaction: int) -> None:
        """Take a transaction for durable from now on."""
        accepted_at = self.accepted_at[transaction]
        self.reported.add(txid, transaction, accepted_at)
        self.newest_reported_at = max(self.newest_reported_at, accepted_at)

    # --- processes -----------------------------------------------------------------------------

    def start(self, thread: Thread) -> Thread:
        """Drive a protocol from now on."""
        self.after(0, self.resume, thread)
        return thread

    def resume(self, thread: Thread, answer: object = None, error: Exception | None = None) -> None:
        """Give a thread its answer, and take its next request."""
        process = thread.process
        while thread.alive and process.alive:
            if process.stopped_until > self.now:
                self.after(process.stopped_until - self.now, self.resume, thread, answer, error)
                return
            try:
                request = thread.steps.send(answer) if error is None else thread.steps.throw(error)
            except StopIteration:
                thread.alive = False
                return
            kind, error = type(request), None
            if kind is Now:
                answer = process.clock(self.now)
            elif kind is NowMs:
                answer = T0_MS + int(process.clock(self.now) * 1000)
            elif kind is Log:
                self._log(process, request)
                answer = None
            elif kind is Pause:
                self.after(request.seconds / process.pace, self.resume, thread)
                return
            elif kind in _STORE_REQUESTS:
                process.count_step(request)
                self._send(thread, request, 1)
                return
            else:
                process.serve(thread, request)
                return

    def _log(self, process: Process, request: Log) -> None:
        self.say(process.name, f"{request.happened.name} {request.epoch}")
        self.coverage[request.happened.name] += 1
        key = f"{CLAIMS}{request.epoch:08x}.json"
        if request.happened is Happened.CLAIM_LOST and self.writers.get(key) == process.name:
            raise Violation(f"I5: {process.name} takes its own claim {request.epoch} for another's")

    # --- the network ---------------------------------------------------------------------------

    def _send(self, thread: Thread, request: StoreRequest, attempt: int) -> None:
        network, random = self.network, self.random.random
        if max(network.away_until, thread.process.away_until) > self.now:
            self.after(random() * REQUEST_TIMEOUT_SECONDS, self._fail, thread, request, attempt)
            return
        there = random() * 2 * network.delay_seconds
        if random() >= network.fault_share:
            self.after(there, self._arrive, thread.process, request, thread)
            return
        fault = random()
        if fault < 0.3:
            self.say(thread.process.name, f"LOST ANSWER of {request}")
            self.after(there, self._arrive, thread.process, request, None)
        elif fault < 0.5:
            late = REQUEST_TIMEOUT_SECONDS + random() * network.late_seconds
            self.say(thread.process.name, f"LATE by {late:.1f} {request}")
            self.after(late, self._arrive, thread.process, request, None)
        elif fault < 0.7:
            self.after(random() * network.late_seconds, self._arrive, thread.process, request, thread)
            return
        else:
            self.say(thread.process.name, f"LOST {request}")
        self.after(REQUEST_TIMEOUT_SECONDS, self._fail, thread, request, attempt)

    def _fail(self, thread: Thread, request: StoreRequest, attempt: int) -> None:
        """Do what a client does that got no answer."""
        if type(request) is Create and not self.network.repeats_creates:
            self.resume(thread, Created.UNDECIDED)
        elif attempt < 2 and thread.alive and thread.process.alive:
            self._send(thread, request, attempt + 1)
        elif type(request) is Create:
            self.resume(thread, Created.UNDECIDED)
        else:
            error = StoreUnreachable(store="the model", operation=type(request).__name__, found="no answer")
            self.resume(thread, error=error)

    def _arrive(self, process: Process, request: StoreRequest, thread: Thread | None) -> None:
        if type(request) is ListEpochs:
            if thread is not None:
                self._list(thread)
            return
        answer = self._apply(process, request)
        if self.trace is not None and (answer or type(request) is Put):
            self.say(process.name, f"{request} -> {answer}")
        if thread is not None:
            self.after(self.random.random() * 2 * self.network.delay_seconds, self.resume, thread, answer)

    # --- the store -----------------------------------------------------------------------------

    def _apply(self, process: Process, request: StoreRequest) -> object:
        kind, objects = type(request), self.objects
        if kind is Claims:
            return self.highest
        key = request.key  # type: ignore[union-attr]
        if kind is Exists:
            return key in objects
        if kind is Get:
            return objects.get(key)
        if kind is Create:
            if key in objects:
                return Created.TAKEN
            self.highest = max(self.highest, parse_claim(key) or self.highest)
        elif key.startswith(EPOCHS) and self._folders.setdefault(key[:16], process.name) != process.name:
            raise Violation(f"I6: {process.name} writes {key}, beside {self._folders[key[:16]]}")
        objects[key] = request.body  # type: ignore[union-attr]
        self.writers[key] = process.name
        return Created.MADE if kind is Create else None

    def _list(self, thread: Thread) -> None:
        """Read the first pages now, the others a little later."""
        keys = sorted(key for key in self.objects if key.startswith(EPOCHS))
        behind = self.random.choice(keys) if keys else ""
        first = [key for key in keys if key <= behind]
        seconds = self.random.random() * 2 * self.network.delay_seconds
        self.after(seconds, self._list_rest, thread, first, behind, list(self.reported.transactions))

    def _list_rest(self, thread: Thread, first: list[str], behind: str, due: list[int]) -> None:
        found = [*first, *sorted(key for key in self.objects if key.startswith(EPOCHS) and key > behind)]
        self.after(self.random.random() * 2 * self.network.delay_seconds, self.resume, thread, (found, due))


_STORE_REQUESTS = frozenset({Get, Exists, Put, Create, Claims, ListEpochs})
