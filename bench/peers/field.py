"""Who takes part, with which settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.peers.cron import Cron
from bench.peers.litestream import Litestream
from bench.peers.ours import Replicad

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.peers.peer import Peer

_LOOK = ("monitor-interval: 10ms",)
_SEND = ("sync-interval: 10ms",)

REPLICAD = Replicad()
EAGER = Replicad(name="replicad eager", flags=("--sync-interval", "0s"))
NEW = Litestream(name="litestream 0.5", line="0.5")
NEW_EAGER = Litestream(name="litestream 0.5 eager", line="0.5", database=_LOOK, replica=_SEND)
OLD = Litestream(name="litestream 0.3", line="0.3")
OLD_EAGER = Litestream(name="litestream 0.3 eager", line="0.3", database=_LOOK, replica=_SEND)
CRON = Cron()
CRON_GZIP = Cron(name="cron gzip", compressed=True)

OURS = {REPLICAD.name, EAGER.name}
BARE = "bare"
"""The application alone."""

LIMIT = "limit"
"""No tool: what none of them can do better than, as far as that can be told."""
LIMIT_EAGER = "limit eager"
"""Likewise, where a request for each commit costs nothing."""

EVERYONE: tuple[Peer, ...] = (REPLICAD, EAGER, NEW, NEW_EAGER, OLD, OLD_EAGER, CRON, CRON_GZIP)
NAMES = [peer.name for peer in EVERYONE]


def present(peers: Iterable[Peer]) -> list[Peer]:
    """Return those that can be had here; say who is missing."""
    found = []
    for peer in peers:
        if (reason := peer.why_missing()) is None:
            found.append(peer)
        else:
            print(f"notice: {reason}", flush=True)
    return found
