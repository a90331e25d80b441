"""Which of a replica's LTX files lead to its newest state. Pure.

A file of a higher level holds what several of a lower one held; level 9 is for snapshots. The way is Litestream's
own: from the newest snapshot on, again and again the file that joins what is there and reaches furthest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.errors import HistoryGap, NoBackup

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet

    from replicad.store.protocol import StoredObject

SNAPSHOT_LEVEL = 9
_KEY = re.compile(
    r"(?P<below>(?:.*/)?)(?:ltx/(?P<folder>[0-9])|(?P<bucket>000[0-9]))/"
    r"(?P<first>[0-9a-f]{16})-(?P<last>[0-9a-f]{16})\.ltx"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LTXFile:
    """A file as its key tells of it.

    In a folder that is `ltx/<level>/<first>-<last>.ltx`, in a bucket the level stands by itself, in four digits.
    """

    key: str
    level: int
    first: int
    last: int
    size_bytes: int
    written_ms: int  # by the store's clock


def read_ltx_listing(objects: Iterable[StoredObject]) -> tuple[list[LTXFile], set[str]]:
    """Return the replica's files, and below which prefixes other replicas stand."""
    files: list[LTXFile] = []
    elsewhere: set[str] = set()
    for found in objects:
        match = _KEY.fullmatch(found.key)
        if match is None:
            continue
        if match["below"]:
            elsewhere.add(match["below"])
            continue
        files.append(
            LTXFile(
                key=found.key,
                level=int(match["folder"] or match["bucket"]),
                first=int(match["first"], 16),
                last=int(match["last"], 16),
                size_bytes=found.size_bytes,
                written_ms=round(found.modified_at.timestamp() * 1000),
            )
        )
    return files, elsewhere


def plan_newest(files: Iterable[LTXFile], *, label: str, without: AbstractSet[str] = frozenset()) -> list[LTXFile]:
    """Return the files to apply, in order; the last one reaches the newest state.

    Args:
        files: what was listed.
        label: what messages call the replica.
        without: keys of files that cannot be used.

    Raises:
        NoBackup: there are none.
        HistoryGap: nothing leads to the newest of them.
    """
    usable = [file for file in files if file.key not in without]
    if not usable:
        raise NoBackup(database="a database of Litestream's", store=label)
    snapshots = [file for file in usable if file.level == SNAPSHOT_LEVEL]
    chosen = [max(snapshots, key=lambda file: (file.last, file.key))] if snapshots else []
    reached = chosen[0].last if chosen else 0
    while joining := [file for file in usable if file.first <= reached + 1 and file.last > reached]:
        best = max(joining, key=lambda file: (file.last, -file.first, file.level))
        chosen.append(best)
        reached = best.last
    newest = max(file.last for file in usable)
    if reached < newest:
        later = min(file.first for file in usable if file.first > reached)
        raise HistoryGap(
            database=label,
            target="its newest state",
            found=f"files reach transaction {reached}, the next one begins with {later}",
            nearest=f"transaction {reached}, with Litestream's own restore" if reached else "none",
        )
    return chosen
