"""Integers of variable length: seven bits in each byte, the lowest first, the high bit on all but the last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.errors import Damaged

if TYPE_CHECKING:
    from collections.abc import Iterable

_MAX_BITS = 63  # shift of the last byte of a number of 64 bits
_MORE = 0x80
_SEVEN = 0x7F


def write_varints(output: bytearray, numbers: Iterable[int]) -> None:
    """Append unsigned numbers."""
    for number in numbers:
        rest = number
        while rest > _SEVEN:
            output.append(rest & _SEVEN | _MORE)
            rest >>= 7
        output.append(rest)


def folded(number: int) -> int:
    """Return a signed number as an unsigned one: 0, -1, 1, -2 as 0, 1, 2, 3."""
    return number << 1 if number >= 0 else ~(number << 1)


def differences(numbers: Iterable[int], *, before: int) -> list[int]:
    """Return how far each number lies from the one before it, folded."""
    steps: list[int] = []
    for number in numbers:
        steps.append(folded(number - before))
        before = number
    return steps


class Reader:
    """Takes numbers and bytes from the front of a buffer; whatever is not there is damage.

    Args:
        raw: the buffer.
        what: names the object in messages.
        where: names the part of it.
    """

    def __init__(self, raw: bytes | memoryview, *, what: str, where: str) -> None:
        self._raw = memoryview(raw)
        self._at = 0
        self._what = what
        self._where = where

    def varint(self) -> int:
        """Return the next number.

        Raises:
            Damaged: the buffer ends within it, or it has more than 64 bits.
        """
        raw, number, shift = self._raw, 0, 0
        for at in range(self._at, len(raw)):
            byte = raw[at]
            number |= (byte & _SEVEN) << shift
            if byte < _MORE:
                if number >> 64:
                    break
                self._at = at + 1
                return number
            shift += 7
            if shift > _MAX_BITS:
                break
        raise self._damaged("a whole number of at most 64 bits", f"{bytes(raw[self._at :][:10]).hex()} at {self._at}")

    def varints(self, count: int) -> list[int]:
        """Return the next numbers.

        Raises:
            Damaged: as `varint`; more numbers than there are bytes are refused before anything is read.
        """
        self._expect(count)
        varint = self.varint
        return [varint() for _ in range(count)]

    def sums(self, count: int, *, before: int) -> list[int]:
        """Return the next numbers, each stored as its folded difference to the one before it.

        Raises:
            Damaged: as `varints`.
        """
        numbers: list[int] = []
        for step in self.varints(count):
            before += (step >> 1) ^ -(step & 1)
            numbers.append(before)
        return numbers

    def take(self, n_bytes: int) -> memoryview:
        """Return the next bytes.

        Raises:
            Damaged: there are not so many.
        """
        self._expect(n_bytes)
        self._at += n_bytes
        return self._raw[self._at - n_bytes : self._at]

    def end(self) -> None:
        """Refuse what is left.

        Raises:
            Damaged: something is.
        """
        if self._at != len(self._raw):
            raise self._damaged(f"{self._at} bytes", f"{len(self._raw)}")

    def rest(self) -> memoryview:
        """Return what is left."""
        return self.take(len(self._raw) - self._at)

    def _expect(self, n_bytes: int) -> None:
        if n_bytes > len(self._raw) - self._at:
            raise self._damaged(f"at least {n_bytes} bytes from {self._at}", f"{len(self._raw) - self._at}")

    def _damaged(self, expected: str, found: str) -> Damaged:
        return Damaged(what=self._what, where=self._where, expected=expected, found=found)
