"""Pictures of the figures that a reader compares; left out, with a notice, where matplotlib is missing."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from bench.peers.field import BARE, NAMES, OURS

if TYPE_CHECKING:
    from bench.peers.record import Found

FOLDER = Path(__file__).parents[1] / "plots"

_PLOTS = (
    (
        "lag",
        "lag",
        "20/s",
        ("lag p50", "lag p99", "lag max"),
        "Commit to durable, 20 commits/s, store 20 ms away (ms)",
        True,
    ),
    ("throughput", "flat", "1 writer", ("throughput",), "Autocommit inserts flat out, one writer (commits/s)", False),
    ("cpu", "bulk", "bulk", ("CPU per GB of WAL",), "CPU of the tool per GB of WAL, bulk load (s)", False),
    ("bytes", "restore", "updates", ("bytes stored",), "Stored after a 1 GiB database and updates of 5 % (MB)", False),
    ("restore", "restore", "end, 20 ms", ("seconds",), "Restore of 1 GiB, store 20 ms away (s)", False),
    ("stale", "restore", "stale copy, 20 ms", ("seconds",), "Restore onto a copy that is 95 % the same (s)", False),
    ("boot", "boot", "100 MiB", ("boot to first query",), "Empty disk to first query, 100 MiB, 20 ms away (s)", False),
    ("idle", "idle", "idle", ("requests",), "Requests an hour, idle", False),
)


def draw(found: Found) -> list[str]:
    """Draw all there are figures for; return the files' names."""
    if importlib.util.find_spec("matplotlib") is None:
        print("notice: no plots: there is no matplotlib (pip install 'replicad[bench]')", flush=True)
        return sorted(path.name for path in FOLDER.glob("*.png"))
    FOLDER.mkdir(exist_ok=True)
    return [name for plot in _PLOTS if (name := _draw(found, *plot)) is not None]


def _draw(  # noqa: PLR0913, PLR0917 - a row of the table above
    found: Found,
    name: str,
    scenario: str,
    case: str,
    figures: tuple[str, ...],
    title: str,
    logarithmic: bool,  # noqa: FBT001
) -> str | None:
    from matplotlib.figure import Figure  # noqa: PLC0415 - an extra: only who draws has it

    values = {figure: found.of_peers(scenario, case, figure, set()) for figure in figures}
    peers = [peer for peer in (BARE, *NAMES) if peer in values[figures[0]]]
    if not peers:
        return None
    picture = Figure(figsize=(7, 0.9 + 0.32 * len(peers) * len(figures) ** 0.5), layout="constrained")
    axes = picture.add_subplot()
    height = 0.8 / len(figures)
    for number, figure in enumerate(figures):
        places = [place + number * height for place in range(len(peers))]
        shade = 1.0 - 0.3 * number
        colours = ["#1f77b4" if peer in OURS else "#999999" for peer in peers]
        bars = axes.barh(places, [values[figure][peer] for peer in peers], height * 0.9, color=colours, alpha=shade)
        short = figure.rpartition(" ")[2] + " " if len(figures) > 1 else ""
        axes.bar_label(bars, [f"{short}{values[figure][peer]:.4g}" for peer in peers], padding=3, fontsize=7)
    axes.set_yticks([place + height * (len(figures) - 1) / 2 for place in range(len(peers))], peers, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_title(title, fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="x", labelsize=7)
    if logarithmic:
        axes.set_xscale("log")
    picture.savefig(FOLDER / f"{name}.png", dpi=110, metadata={"Software": None})
    return f"{name}.png"
