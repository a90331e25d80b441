"""The small file beside the database that lets a restarted daemon prove where it was.

It is a hint, never an authority: what it says is believed only when the checksum of the database, or the WAL
together with it, agrees, and when the claim it names is still the highest one in the store.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from replicad.document import decoder_of
from replicad.host.files import atomic_write
from replicad.position import TXID, Epoch, Position, WALPosition

VERSION = 1
Hex16 = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{16}\Z")]


class StateFile(msgspec.Struct, frozen=True, kw_only=True):
    """What was durable last, and where in the WAL that was."""

    version: int = VERSION
    database_id: str
    epoch: int
    claim_id: str
    txid: int
    checksum: Hex16
    pages: int
    wal_salts: str  # hexadecimal, as are the frame's checksum bytes
    wal_frame: int
    wal_frame_checksum: str

    @property
    def position(self) -> Position:
        """The transaction that was durable last."""
        return Position(
            epoch=Epoch(self.epoch), txid=TXID(self.txid), checksum=int(self.checksum, 16), pages=self.pages
        )

    @property
    def wal(self) -> WALPosition:
        """Where in the WAL it ended."""
        return WALPosition(
            salts=bytes.fromhex(self.wal_salts),
            frame=self.wal_frame,
            frame_checksum=bytes.fromhex(self.wal_frame_checksum),
        )


def state_path(database: Path) -> Path:
    """Return where the state of a database is kept."""
    return Path(f"{database}-replicad")


def write_state(database: Path, state: StateFile) -> None:
    """Replace the state file. Not fsynced: after a power loss an older state is as true as a newer one."""
    atomic_write(state_path(database), msgspec.json.encode(state), mode=0o600, durable=False)


def read_state(database: Path) -> StateFile | None:
    """Return the state, or None when there is none that can be used, or no database that it could speak of."""
    if not database.exists():
        return None
    try:
        state = decoder_of(StateFile).decode(state_path(database).read_bytes())
        _ = state.wal
    except (FileNotFoundError, msgspec.DecodeError, ValueError):
        return None
    return state if state.version == VERSION else None


def state_of(position: Position, wal: WALPosition, *, database_id: str, claim_id: str) -> StateFile:
    """Return the state that says `position` is durable and ends at `wal`."""
    return StateFile(
        database_id=database_id,
        epoch=position.epoch,
        claim_id=claim_id,
        txid=position.txid,
        checksum=f"{position.checksum:016x}",
        pages=position.pages,
        wal_salts=wal.salts.hex(),
        wal_frame=wal.frame,
        wal_frame_checksum=wal.frame_checksum.hex(),
    )
