"""Scenarios of a tool's life: boot on an empty disk, SIGKILL, a whole day."""

from __future__ import annotations

import contextlib
import json
import random
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from bench.peers import field, wire
from bench.peers.field import BARE
from bench.peers.figures import Row
from bench.peers.litestream import Litestream
from bench.peers.measure import CommandFailed, TookTooLong, cpu_used, forget_peak, peak_bytes, stop
from bench.peers.scene import MIB, Attached, Scene, ask, copy, fill, filler_rows
from bench.peers.work import Commits, Writer, begin, perform

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.peers.peer import Peer, Site

_RATE = 100e6
_DELAY_MS = 20.0
_BOOT_SECONDS = 300.0
_AFTER_SECONDS = 6.0
_SPEED = 600
_DAY_HOURS = 24
_DAY_RESTORE_SECONDS = 300.0  # Litestream 0.3 has 38,000 objects to fetch, one after the other: longer than 900 s


def boot(scene: Scene) -> Iterator[Row]:
    """From an empty disk to the application's first answered query; and what a redeploy uploads."""
    sizes = {"100 KiB": 100 << 10} if scene.quick else {"100 KiB": 100 << 10, "100 MiB": 100 * MIB, "1 GiB": 1 << 30}
    for case, size_bytes in sizes.items():
        base = fill(scene.new_folder() / "app.db", random.Random(1), size_bytes)
        rows = filler_rows(base)
        output = scene.new_folder() / "answered"
        seconds, _ = _first_query(None, scene, base, output, rows)
        yield Row(case=case, peer=BARE, figure="boot to first query", value=seconds, unit="s")
        peers = (field.REPLICAD, field.NEW, *(() if scene.quick else (field.OLD, field.CRON)))
        for peer in field.present(peers):
            database = copy(base, scene.new_folder() / "app.db")
            with scene.attached(peer, database) as attached:
                commits = perform(database, {"kind": "insert", "commits": 1})
                if peer.restores_instants:  # the other one sends it within a minute
                    attached.caught_up(commits)
                site = attached.site
            yield from _boots(scene, peer, site, case, rows)
            shutil.rmtree(scene.store.root / site.bucket)
        shutil.rmtree(base.parent)


def _boots(scene: Scene, peer: Peer, site: Site, case: str, rows: int) -> Iterator[Row]:
    """Boot behind an instance that ended in order, some times, and once behind one that was killed."""
    turns = 1 if scene.quick or case == "1 GiB" else 3
    killed = not scene.quick and case == "100 KiB"
    times, uploads = [], []
    for turn in range(turns + killed):
        fresh = scene.new_folder() / "app.db"
        with scene.wire(delay_ms=_DELAY_MS, bytes_per_second=_RATE) as far:
            place = scene.site(far, fresh, site.bucket)
            how = signal.SIGKILL if killed and turn == turns - 1 else signal.SIGTERM
            seconds, requests = _first_query(peer, scene, fresh, place.folder / "answered", rows, place, far, how=how)
        times.append(seconds)
        uploads.append([request for request in requests if request.verb in ("PUT", "POST")])
        shutil.rmtree(fresh.parent, ignore_errors=True)  # the killed application may still be in it
    value = statistics.median(times[:turns])
    yield Row(case=case, peer=peer.name, figure="boot to first query", value=value, unit="s")
    if killed:
        yield Row(case=case, peer=peer.name, figure="the same, behind one that was killed", value=times[-1], unit="s")
    images = [sum(each.sent for each in sent if each.stores(peer.image_objects)) for sent in uploads]
    logs = [sum(each.sent for each in sent if each.stores(peer.log_objects)) for sent in uploads]
    whole = [wire.sent_bytes(sent) for sent in uploads]
    copies = [max(image, log) for image, log in zip(images, logs, strict=True)]  # 0.5's are both
    yield Row(case=case, peer=peer.name, figure="redeploy: database bytes uploaded", value=max(copies), unit="B")
    yield Row(case=case, peer=peer.name, figure="redeploy: all bytes uploaded", value=max(whole), unit="B")
    yield Row(case=case, peer=peer.name, figure="redeploy: uploads", value=max(len(sent) for sent in uploads))


