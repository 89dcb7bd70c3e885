"""The check that nothing acknowledged was lost from the middle of a write-ahead log, which SQLite does not make.

SQLite reads its log up to the first frame whose checksum is wrong and forgets what follows, since a crash leaves just
that: a last transaction half written. But when every transaction is synced before the next one begins, a broken frame
with *another* transaction behind it was whole once, and was acknowledged. Forgetting such a vote breaks a promise.

Damage to the very last transaction cannot be told from a torn write, and counts as one; so does, now and then, the
loss of the last frame of the transaction before it, which makes one of the two.
(The format: https://www.sqlite.org/fileformat2.html#the_write_ahead_log.)
"""

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_HEADER: Final = struct.Struct(">8I")  # magic, version, page size, checkpoint, salt 1, salt 2, checksum 1, checksum 2
_FRAME: Final = struct.Struct(">6I")  # page, pages after the commit or 0, salt 1, salt 2, checksum 1, checksum 2
_MAGIC: Final = 0x377F0682  # its last bit says that the checksums are of big-endian words
_WORD: Final = 0xFFFFFFFF
PAGE_BYTES_MIN: Final = 512
SECTOR_BYTES: Final = 512
"""What a disk writes as a whole or not at all, at the least."""


def log_of(path: Path) -> Path:
    """Return where SQLite keeps the write-ahead log of a database."""
    return path.with_name(path.name + "-wal")


def damage(path: Path) -> str | None:
    """Return what is wrong with the write-ahead log of a database that nobody has open, None if nothing is.

    Raises:
        OSError: the log cannot be read.
    """
    try:
        log = log_of(path).read_bytes()
    except FileNotFoundError:
        return None
    if len(log) <= _HEADER.size or not log.strip(b"\0"):
        return None  # as a crash leaves it that came before the log's first sync
    magic, _, page_bytes, _, salt1, salt2, *expected = _HEADER.unpack_from(log)
    pairs = struct.Struct(">2I" if magic & 1 else "<2I")
    checksum = _checksum(pairs, log[:24], (0, 0))
    if magic & ~1 != _MAGIC or checksum != tuple(expected) or page_bytes < PAGE_BYTES_MIN:
        return "the header of its write-ahead log is wrong"
    step = _FRAME.size + page_bytes
    frames = [(start, _FRAME.unpack_from(log, start)) for start in range(_HEADER.size, len(log) - step + 1, step)]
    for index, (start, (_, _, frame_salt1, frame_salt2, *stored)) in enumerate(frames):
        checksum = _checksum(pairs, log[start : start + 8], checksum)
        checksum = _checksum(pairs, log[start + _FRAME.size : start + step], checksum)
        ours = (frame_salt1, frame_salt2) == (salt1, salt2)
        if checksum == tuple(stored) and ours:
            continue
        if checksum == tuple(stored) and _lies_in_one_sector(start):
            return f"frame {index + 1} of its write-ahead log has lost its mark"
        later = (
            frame for start, frame in frames[index:] if frame[2:4] == (salt1, salt2) and _lies_in_one_sector(start)
        )
        if _are_of_several(later):
            return f"frame {index + 1} of its write-ahead log is wrong, and what was committed after it would be lost"
        return None  # the rest is of the log's former round, or of the transaction that the crash cut off
    return None


def _lies_in_one_sector(start: int) -> bool:
    """Return whether the head of a frame is of one piece, not half new and half of what a torn write left there."""
    return start // SECTOR_BYTES == (start + _FRAME.size - 1) // SECTOR_BYTES


def _are_of_several(frames: Iterable[tuple[int, ...]]) -> bool:
    """Return whether these are certainly frames of more than one transaction.

    Each transaction ends with the one frame that says how large the database is by then, and writes no page twice
    before that frame.
    """
    commits = 0
    pages = set()
    for page, pages_after_commit, *_ in frames:
        if pages_after_commit:
            commits += 1
        elif page in pages:
            return True
        else:
            pages.add(page)
    return commits > 1


def _checksum(pairs: struct.Struct, data: bytes, start: tuple[int, int]) -> tuple[int, int]:
    first, second = start
    for left, right in pairs.iter_unpack(data):
        first = (first + left + second) & _WORD
        second = (second + right + first) & _WORD
    return first, second
