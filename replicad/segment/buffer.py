"""Where the page images of a block gather."""

from __future__ import annotations


class BlockBuffer:
    """Memory that the page images of a block gather in, for one encoder at a time.

    New memory costs more than what is copied into it: whoever writes segment behind segment hands it on.
    """

    def __init__(self) -> None:
        self._raw = bytearray()

    def reach(self, size_bytes: int, *, used_bytes: int, most_bytes: int) -> memoryview:
        """Return all of it, grown to at least this size, and at most to `most_bytes`; what is used is kept."""
        if size_bytes > len(self._raw):
            grown = bytearray(min(max(size_bytes, 2 * len(self._raw)), most_bytes))
            with memoryview(self._raw) as old:
                grown[:used_bytes] = old[:used_bytes]
            self._raw = grown
        return memoryview(self._raw)

    def release(self) -> None:
        """Give the memory back."""
        self._raw = bytearray()
