"""Stored JSON documents: a version, typed fields, and nothing believed before it was checked.

Fields that a reader does not know are ignored, so adding one that old readers may miss needs no new
version; changing what an old reader would misread does (docs/format.md, compatibility).
"""

from __future__ import annotations

import threading
from typing import Annotated, Any, TypeVar

import msgspec

from replicad.errors import Damaged, NewerFormat

MAX_UINT32 = (1 << 32) - 1
MAX_PAGES = MAX_UINT32 - 1
"""SQLite's largest page number (limits.html)."""

MAX_TXID = (1 << 63) - 1
"""A million transactions a second would take 292,000 years."""

MAX_MS = (1 << 53) - 1
"""What every JSON reader keeps exactly; year 287,396."""

Hex16 = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{16}\Z")]
"""A state checksum as it is stored: numbers above 2^53 do not survive every JSON reader."""

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Version = Annotated[int, msgspec.Meta(ge=1, le=MAX_UINT32)]
EpochNumber = Annotated[int, msgspec.Meta(ge=1, le=MAX_UINT32)]
PageCount = Annotated[int, msgspec.Meta(ge=0, le=MAX_PAGES)]
Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=MAX_MS)]
"""Unix time in ms, UTC."""

TransactionNumber = Annotated[int, msgspec.Meta(ge=0, le=MAX_TXID)]

Document = TypeVar("Document", bound=msgspec.Struct)


_decoders: dict[type[msgspec.Struct], msgspec.json.Decoder[Any]] = {}
_making = threading.Lock()


class _Versioned(msgspec.Struct):
    """What every version of every document has, read first."""

    version: Version


def decoder_of(kind: type[Document]) -> msgspec.json.Decoder[Document]:
    """Return what reads documents of a kind, made by one thread at a time.

    msgspec (0.22) looks at a kind's fields when the first of its documents is read, and enters what it has found into
    the kind before it is complete. Another thread that reads the same kind in that moment ends the process
    (SIGSEGV). Once a decoder is made, any number of threads may use it.
    """
    found = _decoders.get(kind)
    if found is None:
        with _making:
            found = _decoders.get(kind) or msgspec.json.Decoder(kind)
            _decoders[kind] = found
    return found


def format_checksum(checksum: int) -> str:
    """Return a checksum (unsigned, 64 bits) as the 16 hexadecimal digits that are stored."""
    return f"{checksum:016x}"


def encode_document(document: msgspec.Struct) -> bytes:
    """Return the document as JSON on one line, ended by a newline."""
    return msgspec.json.encode(document) + b"\n"


def decode_document(body: bytes, kind: type[Document], *, version: int, what: str) -> Document:
    """Return the document in `body`; `what` names the object in messages, `version` is the newest one known.

    Raises:
        Damaged: the bytes are not such a document.
        NewerFormat: they are one of a later version.
    """
    found = decode_json(body, _Versioned, what=what).version
    if found > version:
        raise NewerFormat(what=what, found=found, expected=version)
    return decode_json(body, kind, what=what)


def decode_json(body: bytes, kind: type[Document], *, what: str) -> Document:
    """Return the JSON object in `body`, whatever its version.

    Raises:
        Damaged: the bytes are not such an object.
    """
    try:
        return decoder_of(kind).decode(body)
    except (ValueError, RecursionError) as error:  # msgspec's own errors, bad UTF-8, and brackets without end
        expected = f"a JSON object {kind.__name__.strip('_')}"
        raise Damaged(what=what, where="JSON", expected=expected, found=str(error)) from error
