"""Scenarios of small work: idle, lag, flat out."""

from __future__ import annotations

import contextlib
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from bench.peers import field, least, wire
from bench.peers.field import BARE, LIMIT, LIMIT_EAGER
from bench.peers.figures import Row, lags, medians, spread
from bench.peers.measure import cpu_used, forget_peak, peak_bytes
from bench.peers.scene import MIB, Attached, Scene, ask, copy, fill
from bench.peers.work import Commits, begin, noise_per_row, perform, wal_bytes_per_commit, write_back

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bench.peers.peer import Peer

_DELAY_MS = 20.0
_GLANCES = 100  # a second: as often as replicad looks while commits follow one another
_HOUR = 3_600.0
_MONTH_HOURS = 730.0
_SETTLE_SECONDS = 75.0  # behind the only commit: replicad looks once, after a minute, for what it may delete
_CHECKS = 4


def idle(scene: Scene) -> Iterator[Row]:
    """Nothing is written, for a minute; all tools at the same time."""
    seconds = 8.0 if scene.quick else 60.0
    with contextlib.ExitStack() as stack:
        all_attached = [
            stack.enter_context(scene.attached(peer, fill(scene.new_folder() / "app.db", random.Random(1), 10 * MIB)))
            for peer in field.present((field.REPLICAD, field.NEW, *(() if scene.quick else (field.OLD, field.CRON))))
        ]
        for attached in all_attached:  # one commit, as every application has made
            perform(attached.site.database, {"kind": "insert", "commits": 1})
        time.sleep(4 if scene.quick else _SETTLE_SECONDS)
        began, before = time.monotonic(), [cpu_used(attached.pid) for attached in all_attached]
        time.sleep(seconds)
        for attached, cpu in zip(all_attached, before, strict=True):
            yield from _idle(attached, began, cpu, time.monotonic() - began)


def _idle(attached: Attached, began: float, cpu: float, seconds: float) -> Iterator[Row]:
    name, requests = attached.peer.name, attached.wire.requests(began)
    used = cpu_used(attached.pid) - cpu
    yield Row(case="idle", peer=name, figure="CPU", value=used / seconds * 100, unit="% of a core")
    yield Row(case="idle", peer=name, figure="peak memory", value=peak_bytes(attached.pid) / 1e6, unit="MB")
    each_hour = _HOUR / seconds
    yield Row(case="idle", peer=name, figure="requests", value=len(requests) * each_hour, unit="/hour")
    others = sum("/handover/" not in request.key for request in requests)
    yield Row(case="idle", peer=name, figure="but for handover", value=others * each_hour, unit="/hour")
    for verb, count in wire.by_verb(requests).items():
        yield Row(case="idle", peer=name, figure=verb, value=count * each_hour, unit="/hour")
    bill = wire.dollars(requests) * each_hour * _MONTH_HOURS
    yield Row(case="idle", peer=name, figure="requests' bill", value=bill, unit="$/month")


def lag(scene: Scene) -> Iterator[Row]:
    """20 commits a second, one tool after the other, the store 20 ms away."""
    seconds = 6.0 if scene.quick else 25.0
    peers: list[Peer] = [field.REPLICAD, field.NEW, field.EAGER]
    if not scene.quick:
        peers += [field.NEW_EAGER, field.OLD, field.OLD_EAGER]
    work = {"kind": "insert", "rate": 20, "seconds": seconds}
    bare = perform(fill(scene.new_folder() / "app.db", random.Random(1), 10 * MIB), work)
    yield from spread("20/s", BARE, "commit", bare.latencies)
    yield from _limits("20/s", work)
    yield from _least_lag(scene, work)
    for peer in field.present(peers):
        database = fill(scene.new_folder() / "app.db", random.Random(1), 10 * MIB)
        with scene.attached(peer, database, delay_ms=_DELAY_MS) as attached:
            began, cpu = time.monotonic(), cpu_used(attached.pid)
            commits = perform(database, work)
            attached.caught_up(commits)
            used = cpu_used(attached.pid) - cpu
            yield Row(case="20/s", peer=peer.name, figure="CPU", value=used / seconds * 100, unit="% of a core")
            yield from _lag("20/s", attached, commits, began)
            if peer is field.REPLICAD:
                yield from _least_cpu(scene, attached, began, seconds)
            if not scene.quick:
                yield from _checked("20/s", scene, attached, commits, began)


