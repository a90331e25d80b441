from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import apsw
import pytest

from replicad.errors import TargetBusy
from replicad.host.files import identity_at
from replicad.sqlite.companions import leave_tidy, set_wal_aside
from replicad.sqlite.connection import connect

if TYPE_CHECKING:
    from tests.unit.sqlite.conftest import Application


def left_behind(database: Path) -> Path:
    """Leave a WAL with a commit beside a database that nobody has open; return its path."""
    ours = connect(database)
    other = apsw.Connection(str(database))
    other.execute("INSERT INTO t VALUES (4, 'd')")
    other.close()
    ours.close()
    return Path(f"{database}-wal")


def test_the_wal_of_a_replaced_file(database: Path, tmp_path: Path) -> None:
    """It gets another name, so that the new file is read as it is; nothing of it is lost."""
    new = tmp_path / "new.db"
    new.write_bytes(database.read_bytes())
    wal = left_behind(database)
    was, content = identity_at(wal), wal.read_bytes()
    new.rename(database)
    kept = set_wal_aside(database, was, suffix="replaced")
    assert kept == Path(f"{wal}.replaced")
    assert kept.read_bytes() == content
    connection = apsw.Connection(str(database))
    assert connection.execute("SELECT n FROM t").fetchall() == [(1,), (2,), (3,)]
    connection.close()


def test_another_wal_is_left_alone(database: Path) -> None:
    """A WAL that is not the replaced file's belongs to whoever made it; and there may be none."""
    assert set_wal_aside(database, None, suffix="replaced") is None
    assert set_wal_aside(database, identity_at(database), suffix="replaced") is None
    wal = left_behind(database)
    assert set_wal_aside(database, identity_at(database), suffix="replaced") is None
    assert wal.exists()


def test_somebody_is_connected(database: Path, application: Application) -> None:
    """While another process has the WAL open it stays where it is: its commits go there."""
    application.run("INSERT INTO t VALUES (4, 'd')")
    wal = Path(f"{database}-wal")
    with pytest.raises(TargetBusy, match="connected"):
        set_wal_aside(database, identity_at(wal), suffix="replaced")
    assert wal.exists()
    assert application.run("INSERT INTO t VALUES (5, 'e')") == "[]"


def test_a_tidy_end(database: Path) -> None:
    """Closed as an application closes it, the database is one file with everything in it."""
    left_behind(database)
    leave_tidy(database)
    assert [file.name for file in database.parent.iterdir()] == ["app.db"]
    connection = apsw.Connection(str(database))
    assert connection.execute("SELECT count(*) FROM t").fetchall() == [(4,)]
    connection.close()


def test_an_end_beside_an_application(database: Path, application: Application) -> None:
    """While somebody else is connected the WAL stays, and nobody waits."""
    application.run("INSERT INTO t VALUES (4, 'd')")
    leave_tidy(database)
    assert Path(f"{database}-wal").stat().st_size > 0
    assert application.run("SELECT count(*) FROM t") == "[(4,)]"


def test_an_end_without_a_database(tmp_path: Path) -> None:
    """A database that is gone or unusable is no error, and is not made."""
    leave_tidy(tmp_path / "none.db")
    assert list(tmp_path.iterdir()) == []
    garbage = tmp_path / "garbage.db"
    garbage.write_bytes(b"x" * 4096)
    leave_tidy(garbage)
    assert garbage.read_bytes() == b"x" * 4096
