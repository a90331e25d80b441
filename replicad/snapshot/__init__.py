"""Snapshots: a database image cut into content-named chunks, and the manifest that lists them."""

from replicad.snapshot.chunks import (
    MAX_CHUNK_BYTES,
    chunk_name,
    chunk_pages,
    compress_chunk,
    decompress_chunk,
)
from replicad.snapshot.manifest import Chunk, Manifest, decode_manifest, encode_manifest
from replicad.snapshot.naming import PLAIN_NAMES, ChunkNames

__all__ = [
    "MAX_CHUNK_BYTES",
    "PLAIN_NAMES",
    "Chunk",
    "ChunkNames",
    "Manifest",
    "chunk_name",
    "chunk_pages",
    "compress_chunk",
    "decode_manifest",
    "decompress_chunk",
    "encode_manifest",
]