def slow(scene: Scene) -> Iterator[Row]:
    """One commit a second, all tools at the same time, the store 20 ms away."""
    work = {"kind": "insert", "rate": 1, "seconds": 10.0 if scene.quick else 100.0}
    with contextlib.ExitStack() as stack:
        all_attached = []
        for peer in field.present((field.REPLICAD, field.NEW, field.OLD, field.EAGER, field.NEW_EAGER, field.CRON)):
            database = fill(scene.new_folder() / "app.db", random.Random(1), 10 * MIB)
            all_attached.append(stack.enter_context(scene.attached(peer, database, delay_ms=_DELAY_MS)))
        began = time.monotonic()
        yield from _limits("1/s", work)
        writers = [begin(attached.site.database, work) for attached in all_attached]
        for writer in writers:
            writer.process.wait()
        for attached, writer in zip(all_attached, writers, strict=True):
            commits = writer.commits()
            if attached.peer.name != field.CRON.name:
                attached.caught_up(commits)
            yield from _lag("1/s", attached, commits, began)


def _limits(case: str, work: dict[str, Any]) -> Iterator[Row]:
    """Yield what nobody can send less than, and how long the median commit waits where there is one PUT a second."""
    hourly = noise_per_row(work) * work["rate"] * _HOUR / 1e6
    waits = [number / work["rate"] for number in range(work["rate"])]
    yield Row(case=case, peer=LIMIT, figure="of it log", value=hourly, unit="MB/hour")
    yield Row(case=case, peer=LIMIT, figure="lag without PUT p50", value=statistics.median(waits) * 1e3, unit="ms")


def _least_lag(scene: Scene, work: dict[str, Any]) -> Iterator[Row]:
    """Yield after what time a process asks that has nothing else to do."""
    database = fill(scene.new_folder() / "app.db", random.Random(1), 10 * MIB)
    with contextlib.closing(sqlite3.connect(database)) as holder:
        holder.execute("SELECT count(*) FROM sqlite_schema")  # the WAL and its index are there from now on
        with beside(scene, "wake", str(database), delay_ms=_DELAY_MS) as (_, near):
            time.sleep(1)
            began = time.monotonic()
            commits = perform(database, work)
            found = lags(commits, near.requests(began))
    yield from spread("20/s", LIMIT_EAGER, "lag without PUT", [each.own for each in found])


def _least_cpu(scene: Scene, attached: Attached, began: float, seconds: float) -> Iterator[Row]:
    """Yield what the S3 client alone takes for one upload of the same size a second, with glances and without."""
    log = [request.sent for request in attached.wire.stored(attached.peer.log_objects, began)]
    size_bytes, pause_seconds = round(statistics.median(log)), 1.0
    for figure, glances in (("CPU", _GLANCES), ("CPU of uploads alone", 0)):
        arguments = (attached.site.database, size_bytes, pause_seconds, glances)
        with beside(scene, "putter", *map(str, arguments), delay_ms=_DELAY_MS) as (uploading, _):
            time.sleep(2)  # connections, and what is imported late
            cpu = cpu_used(uploading.pid)
            time.sleep(seconds / 2)
            used = cpu_used(uploading.pid) - cpu
        yield Row(case="20/s", peer=LIMIT, figure=figure, value=used / (seconds / 2) * 100, unit="% of a core")


def _lag(case: str, attached: Attached, commits: Commits, began: float) -> Iterator[Row]:
    name, requests = attached.peer.name, attached.wire.requests(began)
    found = lags(commits, attached.wire.stored(attached.peer.log_objects, began))
    yield from spread(case, name, "commit", commits.latencies)
    yield from spread(case, name, "lag", [each.total for each in found])
    yield from spread(case, name, "lag without PUT", [each.own for each in found])
    seconds = commits.ended[-1] - commits.began[0]
    hourly = _HOUR / seconds
    yield Row(case=case, peer=name, figure="bytes sent", value=wire.sent_bytes(requests) * hourly / 1e6, unit="MB/hour")
    log = sum(request.sent for request in requests if request.stores(attached.peer.log_objects)) * hourly
    yield Row(case=case, peer=name, figure="of it log", value=log / 1e6, unit="MB/hour")
    for verb, count in wire.by_verb(requests).items():
        yield Row(case=case, peer=name, figure=verb, value=count * hourly, unit="/hour")
    bill = wire.dollars(requests) * hourly * _MONTH_HOURS
    yield Row(case=case, peer=name, figure="requests' bill", value=bill, unit="$/month")


