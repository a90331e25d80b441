"""`replicad run`: the order of steps from an empty disk to a running application, and back to a flushed store."""

from __future__ import annotations

import asyncio
import gc
import os
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from replicad import __version__
from replicad.errors import FinalFlushFailed, Stopped, UsageError
from replicad.host.clock import SystemClock
from replicad.host.notify import ReadyFile, ServiceManager, environment_for_child
from replicad.host.race import race
from replicad.host.reaper import Reaper, is_pid_1
from replicad.host.signals import Signals
from replicad.host.threads import Threads
from replicad.host.watcher import Watcher
from replicad.observe import events
from replicad.observe.http import HttpServer
from replicad.observe.logging import get_logger
from replicad.observe.metrics import Metrics
from replicad.replicate.application import Application
from replicad.replicate.daemon import Daemon
from replicad.replicate.tools import Tools

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence

    from replicad.config.model import Settings
    from replicad.observe.scrub import Scrubber

T = TypeVar("T")

_THREADS = 4  # for SQLite, page reads, hashing and compression: more would only wait for the same two cores
_BACKGROUND_THREADS = 2
_NICENESS = 10
_ANSWER_SECONDS = 0.5  # platforms give a probe a second or more


async def run(
    settings: Settings,
    command: Sequence[str],
    *,
    scrubber: Scrubber,
    http_chosen: bool,
    environment: Mapping[str, str],
) -> int:
    """Restore, replicate, run the command, flush; return the exit status.

    Args:
        settings: the settings in effect.
        command: the application's; empty beside one that is started by others.
        scrubber: takes this run's credentials out of what HTTP serves.
        http_chosen: whether `http_listen` is somebody's choice. At its default, which two instances on one machine
            share, an address that is taken must not keep the second from replicating.
        environment: the variables under which another replicad reads the same settings.

    Raises:
        ReplicadError: the application was not started, or the final flush failed.
    """
    loop = asyncio.get_running_loop()
    clock = SystemClock()
    metrics = Metrics(version=__version__, wall_seconds=lambda: clock.now_ms() / 1000)
    tools = Tools(
        clock=clock,
        threads=Threads("work", _THREADS),
        background=Threads("background", _BACKGROUND_THREADS, niceness=_NICENESS),
        watcher=Watcher(loop),
        environment=environment_for_child(environment),
    )
    applications: list[Application] = []  # one, as soon as there are signals to pass on

    async def stop_application() -> None:
        for application in applications:
            await application.stop_and_wait()

    daemon = Daemon(settings, tools, metrics, stop_application=stop_application)
    metrics.ready = lambda: daemon.ready()[0]
    server = HttpServer(daemon, metrics, scrubber=scrubber)
    ready_file = ReadyFile(settings.ready_file)
    with Signals() as signals, Reaper(loop, adopt=is_pid_1()) as reaper:
        application = Application(reaper, environment=environment_for_child(os.environ))
        applications.append(application)
        course = _Course(settings, daemon, server, signals, application)
        try:
            await asyncio.to_thread(ready_file.remove)
            await _take_addresses(server, settings, http_chosen=http_chosen)
            status = await course.run(command, ready_file)
        except Stopped as stopped:
            status = 128 + (signals.stop_signal or 0)
            get_logger().info(events.STOPPED, status=status, reason=str(stopped))
        else:
            get_logger().info(events.STOPPED, status=status)
        finally:
            await daemon.close()
            await server.close()
            await asyncio.to_thread(ready_file.remove)
            await tools.watcher.close()
            await tools.threads.close()
            await tools.background.close()
    return status


async def _take_addresses(server: HttpServer, settings: Settings, *, http_chosen: bool) -> None:
    address = settings.http_listen
    if address is not None:
        try:
            await server.listen(address.host, address.port)
        except UsageError as error:
            if http_chosen:
                raise
            get_logger().warning(events.HTTP_ADDRESS_TAKEN, address=str(address), error=str(error))
    if settings.control_socket is not None:
        await server.control(settings.control_socket)


