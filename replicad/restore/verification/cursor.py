"""Where a verification of bodies stopped, so that the next one goes on from there.

Objects are read in the order of their keys, each once a pass. A pass that is over begins again from the front.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

import msgspec

from replicad.document import decoder_of
from replicad.errors import UsageError

VERSION = 1
_Key = Annotated[str, msgspec.Meta(max_length=1024)]


class Cursor(msgspec.Struct, frozen=True, kw_only=True):
    """The last object that was read in this pass, and the state in which its segment ended, when it was one."""

    version: int = VERSION
    database_id: Annotated[str, msgspec.Meta(max_length=256)]
    after: _Key
    read_bytes: Annotated[int, msgspec.Meta(ge=0)]  # in this pass so far
    epoch: Annotated[int, msgspec.Meta(ge=0)] = 0
    txid: Annotated[int, msgspec.Meta(ge=0)] = 0
    checksum: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{16}\Z")] = "0" * 16
    pages: Annotated[int, msgspec.Meta(ge=0)] = 0

    @property
    def token(self) -> str:
        """The cursor as one word."""
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).decode().rstrip("=")


def parse_token(token: str, *, where: str) -> Cursor:
    """Return the cursor that a word stands for.

    Raises:
        UsageError: it stands for none; `where` names the place it was given.
    """
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        cursor = decoder_of(Cursor).decode(raw)
    except (ValueError, binascii.Error) as error:
        raise _refused(where, str(error)) from error
    if cursor.version != VERSION:
        raise _refused(where, f"one of version {cursor.version}")
    return cursor


def _refused(where: str, found: str) -> UsageError:
    return UsageError(
        where=where, expected="what an earlier run printed", found=found, hint="Leave it out to begin from the front."
    )
