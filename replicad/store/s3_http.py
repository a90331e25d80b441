"""The HTTP layer under the S3 client: one request a call, and bodies that are sent without a copy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiobotocore.httpsession import AIOHTTPSession

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import ClientResponse, ClientSession

_SENT_AT_ONCE_BYTES = 256 << 10  # between two looks at whether the peer keeps up
_COPIED_BYTES = 64 << 10  # up to this a copy is cheap, and head and body travel in one packet


_UNSAID = ("amz-sdk-invocation-id", "amz-sdk-request", "accept-encoding", "accept")
"""What the SDK tells about itself, and what is asked of an answer that has no body: a fifth of the head of a PUT, and
of all that a small segment sends. No signature covers it."""


class SingleRequestSession(AIOHTTPSession):  # type: ignore[misc] # aiobotocore has no types
    """aiobotocore's HTTP session, with aiohttp kept from sending anything twice.

    When a connection breaks, aiohttp resends an idempotent request once by itself, whatever the retry settings
    say, and it follows redirects. A create whose answer is lost would then get a 412 for its own success.
    """

    async def _get_session(self, proxy_url: str | None) -> _WithoutRedirects:
        session = await super()._get_session(proxy_url)
        session._retry_connection = False  # noqa: SLF001 - aiohttp has no public switch
        return _WithoutRedirects(session)


class _WithoutRedirects:
    __slots__ = ("_session",)

    def __init__(self, session: ClientSession) -> None:
        self._session = session

    async def request(self, method: str, **arguments: Any) -> ClientResponse:  # noqa: ANN401 - aiohttp's arguments
        if method == "PUT":
            for name in _UNSAID:
                arguments["headers"].popall(name, None)
            arguments["skip_auto_headers"] = _UNSAID
        return await self._session.request(method, allow_redirects=False, **arguments)


def as_body(content: bytes) -> bytes | Body:
    """Return what to give botocore as the body of a request."""
    return content if len(content) <= _COPIED_BYTES else Body(content)


class Body:
    """Bytes as a request body that botocore can sign and aiohttp can send piece by piece.

    Given plain bytes, aiohttp copies them whole (and warns above 1 MiB); an `io.BytesIO` is copied as well.
    Views of the bytes are not.
    """

    def __init__(self, content: bytes) -> None:
        self._view = memoryview(content)
        self._at = 0

    def __len__(self) -> int:
        return len(self._view)

    def read(self, size_bytes: int = -1) -> memoryview:
        """Return the next `size_bytes`, all the rest when negative; empty at the end. For the signature."""
        end = len(self._view) if size_bytes < 0 else self._at + size_bytes
        piece = self._view[self._at : end]
        self._at += len(piece)
        return piece

    def tell(self) -> int:
        """Return the offset that `read` goes on from."""
        return self._at

    def seek(self, offset: int) -> int:
        """Let `read` go on from `offset`."""
        self._at = offset
        return offset

    async def __aiter__(self) -> AsyncIterator[memoryview]:
        for start in range(0, len(self._view), _SENT_AT_ONCE_BYTES):
            yield self._view[start : start + _SENT_AT_ONCE_BYTES]