def _first_query(  # noqa: PLR0913, PLR0917 - of a peer or of the application alone
    peer: Peer | None,
    scene: Scene,
    database: Path,
    output: Path,
    rows: int,
    site: Site | None = None,
    far: wire.Wire | None = None,
    *,
    how: signal.Signals = signal.SIGKILL,
) -> tuple[float, list[wire.Request]]:
    """Start; return the seconds to the first answer, and what went over the wire until some seconds after it.

    `how` it is ended then.
    """
    argv = [sys.executable, "-m", "bench.peers.first_query", str(database), str(output)]
    environment = None
    if peer is not None and site is not None:
        command = peer.boot(site, shlex.join(argv))
        argv, environment = list(command.argv), {**site.environment(), **command.environment}
    with (scene.new_folder() / "boot.log").open("wb") as log:
        began = time.monotonic()
        process = subprocess.Popen(argv, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        while not output.exists():
            if process.poll() is not None or time.monotonic() - began > _BOOT_SECONDS:
                raise RuntimeError(f"boot failed: {argv}")
            time.sleep(0.005)
        answered, seen = output.read_text().split()
        if int(seen) != rows:
            raise RuntimeError(f"the application saw {seen} rows, not {rows}")
        if far is not None:
            time.sleep(_AFTER_SECONDS / (1 + scene.quick))
        return float(answered) - began, far.requests() if far is not None else []
    finally:
        stop(process, how)


def kill(scene: Scene) -> Iterator[Row]:
    """Tool and application get SIGKILL at a random moment and the disk is gone: what is lost, 30 times."""
    lost: dict[str, list[int]] = defaultdict(list)
    lost_seconds: dict[str, list[float]] = defaultdict(list)
    broken: dict[str, int] = defaultdict(int)
    random_ = random.Random(time.time_ns())
    peers = field.present(
        (field.REPLICAD, field.NEW, *(() if scene.quick else (field.EAGER, field.NEW_EAGER, field.OLD)))
    )
    trials = 2 if scene.quick else 30
    for _ in range(trials):
        with contextlib.ExitStack() as stack:
            databases = [fill(scene.new_folder() / "app.db", random.Random(1), 256 << 10) for _ in peers]
            all_attached = [
                stack.enter_context(_until_killed(scene, peer, database))
                for peer, database in zip(peers, databases, strict=True)
            ]
            for attached in all_attached:
                while not attached.wire.stored(attached.peer.image_objects):
                    attached.insist()
                    time.sleep(0.02)
            time.sleep(2)
            writers = [begin(attached.site.database, {"kind": "insert", "rate": 20}) for attached in all_attached]
            time.sleep(random_.uniform(1.0, 5.0))
            for attached, writer in zip(all_attached, writers, strict=True):
                _kill(attached, writer)
            for attached, writer in zip(all_attached, writers, strict=True):
                commits, kept, name = writer.commits(), _kept(scene, attached), attached.peer.name
                lost[name].append(max(0, len(commits.ended) - kept))
                lost_seconds[name].append(sum(commits.ended[-1] - first for first in commits.ended[kept : kept + 1]))
                broken[name] += kept < _reported(attached)
    yield from _losses(trials, lost, lost_seconds, broken)


def _losses(
    trials: int, lost: dict[str, list[int]], lost_seconds: dict[str, list[float]], broken: dict[str, int]
) -> Iterator[Row]:
    for name, each in lost.items():
        yield Row(case="kill", peer=name, figure="trials", value=trials)
        yield Row(case="kill", peer=name, figure="lost, mean", value=statistics.mean(each), unit="commits")
        yield Row(case="kill", peer=name, figure="lost, max", value=max(each), unit="commits")
        yield Row(case="kill", peer=name, figure="lost time, max", value=max(lost_seconds[name]), unit="s")
        yield Row(case="kill", peer=name, figure="lost though reported", value=broken[name], unit="trials")


@contextlib.contextmanager
def _until_killed(scene: Scene, peer: Peer, database: Path) -> Iterator[Attached]:
    with contextlib.ExitStack() as stack:
        far = stack.enter_context(scene.wire(delay_ms=_DELAY_MS))
        stack.enter_context(contextlib.suppress(RuntimeError))  # "ended by itself": it is killed
        yield stack.enter_context(scene.running(peer, scene.site(far, database), far))


def _kill(attached: Attached, writer: Writer) -> None:
    stop(attached.process, signal.SIGKILL)
    writer.process.kill()
    writer.process.wait()


def _kept(scene: Scene, attached: Attached) -> int:
    """Restore from the bucket alone; return how many commits are there: they are numbered without a gap."""
    output = scene.new_folder() / "restored.db"
    with scene.wire() as direct:
        place = scene.site(direct, output.with_name("gone.db"), attached.site.bucket)
        place = replace(place, database=output.parent / attached.site.database.name)
        scene.restore(attached.peer, place, output)
    count, last = ask(output, "SELECT count(*) FROM load"), ask(output, "SELECT coalesce(max(id), 0) FROM load")
    if count != last:
        raise RuntimeError(f"{attached.peer.name} restored {count} rows up to number {last}: a hole")
    return count


def _reported(attached: Attached) -> int:
    """Return how many commits the tool had said were durable: replicad says the TXID, its first is the snapshot's."""
    reported = 0
    for line in attached.log.read_text().splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            said = json.loads(line)
            if isinstance(said, dict) and said.get("event") == "segment_shipped":
                reported = max(reported, int(said["last_txid"]) - 1)
    return reported


def day(scene: Scene) -> Iterator[Row]:
    """A day of one commit a second, 600 times as fast, all of the tools' intervals divided by 600 too."""
    hours = 1 if scene.quick else _DAY_HOURS
    work = {"kind": "insert", "rate": _SPEED, "commits": 3_600 * hours}
    for peer in field.present(_hurried()):
        database = fill(scene.new_folder() / "app.db", random.Random(1), 10 * MIB)
        with scene.attached(peer, database) as attached:
            forget_peak(attached.pid)
            began, cpu = time.monotonic(), cpu_used(attached.pid)
            commits = perform(database, work)
            attached.caught_up(commits)
            used, peak, requests = cpu_used(attached.pid) - cpu, peak_bytes(attached.pid), attached.wire.requests(began)
            site = attached.site
        yield from _day(scene, peer, site, commits, requests)
        yield Row(case="day", peer=peer.name, figure="CPU", value=used, unit="s")
        yield Row(case="day", peer=peer.name, figure="peak memory", value=peak / 1e6, unit="MB")
        shutil.rmtree(scene.store.root / site.bucket)


def _day(scene: Scene, peer: Peer, site: Site, commits: Commits, requests: list[wire.Request]) -> Iterator[Row]:
    files = [path for path in (scene.store.root / site.bucket).rglob("*") if path.is_file()]
    for figure, value, unit in (
        ("commits", len(commits.ended), ""),
        ("rate reached", commits.rate, "commits/s"),
        ("bytes sent", wire.sent_bytes(requests) / 1e6, "MB"),
        ("bytes stored", sum(path.stat().st_size for path in files) / 1e6, "MB"),
        ("objects stored", len(files), ""),
        ("requests' bill", wire.dollars(requests), "$"),
    ):
        yield Row(case="day", peer=peer.name, figure=figure, value=value, unit=unit)
    for verb, count in wire.by_verb(requests).items():
        yield Row(case="day", peer=peer.name, figure=verb, value=count)
    yield from _day_restored(scene, peer, site)


def _day_restored(scene: Scene, peer: Peer, site: Site) -> Iterator[Row]:
    """Yield what a restore of it takes and finds; the tool's own word for it when it cannot is printed, and counts."""
    output = scene.new_folder() / "restored.db"
    with scene.wire(delay_ms=_DELAY_MS, bytes_per_second=_RATE) as far:
        try:
            there = scene.site(far, site.database, site.bucket)
            found = scene.restore(peer, there, output, seconds=_DAY_RESTORE_SECONDS)
        except TookTooLong:
            yield Row(
                case="day", peer=peer.name, figure="restore: broken off after", value=_DAY_RESTORE_SECONDS, unit="s"
            )
            return
        except CommandFailed as failed:
            print(f"day: {peer.name} cannot restore what it stored: {failed}")
            yield Row(case="day", peer=peer.name, figure="restore: commits found", value=0)
            return
        fetched = far.requests()
    for figure, value, unit in (
        ("restore", found.seconds, "s"),
        ("restore: requests", len(fetched), ""),
        ("restore: bytes fetched", wire.received_bytes(fetched) / 1e6, "MB"),
        ("restore: commits found", ask(output, "SELECT count(*) FROM load"), ""),
    ):
        yield Row(case="day", peer=peer.name, figure=figure, value=value, unit=unit)


def _hurried() -> tuple[Peer, ...]:
    """Return the tools with their default intervals divided by 600; none takes less than a millisecond or two."""
    ours = replace(
        field.REPLICAD,
        flags=(
            *("--sync-interval", "2ms"),
            *("--poll-interval", "1ms"),
            *("--snapshot-interval", "144s"),
            *("--rollup-grace", "6s"),
        ),
    )
    levels = ("levels:", "  - interval: 50ms", "  - interval: 500ms", "  - interval: 6s")
    kept = (
        "snapshot:",
        "  interval: 144s",
        "  retention: 144s",
        "l0-retention: 500ms",
        "l0-retention-check-interval: 25ms",
    )
    often = {"database": ("monitor-interval: 2ms", "checkpoint-interval: 100ms"), "replica": ("sync-interval: 2ms",)}
    new = Litestream(
        name=field.NEW.name, line="0.5", general=(*levels, *kept), database=often["database"], replica=often["replica"]
    )
    old = (*often["replica"], "retention: 144s", "retention-check-interval: 6s")
    return ours, new, Litestream(name=field.OLD.name, line="0.3", database=often["database"], replica=old)
