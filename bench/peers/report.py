"""bench/RESULTS.md, from the newest run of each scenario."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.peers.field import BARE, LIMIT, LIMIT_EAGER, NAMES
from bench.peers.goals import Goal, goals
from bench.peers.record import Found

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bench.peers.record import Run

RESULTS = Path(__file__).parents[1] / "RESULTS.md"

_TITLES = {
    "idle": "Idle",
    "slow": "One commit a second",
    "lag": "20 commits a second",
    "flat": "Flat out",
    "bulk": "Bulk load of 1 GiB in transactions of 16 MB",
    "restore": "1 GiB: first copy, random updates of 5 %, restores",
    "vacuum": "VACUUM",
    "boot": "Boot on an empty disk to the first query; redeploy",
    "kill": "SIGKILL of tool and application, disk lost",
    "day": "A day of one commit a second, 600 times as fast",
    "huge": "10 GiB: first copy, restore",
}

_METHOD = """\
## How it is measured, and what is not comparable

- All tools write to the same S3 server (versitygw over a folder) on the same machine, each through a proxy of its
  own that adds the latency that is named, limits each connection to 100 MB/s where a restore or a boot is timed,
  and counts requests and bytes (heads included) by verb. The application, the tools, the proxies and the server
  share the processors: absolute times are of this machine; compare within a table.
- The application is one Python program for all (`bench/peers/application.py`): WAL, `synchronous=NORMAL`, rows
  a third of whose content is noise.
- *Lag* is from the return of a COMMIT until the store's answer to the first upload of log whose request began after
  that commit did, measured outside the tools, the same way for all. A commit that comes between the moment a tool
  has put an object together and the moment its request begins is so counted as durable too early. *lag check*
  restores what the bucket held at some moments and gives the largest difference between the commits found and
  those counted (positive: too early). *Lag without PUT* ends at the beginning of that request.
- *eager*: replicad with `sync_interval: 0s`, Litestream with monitor and sync intervals of 10 ms. It is what they
  can do, at the price of a PUT per commit.
- Litestream 0.5 stores the database twice at first (as level 0 and as a snapshot) and deletes the former after
  minutes; 0.3 and 0.5 delete old history after a day, replicad after a week (each by default): bytes stored over
  longer times are not comparable.
- cron keeps one copy, cannot go back, and loses up to a minute and what its upload takes; its lag counts from the
  beginning of its upload. Its processes come and go, so its memory is not shown right.
- Litestream does not prove what it restored; replicad compares a checksum over all pages. "exact" is 1 when the
  benchmark found every row as it was at that instant. Litestream's instants are as fine as its uploads, replicad's
  are single transactions.
- A boot comes behind an instance that ended in order. Behind one that was killed, replicad waits until it may take it
  for dead, so as not to overrule one that lives; the peers do not look, and would start beside one that lives, too.
- Idle is measured from 75 s behind the only commit on: what a tool does once behind its start is over by then.
- CPU of an idle process is counted to the nanosecond, of threads and children that ended to 10 ms.
- Flat out, figures are the median of seven turns with one writer and of five with four, those of the bulk load, and of
  restores from 20 ms away, of three, the longest commit too: from one half second to the next the same machine makes
  50,000 commits or 70,000.
- A day is 86,400 commits at 600 a second, with the intervals of all tools divided by 600.
- The bill is requests at AWS S3 Standard's price in us-east-1 ($5 per million PUT, POST, LIST; $0.40 per million
  GET, HEAD), without storage.
- Litestream 0.5 goes on with its start in the background: a snapshot and compactions fall into `updates` and `lag`.
  Figures an hour are those of the time measured, multiplied; compare what it sends by *of it log*.
