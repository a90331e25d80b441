from __future__ import annotations

import hashlib

import pytest

from replicad.encryption.sealing import naming_key
from replicad.errors import Damaged
from replicad.snapshot import PLAIN_NAMES, ChunkNames, compress_chunk, decompress_chunk
from tests.support import sealed

SECRET, REPLICA = bytes(range(32)), b"r" * 16
RAW = b"a page " * 100


def test_plain_names_are_sha256() -> None:
    """Without a key a chunk is named by the SHA-256 of its content, as ever."""
    assert PLAIN_NAMES.name(RAW) == hashlib.sha256(RAW).hexdigest()
    assert PLAIN_NAMES.fits(hashlib.sha256(RAW).hexdigest(), RAW)
    assert not PLAIN_NAMES.fits(hashlib.sha256(b"").hexdigest(), RAW)


def test_keyed_names() -> None:
    """With a key a name is an HMAC that a second reader computes too, differs between replicas, and fits by any key."""
    names = ChunkNames(keys=(naming_key(SECRET, REPLICA),))
    assert names.name(RAW) == sealed.chunk_name(SECRET, REPLICA, RAW)
    assert names.name(RAW) != hashlib.sha256(RAW).hexdigest()
    assert names.name(RAW) != ChunkNames(keys=(naming_key(SECRET, b"q" * 16),)).name(RAW)
    rotated = ChunkNames(keys=(naming_key(bytes(32), REPLICA), *names.keys))
    assert rotated.name(RAW) != names.name(RAW)
    assert rotated.fits(names.name(RAW), RAW)
    assert rotated.fits(rotated.name(RAW), RAW)
    assert not names.fits(rotated.name(RAW), RAW)
    assert SECRET.hex() not in repr(names)


def test_a_name_found_in_parts() -> None:
    """A chunk that is read in parts has its name, plain or by any of the keys, and another content has another."""
    keys = tuple(naming_key(bytes([number]) * 32, REPLICA) for number in (1, 2))
    old, new = (ChunkNames(keys=(key,)) for key in keys)
    for names, name in (
        (PLAIN_NAMES, PLAIN_NAMES.name(RAW)),
        *((ChunkNames(keys=keys), one.name(RAW)) for one in (old, new)),
    ):
        naming = names.naming(name)
        naming.update(RAW[:100])
        assert naming.found != name
        naming.update(RAW[100:])
        assert naming.found == name
        naming.update(b"more")
        assert naming.found != name


def test_a_chunk_under_another_name() -> None:
    """A chunk with another content than its keyed name says is damaged."""
    names = ChunkNames(keys=(naming_key(SECRET, REPLICA),))
    stored, size = compress_chunk(RAW), len(RAW)
    assert decompress_chunk(stored, raw_bytes=size, name=names.name(RAW), what="c", names=names) == RAW
    with pytest.raises(Damaged, match="HMAC of the content"):
        decompress_chunk(stored, raw_bytes=size, name=PLAIN_NAMES.name(RAW), what="c", names=names)
