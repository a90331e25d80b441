"""Taking one object from one place to the other: whole when it is small, piece by piece when it is not."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from replicad.errors import ConditionalWritesUnsupported, Damaged, NewerFormat, ObjectMissing, StoreUnreachable
from replicad.layout import parse_chunk, parse_claim, parse_segment
from replicad.mirror.proven import check, chunk_pieces, rollup_pieces, segment_pieces
from replicad.mirror.sameness import other_history
from replicad.restore.fetch import Fetch
from replicad.store.create import create_settled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from replicad.host.threads import Threads
    from replicad.mirror.side import Side

PIECE_BYTES = 8 << 20
"""What of a large object is in memory at once, a few times over."""

_STREAM_ATTEMPTS = 4  # of one large object, from its front each time


class Sender:
    """Copies objects of one database from `source` to `destination`, where both have the same keys."""

    def __init__(self, source: Side, destination: Side, threads: Threads, *, concurrency: int) -> None:
        self._source = source
        self._destination = destination
        self._threads = threads
        self._fetch = Fetch(source.stored, threads, concurrency=concurrency)

    async def send(self, key: str, size_bytes: int) -> None:
        """Copy an object; returns when it is stored.

        Raises:
            ObjectMissing: it is not in the source any more.
            Damaged: what is stored in the source is not what the key says; nothing was sent.
            OtherHistory: the destination has another claim of this epoch.
            StoreUnreachable, StoreRefused, NoSpace: one of the stores failed.
        """
        if size_bytes > PIECE_BYTES:
            await self._stream(key, size_bytes)
            return
        body = await self._fetch.proven(key, partial(self._proven, key, size_bytes))
        if parse_claim(key) is None:
            await self._destination.stored.put(key, body)
        else:
            await self._claim(key, body)

    async def is_same(self, key: str, size_bytes: int) -> bool:
        """Read an object on both sides; return whether they hold the same bytes. One that is gone is no difference."""
        for start in range(0, size_bytes, PIECE_BYTES):
            stop = min(size_bytes, start + PIECE_BYTES)
            try:
                here = await self._source.stored.get(key, start=start, stop=stop)
            except ObjectMissing:
                return True
            try:
                there = await self._destination.stored.get(key, start=start, stop=stop)
            except ObjectMissing:
                return False
            if here != there:
                return False
        return True

    def _proven(self, key: str, size_bytes: int, body: bytes) -> bytes:
        if len(body) != size_bytes:
            raise Damaged(what=key, where="size", expected=f"{size_bytes} bytes, as listed", found=len(body))
        if self._source.is_plain:
            try:
                check(key, body)
            except NewerFormat:
                return body  # its keys are the same as ever; what is in it will be read by whoever wrote it
        return body

    async def _claim(self, key: str, body: bytes) -> None:
        """Create the claim: if an owner begins to work there at this moment, one of the two has to notice."""
        try:
            ours = await create_settled(self._destination.stored, key, body, is_mine=body.__eq__)
        except ConditionalWritesUnsupported:
            await self._destination.stored.put(key, body)
            return
        if not ours:
            raise other_history(self._source, self._destination, f"another {key}: somebody works there")

    async def _stream(self, key: str, size_bytes: int) -> None:
        async for attempt in AsyncRetrying(
            stop=stop_after_attempt(_STREAM_ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.1, max=10.0),
            retry=retry_if_exception_type(StoreUnreachable),
            reraise=True,
        ):
            with attempt:
                await self._destination.stored.put_stream(key, self._pieces(key, size_bytes))

    async def _pieces(self, key: str, size_bytes: int) -> AsyncIterator[bytes]:
        proven = self._proven_pieces(key, size_bytes) if self._source.is_plain else None
        begun = False
        if proven is not None:
            try:
                async for piece in proven:
                    begun = True
                    yield piece
            except NewerFormat:  # as in `_proven`
                if begun:
                    raise
            else:
                return
        async for piece in self._plain_pieces(key, size_bytes):
            yield piece

    def _proven_pieces(self, key: str, size_bytes: int) -> AsyncIterator[bytes] | None:
        segment, chunk = parse_segment(key), parse_chunk(key)
        if segment is not None and segment.level:
            return rollup_pieces(self._fetch, segment, size_bytes)
        if segment is not None:
            return segment_pieces(self._fetch, key, size_bytes)
        return chunk_pieces(self._fetch, key, size_bytes, chunk[1]) if chunk is not None else None

    async def _plain_pieces(self, key: str, size_bytes: int) -> AsyncIterator[bytes]:
        for start in range(0, size_bytes, PIECE_BYTES):
            stop = min(size_bytes, start + PIECE_BYTES)
            piece = await self._fetch.read(key, start=start, stop=stop)
            if len(piece) != stop - start:
                raise Damaged(what=key, where="size", expected=f"{size_bytes} bytes", found=start + len(piece))
            yield piece
