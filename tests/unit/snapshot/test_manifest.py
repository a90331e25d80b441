from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicad.errors import Damaged, NewerFormat
from replicad.layout import ManifestKey
from replicad.position import TXID, Epoch, Position
from replicad.snapshot import Chunk, Manifest, chunk_name, compress_chunk, decode_manifest, encode_manifest

if TYPE_CHECKING:
    from collections.abc import Callable

WHAT = "epochs/00000002/snapshots/x.json"
DOCUMENT = (Path(__file__).parents[3] / "docs" / "format.md").read_text()
EXAMPLE = re.search(r"```json\n(.*?)```", DOCUMENT, re.DOTALL)
NAMES = ("a" * 64, "0123456789abcdef" * 4, "f" * 64)


def _manifest(pages: int = 5, chunk_pages: int = 2, **changes: object) -> Manifest:
    """Return a manifest of `pages` pages of 512 bytes; `changes` replace what would fit."""
    sizes = [512 * min(chunk_pages, pages - start) for start in range(0, pages, chunk_pages)]
    manifest = Manifest(
        database_id="0f1e2d3c",
        epoch=2,
        txid=4711,
        commit_ms=1_700_000_000_000,
        page_size=512,
        pages=pages,
        checksum="00000000000000ff",
        chunk_pages=chunk_pages,
        created_ms=1_700_000_000_001,
        reason="interval",
        chunks=tuple(
            Chunk(name=NAMES[number % 3], epoch=1 + number % 2, stored_bytes=100 + number, raw_bytes=size)
            for number, size in enumerate(sizes)
        ),
    )
    return msgspec.structs.replace(manifest, **changes)


@given(
    pages=st.integers(0, 40),
    chunk_pages=st.integers(1, 9),
    texts=st.tuples(st.text(min_size=1, max_size=256), st.text()),
    numbers=st.tuples(st.integers(0, 2**63 - 1), st.integers(2, 2**32 - 1)),
    checksum=st.integers(0, 2**64 - 1),
)
def test_round_trip(
    pages: int, chunk_pages: int, texts: tuple[str, str], numbers: tuple[int, int], checksum: int
) -> None:
    """Whatever goes in comes out, and the whole is JSON for any other reader."""
    database_id, reason = texts
    txid, epoch = numbers
    manifest = _manifest(
        pages,
        chunk_pages,
        database_id=database_id,
        reason=reason,
        txid=txid,
        epoch=epoch,
        checksum=f"{checksum:016x}",
    )
    body = encode_manifest(manifest)
    assert decode_manifest(body, what=WHAT) == manifest
    assert json.loads(body)["txid"] == txid
    assert manifest.position == Position(epoch=Epoch(epoch), txid=TXID(txid), checksum=checksum, pages=pages)
    assert manifest.image_bytes == sum(chunk.raw_bytes for chunk in manifest.chunks)
    assert manifest.stored_bytes == sum(chunk.stored_bytes for chunk in manifest.chunks)


def test_one_chunk_per_line() -> None:
    """Line-wise tools find each chunk's key, in order."""
    body = encode_manifest(_manifest()).decode()
    keys = [line.split('"')[3] for line in body.splitlines() if line.startswith('    {"key":"')]
    assert keys == [chunk.key for chunk in _manifest().chunks]
    assert keys[1] == f"epochs/00000002/chunks/{NAMES[1]}.zst"


def test_example_in_the_document() -> None:
    """The example in docs/format.md is a manifest as it is written, to the byte."""
    assert EXAMPLE
    body = EXAMPLE[1].encode()
    assert encode_manifest(decode_manifest(body, what="docs/format.md")) == body


@pytest.mark.skipif(shutil.which("zstd") is None, reason="the zstd program is not installed")
def test_restore_with_a_shell(tmp_path: Path) -> None:
    """The shell lines in docs/format.md give back the newest snapshot without replicad, lock page and all."""
    pieces = [b"\x01" * 1024, bytes(1024), b"\x02" * 512]
    older = _manifest(txid=4710, chunks=())
    newest = _manifest(
        chunks=tuple(
            Chunk(name=chunk_name(raw), epoch=1 + number % 2, stored_bytes=len(compress_chunk(raw)), raw_bytes=len(raw))
            for number, raw in enumerate(pieces)
        )
    )
    for chunk, raw in zip(newest.chunks, pieces, strict=True):
        _write(tmp_path / "replica" / chunk.key, compress_chunk(raw))
    for manifest in (older, newest):
        key = ManifestKey(epoch=Epoch(manifest.epoch), txid=TXID(manifest.txid), ms=manifest.commit_ms)
        _write(tmp_path / "replica" / str(key), encode_manifest(manifest))
    section = DOCUMENT.partition("\n## A restore with a shell\n")[2]
    lines = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert lines
    subprocess.run(
        ["sh", "-e", "-c", lines[1]], cwd=tmp_path, env={"PATH": "/usr/bin:/bin", "replica": "replica"}, check=True
    )
    assert (tmp_path / "by-hand.db").read_bytes() == b"".join(pieces)


def _write(path: Path, body: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)


