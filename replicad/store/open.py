"""Opening a store by its URL: the one place that knows all kinds of stores.

aiobotocore is imported when an `s3://` URL is opened and not before, in a thread: it takes a sixth of a
second and 25 MB.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from replicad.lean import without_trusted_roots
from replicad.store.memory import MemoryStore
from replicad.store.metered import MeteredStore
from replicad.store.options import StoreOptions
from replicad.store.prefixed import PrefixedStore
from replicad.store.retrying import RetryingStore, RetryPolicy
from replicad.store.url import DirectoryLocation, MemoryLocation, S3Location, parse_url

if TYPE_CHECKING:
    from types import ModuleType

    from replicad.store.metered import RequestObserver
    from replicad.store.protocol import ObjectStore

__all__ = ["StoreOptions", "open_store"]

_memory_stores: dict[str, MemoryStore] = {}


async def open_store(
    url: str,
    options: StoreOptions | None = None,
    *,
    observer: RequestObserver | None = None,
    only_to_read: bool = False,
) -> ObjectStore:
    """Return the store a replica URL names: measured, and tried again when it is out of reach.

    No request is made yet. The caller closes it.

    Args:
        url: the replica's URL.
        options: limits and credentials.
        observer: is told of every request; None: nobody is.
        only_to_read: for a command that reads and ends: an S3 bucket is then read without the SDK where that is
            possible (see `s3_direct`); all else still works.

    Raises:
        UsageError: it is not a replica URL.
        StoreRefused: there are no usable credentials.
        StoreUnreachable: the platform's credential service does not answer.
    """
    location = parse_url(url)
    limits = options or StoreOptions()
    policy = RetryPolicy.of(limits)
    match location:
        case S3Location():
            store: ObjectStore = RetryingStore(await _open_s3(location, limits, observer, direct=only_to_read), policy)
            return PrefixedStore(store, f"{location.prefix}/", shared=False) if location.prefix else store
        case DirectoryLocation():
            from replicad.store.directory import DirectoryStore  # noqa: PLC0415 - what an S3 store need not wait for

            plain: ObjectStore = DirectoryStore(location.root, threads=limits.concurrency)
        case MemoryLocation():
            plain = _memory_stores.setdefault(location.name, MemoryStore(location.name))
    return RetryingStore(MeteredStore(plain, observer) if observer is not None else plain, policy)


async def _open_s3(
    location: S3Location, options: StoreOptions, observer: RequestObserver | None, *, direct: bool
) -> ObjectStore:
    async def open_full() -> ObjectStore:
        s3 = await asyncio.to_thread(_import_s3)
        store: ObjectStore = await s3.open_s3(location, options, observer)
        return store

    if direct:
        from replicad.store.s3_access import plain_access  # noqa: PLC0415 - a daemon has no use for it
        from replicad.store.s3_direct import DirectReads  # noqa: PLC0415 - likewise

        access = await asyncio.to_thread(plain_access, location, options, os.environ)
        if access is not None:
            url = str(replace(location, prefix="", region=None, path_style=None))
            return DirectReads(access, options, open_full, observer=observer, url=url)
    return await open_full()


def _import_s3() -> ModuleType:
    with without_trusted_roots():
        from replicad.store import s3  # noqa: PLC0415 - see above

    return s3