class _Course:
    """The steps of one run, each of which a stop signal may end."""

    def __init__(
        self, settings: Settings, daemon: Daemon, server: HttpServer, signals: Signals, application: Application
    ) -> None:
        self._settings = settings
        self._daemon = daemon
        self._server = server
        self._signals = signals
        self._application = application
        self._manager = ServiceManager(os.environ)
        self._log = get_logger()

    async def run(self, command: Sequence[str], ready_file: ReadyFile) -> int:
        self._log.info(events.STARTED, version=__version__, databases=len(self._settings.databases))
        try:
            async with asyncio.TaskGroup() as group:
                answering = group.create_task(self._answer())
                first_start = await self._unless_stopped(self._daemon.boot(may_replace=bool(command)), "boot")
                await answering
                gc.freeze()  # everything is loaded, and stays
                gc.enable()
                await self._unless_stopped(self._daemon.follow(group), "the start of capture")
                alive = group.create_task(self._keep_alive())
                try:
                    # Hooks run when capture does: what a migration writes is replicated as transactions.
                    await self._hooks(first_start=first_start)
                    return await self._serve_application(command, group, ready_file)
                finally:  # also when a hook failed or the command was not found: what was committed is sent
                    self._manager.stopping()
                    alive.cancel()
                    await self._flush_finally()
                    await self._daemon.end()
        except BaseExceptionGroup as failed:  # whatever was raised in the block comes wrapped
            raise failed.exceptions[0] from None

    async def _answer(self) -> None:
        """Begin to answer over HTTP: behind the first claim, or in a moment when the store keeps it waiting."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_ANSWER_SECONDS):
                await self._daemon.claimed.wait()
        await self._server.serve()

    async def _hooks(self, *, first_start: bool) -> None:
        if first_start:
            self._log.info(events.FIRST_STARTED)
        if first_start and self._settings.on_first_start:
            await self._application.run_hook("on_first_start", self._settings.on_first_start, signals=self._signals)
        if self._settings.before_start:
            await self._application.run_hook("before_start", self._settings.before_start, signals=self._signals)

    async def _serve_application(self, command: Sequence[str], group: asyncio.TaskGroup, ready_file: ReadyFile) -> int:
        """Run the application, or wait for a stop signal beside it; return the exit status."""
        if not command:
            await self._now_ready(ready_file)
            await race(self._signals.stopping.wait(), self._daemon.until_driven_out())
            return 0
        running = asyncio.ensure_future(
            self._application.run(
                command,
                on_signal=lambda: self._flush_early(group),
                stop_timeout_seconds=self._settings.stop_timeout_seconds,
                signals=self._signals,
            )
        )
        await asyncio.sleep(0)  # the first step of that task starts the command, or raises
        try:
            if not running.done():
                await self._now_ready(ready_file)
            status = (await running).shell_code
            if self._daemon.is_leaving:  # ended for a handover: a platform would start again what ends by itself
                await race(self._signals.stopping.wait(), self._daemon.until_back())
            return status
        finally:
            running.cancel()
            await asyncio.wait((running,))

    async def _now_ready(self, ready_file: ReadyFile) -> None:
        self._daemon.now_ready()
        await asyncio.to_thread(ready_file.create)
        self._manager.ready("following")

    async def _flush_finally(self) -> None:
        try:
            await self._daemon.flush()
        except FinalFlushFailed as error:
            self._log.error(events.FINAL_FLUSH_FAILED, error=str(error))
            raise
        self._log.info(events.FINAL_FLUSH_DONE)

    def _flush_early(self, group: asyncio.TaskGroup) -> None:
        """Begin to flush while the application stops, so that little is left to send when it has."""

        async def flush() -> None:
            try:
                await self._daemon.flush()
            except FinalFlushFailed as error:  # not final yet: it is tried again when the application has ended
                self._log.warning(events.SHIP_FAILED, error=str(error))

        group.create_task(flush())

    async def _keep_alive(self) -> None:
        interval = self._manager.watchdog_seconds
        while interval is not None:
            self._manager.alive()
            await asyncio.sleep(interval / 2)

    async def _unless_stopped(self, step: Coroutine[None, None, T], stage: str) -> T:
        """Await a step; a stop signal cancels it."""
        done = await race(step, self._signals.stopping.wait())
        if done is None:
            raise Stopped(signal=self._signals.stop_signal.name if self._signals.stop_signal else "", stage=stage)
        return done.result()
