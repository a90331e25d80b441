"""What an error of the file system means to the caller of a store."""

from __future__ import annotations

import errno
import shutil
from typing import TYPE_CHECKING

from replicad.errors import NoSpace, ReplicadError, StoreRefused, StoreUnreachable

if TYPE_CHECKING:
    from pathlib import Path

NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})
"""How file systems without hard links (FAT, many mounted by FUSE) answer a link."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_IN_THE_WAY = frozenset(
    {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.EXDEV, errno.ELOOP}
)


def as_store_error(error: OSError, *, root: Path, operation: str, needed_bytes: int) -> ReplicadError:
    """Return the error to raise instead of `error`.

    No room is `NoSpace`; what another attempt will not mend is `StoreRefused`; all else, such as a server
    behind a mount that does not answer (EIO, ESTALE, ENOTCONN), is `StoreUnreachable`.
    """
    if error.errno in _FULL:
        return NoSpace(path=root, needed_bytes=needed_bytes, free_bytes=_free_bytes(root))
    kind = StoreRefused if error.errno in _FORBIDDEN | _IN_THE_WAY else StoreUnreachable
    return kind(store=f"file://{root}", operation=operation, found=error.strerror or repr(error))


def _free_bytes(root: Path) -> int:
    try:
        return shutil.disk_usage(root).free
    except OSError:
        return 0  # it was full a moment ago, and now cannot even be asked
