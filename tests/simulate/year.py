"""A year of one database: commits, snapshots, roll-ups, retention, redeploys, crashes; all that was promised, restored.

    python -m tests.simulate.year --seed 1 --output docs/year.md

The database is SQLite's own, the store a folder, and what happens between the two is the product's own code, booted and
run as the daemon does it; only the clock is simulated (year_time.py). Each commit's content is known to the application
alone (year_application.py); what is promised is worked out apart from the product (year_oracle.py).

Not simulated: what is proven elsewhere and would only take time. A handover between two living instances, the daily
drill in a child process, mirrors, and the look for a successor every 5 s, which makes one GET each: the bill has it.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import structlog

from tests.simulate.year_life import Year
from tests.simulate.year_plan import WEEKS, YEAR
from tests.simulate.year_report import as_json, bills, document, table
from tests.simulate.year_time import in_a_year

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulate.year_plan import Outcome, Plan


async def live(plan: Plan, *, folder: Path | None = None, progress: Callable[[str], None] = lambda _: None) -> Outcome:
    """Live through a plan in a folder of its own, made below `folder`.

    Raises:
        Broken: a promise was not kept.
    """
    with tempfile.TemporaryDirectory(prefix="replicad-year-", dir=folder) as made:
        return await Year(plan, Path(made), progress=progress).run()


# --- the program ---------------------------------------------------------------------------------------


def _revision() -> str:
    found = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def main() -> None:
    """Run a year, or some weeks, and print what came of it."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulate.year", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--seed", type=int, default=1, help="everything random comes from it (1)")
    parser.add_argument("--days", type=int, help="so many of the year (365), or of the weeks (24)")
    parser.add_argument("--weeks", action="store_true", help="a small database with a short window, in seconds")
    parser.add_argument("--commits", type=float, help="so many on a working day (400, or 40)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write a document with the tables, as docs/year.md")
    parser.add_argument("--folder", type=Path, help="where disk and bucket are, for as long as it runs (TMPDIR)")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    plan = WEEKS if arguments.weeks else YEAR
    rhythm = replace(plan.rhythm, commits_a_day=arguments.commits or plan.rhythm.commits_a_day)
    plan = replace(plan, seed=arguments.seed, days=arguments.days or plan.days, rhythm=rhythm)
    began, revision = time.monotonic(), _revision()
    outcome = in_a_year(live(plan, folder=arguments.folder, progress=lambda line: _say(f"{line}\n", sys.stderr)))
    seconds = time.monotonic() - began
    if arguments.json:
        _say(json.dumps(as_json(outcome) | {"seconds": round(seconds, 1)}, indent=2) + "\n")
    else:
        _say("\n".join([*table(outcome), "", *bills(outcome)]) + "\n")
    if arguments.output is not None:
        command = " ".join(["python -m tests.simulate.year", *sys.argv[1:]])
        arguments.output.write_text(document(outcome, command=command, seconds=seconds, revision=revision))


def _say(text: str, stream: TextIO | None = None) -> None:
    (stream or sys.stdout).write(text)
    (stream or sys.stdout).flush()


if __name__ == "__main__":
    main()
