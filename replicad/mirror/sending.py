"""Taking one object from one place to the other: whole when it is small, piece by piece when it is not."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from replicad.encryption.sizes import content_bytes
from replicad.errors import ConditionalWritesUnsupported, Damaged, NewerFormat, ObjectMissing, StoreUnreachable
from replicad.layout import KEYRING, parse_chunk, parse_claim, parse_segment
from replicad.mirror.keyrings import bring_keyring
from replicad.mirror.proven import check, chunk_pieces, rollup_pieces, segment_pieces
from replicad.mirror.sameness import other_history
from replicad.restore.fetch import Fetch
from replicad.restore.verify_object import check_size
from replicad.snapshot import PLAIN_NAMES
from replicad.store.create import create_settled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from replicad.host.threads import Threads
    from replicad.mirror.side import Side
    from replicad.snapshot import ChunkNames
    from replicad.store.encrypted import EncryptedStore

PIECE_BYTES = 8 << 20
"""What of a large object is in memory at once, a few times over."""

_STREAM_ATTEMPTS = 4  # of one large object, from its front each time


class Sender:
    """Copies objects of one database from `source` to `destination`, where both have the same keys.

    What is encrypted is decrypted to be proven, and sent as it is stored, behind the keyring that names its key.
    """

    def __init__(self, source: Side, destination: Side, threads: Threads, *, concurrency: int) -> None:
        self.destination = destination
        self._source = source
        self._threads = threads
        self._fetch = Fetch(source.stored, threads, concurrency=concurrency)
        self._contents = Fetch(source.read, threads, concurrency=concurrency)
        self._keys_there: frozenset[bytes] = frozenset()  # that the destination's keyring is known to name
        self._keyring = asyncio.Lock()

    async def send(self, key: str, size_bytes: int) -> None:
        """Copy an object; returns when it is stored.

        Raises:
            ObjectMissing: it is not in the source any more.
            Damaged: what is stored in the source is not what the key says; nothing was sent.
            OtherHistory: the destination has another claim of this epoch, or another keyring.
            WrongKey: it is encrypted with a key that was not given.
            StoreUnreachable, StoreRefused, NoSpace: one of the stores failed.
        """
        if key == KEYRING:
            self._keys_there = await bring_keyring(self._source, self.destination)
            return
        if size_bytes > PIECE_BYTES:
            await self._stream(key, size_bytes)
            return
        body = await self._fetched(key, size_bytes)
        if parse_claim(key) is None:
            await self.destination.stored.put(key, body)
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
                there = await self.destination.stored.get(key, start=start, stop=stop)
            except ObjectMissing:
                return False
            if here != there:
                return False
        return True

    async def _fetched(self, key: str, size_bytes: int) -> bytes:
        """Return an object as it is stored, proven; one that is damaged is fetched twice, as by `Fetch.proven`."""
        if self._source.sealed is None:
            return await self._fetch.proven(key, partial(_checked, key, size_bytes, PLAIN_NAMES))
        for is_last in (False, True):
            body = await self._fetch.read(key)
            try:
                check_size(key, size_bytes, body)
                content = await self._source.sealed.opened(key, body)
                names = await self._contents.chunk_names()
                await self._threads.run(_checked, key, len(content), names, content)
            except Damaged:
                if is_last:
                    raise
            else:
                break
        await self._have_key_of(self._source.sealed, key, body)
        return body

    async def _have_key_of(self, sealed: EncryptedStore, key: str, body: bytes) -> None:
        """See to it that the keyring there names the key of an object, before that is there."""
        needed = sealed.header_of(key, body).key_id
        async with self._keyring:
            if needed not in self._keys_there:
                self._keys_there = await bring_keyring(self._source, self.destination, needed=needed)

    async def _claim(self, key: str, body: bytes) -> None:
        """Create the claim: if an owner begins to work there at this moment, one of the two has to notice."""
        try:
            ours = await create_settled(self.destination.stored, key, body, is_mine=body.__eq__)
        except ConditionalWritesUnsupported:
            await self.destination.stored.put(key, body)
            return
        if not ours:
            raise other_history(self._source, self.destination, f"another {key}: somebody works there")

    async def _stream(self, key: str, size_bytes: int) -> None:
        async for attempt in AsyncRetrying(
            stop=stop_after_attempt(_STREAM_ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.1, max=10.0),
            retry=retry_if_exception_type(StoreUnreachable),
            reraise=True,
        ):
            with attempt:
                await self.destination.stored.put_stream(key, self._pieces(key, size_bytes))

    async def _pieces(self, key: str, size_bytes: int) -> AsyncIterator[bytes]:
        if self._source.sealed is not None:
            pieces = self._sealed_pieces(self._source.sealed, key, size_bytes)
        else:
            pieces = self._readable_pieces(self._fetch, key, size_bytes, PLAIN_NAMES)
        async for piece in pieces:
            yield piece

    async def _sealed_pieces(self, sealed: EncryptedStore, key: str, size_bytes: int) -> AsyncIterator[bytes]:
        """Prove the content first, then iterate over the object as it is stored, held against its tags."""
        names = await self._contents.chunk_names()
        async for _ in self._readable_pieces(self._contents, key, content_bytes(size_bytes), names):
            pass
        is_first = True
        async for piece in sealed.sealed_pieces(key, size_bytes, most_bytes=PIECE_BYTES):
            if is_first:
                await self._have_key_of(sealed, key, piece)
            is_first = False
            yield piece

    async def _readable_pieces(
        self, fetch: Fetch, key: str, size_bytes: int, names: ChunkNames
    ) -> AsyncIterator[bytes]:
        begun, proven = False, _proven_pieces(fetch, key, size_bytes, names)
        if proven is not None:
            try:
                async for piece in proven:
                    begun = True
                    yield piece
            except NewerFormat:  # as in `_checked`
                if begun:
                    raise
            else:
                return
        for start in range(0, size_bytes, PIECE_BYTES):
            stop = min(size_bytes, start + PIECE_BYTES)
            piece = await fetch.read(key, start=start, stop=stop)
            check_size(key, stop - start, piece)
            yield piece


def _proven_pieces(fetch: Fetch, key: str, size_bytes: int, names: ChunkNames) -> AsyncIterator[bytes] | None:
    segment, chunk = parse_segment(key), parse_chunk(key)
    if segment is not None and segment.level:
        return rollup_pieces(fetch, segment, size_bytes)
    if segment is not None:
        return segment_pieces(fetch, key, size_bytes)
    return chunk_pieces(fetch, key, size_bytes, chunk[1], names=names) if chunk is not None else None


def _checked(key: str, size_bytes: int, names: ChunkNames, body: bytes) -> bytes:
    check_size(key, size_bytes, body)
    try:
        check(key, body, names=names)
    except NewerFormat:
        return body  # its keys are the same as ever; what is in it will be read by whoever wrote it
    return body
