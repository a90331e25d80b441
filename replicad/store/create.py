"""Creating an object that only one of several contenders may create, over a network that loses answers.

A create ends in yes, no, or silence, and even a "no" may be the refusal of one's own success. So whatever
is not a plain yes is settled by reading the key back: the body says who wrote it.
"""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from replicad.errors import (
    ConditionalWritesUnsupported,
    CreateUndecided,
    ObjectExists,
    ObjectMissing,
    StoreRefused,
    StoreUnreachable,
)
from replicad.layout import PROBES
from replicad.observe import events
from replicad.observe.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicad.store.protocol import ObjectStore


_ATTEMPTS = 8
_MAX_WAIT_SECONDS = 2.0


async def create_settled(  # noqa: PLR0913 - the last two are for tests of impatient callers
    store: ObjectStore,
    key: str,
    body: bytes,
    *,
    is_mine: Callable[[bytes], bool],
    attempts: int = _ATTEMPTS,
    max_wait_seconds: float = _MAX_WAIT_SECONDS,
) -> bool:
    """Create an object and find out who did.

    Args:
        store: The store; its `create` must make one attempt that nothing repeats.
        key: The key contended for.
        body: What to write, the same at each attempt. It holds something only this contender knows.
        is_mine: Whether a body read back was written by this contender.
        attempts: How many times to try when nobody has the key and no answer says why.
        max_wait_seconds: The longest pause between two attempts.

    Returns:
        True when the object under the key is this contender's, False when it is another's.

    Raises:
        CreateUndecided: it is still open after all attempts. The object may yet appear: treat the key as
            perhaps one's own, and perhaps not.
        StoreUnreachable: the store was not reached at all.
        StoreRefused: also as ConditionalWritesUnsupported.
    """
    return await _until_decided(attempts, max_wait_seconds)(_create_once, store, key, body, is_mine)


async def _create_once(store: ObjectStore, key: str, body: bytes, is_mine: Callable[[bytes], bool]) -> bool:
    try:
        await store.create(key, body)
    except (ObjectExists, CreateUndecided) as answer:
        try:
            mine = is_mine(await store.get(key))
        except ObjectMissing:
            raise CreateUndecided(store=store.url, key=key, found=f"{answer} It was not there afterwards.") from answer
        if mine or isinstance(answer, CreateUndecided):  # else it was a plain no
            get_logger().info(events.LOST_ANSWER_SETTLED, store=store.url, key=key, ours=mine)
        return mine
    return True


async def probe_conditional_writes(store: ObjectStore) -> bool:
    """Return whether the store keeps a create from replacing an object, by trying it on a random key.

    It does when it says no to a second create, and the first body is still there.

    Raises:
        CreateUndecided: the store left it open each time.
        StoreUnreachable: the store was not reached.
        StoreRefused: the store does not let us write or read.
    """
    key = f"{PROBES}{secrets.token_hex(16)}"
    first, second = secrets.token_bytes(16), secrets.token_bytes(16)
    try:
        await create_settled(store, key, first, is_mine=first.__eq__)
        refused: bool = await _until_decided(_ATTEMPTS, _MAX_WAIT_SECONDS)(_is_refused, store, key, second)
        return refused and await store.get(key) == first
    except ConditionalWritesUnsupported:
        return False
    finally:
        with contextlib.suppress(StoreRefused, StoreUnreachable):  # 16 bytes left behind change no answer
            await store.delete([key])


async def _is_refused(store: ObjectStore, key: str, body: bytes) -> bool:
    """Return whether the store says no to the creation of a key that is taken.

    Here an undecided create is not settled by finding the old body: the request may have been lost on its way, and
    would have replaced the object had it arrived.
    """
    try:
        await store.create(key, body)
    except ObjectExists:
        return True
    except CreateUndecided:
        if await store.get(key) == body:
            return False
        raise
    return False


def _until_decided(attempts: int, max_wait_seconds: float) -> AsyncRetrying:
    return AsyncRetrying(
        stop=stop_after_attempt(attempts),
        wait=wait_random_exponential(multiplier=0.05, max=max_wait_seconds),
        retry=retry_if_exception_type((CreateUndecided, StoreUnreachable)),
        reraise=True,
    )