def _chunk(**changes: object) -> dict[str, object]:
    """Return changes to a manifest that change its first chunk."""
    first, *rest = _manifest().chunks
    return {"chunks": (msgspec.structs.replace(first, **changes), *rest)}


@pytest.mark.parametrize(
    ("lie", "where"),
    [
        ({"format": "sqlite"}, "format: expected replicad-snapshot, found sqlite"),
        ({"version": 0}, r"\$\.version"),
        ({"database_id": ""}, r"\$\.database_id"),
        ({"epoch": 0}, r"\$\.epoch"),
        ({"epoch": 1}, "epoch of chunk 1: expected at most 1, found 2"),
        ({"txid": -1}, r"\$\.txid"),
        ({"page_size": 500}, "page_size: expected a power of two"),
        ({"page_size": 1024}, "raw_bytes of chunk 0: expected 2048, found 1024"),
        ({"pages": 2**32 - 1}, r"\$\.pages"),
        ({"pages": 6}, "raw_bytes of chunk 2: expected 1024, found 512"),
        ({"pages": 7}, "number of chunks: expected 4, found 3"),
        ({"pages": 0}, "number of chunks: expected 0, found 3"),
        ({"checksum": "FF"}, r"\$\.checksum"),
        ({"chunk_pages": 0}, r"\$\.chunk_pages"),
        ({"chunk_pages": 131073}, "chunk_pages: expected at most 131072, found 131073"),
        ({"chunk_pages": 2**60}, "chunk_pages: expected at most"),
        ({"chunks": ()}, "number of chunks: expected 3, found 0"),
        (_chunk(name="../../x"), r"\$\.chunks\[0\]\.name"),
        (_chunk(epoch=0), r"\$\.chunks\[0\]\.epoch"),
        (_chunk(raw_bytes=512), "raw_bytes of chunk 0: expected 1024, found 512"),
        (_chunk(stored_bytes=0), r"\.stored_bytes"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_lies(lie: dict[str, object], where: str) -> None:
    """A manifest that contradicts itself is damaged, and the message says where."""
    with pytest.raises(Damaged, match=where):
        decode_manifest(encode_manifest(msgspec.structs.replace(_manifest(), **lie)), what=WHAT)


@pytest.mark.parametrize("edit", [lambda key: key.replace("01/", "02/"), lambda key: f"/{key}", lambda _: ""])
def test_key_of_another_chunk(edit: Callable[[str], str]) -> None:
    """A key that says something else than name and epoch is damage: a shell would restore another database."""
    document = json.loads(encode_manifest(_manifest()))
    document["chunks"][0]["key"] = edit(document["chunks"][0]["key"])
    with pytest.raises(Damaged, match="key of chunk 0: expected epochs/00000001/chunks/"):
        decode_manifest(json.dumps(document).encode(), what=WHAT)


def test_key_missing() -> None:
    """A chunk without its key is damage, though name and epoch would tell it."""
    document = json.loads(encode_manifest(_manifest()))
    del document["chunks"][1]["key"]
    with pytest.raises(Damaged, match=r"missing required field `key` - at `\$\.chunks\[1\]`"):
        decode_manifest(json.dumps(document).encode(), what=WHAT)


def test_newer_version() -> None:
    """A manifest of a later version is not called damaged, whatever else is in it."""
    with pytest.raises(NewerFormat, match=r"x\.json was written in format version 2"):
        decode_manifest(b'{"version":2,"chunks":{}}', what=WHAT)


def test_unknown_fields_are_passed_over() -> None:
    """A manifest with a field of a later writer, which old readers may miss, is read."""
    document = json.loads(encode_manifest(_manifest()))
    document["kept_until"] = {"ms": [1]}
    assert decode_manifest(json.dumps(document).encode(), what=WHAT) == _manifest()


def test_zero_bytes_and_truncated() -> None:
    """A manifest cut short anywhere, down to zero bytes, is damaged."""
    body = encode_manifest(_manifest())
    for size in range(len(body) - 1):  # the last byte is a newline
        with pytest.raises(Damaged, match=r"x\.json is damaged"):
            decode_manifest(body[:size], what=WHAT)


@settings(max_examples=300)
@given(
    edits=st.lists(st.tuples(st.integers(0, 10_000), st.binary(min_size=1, max_size=6)), min_size=1, max_size=4),
)
def test_any_bytes_inside(edits: list[tuple[int, bytes]]) -> None:
    """Whatever is written over a manifest, the answer is one that holds together, or a typed error."""
    body = bytearray(encode_manifest(_manifest()))
    for offset, noise in edits:
        at = offset % len(body)
        body[at : at + len(noise)] = noise
    try:
        found = decode_manifest(bytes(body), what=WHAT)
    except (Damaged, NewerFormat):
        return
    assert sum(chunk.raw_bytes for chunk in found.chunks) == found.image_bytes
    assert all(chunk.epoch <= found.epoch for chunk in found.chunks)


@given(
    body=st.binary(max_size=300)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(str).map(str.encode)
)
def test_random_bytes(body: bytes) -> None:
    """Bytes that are no manifest are damaged, never another error."""
    with pytest.raises(Damaged):
        decode_manifest(body, what=WHAT)
