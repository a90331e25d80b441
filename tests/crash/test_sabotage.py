"""What the rules of capture are for, shown by leaving them out one at a time, in circumstances that need them.

Two may notice. The proof is replicad's own, at work wherever it runs: a snapshot holds the database against the page
table. The judgement is a test's: it knows each state that the source had. Where the proof is blind, that is said.
"""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import apsw
import pytest

from replicad.replicate.capture import Capture
from replicad.replicate.reading import Reached
from replicad.replicate.room import make_room
from replicad.sqlite.source import Index, Source
from replicad.sqlite.wal_file import WALFile
from replicad.wal import FRAME_HEADER_BYTES, Frames, PageTable, SaltsMoved, WALHeader, frame_offset, parse_frames
from tests.support.captured import Captured, Parts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROW = "INSERT INTO t VALUES (randomblob(20000))"


@dataclass(frozen=True, slots=True, kw_only=True)
class Noticed:
    """Who has noticed."""

    proof: bool
    judgement: bool


NOBODY = Noticed(proof=False, judgement=False)


def notice(captured: Captured) -> Noticed:
    """Read to the end, and ask both."""
    captured.read()
    proof = captured.proof_fails()
    return Noticed(proof=proof, judgement=captured.states_differ())


# --- the old pin goes only after everything up to the next one's mark was read ---------------------------


class Swapped(Capture):
    """Lets the old pin go before everything up to the next one's mark was read: steps 1 and 4 swapped."""

    between: Callable[[], None]

    def move_pin(self, *, segments: int = 1) -> bool:
        """Move the pin, with a gap between release and read in which the application goes on."""
        self.source.release()
        self.between()
        self.source.hold()
        return self.read(segments=segments) is Reached.END


class InOrder(Swapped):
    """The same gap, but with the protocol as it is."""

    def move_pin(self, *, segments: int = 1) -> bool:
        """Let the application go on, then move the pin as `Capture` does."""
        self.between()
        return Capture.move_pin(self, segments=segments)


def move_beside_checkpoints(path: Path, kind: type[Swapped]) -> Noticed:
    """Move the pin beside an application that commits, checkpoints and commits again meanwhile."""
    with Captured(path, Parts(capture=kind)) as captured:
        captured.commit("CREATE TABLE counter (n)", "INSERT INTO counter VALUES (0)")

        def go_on() -> None:
            captured.commit(ROW)  # nobody has read this
            with contextlib.suppress(apsw.BusyError):
                captured.application.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
            captured.commit("UPDATE counter SET n = n + 1")  # and this begins the WAL anew, if it may

        assert isinstance(captured.capture, Swapped)
        captured.capture.between = go_on
        for _ in range(3):
            assert captured.capture.move_pin()
        return notice(captured)


def test_releasing_before_reading_is_noticed(tmp_path: Path) -> None:
    """With steps 1 and 4 of the pin protocol swapped, frames disappear unread, and the proof fails."""
    assert move_beside_checkpoints(tmp_path / "app.db", Swapped) == Noticed(proof=True, judgement=True)


def test_reading_before_releasing_misses_nothing(tmp_path: Path) -> None:
    """The same application beside the protocol as it is: every transaction was read, and nobody notices anything."""
    assert move_beside_checkpoints(tmp_path / "app.db", InOrder) == NOBODY


# --- frames belong to the WAL that their salts name ------------------------------------------------------


class Gapped(WALFile):
    """Lets the application go on right behind a look at the header, once."""

    between: Callable[[], None] | None = None

    def header(self) -> WALHeader | None:
        """Return the header as it is before the application goes on."""
        found = super().header()
        if self.between is not None:
            between, self.between = self.between, None
            between()
        return found


class Careless(Gapped):
    """Takes any frame for one of the WAL that is wanted."""

    def read(self, first: int, count: int, *, page_size: int, salts: bytes) -> Frames:
        """Return frames, whatever their salts."""
        width, begin = page_size + FRAME_HEADER_BYTES, frame_offset(first, page_size)
        raw = bytearray(self.path.read_bytes()[begin : begin + count * width])
        for at in range(0, len(raw), width):
            raw[at + 8 : at + 16] = salts
        return parse_frames(memoryview(raw), page_size=page_size, salts=salts)


class LooksOnce(Source):
    """Does not look at the WAL's header again behind the index."""

    def index(self) -> Index:
        """Return the index, with the salts from before it."""
        header = self.wal.header()
        frames, backfilled = self._observer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
        return Index(frames=max(frames, 0), backfilled=max(backfilled, 0), salts=header.salts if header else b"")


class WithoutSalts(Source):
    """Knows of one WAL only, and goes by numbers of frames."""

    def index(self) -> Index:
        """Return the index, with the same salts for every WAL."""
        return dataclasses.replace(super().index(), salts=bytes(8))


