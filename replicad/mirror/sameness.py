"""Whether two replicas are of one history, so that objects of the one may be put beside those of the other.

A destination that is behind is what copying is for. One that was written into by another owner, or belongs to another
database, is left as it is: put together, the two would look like one history and be none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.errors import ObjectMissing, OtherHistory
from replicad.layout import CLAIMS, KEYRING, claim_key, start_key
from replicad.position import Epoch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicad.mirror.side import Side
    from replicad.plan.line import History
    from replicad.plan.listing import Listing


async def refuse_other(source: Side, here: History, destination: Side, there: History) -> None:
    """Raise unless the destination holds a part of the source's history, or nothing.

    Raises:
        OtherHistory: it holds something else.
        ReplicadError: a store failed.
    """
    found = _difference(here, there) or await _other_claim(source, here.listing, destination, there.listing)
    if found is not None:
        raise other_history(source, destination, found)


async def refuse_others_claims(source: Side, destination: Side) -> None:
    """Raise when the destination for a replica without a history holds a claim that the replica has not got.

    Raises:
        OtherHistory: it does.
        ReplicadError: a store failed.
    """
    async for found in destination.stored.list(CLAIMS):
        if found.key == KEYRING:
            continue
        body = await destination.stored.get(found.key)
        try:
            ours = await source.stored.get(found.key)
        except ObjectMissing:
            ours = None
        if body != ours:
            raise other_history(source, destination, f"another {found.key}")


def other_history(source: Side, destination: Side, found: str) -> OtherHistory:
    """Return the error for a destination in which this was found."""
    return OtherHistory(source=source.stored.url, destination=destination.stored.url, found=found)


def _difference(here: History, there: History) -> str | None:
    ours = {start.database_id for start in here.starts.values()}
    theirs = {start.database_id for start in there.starts.values()}
    if theirs - ours:
        return f"it is of the database with the id {min(theirs - ours)}, not {', '.join(sorted(ours))}"
    highest, beyond = _highest(here.listing), _highest(there.listing)
    if beyond > highest:
        return f"it has gone on by itself: it has epoch {beyond}, and the source ends with epoch {highest}"
    for epoch in sorted(here.starts.keys() & there.starts.keys()):
        if here.starts[epoch] != there.starts[epoch]:
            return f"another {start_key(epoch)}: since then each has gone on by itself"
    return _other_size(_sizes(here.listing), _sizes(there.listing))


def _highest(listing: Listing) -> Epoch:
    return max((*listing.claims, *listing.epochs), default=Epoch(0))


def _sizes(listing: Listing) -> Mapping[str, int]:
    sizes = {found.name: found.size_bytes for found in listing.segments}
    return sizes | {found.name: found.size_bytes for found in listing.manifests}


def _other_size(here: Mapping[str, int], there: Mapping[str, int]) -> str | None:
    for key in sorted(here.keys() & there.keys()):
        if here[key] != there[key]:
            return other_size(key, here[key], there[key])
    return None


def other_size(key: str, here_bytes: int, there_bytes: int) -> str:
    """Say that an object has two sizes."""
    return f"{key} has {there_bytes} bytes there, and {here_bytes} in the source"


async def _other_claim(source: Side, here: Listing, destination: Side, there: Listing) -> str | None:
    """Compare the newest claim that both have: whoever went on by itself made one of its own, and copied none since."""
    both = here.claims & there.claims
    if not both:
        return None
    key = claim_key(max(both))
    try:
        if await source.stored.get(key) == await destination.stored.get(key):
            return None
    except ObjectMissing:  # deleted since it was listed, by hand: the starts have been compared
        return None
    return f"another {key}: since then each has gone on by itself"
