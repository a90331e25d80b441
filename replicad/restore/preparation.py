"""What has to be known before anything is written: the snapshot's manifest, and the state to be reached."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from replicad.errors import Damaged
from replicad.plan.target import format_ms
from replicad.position import Position
from replicad.restore.faults import suspected
from replicad.restore.request import Estimate
from replicad.restore.rollups import TAIL_BYTES, open_at
from replicad.restore.segments import WHOLE_BYTES, OpenSegment
from replicad.restore.together import task_group
from replicad.snapshot import Manifest, decode_manifest

if TYPE_CHECKING:
    from replicad.plan.listing import SegmentObject
    from replicad.plan.restore import RestorePlan
    from replicad.plan.target import Target
    from replicad.restore.fetch import Fetch

_OPENING_REQUESTS = 2  # tail and head of a large segment


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """A plan, and what its snapshot and its newest segment say."""

    plan: RestorePlan
    manifest: Manifest
    newest: OpenSegment | None  # the segment that holds the target; None: the snapshot alone is the target
    position: Position  # to be reached
    commit_ms: int

    @property
    def database_bytes(self) -> int:
        """Size of the database file."""
        return self.position.pages * self.manifest.page_size

    @property
    def total_bytes(self) -> int:
        """The most that is fetched for segments and chunks."""
        return self.plan.log_bytes + self.manifest.stored_bytes

    def described(self) -> dict[str, object]:
        """Return where in the history this is, for the log."""
        return {
            "epoch": self.position.epoch,
            "txid": self.position.txid,
            "committed_at": format_ms(self.commit_ms),
            "database_bytes": self.database_bytes,
        }

    def estimate(self, target: Target) -> Estimate:
        """Return what carrying the plan out takes at most."""
        stored = [part.stored.stored for part in self.plan.segments]
        # the newest is looked into first; of a roll-up, what is found there is fetched once more with the others
        twice = [one for one in stored[-1:] if one.is_rollup]
        chunks = {chunk.key: chunk.stored_bytes for chunk in self.manifest.chunks}
        return Estimate(
            target=target,
            position=self.position,
            commit_ms=self.commit_ms,
            page_size=self.manifest.page_size,
            snapshot=self.plan.manifest.name,
            segments=tuple(part.name for part in self.plan.segments),
            fetched_bytes=sum(map(_bytes, stored + twice)) + sum(chunks.values()) + self.plan.manifest.size_bytes,
            requests=sum(map(_requests, stored + twice)) + len(chunks) + 1,
        )


async def prepare(fetch: Fetch, plan: RestorePlan) -> Preparation:
    """Read the manifest, and the newest segment's index.

    Raises:
        Unusable: one of the two cannot be used.
        ReplicadError: the store failed.
    """
    async with task_group() as group:
        reading = group.create_task(_read_manifest(fetch, plan))
        newest = await _open_newest(fetch, plan)
    manifest = reading.result()
    if newest is None:
        return Preparation(
            plan=plan, manifest=manifest, newest=None, position=manifest.position, commit_ms=manifest.commit_ms
        )
    part = plan.segments[-1]
    if newest.index.header.page_size != manifest.page_size:
        with suspected(part.name, plan.manifest.name):
            found = newest.index.header.page_size
            raise Damaged(what=part.name, where="page_size", expected=manifest.page_size, found=found)
    state = newest.state_after(plan.txid)
    position = Position(epoch=part.stored.stored.key.epoch, txid=plan.txid, checksum=state.checksum, pages=state.pages)
    return Preparation(
        plan=plan, manifest=manifest, newest=newest, position=position, commit_ms=newest.commit_ms(plan.txid)
    )


async def _read_manifest(fetch: Fetch, plan: RestorePlan) -> Manifest:
    name = plan.manifest.name
    with suspected(name):
        manifest = await fetch.proven(name, partial(decode_manifest, what=name))
        _check_identity(plan, manifest)
    return manifest


async def _open_newest(fetch: Fetch, plan: RestorePlan) -> OpenSegment | None:
    if not plan.segments:
        return None
    part = plan.segments[-1]
    with suspected(part.name):
        return await open_at(fetch, part.stored, plan.txid, database_id=plan.line.database_id)


def _bytes(stored: SegmentObject) -> int:
    """Return how much is fetched of an object at most; of a large roll-up, more of its end than its directory."""
    return stored.size_bytes + (TAIL_BYTES if stored.is_rollup and stored.size_bytes > WHOLE_BYTES else 0)


def _requests(stored: SegmentObject) -> int:
    """Return how many requests an object takes at most; in a roll-up nothing is cut to fill one."""
    ranges = -(-stored.size_bytes // WHOLE_BYTES)
    if ranges == 1:
        return 1
    return _OPENING_REQUESTS + (2 * ranges if stored.is_rollup else ranges)


def _check_identity(plan: RestorePlan, manifest: Manifest) -> None:
    key = plan.manifest.key
    for where, expected, found in (
        ("database_id", plan.line.database_id, manifest.database_id),
        ("epoch", key.epoch, manifest.epoch),
        ("txid", key.txid, manifest.txid),
        ("commit_ms", key.ms, manifest.commit_ms),
    ):
        if expected != found:
            raise Damaged(what=plan.manifest.name, where=where, expected=expected, found=found)
