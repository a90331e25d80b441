"""Importing libraries without what they bring along for nobody here: time of every start, memory of every daemon."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def without_module(name: str) -> Iterator[None]:
    """Hide a module that a library can do without, unless it is loaded already."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # None makes an import fail, as documented
    try:
        yield
    finally:
        del sys.modules[name]


@contextmanager
def without_trusted_roots() -> Iterator[None]:
    """Keep this thread's TLS contexts from reading the system's certificates, which takes 25 ms each.

    For importing aiohttp, which makes two contexts in case somebody connects without one. Nobody does here: the S3
    client brings its own for every https endpoint. A context made in here trusts no certificate at all, so that
    a connection over it would fail rather than be unsafe.
    """
    import ssl  # noqa: PLC0415 - most commands need no TLS
    import threading  # noqa: PLC0415 - likewise

    importing, read = threading.get_ident(), ssl.SSLContext.set_default_verify_paths

    def skip(context: ssl.SSLContext) -> None:
        if threading.get_ident() != importing:
            read(context)

    ssl.SSLContext.set_default_verify_paths = skip  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        ssl.SSLContext.set_default_verify_paths = read  # type: ignore[method-assign]
