"""`make demo`: an application loses its disk, and later its rows, and gets both back.

A story for the terminal, on real processes: the application of `demo_app.py` behind `replicad run`, with a
folder as the bucket. Every step prints what it checks; the status is 1 when anything differs.

    python -m bench.demo [--keep]
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from subprocess import TimeoutExpired
from typing import TYPE_CHECKING

from bench import demo_app
from bench.demo_container import Container, Different, wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.demo_app import Row

DURABLE_NOTES, LATE_NOTES, MORE_NOTES = 40, 5, 20


@dataclass(kw_only=True)
class Story:
    """Numbers the steps and prints each check as it passes."""

    step_number: int = 0
    checks: int = 0

    def step(self, text: str) -> None:
        """Begin the next step."""
        self.step_number += 1
        print(f"\n{self.step_number}. {text}", flush=True)

    def command(self, text: str) -> None:
        """Show a command as a reader would type it."""
        print(f"   $ {text}", flush=True)

    def check(self, passed: bool, text: str) -> None:  # noqa: FBT001 - reads as a sentence
        """Print one check; raise Different when it failed."""
        print(f"   {'ok ' if passed else 'NOT'}  {text}", flush=True)
        self.checks += 1
        if not passed:
            raise Different(text)

    def tell(self, text: str) -> None:
        """Print a remark that is not a check."""
        print(f"        {text}", flush=True)


def first_difference(expected: Sequence[Row], found: Sequence[Row]) -> str:
    """Return where two lists of rows differ, for the message."""
    for position, (left, right) in enumerate(zip(expected, found, strict=False)):
        if left != right:
            return f"; row {position}: expected {left}, found {right}"
    return "" if len(expected) == len(found) else f"; expected {len(expected)} rows, found {len(found)}"


def act_one(container: Container, story: Story) -> tuple[list[Row], list[Row]]:
    """Start, write, ask for durability; return the rows reported durable and all acknowledged rows."""
    story.step("A web application with a SQLite file is started by `replicad run`.")
    story.command("replicad run -- python demo_app.py disk/app.db PORT")
    seconds = container.start()
    story.check(passed=True, text=f"it answers at http://127.0.0.1:{container.port}/notes after {seconds:.1f} s")

    story.step(f"It takes {DURABLE_NOTES} writes over HTTP; then durability is asked for.")
    container.write(DURABLE_NOTES, "durable")
    story.command("replicad sync")
    began = time.monotonic()
    container.replicad("sync")
    took_ms = (time.monotonic() - began) * 1e3
    durable = container.notes()
    story.check(len(durable) == DURABLE_NOTES, f"{len(durable)} notes acknowledged, all durable {took_ms:.0f} ms later")
    container.write(LATE_NOTES, "late")
    acknowledged = container.notes()
    story.tell(f"{LATE_NOTES} more are written, and nobody waits for them")
    return durable, acknowledged


def act_two(container: Container, story: Story, durable: list[Row], acknowledged: list[Row]) -> None:
    """Kill everything, delete the disk, start again, compare."""
    story.step("Everything is killed with SIGKILL, and the disk folder is deleted.")
    killed = container.kill()
    shutil.rmtree(container.disk)
    story.check(killed >= 2, f"{killed} processes killed: replicad and the application below it")
    story.check(not container.disk.exists(), "the disk folder is gone; what is left is the bucket")

    story.step("The same command starts again, on an empty disk.")
    story.command("replicad run -- python demo_app.py disk/app.db PORT")
    seconds = container.start()
    found = container.notes()
    story.check(passed=True, text=f"it restored, and answers after {seconds:.1f} s")
    kept = found[: len(durable)]
    story.check(
        kept == durable,
        f"all {len(durable)} notes reported durable are there, row by row{first_difference(durable, kept)}",
    )
    late = found[len(durable) :]
    story.check(
        late == acknowledged[len(durable) : len(found)],
        f"of the {LATE_NOTES} nobody waited for, {len(late)} came back, and nothing that was never written",
    )


def act_three(container: Container, story: Story) -> None:
    """Remember a moment, delete every row, restore the moment into a second file."""
    story.step(f"{MORE_NOTES} more notes, a moment to remember, and then a DELETE without its WHERE.")
    container.write(MORE_NOTES, "before the mistake")
    container.replicad("sync")
    before = container.notes()
    moment = datetime.now(UTC)
    moment_text = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    wait_for(lambda: (datetime.now(UTC) - moment).total_seconds() > 0.005, 1.0, "the clock to go on")
    story.tell(f"the moment is {moment_text}, with {len(before)} notes")
    deleted = container.request("DELETE", "/notes")[1]["deleted"]
    container.write(3, "after the mistake")
    container.replicad("sync")
    after = container.notes()
    story.check(deleted == len(before), f"DELETE took {deleted} notes; the application shows {len(after)} newer ones")

    story.step("The moment is restored into a second file, while the application runs on.")
    story.command(f"replicad restore --at {moment_text} -o rescued.db")
    rescued_path = container.root / "rescued.db"
    container.replicad("restore", "--at", moment_text, "-o", str(rescued_path))
    rescued = demo_app.rows(rescued_path)
    difference = first_difference(before, rescued)
    story.check(rescued == before, f"rescued.db holds all {len(before)} notes, row by row{difference}")
    story.check(container.notes() == after, "the application's own database was not touched")


def act_four(container: Container, story: Story) -> None:
    """End as a platform ends a container."""
    story.step("SIGTERM ends it.")
    status = container.stop()
    story.check(status == 0, f"the last writes were flushed, and the exit status is the application's own: {status}")


def tell(container: Container, story: Story) -> None:
    """Play the whole story; raises Different where it does not hold."""
    durable, acknowledged = act_one(container, story)
    act_two(container, story, durable, acknowledged)
    act_three(container, story)
    act_four(container, story)


def main() -> int:
    """Run the demonstration; return its exit status."""
    parser = argparse.ArgumentParser(description="An application loses its disk, and its rows, and gets both back.")
    parser.add_argument("--keep", action="store_true", help="keep the folder with the bucket, the disk and the log")
    keep: bool = parser.parse_args().keep
    root = Path(tempfile.mkdtemp(prefix="replicad-demo-"))
    container, story, began = Container(root=root), Story(), time.monotonic()
    print(f"A database survives the loss of its disk. Folder: {root}")
    print("  bucket/  stands for the S3 bucket      disk/  is what the platform throws away")
    try:
        tell(container, story)
    except (Different, OSError, HTTPException, TimeoutExpired) as fault:
        print(f"\nFAILED at step {story.step_number}: {fault}", file=sys.stderr)
        if container.log.exists():
            print("\nThe last lines of replicad's log:", file=sys.stderr)
            print("\n".join(container.log.read_text(errors="replace").splitlines()[-30:]), file=sys.stderr)
        return 1
    finally:
        container.kill()
        if not keep:
            shutil.rmtree(root)
    print(f"\nAll {story.checks} checks passed in {time.monotonic() - began:.1f} s.")
    if keep:
        print(f"Kept: {root}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
