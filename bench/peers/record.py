"""Results as they are kept: a JSON line for the newest run of each scenario, so that a report can be made again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results.jsonl"
"""Kept with the report that is made of it: who runs one scenario again has the others still."""


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

    def keep(self) -> None:
        """Keep it instead of an earlier one of its scenario; one of the quick mode is looked at and forgotten."""
        if not self.quick:
            lines = (json.dumps(asdict(run)) for run in (kept() | {self.scenario: self}).values())
            RESULTS.write_text("".join(f"{line}\n" for line in lines))


def kept() -> dict[str, Run]:
    """Return the run of each scenario that was kept."""
    if not RESULTS.exists():
        return {}
    runs = (Run(**json.loads(line)) for line in RESULTS.read_text().splitlines())
    return {run.scenario: run for run in runs}


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
