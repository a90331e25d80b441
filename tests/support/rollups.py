"""Roll-ups of stored segments, made without the duty that makes them in a daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.layout import SegmentKey, parse_segment
from replicad.segment import Member, decode_rollup, encode_rollup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicad.store.protocol import ObjectStore


async def roll_up(store: ObjectStore, keys: Sequence[str], *, keep: bool = False) -> str:
    """Store a roll-up of these objects, and delete them unless they are to be kept; return its key."""
    members: list[tuple[Member, bytes]] = []
    parsed = [key for key in map(parse_segment, keys) if key is not None]
    for key in parsed:
        body = await store.get(str(key))
        if key.level:
            found = decode_rollup(body, what=str(key))
            members += [(one, body[one.offset : one.offset + one.size_bytes]) for one in found]
        else:
            member = Member(first=key.first, last=key.last, last_ms=key.last_ms, offset=0, size_bytes=len(body))
            members.append((member, body))
    newest = parsed[-1]
    rollup = SegmentKey(
        epoch=newest.epoch, first=parsed[0].first, last=newest.last, last_ms=newest.last_ms, level=newest.level + 1
    )
    await store.put(str(rollup), encode_rollup(members))
    if not keep:
        await store.delete(keys)
    return str(rollup)
