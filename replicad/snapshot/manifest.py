"""The manifest: a JSON object that lists the chunks of one database image in order.

It stays readable for a person with a shell: one chunk per line, each with its full key below the
database's prefix (docs/format.md has the line that restores from it).
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from replicad.document import (
    EpochNumber,
    Hex16,
    Milliseconds,
    Name,
    PageCount,
    TransactionNumber,
    Version,
    decode_document,
)
from replicad.errors import Damaged
from replicad.layout import chunk_key
from replicad.position import TXID, Epoch, Position, is_page_size
from replicad.snapshot.chunks import MAX_CHUNK_BYTES

FORMAT = "replicad-snapshot"
VERSION = 1
"""The version that is written, and the newest that is read."""

ByteCount = Annotated[int, msgspec.Meta(ge=1, le=2 * MAX_CHUNK_BYTES)]


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of the image, and the epoch whose folder holds it."""

    name: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]  # see naming.py
    epoch: EpochNumber
    stored_bytes: ByteCount
    raw_bytes: ByteCount

    @property
    def key(self) -> str:
        """Where the chunk is, relative to the database's prefix."""
        return chunk_key(Epoch(self.epoch), self.name)


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One snapshot: the whole database as it was after a transaction."""

    format: str = FORMAT
    version: Version = VERSION
    database_id: Name
    epoch: EpochNumber
    txid: TransactionNumber  # 0: the state that was there before the first transaction
    commit_ms: Milliseconds
    page_size: int
    pages: PageCount
    checksum: Hex16
    chunk_pages: Annotated[int, msgspec.Meta(ge=1)]
    created_ms: Milliseconds
    reason: str  # why it was taken: for people
    chunks: tuple[Chunk, ...]

    @property
    def position(self) -> Position:
        """The transaction whose state this is."""
        return Position(
            epoch=Epoch(self.epoch), txid=TXID(self.txid), checksum=int(self.checksum, 16), pages=self.pages
        )

    @property
    def image_bytes(self) -> int:
        """Size of the database file."""
        return self.pages * self.page_size

    @property
    def stored_bytes(self) -> int:
        """What a restore of this snapshot alone fetches; a chunk that occurs twice counts twice."""
        return sum(chunk.stored_bytes for chunk in self.chunks)


class _KeyedChunk(msgspec.Struct, frozen=True):
    """A chunk as its line stands in the JSON: the key first, for the eye and for sed."""

    key: str
    name: str
    epoch: int
    stored_bytes: int
    raw_bytes: int


class _ManifestKeys(msgspec.Struct):
    """The part of a manifest that a restore with a shell reads."""

    chunks: tuple[_KeyedChunk, ...]


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the manifest as stored JSON: one field per line, then one chunk per line."""
    fields = [
        f'  "{name}": {msgspec.json.encode(getattr(manifest, name)).decode()},\n'
        for name in Manifest.__struct_fields__
        if name != "chunks"
    ]
    lines = [
        msgspec.json.encode(
            _KeyedChunk(chunk.key, chunk.name, chunk.epoch, chunk.stored_bytes, chunk.raw_bytes)
        ).decode()
        for chunk in manifest.chunks
    ]
    chunks = ",\n    ".join(lines)
    return f'{{\n{"".join(fields)}  "chunks": [\n    {chunks}\n  ]\n}}\n'.encode()


def decode_manifest(body: bytes, *, what: str) -> Manifest:
    """Return the manifest in `body`; `what` names the object in messages.

    Raises:
        Damaged: the bytes are not a manifest, or its numbers contradict one another.
        NewerFormat: it is one of a later version.
    """
    manifest = decode_document(body, Manifest, version=VERSION, what=what)
    if manifest.format != FORMAT:
        raise Damaged(what=what, where="format", expected=FORMAT, found=manifest.format)
    if not is_page_size(manifest.page_size):
        raise Damaged(what=what, where="page_size", expected="a power of two, 512 to 65536", found=manifest.page_size)
    _check_chunks(manifest, what)
    keys = decode_document(body, _ManifestKeys, version=VERSION, what=what)
    for number, (chunk, keyed) in enumerate(zip(manifest.chunks, keys.chunks, strict=True)):
        if keyed.key != chunk.key:  # a shell restore reads the key, we the name: they must not part ways
            raise Damaged(what=what, where=f"key of chunk {number}", expected=chunk.key, found=keyed.key)
    return manifest


def _check_chunks(manifest: Manifest, what: str) -> None:
    chunk_bytes = manifest.chunk_pages * manifest.page_size
    if chunk_bytes > MAX_CHUNK_BYTES:
        expected = f"at most {MAX_CHUNK_BYTES // manifest.page_size}"
        raise Damaged(what=what, where="chunk_pages", expected=expected, found=manifest.chunk_pages)
    count = -(-manifest.pages // manifest.chunk_pages)
    if len(manifest.chunks) != count:
        raise Damaged(what=what, where="number of chunks", expected=count, found=len(manifest.chunks))
    left_bytes = manifest.image_bytes
    for number, chunk in enumerate(manifest.chunks):
        expected_bytes = min(chunk_bytes, left_bytes)
        if chunk.raw_bytes != expected_bytes:
            where = f"raw_bytes of chunk {number}"
            raise Damaged(what=what, where=where, expected=expected_bytes, found=chunk.raw_bytes)
        if chunk.epoch > manifest.epoch:
            expected = f"at most {manifest.epoch}"
            raise Damaged(what=what, where=f"epoch of chunk {number}", expected=expected, found=chunk.epoch)
        left_bytes -= expected_bytes
