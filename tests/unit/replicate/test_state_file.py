from __future__ import annotations

import stat
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.position import NO_WAL, TXID, Epoch, Position, WALPosition
from replicad.replicate.state_file import read_state, state_of, state_path, write_state

POSITION = Position(epoch=Epoch(3), txid=TXID(7), checksum=0xFEED, pages=9)
STATE = state_of(POSITION, NO_WAL, database_id="db", claim_id="c")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A file that a state can speak of."""
    path = tmp_path / "app.db"
    path.write_bytes(b"x")
    return path


@given(
    st.builds(
        Position,
        epoch=st.integers(1, 2**32 - 1).map(Epoch),
        txid=st.integers(0, 2**63).map(TXID),
        checksum=st.integers(0, 2**64 - 1),
        pages=st.integers(0, 2**32 - 2),
    ),
    st.builds(
        WALPosition,
        salts=st.binary(min_size=8, max_size=8),
        frame=st.integers(0, 2**32),
        frame_checksum=st.binary(min_size=8, max_size=8),
    )
    | st.just(NO_WAL),
    st.text(max_size=40),
)
def test_what_is_written_is_read(position: Position, wal: WALPosition, name: str) -> None:
    """Position, place in the WAL and names come back as they were."""
    with TemporaryDirectory() as folder:
        database = Path(folder) / "app.db"
        database.write_bytes(b"x")
        write_state(database, state_of(position, wal, database_id=name, claim_id=name[::-1]))
        found = read_state(database)
    assert found is not None
    assert (found.position, found.wal, found.database_id, found.claim_id) == (position, wal, name, name[::-1])


def test_only_the_owner_reads_it(database: Path) -> None:
    """The file is private, replaces the one before, and nothing else is left in the folder."""
    write_state(database, STATE)
    write_state(database, STATE)
    assert stat.S_IMODE(state_path(database).stat().st_mode) == 0o600
    assert sorted(file.name for file in database.parent.iterdir()) == ["app.db", "app.db-replicad"]


GOOD = b'{"version":1,"database_id":"db","epoch":3,"claim_id":"c","txid":7,"checksum":"000000000000feed",'
GOOD += b'"pages":9,"wal_salts":"","wal_frame":0,"wal_frame_checksum":""}'


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        GOOD[:-1],
        GOOD.replace(b'"version":1', b'"version":2'),
        GOOD.replace(b"000000000000feed", b"feed"),
        GOOD.replace(b'"wal_salts":""', b'"wal_salts":"zz"'),
        GOOD.replace(b'"txid":7', b'"txid":"7"'),
        GOOD.replace(b'"claim_id":"c",', b""),
        b"\xff" * 100,
        b"[]",
    ],
)
def test_what_cannot_be_used_is_none(database: Path, content: bytes) -> None:
    """A state that is torn, of another version or of another shape is no state, and no error: it is a hint only."""
    state_path(database).write_bytes(content)
    assert read_state(database) is None


def test_what_the_others_are_made_from(database: Path) -> None:
    """The text that the cases above break is a good one, so that each fails for its own reason."""
    state_path(database).write_bytes(GOOD)
    assert read_state(database) == STATE


def test_no_state(database: Path) -> None:
    """Without the file, or without a database that it could speak of, there is none."""
    assert read_state(database) is None
    write_state(database, STATE)
    database.unlink()
    assert read_state(database) is None
