"""Which history a follower writes into, and as whom."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicad.position import Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """The epoch this instance owns."""

    database_id: str  # random, made once with the first epoch: no object of another database fits in
    epoch: Epoch
    claim_id: str
    records: Mapping[str, bytes] = field(default_factory=dict)  # by key: what the epoch cannot be restored without