def _checked(case: str, scene: Scene, attached: Attached, commits: Commits, began: float) -> Iterator[Row]:
    """Restore what was stored at a few moments, and compare with what the lags say was durable then."""
    found = lags(commits, attached.wire.stored(attached.peer.log_objects, began))
    moments = sorted({each.durable_at for each in found})
    peer, site, worst = attached.peer, attached.site, 0
    for moment in moments[:: max(1, len(moments) // _CHECKS)]:
        past = scene.bucket_until(site.bucket, attached.wire.requests(), moment)
        output = scene.new_folder() / "past.db"
        with scene.wire() as direct:
            scene.restore(peer, scene.site(direct, site.database, past), output)
        claimed = sum(each.durable_at <= moment for each in found)
        worst = max(worst, claimed - ask(output, "SELECT count(*) FROM load"), key=abs)
    yield Row(case=case, peer=peer.name, figure="lag check: worst error", value=worst, unit="commits")


def flat(scene: Scene) -> Iterator[Row]:
    """Autocommit inserts flat out, by turns, with one and with four writers."""
    base = fill(scene.new_folder() / "base.db", random.Random(1), 10 * MIB)
    seconds = 4.0 if scene.quick else 6.0
    for writers, turns in ((1, 1 if scene.quick else 7), (4, 0 if scene.quick else 5)):
        work = {"kind": "insert", "seconds": seconds, "writers": writers}
        each_bytes = wal_bytes_per_commit(base, work)
        share = least.of_wal(copy(base, scene.new_folder() / "app.db"), work)
        found = [Row(case="", peer=LIMIT, figure="bytes sent per byte of WAL", value=share)]
        peers = (field.REPLICAD, field.NEW, *(() if scene.quick else (field.OLD, field.CRON)))
        for _ in range(turns):
            for peer in (None, *field.present(peers)):
                database = copy(base, scene.new_folder() / "app.db")
                found += _flat(scene, database, peer, work, each_bytes)
                _clear(scene, database)
            database = copy(base, scene.new_folder() / "app.db")
            write_back()
            with beside(scene, "follow", str(database)):
                commits = perform(database, work)
            found += _application(LIMIT, commits)
            _clear(scene, database)
        yield from medians("1 writer" if writers == 1 else f"{writers} writers", found)


def _clear(scene: Scene, database: Path) -> None:
    """Give back what a turn took: 40 of them are 60 GB."""
    shutil.rmtree(database.parent)
    for bucket in scene.store.root.iterdir():
        if not bucket.name.startswith("."):  # the server's own
            shutil.rmtree(bucket)


def _flat(scene: Scene, database: Path, peer: Peer | None, work: dict[str, Any], each_bytes: float) -> Iterator[Row]:
    write_back()
    if peer is None:
        yield from _application(BARE, perform(database, work))
        return
    with scene.attached(peer, database) as attached:
        forget_peak(attached.pid)
        began, cpu = time.monotonic(), cpu_used(attached.pid)
        commits = perform(database, work)
        caught_up = attached.caught_up(commits) - commits.ended[-1] if peer.name != field.CRON.name else 0.0
        wal_gb = len(commits.ended) * each_bytes / 1e9
        used = cpu_used(attached.pid) - cpu
        sent = wire.sent_bytes(attached.wire.requests(began))
        peak = peak_bytes(attached.pid)
    yield from _application(peer.name, commits)
    yield from cost(peer.name, "", used=used, sent=sent, peak=peak, wal_gb=wal_gb)
    yield Row(case="", peer=peer.name, figure="caught up after", value=max(0.0, caught_up), unit="s")


@contextlib.contextmanager
def beside(
    scene: Scene, program: str, *arguments: str, delay_ms: float = 0.0
) -> Iterator[tuple[subprocess.Popen[bytes], wire.Wire]]:
    """Have a program of ours run that uploads; yield it, and what it sends by, when it has made its first request."""
    with scene.wire(delay_ms=delay_ms) as wire_:
        site = scene.site(wire_, scene.folder)
        url = f"s3://{site.bucket}/noise?endpoint={site.endpoint}&region=us-east-1"
        command = [sys.executable, "-m", f"bench.peers.{program}", url, *arguments]
        running = subprocess.Popen(command, env=site.environment())
        try:
            while not wire_.requests():
                time.sleep(0.05)
            yield running, wire_
        finally:
            running.kill()
            running.wait()


def _application(peer: str, commits: Commits) -> Sequence[Row]:
    rate = Row(case="", peer=peer, figure="throughput", value=commits.rate, unit="commits/s")
    return [rate, *spread("", peer, "commit", commits.latencies)]


def cost(  # noqa: PLR0913 - by keyword
    peer: str, case: str, *, used: float, sent: int, peak: int, wal_gb: float
) -> Iterator[Row]:
    """Yield what a piece of work cost the tool."""
    yield Row(case=case, peer=peer, figure="CPU per GB of WAL", value=used / wal_gb, unit="s/GB")
    yield Row(case=case, peer=peer, figure="bytes sent per byte of WAL", value=sent / 1e9 / wal_gb)
    yield Row(case=case, peer=peer, figure="peak memory", value=peak / 1e6, unit="MB")
