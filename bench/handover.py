"""What a handover costs: how long nobody can write, whether anybody cannot read, and what an owner asks when idle.

    python -m bench.handover                       all of it, about three minutes
    python -m bench.handover planned idle silent   some of it

Everything at the default settings, from an S3 server on loopback. Ends with status 1 when a bound is missed.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from bench.bounds import Row, at_most, new_database, told
from bench.process import installed
from tests.support.clients import Clients
from tests.support.fleet import Fleet
from tests.support.moto_server import running_moto
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.fleet import Instance

SIZE_BYTES = 100 << 20
HANDOVERS = 5
WRITES = 50  # before and after each handover: about a second
IDLE_SECONDS = 60.0
POLL_SECONDS = 5.0  # the default of handover_poll_interval
SNAPSHOT_SECONDS = 60.0


def planned(fleet: Fleet) -> Iterator[Row]:
    """Rolling deploys of a large database, one behind the other, under a steady load."""
    old = owner(fleet, "0", SIZE_BYTES)
    outages: list[float] = []
    starts: list[float] = []
    refused_reads = lost = 0
    for number in range(1, HANDOVERS + 1):
        new = fleet.instance(str(number))
        with Clients(old) as clients:
            clients.until_acknowledged(WRITES, by=old)
            clients.route(old, new)
            starts.append(new.start())
            clients.until_acknowledged(WRITES, by=new)
            clients.stop()
        outages.append(clients.by(new)[0].ended_at - clients.by(old)[-1].ended_at)
        refused_reads += len(clients.refused_reads)
        lost += len(clients.numbers - set(new.rows()))
        old.stop()
        old = new
    shown = ", ".join(f"{seconds:.2f}" for seconds in outages)
    yield at_most("planned handover of 100 MiB: nobody can write, median of 5", statistics.median(outages), 2, "s")
    yield told("the same, each", f"{shown} s")
    yield at_most("the same: reads of the old instance that were refused", refused_reads, 0, "")
    yield at_most("the same: acknowledged writes that the new instance has not", lost, 0, "")
    yield told("the same: start of the new instance to healthy, median", f"{statistics.median(starts):.2f} s")


def idle(fleet: Fleet) -> Iterator[Row]:
    """An owner that nobody asks and nobody writes to."""
    instance = owner(fleet, "0", 0)
    instance.write(1)
    instance.daemon.sync()
    time.sleep(POLL_SECONDS)  # until what it does after a commit is done
    before = len(instance.proxy.seen)
    time.sleep(IDLE_SECONDS)
    asked = Counter((seen.method, seen.path.partition("?")[0]) for seen in instance.proxy.seen[before:])
    polls = asked.pop(("GET", poll_path(fleet)), 0)
    yield at_most("idle owner: polls for a request in 60 s", polls, IDLE_SECONDS / POLL_SECONDS, "")
    yield at_most("idle owner: other requests in 60 s", asked.total(), 0, "")


def silent(fleet: Fleet) -> Iterator[Row]:
    """A machine that is lost, and what takes its place with an empty disk."""
    old = owner(fleet, "0", 0)
    old.write(1)
    old.daemon.sync()
    old.kill()
    yield told("owner killed, started again on its disk: healthy after", f"{old.start():.2f} s")
    old.kill()
    new = fleet.instance("1")
    yield told("owner killed, another one started on an empty disk: healthy after", f"{new.start():.2f} s")


PARTS: dict[str, Callable[[Fleet], Iterator[Row]]] = {"planned": planned, "idle": idle, "silent": silent}


def owner(fleet: Fleet, name: str, size_bytes: int) -> Instance:
    """Start a first instance with a database of about this size, and wait until all of it is stored."""
    instance = fleet.instance(name)
    new_database(instance.database, size_bytes=size_bytes)
    instance.start()
    wait_until(lambda: instance.daemon.found("snapshot_stored"), SNAPSHOT_SECONDS)
    instance.daemon.sync()
    return instance


def poll_path(fleet: Fleet) -> str:
    """Return where the owner of the first epoch looks for a request."""
    return f"/{fleet.bucket}/app.db/handover/00000002.json"


def main() -> int:
    """Measure, print a table, and say by the exit status whether every bound was reached."""
    os.environ.update(installed({}))
    missed = 0
    with running_moto() as moto:
        for name in sys.argv[1:] or list(PARTS):
            with (
                tempfile.TemporaryDirectory(prefix="replicad-bench-") as folder,
                Fleet(Path(folder), moto, settings={}, shown=False) as fleet,
            ):
                for row in PARTS[name](fleet):
                    missed += not row.reached
                    mark = "ok    " if row.reached else "MISSED"
                    print(f"{mark} {row.what:<72} {row.goal:>10}   {row.found}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