@pytest.mark.parametrize("rows", [1, 8], ids=["shorter", "longer"])
@pytest.mark.parametrize(
    ("parts", "noticed"),
    [
        (Parts(source=WithoutSalts, wal=Careless), Noticed(proof=True, judgement=True)),
        (Parts(wal=Gapped), NOBODY),
    ],
    ids=["without salts", "faithful"],
)
def test_going_by_frame_numbers_alone_is_noticed(tmp_path: Path, parts: Parts, noticed: Noticed, rows: int) -> None:
    """Without salts, a WAL that began anew is taken for the old one gone on: its front is missed, the proof fails."""
    with Captured(tmp_path / "app.db", parts) as captured:
        captured.commit(*[ROW] * 3)
        assert make_room(captured.capture).done
        captured.take()
        captured.commit(*[ROW] * rows)  # in a WAL that begins anew, shorter or longer than the one before
        assert notice(captured) == noticed


@pytest.mark.parametrize(
    ("parts", "noticed"),
    [
        # Twice the same frames, in the end: the last state is right, so the proof is blind. States in between are not.
        (Parts(source=LooksOnce, wal=Careless), Noticed(proof=False, judgement=True)),
        (Parts(source=LooksOnce, wal=Gapped), NOBODY),
        (Parts(source=Source, wal=Careless), NOBODY),
        (Parts(source=Source, wal=Gapped), NOBODY),
    ],
    ids=["neither", "salts of frames", "header again", "faithful"],
)
def test_a_reset_between_header_and_index(tmp_path: Path, parts: Parts, noticed: Noticed) -> None:
    """A look may find the old header and the new index: comparing either headers or frames is enough, neither is not.

    Without both, the end of the new WAL is taken for the old one gone on, and then the whole of it is read again.
    Transactions are made up that never were. The last state is right all the same: the proof does not fail.
    """
    with Captured(tmp_path / "app.db", parts) as captured:
        captured.commit(ROW)
        assert make_room(captured.capture).done
        captured.take()
        assert isinstance(captured.source.wal, Gapped)
        captured.source.wal.between = lambda: captured.commit(*[ROW] * 4)
        assert notice(captured) == noticed
        assert captured.source.wal.between is None


# --- only committed frames count -------------------------------------------------------------------------


class Greedy(Capture):
    """Goes on behind the committed end, through what lies in the WAL with the right salts."""

    def read(self, *, segments: int = 1) -> Reached:
        """Read what is committed, and then the rest as if it were."""
        reached = super().read(segments=segments)
        position = self.position
        for number in range(position.frame + 1, 1_000):
            try:
                frames = self.source.read(number, 1, position.salts)
            except SaltsMoved:  # the end of the file, or an older WAL's frames
                break
            committed = dataclasses.replace(frames, commit_pages=(max(self.table.pages, *frames.pgnos),))
            self._take(committed, 1, number - 1)
            self._advance(position.salts, number, frames.checksum(0))
        return reached


@pytest.mark.parametrize(
    ("kind", "noticed"),
    [(Greedy, Noticed(proof=True, judgement=True)), (Capture, NOBODY)],
    ids=["greedy", "faithful"],
)
def test_taking_what_was_rolled_back_is_noticed(tmp_path: Path, kind: type[Capture], noticed: Noticed) -> None:
    """What a rolled-back transaction left in the WAL is no part of any state: with it, the proof fails."""
    with Captured(tmp_path / "app.db", Parts(capture=kind)) as captured:
        captured.commit(*[ROW] * 3)
        before = captured.source.wal.size_bytes()
        captured.roll_back("DELETE FROM t", *[ROW] * 20)
        assert captured.source.wal.size_bytes() > before  # it has left something
        assert notice(captured) == noticed


# --- a commit may shrink the database --------------------------------------------------------------------


class Forgetful(PageTable):
    """Never cuts a page off."""

    def commit(self, pages: int) -> int:
        """Close the transaction, with the database at least as large as before."""
        return super().commit(max(pages, self.pages))


@pytest.mark.parametrize("copied", [False, True], ids=["in the WAL", "copied"])
@pytest.mark.parametrize("kind", [Forgetful, PageTable], ids=["forgetful", "faithful"])
def test_forgetting_that_a_commit_shrank_the_database(tmp_path: Path, kind: type[PageTable], *, copied: bool) -> None:
    """Pages that a commit cut off are no part of the state behind it: with them, its checksum is wrong.

    Until a checkpoint has cut the file, its old end lies there just as the page table remembers it, and the proof is
    blind to that. The judgement is not.
    """
    with Captured(tmp_path / "app.db", Parts(table=kind)) as captured:
        captured.commit(*[ROW] * 20)
        assert make_room(captured.capture).done
        captured.take()
        captured.commit("DELETE FROM t WHERE rowid > 2", "VACUUM")
        captured.read()
        if copied:
            assert make_room(captured.capture).done
        forgetful = kind is Forgetful
        assert notice(captured) == Noticed(proof=forgetful and copied, judgement=forgetful)
