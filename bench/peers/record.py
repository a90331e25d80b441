"""Results as they are kept: one JSON line for each run of a scenario, so that a report can be made again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One scenario, run once."""

    scenario: str
    quick: bool
    at: str
    seconds: float
    load: float  # of the machine when it began: others' work
    revision: str
    machine: dict[str, str]
    tools: dict[str, str]
    rows: list[dict[str, Any]]
    note: str = ""  # what was special about it, written into the line by hand: it goes into the report

    def append(self) -> None:
        """Keep it."""
        document = {name: getattr(self, name) for name in self.__slots__}
        with RESULTS.open("a") as results:
            results.write(json.dumps(document) + "\n")


def newest(*, quick: bool) -> dict[str, Run]:
    """Return the newest run of each scenario."""
    found: dict[str, Run] = {}
    if RESULTS.exists():
        for line in RESULTS.read_text().splitlines():
            run = Run(**json.loads(line))
            if run.quick == quick:
                found[run.scenario] = run
    return found


@dataclass(frozen=True, slots=True)
class Found:
    """The figures of some runs."""

    runs: dict[str, Run]

    def value(self, scenario: str, case: str, figure: str, peer: str) -> float | None:
        """Return one figure, or None when it was not measured."""
        rows = self.runs[scenario].rows if scenario in self.runs else []
        for row in rows:
            if (row["case"], row["figure"], row["peer"]) == (case, figure, peer):
                return float(row["value"])
        return None

    def of_peers(self, scenario: str, case: str, figure: str, leave_out: set[str]) -> dict[str, float]:
        """Return a figure of every tool that is not left out."""
        rows = self.runs[scenario].rows if scenario in self.runs else []
        return {
            row["peer"]: float(row["value"])
            for row in rows
            if (row["case"], row["figure"]) == (case, figure) and row["peer"] not in leave_out
        }