- *limit* is no tool. For the bytes of first copy, updates and flat out it is what xz -9e or zstd -19, whichever
  makes less of it, leaves of a sample of the same pages (12 MB in one piece, each version of a page), at a hundred
  times the processor time of any tool here, and 8 bytes a transaction for a checksum (`bench/peers/least.py`): no page
  number, no time, no head of a request is counted. For the bytes of the bulk load it is the least that any level of
  zstd leaves of such a sample within the processor time that the best peer takes for everything, as both goals are to
  be reached at once. At 1 and 20 commits a second it is the noise in the rows. For the
  throughput flat out it is the application beside a process that reads what is written to the WAL, packs it at
  replicad's level and uploads it once a second, and does nothing else: no pin, no order, no hash
  (`bench/peers/follow.py`), and so it is for the longest commit, which with four writers is the longest wait for
  SQLite's lock; for that of the bulk load it is beside the same process with a read transaction that stays open, so
  that no commit waits for a checkpoint. (Litestream 0.3 packs what was loaded some ten seconds later.) For CPU at 20
  commits a second it is what one upload of the same size a second takes, one look for a successor, and 100 glances at
  the WAL's index, for a commit's time has to be seen to be told: to 10 ms by replicad, to a second by Litestream, whose
  own limit *uploads alone* would be (`bench/peers/putter.py`). For the lag it is what the median commit waits when
  there is one PUT a second, as all send at their defaults; *limit eager*, where a request for each costs nothing: a
  process that sleeps until the kernel says that the WAL was written to, packs the new frames and sends them by
  replicad's S3 client (`bench/peers/wake.py`). For a restore it is reading the same objects by the same requests,
  unpacking them, and writing them to the disk past the page cache, without a plan, an order or a proof; *only fetching*
  is that without unpacking and writing.
- 10 GiB is run by hand, by its name (`huge`), and not by `make bench`.
"""


def write(plots: Iterable[str], runs: dict[str, Run]) -> None:
    """Write the report."""
    RESULTS.write_text("\n".join(_lines(plots, runs)) + "\n")


def goal_lines(found: Found) -> Iterator[str]:
    """Yield the table of goals, as Markdown."""
    yield "| goal | bound | found | limit | |"
    yield "|---|---|---|---|---|"
    for goal in goals(found):
        yield f"| {goal.what} | {goal.bound} | {goal.found} | {goal.limit} | {_verdict(goal)} |"


def _verdict(goal: Goal) -> str:
    if goal.out_of_reach:
        return "missed, and out of anybody's reach"
    return {True: "reached", False: "**missed**", None: "not measured"}[goal.reached]


def _lines(plots: Iterable[str], runs: dict[str, Run]) -> Iterator[str]:
    yield from ("# replicad beside its peers", "")
    yield "<!-- Made by `python -m bench.peers --report` from bench/results.jsonl; do not edit. -->"
    yield from ("", "## Goals", "")
    yield from goal_lines(Found(runs))
    yield ""
    yield from (f"![{name.removesuffix('.png')}](plots/{name})" for name in plots)
    yield from ("", _METHOD)
    yield from ("## Versions, settings, commands", "")
    for run in runs.values():
        when = f"{run.at}, {run.seconds:.0f} s, revision {run.revision}, "
        when += f"load at its start {run.load:.1f}, on {run.machine['processor']}"
        yield f"- `python -m bench.peers {run.scenario}`: {when}{run.note and '. '}{run.note}"
    last = max(runs.values(), key=lambda run: run.at)
    yield ""
    yield from (f"- {what}: {text}" for what, text in last.machine.items())
    tools: dict[str, str] = {}
    for run in sorted(runs.values(), key=lambda run: run.at):
        tools |= run.tools
    yield ""
    for name, text in tools.items():
        described, _, commands = text.partition("\n")
        yield from (f"**{name}**: {described}", "", "```sh", commands, "```", "")
    for scenario, title in _TITLES.items():
        if scenario in runs:
            yield from ("", f"## {title}", "")
            yield from tables(runs[scenario])


def tables(run: Run) -> Iterator[str]:
    """Yield a table for each case of a scenario: figures down, tools across."""
    for case in dict.fromkeys(row["case"] for row in run.rows):
        rows = [row for row in run.rows if row["case"] == case]
        seen = {row["peer"] for row in rows}
        peers = [peer for peer in (LIMIT, LIMIT_EAGER, BARE, *NAMES) if peer in seen]
        yield f"| {case} | {' | '.join(peers)} |"
        yield f"|---|{'---:|' * len(peers)}"
        for figure, unit in dict.fromkeys((row["figure"], row["unit"]) for row in rows):
            values = {row["peer"]: row["value"] for row in rows if row["figure"] == figure}
            cells = " | ".join(_number(values[peer]) if peer in values else "" for peer in peers)
            yield f"| {figure}{f' ({unit})' if unit else ''} | {cells} |"
        yield ""


def _number(value: float) -> str:
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
