"""The C library's allocator, told to give back what is free: a restore is measured by the most memory it ever had."""

from __future__ import annotations

import ctypes

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # malloc.h
_LARGE_BYTES = 512 << 10
_ARENAS = 2


def give_back_large_blocks() -> None:
    """Have blocks from half a MiB on returned to the system as soon as they are free, and threads share arenas.

    By default glibc learns from the first large block that is freed to keep all of that size, in an arena of each
    thread: a dozen threads that each held one object of 1.5 MB now and then take 25 MB that nobody uses. Must be
    called before there are threads. Does nothing where the C library is another one.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_M_ARENA_MAX, _ARENAS)


def give_back_free_memory() -> None:
    """Return what is free to the system, between two parts of a work that need memory of their own. Takes some ms."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
