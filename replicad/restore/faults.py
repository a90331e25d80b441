"""What is wrong with an object of a plan, and which objects another plan should do without."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from replicad.errors import Damaged, ObjectMissing, ProofFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from replicad.errors import ReplicadError


class Unusable(Exception):
    """An object of the plan cannot be used.

    Args:
        error: what was found.
        suspects: keys of objects, one of which to leave out; the first whose absence leaves a way is.
        chunk: key of a chunk that is never to be fetched again, when it was one.
        unproven: the fault may lie in a chunk whose content was not compared with its name.
    """

    def __init__(self, error: ReplicadError, *suspects: str, chunk: str | None = None, unproven: bool = False) -> None:
        super().__init__(str(error))
        self.error = error
        self.suspects = suspects
        self.chunk = chunk
        self.unproven = unproven or isinstance(error, ProofFailed)


@contextmanager
def suspected(*suspects: str, chunk: str | None = None) -> Iterator[None]:
    """Turn "damaged" and "missing" inside into `Unusable`; the rest (a store away, a wrong key) is nobody's fault."""
    try:
        yield
    except (Damaged, ObjectMissing) as error:
        raise Unusable(error, *suspects, chunk=chunk) from error
