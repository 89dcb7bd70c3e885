"""What a node is told when its storage fails: the file, the cause, and what to do about it."""

import errno
import sqlite3
from pathlib import Path
from typing import Final

from ..core.errors import Corrupt, LessorError


class StorageFailed(LessorError):
    """A file of this node could not be read or written: a full disk, missing rights, a failing device.

    The node stops, and what it was writing may or may not be there when it starts again. A sync that failed is never
    tried again: the operating system reports a lost page once, and calls the next sync of it a success.
    """

    indefinite = True


class StorageForbidden(StorageFailed):
    """The node's user may not use a file or directory, or it lies where nothing can be written: an operator must."""


_REMEDIES: Final = {
    sqlite3.SQLITE_FULL: "the disk is full: make room, then start the node again",
    sqlite3.SQLITE_IOERR: (
        "the disk reports an error, or a quota or a limit on the size of files is reached: read the kernel's log, "
        "mend the cause, then start the node again"
    ),
    sqlite3.SQLITE_CANTOPEN: "let the node's user read and write this file and its directory, then start it again",
    sqlite3.SQLITE_PERM: "let the node's user read and write this file and its directory, then start it again",
    sqlite3.SQLITE_READONLY: "let the node's user write this file and its directory, then start it again",
    sqlite3.SQLITE_BUSY: "another program works on this file: end it, then start the node again",
    sqlite3.SQLITE_LOCKED: "another program works on this file: end it, then start the node again",
    sqlite3.SQLITE_PROTOCOL: "another program works on this file: end it, then start the node again",
    sqlite3.SQLITE_NOMEM: "the machine is out of memory: give it more, then start the node again",
}
_DAMAGE: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_FORBIDDEN: Final = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY)
_FORBIDDEN_ERRNO: Final = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR)


def leave_out(node: int) -> str:
    """Return what to do about a node whose promises are lost, in words."""
    return f'leave node {node} out, the others go on without it (docs/operations.md, "A lost node")'


def damaged(path: Path, node: int, what: str) -> Corrupt:
    """Return the error that says that a file of `node` holds what it cannot hold."""
    return Corrupt(
        f"{path} is damaged: {what}. No copy can restore it, since a copy has forgotten what the node promised since: "
        + leave_out(node)
    )


def failed(error: BaseException, path: Path, node: int, doing: str, *, reading: bool) -> LessorError:
    """Return the error that says why SQLite failed: `Corrupt` when what it read makes no sense, else `StorageFailed`.

    `doing` completes the sentence "cannot ... FILE". An error without a known cause in the environment is taken for
    damage if the file was being `reading`, since our statements are constant and fit the schema.
    """
    code = getattr(error, "sqlite_errorcode", None)  # absent where the error is Python's own, as for text not in UTF-8
    primary = None if code is None else code & 0xFF
    remedy = _REMEDIES.get(primary) if primary is not None else None
    if primary in _DAMAGE or (reading and remedy is None):
        return damaged(path, node, str(error))
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    kind = StorageForbidden if primary in _FORBIDDEN else StorageFailed
    return kind(f"cannot {doing} {path}: {error} ({name}); {remedy or 'the node stops, start it again'}")


def unusable(error: OSError, path: Path) -> StorageFailed:
    """Return the error that says why a data directory cannot be used."""
    why = f"cannot use the data directory {path}: {error.strerror}; "
    if error.errno in _FORBIDDEN_ERRNO:
        return StorageForbidden(f"{why}let the node's user read and write it, or give --data another one")
    return StorageFailed(f"{why}mend the cause, then start the node again, or give --data another one")
