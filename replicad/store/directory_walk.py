"""Which names in a folder are keys, and how to list them in key order without reading more than is asked."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from replicad.store.protocol import StoredObject

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

UNFINISHED = ".unfinished"
"""The folder below the root for files not yet given their name; its name begins no key."""

_MAX_NAME_BYTES = 255


def is_key(key: str) -> bool:
    """Return whether a key can be the name of a file below the root.

    S3 would take more: empty parts, dots, parts over 255 bytes. replicad writes none of them.
    """
    parts = key.split("/")
    return (
        parts[0] != UNFINISHED
        and "\0" not in key
        and all(part not in {"", ".", ".."} and len(os.fsencode(part)) <= _MAX_NAME_BYTES for part in parts)
    )


def walk(root: Path, prefix: str, after: str) -> Iterator[StoredObject]:
    """Yield the objects below `root` whose key begins with `prefix` and sorts behind `after`, in key order.

    A folder sorts as its name with a slash behind it: `a-b` comes before `a/b`. Folders outside the range are
    not read. What vanishes meanwhile, is no regular file or has a name that is no text is passed over.
    """
    yield from _walk(root, "", prefix, after)


def _walk(folder: Path, above: str, prefix: str, after: str) -> Iterator[StoredObject]:
    try:
        with os.scandir(folder) as entries:
            found = sorted((_sort_key(entry), entry) for entry in entries if _is_text(entry.name))
    except FileNotFoundError:
        return
    except NotADirectoryError:
        if not above:
            raise  # the root itself is a file: that is no empty store
        return
    for name, entry in found:
        key = above + name
        if name.endswith("/"):
            if _reaches(key, prefix, after) and (above or name != f"{UNFINISHED}/"):
                yield from _walk(folder / entry.name, key, prefix, after)
        elif key.startswith(prefix) and key > after and entry.is_file(follow_symlinks=False):
            row = _row(key, entry)
            if row is not None:
                yield row


def _sort_key(entry: os.DirEntry[str]) -> str:
    return f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name


def _is_text(name: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in name)  # how Python shows undecodable bytes


def _reaches(folder_key: str, prefix: str, after: str) -> bool:
    """Return whether a folder can hold keys of the range; `folder_key` ends with a slash."""
    if not (folder_key.startswith(prefix) or prefix.startswith(folder_key)):
        return False
    return folder_key > after or after.startswith(folder_key)


def _row(key: str, entry: os.DirEntry[str]) -> StoredObject | None:
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    return StoredObject(key=key, size_bytes=status.st_size, modified_at=datetime.fromtimestamp(status.st_mtime, UTC))
