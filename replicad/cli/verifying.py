"""Verifying from the command line: what is asked, carried out for each database, and said about it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from replicad.cli.cursorfile import CursorFile
from replicad.cli.findings import error_as_json, report_as_json, report_as_text, worst
from replicad.cli.localfacts import local_facts
from replicad.cli.progress import progress_for
from replicad.cli.replica import open_replica
from replicad.errors import ReplicadError, UsageError
from replicad.host.clock import SystemClock
from replicad.observe.events import VERIFY_PROGRESSED
from replicad.restore.request import Limits
from replicad.restore.verification.cursor import parse_token
from replicad.restore.verification.request import Budget, Exercise, Level, VerifyReport, VerifyRequest
from replicad.restore.verification.verify import Verification

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from replicad.cli.invocation import Invocation
    from replicad.config import DatabaseSettings, Settings
    from replicad.restore.verification.cursor import Cursor

Said = tuple["Mapping[str, object]", str, int]
"""An answer as JSON-like values and as text, and the exit code."""

_MISMATCH = 2
_READ_BYTES = 4096
_CLOCKS_SECONDS = 7200.0  # retention deletes nothing while its clock differs more from the store's


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The command's own flags."""

    level: str
    share: float | None
    max_bytes: int | None
    max_time: float | None
    resume: str | None

    @property
    def budget(self) -> Budget:
        """How much may be read."""
        return Budget(share=self.share, bytes=self.max_bytes, seconds=self.max_time)

    def check(self) -> None:
        """Refuse flags that belong to another level.

        Raises:
            UsageError: there are some.
        """
        if self.level != Level.BODIES and (self.budget.is_limited or self.resume is not None):
            given = "--resume" if self.resume is not None else "a limit"
            hint = "Only bodies are read bit by bit."
            raise UsageError(where="--level", expected=f"bodies with {given}", found=self.level, hint=hint)


async def carry_out(invocation: Invocation, order: Order) -> Said:
    """Verify every database that is configured.

    Raises:
        UsageError: a token for several databases, or none that can be read.
        ReplicadError: the only database cannot be looked at.
    """
    databases = invocation.settings.databases
    if order.resume is not None and len(databases) != 1:
        invocation.only_database()
    answers: list[Mapping[str, object]] = []
    texts: list[str] = []
    codes: list[int] = []
    for database in databases:
        try:
            report = await _verify(invocation, order, database)
        except ReplicadError as error:
            if len(databases) == 1:
                raise
            answers.append(error_as_json(database.name, error))
            texts.append(f"{database.name}: {error}")
            codes.append(error.exit_code)
        else:
            answers.append(report_as_json(database, report))
            texts.append(report_as_text(database, report))
            codes.append(0 if report.is_sound else _MISMATCH)
    code = _MISMATCH if _MISMATCH in codes else next((one for one in codes if one), 0)
    return {"state": worst(answers), "databases": answers}, "\n\n".join(texts), code


async def _verify(invocation: Invocation, order: Order, database: DatabaseSettings) -> VerifyReport:
    settings = invocation.settings
    file = CursorFile(database.path)
    cursor: Cursor | None = None
    if order.resume is not None:
        cursor = parse_token(order.resume, where="--resume")
    elif order.budget.is_limited:
        cursor = await asyncio.to_thread(file.read)
    async with open_replica(settings, database, concurrency=settings.restore_concurrency) as store:
        facts = await local_facts(settings, database, store_url=store.url)
        request = VerifyRequest(
            level=Level(order.level),
            budget=order.budget,
            cursor=cursor,
            promised_ms=_promised_ms(settings),
            reported=facts.reported,
            mirrored=facts.mirrored,
            ahead=facts.ahead,
            exercise=_exercise(settings, database),
            limits=Limits(concurrency=settings.restore_concurrency, memory_bytes=settings.restore_memory_bytes),
        )
        progress = progress_for(sys.stderr, database.name, doing="verifying", event=VERIFY_PROGRESSED)
        verification = Verification(store, request, progress)
        try:
            return await verification.run()
        finally:
            if order.budget.is_limited:  # also when it was broken off: what was read need not be read again
                await asyncio.to_thread(file.write, verification.cursor)


def _promised_ms(settings: Settings) -> int | None:
    """Return from when on every instant is promised (Unix ms); None: from the first on, nothing is ever deleted."""
    if settings.retention == "off":
        return None
    window_seconds = settings.pitr_window_seconds
    # Retention looks at the window at another instant, perhaps by another machine's clock.
    return SystemClock().now_ms() - round((window_seconds - min(window_seconds / 10, _CLOCKS_SECONDS)) * 1000)


def _exercise(settings: Settings, database: DatabaseSettings) -> Exercise:
    return Exercise(
        folder=settings.drill_folder or database.path.parent,
        name=database.name,
        assertions=settings.assertions or (),
        assertion_timeout_seconds=settings.assertion_timeout_seconds,
    )


async def until_detached(work: Coroutine[None, None, Said]) -> Said:
    """Do it, but only for as long as whoever started us holds our standard input open.

    A pipe ends with the process that holds its other end, however that ends.
    """
    loop = asyncio.get_running_loop()
    working = asyncio.ensure_future(work)
    detached = False

    def detach() -> None:
        nonlocal detached
        detached = True
        working.cancel()

    def read() -> None:
        if not os.read(sys.stdin.fileno(), _READ_BYTES):
            loop.remove_reader(sys.stdin.fileno())
            detach()

    loop.add_reader(sys.stdin.fileno(), read)
    loop.add_signal_handler(signal.SIGTERM, detach)
    try:
        return await working
    except asyncio.CancelledError:
        if detached:
            raise click.Abort from None
        raise
    finally:
        loop.remove_reader(sys.stdin.fileno())
        loop.remove_signal_handler(signal.SIGTERM)
