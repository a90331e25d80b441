"""Scenarios of large work: bulk load, a gigabyte and its restores, VACUUM."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from bench.peers import field, least, wire
from bench.peers.field import BARE, LIMIT
from bench.peers.figures import Row, medians
from bench.peers.measure import cpu_used, forget_peak, peak_bytes, run
from bench.peers.scene import MIB, Attached, Scene, ask, copy, fill, filler_rows
from bench.peers.small import beside, cost
from bench.peers.work import perform, write_back
from replicad.restore.request import Limits

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bench.peers.peer import Peer, Site
    from bench.peers.work import Commits

_RATE = 100e6  # bytes a second and connection: about what S3 gives
_CONNECTIONS = Limits().concurrency  # our default
_QUICK_BYTES = 64 * MIB
_FULL_BYTES = 1 << 30
_SETTLE_SECONDS = 2.5
_BULK: dict[str, Any] = {"kind": "insert", "rows": 4_000, "row_bytes": 3_900}


def bulk(scene: Scene) -> Iterator[Row]:
    """Load 1 GiB in transactions of 16 MB, by turns."""
    turns: list[Row] = []
    for _ in range(1 if scene.quick else 3):
        for peer in (None, *field.present((field.REPLICAD, field.NEW, field.OLD))):
            turns += _bulk(scene, peer)
        turns += _follow(scene)
    found = medians("bulk", turns)
    yield from found
    peers = (row for row in found if row.peer not in {field.REPLICAD.name, LIMIT})
    budgets = (row.value for row in peers if row.figure == "CPU per GB of WAL")
    database = fill(scene.new_folder() / "app.db", random.Random(1), 0)
    perform(database, {**_BULK, "commits": 2})
    share = least.within(database, min(budgets, default=0.0)) * 4_096 / 4_120  # a frame is a page and its header
    yield Row(case="bulk", peer=LIMIT, figure="bytes sent per byte of WAL", value=share)


def _bulk(scene: Scene, peer: Peer | None) -> Iterator[Row]:
    size_bytes, work = _bulk_work(scene)
    database = fill(scene.new_folder() / "app.db", random.Random(1), 0)
    write_back()
    if peer is None:
        yield from _load(BARE, perform(database, work), size_bytes)
        return
    with scene.attached(peer, database) as attached:
        forget_peak(attached.pid)
        began, cpu = time.monotonic(), cpu_used(attached.pid)
        commits = perform(database, work)
        caught_up = attached.caught_up(commits) - commits.ended[-1]
        used, sent = cpu_used(attached.pid) - cpu, wire.sent_bytes(attached.wire.requests(began))
        yield from _load(peer.name, commits, size_bytes)
        yield Row(case="bulk", peer=peer.name, figure="caught up after", value=max(0, caught_up), unit="s")
        # of the database, not of its file: a part is in the WAL alone while nobody has copied it
        wal_gb = ask(database, "PRAGMA page_count") * ask(database, "PRAGMA page_size") / 1e9
        yield from cost(peer.name, "bulk", used=used, sent=sent, peak=peak_bytes(attached.pid), wal_gb=wal_gb)
    shutil.rmtree(scene.store.root / attached.site.bucket)
    shutil.rmtree(database.parent)


def _follow(scene: Scene) -> Iterator[Row]:
    """Load beside the leanest program that sends what is written at once."""
    size_bytes, work = _bulk_work(scene)
    database = fill(scene.new_folder() / "app.db", random.Random(1), 0)
    write_back()
    with beside(scene, "follow", str(database), "pinned"):
        commits = perform(database, work)
    yield from _load(LIMIT, commits, size_bytes)
    shutil.rmtree(database.parent)


def _bulk_work(scene: Scene) -> tuple[int, dict[str, Any]]:
    """Return how many bytes are loaded, and how."""
    size_bytes = 64 * MIB if scene.quick else _FULL_BYTES
    return size_bytes, {**_BULK, "commits": size_bytes // (4_000 * 4_096)}


def _load(peer: str, commits: Commits, size_bytes: int) -> Iterator[Row]:
    seconds = commits.ended[-1] - commits.began[0]
    yield Row(case="bulk", peer=peer, figure="throughput", value=size_bytes / 1e6 / seconds, unit="MB/s")
    yield Row(case="bulk", peer=peer, figure="commit max", value=commits.longest * 1e3, unit="ms")


def restore(scene: Scene) -> Iterator[Row]:
    """Random updates of 5 % of 1 GiB, then restores: to the end, to the middle, onto the state before the updates."""
    size_bytes = _QUICK_BYTES if scene.quick else _FULL_BYTES
    base = fill(scene.new_folder() / "base.db", random.Random(1), size_bytes)
    peers = (field.REPLICAD, field.NEW, *(() if scene.quick else (field.OLD, field.CRON_GZIP)))
    yield Row(case="floor", peer=BARE, figure="copy with fsync", value=_copied(base, scene.new_folder()), unit="s")
    work: dict[str, int | str] = {
        "kind": "update",
        "rows": 10,
        "row_bytes": 3_900,
        "keys": filler_rows(base),
        "rate": 200,
    }
    work["commits"] = size_bytes // 4_096 // 20 // 10 // 2  # each half of it
    share = least.of_database(base)
    first_mb, updates_mb = base.stat().st_size * share / 1e6, 20 * int(work["commits"]) * 4_096 * share / 1e6
    yield Row(case="first copy", peer=LIMIT, figure="bytes sent", value=first_mb, unit="MB")
    yield Row(case="updates", peer=LIMIT, figure="bytes sent", value=updates_mb, unit="MB")
    yield Row(case="updates", peer=LIMIT, figure="bytes stored", value=first_mb + updates_mb, unit="MB")
    stored: list[_Stored] = []
    for peer in field.present(peers):
        database = copy(base, scene.new_folder() / "app.db")
        write_back()
        with scene.attached(peer, database) as attached:
            yield from _first(attached, "first copy")
            began, cpu = time.monotonic(), cpu_used(attached.pid)
            middle, halfway = _update(attached, work)
            used, sent = cpu_used(attached.pid) - cpu, wire.sent_bytes(attached.wire.requests(began))
        yield from _updates(scene, attached, used, sent, work)
        stored.append(_Stored(peer=peer, site=attached.site, end=fingerprint(database), at=middle, middle=halfway))
        database.unlink()
    for case in _cases(scene, base):
        yield from _restores(scene, stored, case)
    yield from _floor(scene, stored[0].site)


def _first(attached: Attached, case: str) -> Iterator[Row]:
    sent, peak = wire.sent_bytes(attached.wire.requests()), peak_bytes(attached.pid)
    yield Row(case=case, peer=attached.peer.name, figure="bytes sent", value=sent / 1e6, unit="MB")
    yield Row(case=case, peer=attached.peer.name, figure="peak memory", value=peak / 1e6, unit="MB")


def _update(attached: Attached, work: dict[str, int | str]) -> tuple[datetime, str]:
    """Update twice; return an instant between, and the state then."""
    database = attached.site.database
    perform(database, work)
    time.sleep(_SETTLE_SECONDS)
    middle, halfway = datetime.now(UTC), fingerprint(database)
    time.sleep(_SETTLE_SECONDS)
    commits = perform(database, {**work, "seed": 7})
    if attached.peer.restores_instants:
        attached.caught_up(commits)
    else:  # what it uploads next may have been copied before
        attached.wire.until_stored(attached.peer.log_objects, since=time.monotonic(), count=2)
    return middle, halfway


def _copied(source: Path, folder: Path) -> float:
    """Return how long writing that much takes on this disk, with the source in memory: no restore can be faster."""
    write_back()
    began = time.monotonic()
    with copy(source, folder / "copy.db").open("rb") as written:
        os.fsync(written.fileno())
    seconds = time.monotonic() - began
    shutil.rmtree(folder)
    return seconds


def _updates(scene: Scene, attached: Attached, used: float, sent: int, work: dict[str, int | str]) -> Iterator[Row]:
    name, wal_gb = attached.peer.name, 2 * int(work["commits"]) * 10 * 4_120 / 1e9
    bucket = scene.store.root / attached.site.bucket
    stored = sum(path.stat().st_size for path in bucket.rglob("*") if path.is_file())
    yield Row(case="updates", peer=name, figure="CPU per GB of WAL", value=used / wal_gb, unit="s/GB")
    yield Row(case="updates", peer=name, figure="bytes sent", value=sent / 1e6, unit="MB")
    yield Row(case="updates", peer=name, figure="bytes stored", value=stored / 1e6, unit="MB")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """What a tool has stored, and what has to come back."""

    peer: Peer
    site: Site
    end: str  # the database's fingerprint
    at: datetime  # an instant between
    middle: str  # the fingerprint then


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """A restore."""

    name: str
    delay_ms: float = 20.0
    to_middle: bool = False
    stale: Path | None = None  # the copy that is there already
    turns: int = 1


def _cases(scene: Scene, base: Path) -> list[_Case]:
    turns = 1 if scene.quick else 3  # of those that there are goals for
    cases = [_Case(name="end, 20 ms", turns=turns), _Case(name="stale copy, 20 ms", stale=base, turns=turns)]
    if not scene.quick:
        cases += [
            _Case(name="middle, 20 ms", to_middle=True, turns=turns),
            _Case(name="end, 0 ms", delay_ms=0.0),
            _Case(name="end, 100 ms", delay_ms=100.0),
        ]
    return cases


def _restores(scene: Scene, stored: Sequence[_Stored], case: _Case) -> Iterator[Row]:
    """Restore from what each tool has stored, by turns: the machine is not the same from one minute to the next."""
    able = [one for one in stored if one.peer.restores_instants or not case.to_middle]
    rights, rows = {one.peer.name: True for one in able}, []
    for _ in range(case.turns):
        for one in able:
            right, found = _restored(scene, one, case)
            rights[one.peer.name] &= right
            rows += found
    yield from medians(case.name, rows)
    for name, right in rights.items():
        yield Row(case=case.name, peer=name, figure="exact", value=float(right))


def _restored(scene: Scene, one: _Stored, case: _Case) -> tuple[bool, list[Row]]:
    """Restore once; return whether the right database came, and what it took."""
    output = scene.new_folder() / "restored.db"
    if case.stale:
        copy(case.stale, output)
    write_back()
    with scene.wire(delay_ms=case.delay_ms, bytes_per_second=_RATE) as far:
        site = scene.site(far, one.site.database, one.site.bucket)
        found = scene.restore(one.peer, site, output, one.at if case.to_middle else None)
        requests = far.requests()
    right = fingerprint(output) == (one.middle if case.to_middle else one.end)
    shutil.rmtree(output.parent)
    received = wire.received_bytes(requests) / 1e6
    return right, [
        Row(case=case.name, peer=one.peer.name, figure=figure, value=value, unit=unit)
        for figure, value, unit in (
            ("seconds", found.seconds, "s"),
            ("CPU", found.cpu, "s"),
            ("peak memory", found.peak / 1e6, "MB"),
            ("bytes fetched", received, "MB"),
            ("requests", len(requests), ""),
        )
    ]


def _floor(scene: Scene, site: Site) -> Iterator[Row]:
    """Yield how long the least that our restore can do takes: fetch its objects, unpack them, write them, fsync."""
    folder = scene.new_folder()
    bucket = scene.store.root / site.bucket
    keys = folder / "keys"
    keys.write_text("\n".join(str(path.relative_to(bucket)) for path in sorted(bucket.rglob("*")) if path.is_file()))
    rows = []
    for figure, output in (("seconds", [str(folder / "copy.db")]), ("only fetching", [])) * (1 if scene.quick else 3):
        write_back()
        with scene.wire(delay_ms=20.0, bytes_per_second=_RATE) as far:
            command = [sys.executable, "-m", "bench.peers.floor", far.endpoint, site.bucket, "us-east-1"]
            command += [str(_CONNECTIONS), str(keys), *output]
            found = run(command, site.environment(), log=folder / "floor.log")
        rows.append(Row(case="", peer=LIMIT, figure=figure, value=found.seconds, unit="s"))
        if output:
            rows.append(Row(case="", peer=LIMIT, figure="CPU", value=found.cpu, unit="s"))
    yield from medians("end, 20 ms", rows)
    shutil.rmtree(folder)


def huge(scene: Scene) -> Iterator[Row]:
    """10 GiB: the first copy, and a restore to the end."""
    database = fill(scene.new_folder() / "app.db", random.Random(1), 10 * _FULL_BYTES)
    for peer in field.present((field.REPLICAD, field.NEW, field.OLD)):
        write_back()
        began = time.monotonic()
        with scene.attached(peer, database) as attached:
            stored_at = max(request.ended or 0.0 for request in attached.wire.stored(peer.image_objects))
            yield Row(case="first copy", peer=peer.name, figure="seconds", value=stored_at - began, unit="s")
            yield Row(case="first copy", peer=peer.name, figure="CPU", value=cpu_used(attached.pid), unit="s")
            yield from _first(attached, "first copy")
            attached.caught_up(perform(database, {"kind": "insert", "commits": 1}))
        end = fingerprint(database)
        one = _Stored(peer=peer, site=attached.site, end=end, at=datetime.now(UTC), middle=end)
        yield from _restores(scene, [one], _Case(name="end, 20 ms"))
        shutil.rmtree(scene.store.root / attached.site.bucket)


def fingerprint(database: Path) -> str:
    """Return a hash of all rows."""
    connection = sqlite3.connect(database, timeout=60)
    try:
        hashed = blake2b()
        for (body,) in connection.execute("SELECT body FROM filler ORDER BY id"):
            hashed.update(body.encode())
        hashed.update(str(connection.execute("SELECT count(*) FROM load").fetchone()[0]).encode())
        return hashed.hexdigest()
    finally:
        connection.close()


def vacuum(scene: Scene) -> Iterator[Row]:
    """VACUUM of 256 MiB of which half was deleted."""
    base = fill(scene.new_folder() / "base.db", random.Random(1), (32 if scene.quick else 256) * MIB)
    connection = sqlite3.connect(base)
    connection.execute("DELETE FROM filler WHERE id % 2")
    connection.commit()
    connection.close()
    for peer in (None, *field.present((field.REPLICAD, field.NEW, field.OLD))):
        database = copy(base, scene.new_folder() / "app.db")
        write_back()
        if peer is None:
            bare = perform(database, {"kind": "vacuum"})
            yield Row(case="VACUUM", peer=BARE, figure="seconds", value=bare.longest, unit="s")
            continue
        with scene.attached(peer, database) as attached:
            forget_peak(attached.pid)
            began = time.monotonic()
            commits = perform(database, {"kind": "vacuum"})
            caught_up = attached.caught_up(commits) - commits.ended[-1]
            attached.caught_up(perform(database, {"kind": "insert", "commits": 1}))
            requests, peak = attached.wire.requests(began), peak_bytes(attached.pid)
        for figure, value, unit in (
            ("seconds", commits.longest, "s"),
            ("caught up after", max(0.0, caught_up), "s"),
            ("bytes sent", wire.sent_bytes(requests) / 1e6, "MB"),
            ("peak memory", peak / 1e6, "MB"),
        ):
            yield Row(case="VACUUM", peer=peer.name, figure=figure, value=value, unit=unit)
        output = scene.new_folder() / "restored.db"
        with scene.wire() as direct:
            scene.restore(peer, scene.site(direct, database, attached.site.bucket), output)
        right = fingerprint(output) == fingerprint(database) and ask(output, "SELECT count(*) FROM load") == 1
        yield Row(case="VACUUM", peer=peer.name, figure="exact", value=float(right))
