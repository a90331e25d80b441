"""Run one command as `replicad run` does, for tests that need it in a process of its own: PID 1, a terminal, kill -9.

    python -m tests.support.run_application [--adopt] [--timeout SECONDS] [--hook COMMAND] -- COMMAND…

Prints `ready` once it catches signals, then one JSON line with what happened; exits with the command's status.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

import structlog

from replicad.errors import ReplicadError, Stopped
from replicad.host.reaper import Reaper, become_subreaper, is_pid_1
from replicad.host.signals import Signals
from replicad.replicate.application import Application


async def main() -> int:
    """Run the command line's command; return its status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--adopt", action="store_true")
    parser.add_argument("--timeout", type=float, default=5.0)
    parser.add_argument("--hook")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    adopt = options.adopt and (is_pid_1() or become_subreaper())
    flushes: list[str] = []
    with Reaper(asyncio.get_running_loop(), adopt=adopt) as reaper, Signals() as signals:
        print("ready", flush=True)  # noqa: T201 - what the test waits for
        application = Application(reaper)
        report: dict[str, object] = {"adopt": adopt}
        try:
            if options.hook:
                await application.run_hook("before_start", options.hook, signals=signals)
            status = await application.run(
                options.command,
                on_signal=lambda: flushes.append("flush"),
                stop_timeout_seconds=options.timeout,
                signals=signals,
            )
        except Stopped as error:
            code = 128 + int(signals.stop_signal or 0)
            report["error"] = str(error)
        except ReplicadError as error:
            code = error.exit_code
            report["error"] = str(error)
        else:
            code = status.shell_code
        report |= {"status": code, "flushes": len(flushes), "stop_signal": signals.stop_signal}
    print(json.dumps(report), flush=True)  # noqa: T201 - what the test reads
    return code


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
