"""A database that was too busy at boot to be switched to WAL mode."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import apsw

if TYPE_CHECKING:
    from tests.unit.replicate.conftest import Stage


async def test_conversion_is_tried_until_it_succeeds(stage: Stage) -> None:
    """A reader at boot keeps the journal mode for a while only: then the database is followed by its WAL.

    Seen to fail with what boot had opened: the whole session went by comparison.
    """
    stage.insert(1)
    stage.connection.pragma("journal_mode", "delete")
    reader = apsw.Connection(str(stage.path))
    reader.execute("BEGIN; SELECT * FROM t").fetchall()
    followed = await stage.boot()
    assert followed.booted.opened is not None
    assert not followed.booted.opened.source.is_wal
    following = asyncio.create_task(followed.follower.run())
    try:
        reader.execute("COMMIT")
        await stage.until("wal_converted")
        await stage.until("snapshot_stored")
        stage.insert(2, 3)
        assert await stage.sync() == 3
        await stage.check_newest()
        assert not stage.found("wal_kept")
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        reader.close()
