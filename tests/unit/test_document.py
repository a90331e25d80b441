from __future__ import annotations

import json
import subprocess
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.document import Version, decode_document, decode_json, encode_document, format_checksum
from replicad.errors import Damaged, NewerFormat


class _Note(msgspec.Struct, frozen=True):
    version: Version
    text: str


@given(text=st.text())
def test_round_trip(text: str) -> None:
    """A document comes back, on one line, whatever is in its text."""
    body = encode_document(_Note(1, text))
    assert decode_document(body, _Note, version=1, what="note") == _Note(1, text)
    assert body.count(b"\n") == 1


@pytest.mark.parametrize("version", [1, 2, 3])
def test_older_versions_are_read(version: int) -> None:
    """Every version up to the newest known is read."""
    body = encode_document(_Note(version, "x"))
    assert decode_document(body, _Note, version=3, what="note").version == version


def test_newer_version_comes_first() -> None:
    """A later version is told as such before anything else is believed, and names both numbers."""
    with pytest.raises(
        NewerFormat, match="note was written in format version 7, and this replicad reads up to version 3"
    ):
        decode_document(b'{"text":[],"version":7}', _Note, version=3, what="note")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="zero bytes"),
        pytest.param(b"null", id="no object"),
        pytest.param(b'{"version":1}', id="field missing"),
        pytest.param(b'{"version":1,"text":"\xff"}', id="no UTF-8"),
        pytest.param(b'{"version":1,"text":"x"}{}', id="something behind"),
        pytest.param(b'{"version":1,"text":"x","more":' + b"[" * 100_000, id="brackets without end"),
        pytest.param(b'{"version":' + b"9" * 100_000 + b"}", id="endless number"),
        pytest.param(b'{"version":-1,"text":"x"}', id="version below 1"),
        pytest.param(b'{"version":true,"text":"x"}', id="version of another type"),
    ],
)
def test_damaged(body: bytes) -> None:
    """Whatever is not such a document is Damaged, with what was expected, and never another error."""
    with pytest.raises(Damaged, match="note is damaged: JSON: expected a JSON object"):
        decode_document(body, _Note, version=1, what="note")


def test_found_names_the_field() -> None:
    """The message says which field is wrong."""
    with pytest.raises(Damaged, match=r"expected a JSON object Note, found .*\$\.text"):
        decode_json(b'{"version":1,"text":5}', _Note, what="note")


@given(checksum=st.integers(0, 2**64 - 1))
def test_checksums_are_text(checksum: int) -> None:
    """A checksum is stored as 16 digits, which JSON readers keep, and comes back as the number it was."""
    stored = json.loads(json.dumps(format_checksum(checksum)))
    assert len(stored) == 16
    assert int(stored, 16) == checksum


FIRST_READS = """
import sys, threading
from replicad.document import decode_json

for _ in range(150):
    exec('''
import msgspec
class Inner(msgspec.Struct):
    a: "int"
class Outer(msgspec.Struct):
    several: "list[Inner]"
    last: "int"
''')
    together = threading.Barrier(2)

    def read():
        together.wait()
        for _ in range(3):
            decode_json(b'{"last": 1, "several": []}', Outer, what="x")

    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=read) for _ in range(2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
"""


def test_trap_the_first_documents_of_a_kind_are_read_at_once() -> None:
    """Two threads that read the first documents of a kind at the same time both get them.

    Seen to fail: with `msgspec.json.decode(body, type=kind)` in place of a decoder made under a lock the process ends
    with SIGSEGV. A daemon did, at the first look at its snapshots' manifests.
    """
    ended = subprocess.run([sys.executable, "-c", FIRST_READS], check=False, capture_output=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, b"")
