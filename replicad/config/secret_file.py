"""Secrets that stand in a file, as container platforms mount them."""

from __future__ import annotations

from pathlib import Path

from replicad.config.secret import Secret
from replicad.errors import UsageError

_MAX_SECRET_BYTES = 16 << 10


def read_secret(path: str, where: str) -> Secret:
    """Return the secret in a file, without the white space around it.

    Args:
        path: of the file; `~` is the home folder.
        where: how an error calls the place that names the file.

    Raises:
        UsageError: it cannot be read, or holds nothing.
    """
    try:
        with Path(path).expanduser().open("rb") as stream:
            text = stream.read(_MAX_SECRET_BYTES).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        found = getattr(error, "strerror", None) or "what is no text"
        raise UsageError(where=where, expected="a file with the secret", found=found, hint=path) from error
    if not text:
        raise UsageError(where=where, expected="a file with the secret", found="an empty file", hint=path)
    return Secret(text)
