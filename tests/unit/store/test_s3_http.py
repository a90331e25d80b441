from __future__ import annotations

import hashlib
import io

from hypothesis import given
from hypothesis import strategies as st

from replicad.store.s3_http import Body, as_body


@given(st.binary(max_size=5_000), st.integers(1, 700))
def test_body_reads_like_a_file(content: bytes, size_bytes: int) -> None:
    """For the signature a body reads like a file: in pieces, to its end, and again after seek."""
    body, file = Body(content), io.BytesIO(content)
    assert len(body) == len(content)
    for _ in range(2):
        digest = hashlib.sha256()
        while piece := body.read(size_bytes):
            digest.update(piece)
            assert bytes(piece) == file.read(size_bytes)
            assert body.tell() == file.tell()
        assert digest.digest() == hashlib.sha256(content).digest()
        assert bytes(body.read(size_bytes)) == b""
        body.seek(0)
        file.seek(0)
    assert bytes(body.read()) == content


async def test_body_is_sent_without_a_copy() -> None:
    """The pieces that go out are views of the bytes given, in order and all of them."""
    content = bytes(range(256)) * 4_000
    pieces = [piece async for piece in Body(content)]
    assert b"".join(pieces) == content
    assert all(piece.obj is content for piece in pieces)
    assert len(pieces) > 1


def test_small_bodies_stay_bytes() -> None:
    """A small body is given as it is, so that it travels in one packet with the head."""
    assert as_body(b"small") == b"small"
    assert isinstance(as_body(bytes(100_000)), Body)
