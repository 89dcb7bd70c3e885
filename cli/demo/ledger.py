"""The shared file that the demo's clients guard, with a detector of overlaps that does not believe in locks.

Whoever holds the lock leaves marks that only an exclusive holder can leave undisturbed: a marker file that must not be
there yet, its token in a file where nobody else's may appear before it leaves, and a record of entering and of leaving
in a file that is only ever appended to. Afterwards the records are judged, by their order and by their times.
"""

import os
import time
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final

ENTER: Final = "enter"
LEAVE: Final = "leave"
RELEASED: Final = "released"
OVERLAP: Final = "overlap"  # what a client noticed itself
STALE: Final = "stale"  # the guarded file had seen a higher token
LOST: Final = "lost"
FAILED: Final = "failed"


@dataclass(frozen=True, slots=True)
class Record:
    """One line of the ledger; times are of the monotonic clock, which all processes of a machine share."""

    kind: str
    token: int
    client: str
    at_ns: int
    detail: str = ""


class Ledger:
    """The shared file, as one client sees it."""

    def __init__(self, directory: Path, client: str) -> None:
        """Open it; every client of a directory sees the same."""
        self._client = client
        self._marker = directory / "occupied"
        self._records = os.open(directory / "ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._guarded = os.open(directory / "guarded", os.O_RDWR | os.O_CREAT, 0o644)

    def enter(self, token: int) -> None:
        """Begin to work under `token`."""
        self.record(ENTER, token)
        try:
            os.close(os.open(self._marker, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            self.record(OVERLAP, token, "somebody else's marker is there")
        if self._last_token() >= token:
            self.record(STALE, token, f"the file has seen token {self._last_token()}")
        os.pwrite(self._guarded, f"{token:20}".encode(), 0)

    def leave(self, token: int) -> None:
        """End the work under `token`."""
        if self._last_token() != token:
            self.record(OVERLAP, token, f"token {self._last_token()} was written meanwhile")
        try:
            self._marker.unlink()
        except FileNotFoundError:
            self.record(OVERLAP, token, "somebody else has removed the marker")
        self.record(LEAVE, token)

    def record(self, kind: str, token: int, detail: str = "") -> None:
        """Append a record; short lines are appended whole, by the rules of O_APPEND."""
        line = f"{kind} {token} {self._client} {time.monotonic_ns()} {detail}".strip()
        os.write(self._records, line.encode() + b"\n")

    def close(self) -> None:
        """Close the files."""
        os.close(self._records)
        os.close(self._guarded)

    def _last_token(self) -> int:
        return int(os.pread(self._guarded, 20, 0).strip() or b"0")


class LedgerReader:
    """Follows the ledger as it grows."""

    def __init__(self, directory: Path) -> None:
        """Start at its beginning; it need not be there yet."""
        self._path = directory / "ledger"
        self._read_upto = 0
        self.records: list[Record] = []

    def read(self) -> list[Record]:
        """Return what was added since the last time."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read_upto)
                text = file.read()
        except FileNotFoundError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._read_upto += len(whole)
        added = [_parse(line) for line in whole.decode().splitlines()]
        self.records += added
        return added


def _parse(line: str) -> Record:
    kind, token, client, at_ns, *detail = line.split(" ", 4)
    return Record(kind, int(token), client, int(at_ns), *detail)


@dataclass(slots=True)
class Verdict:
    """What the records show."""

    acquisitions: int = 0
    overlaps: int = 0
    tokens_increasing: bool = True
    entered_ns: list[int] = field(default_factory=list)
    spans: dict[int, tuple[int, int, str]] = field(default_factory=dict)  # by token: entered, left, client
    released: dict[int, bool] = field(default_factory=dict)
    lost: int = 0
    failures: list[str] = field(default_factory=list)

    def held_at(self, from_ns: int, to_ns: int) -> int:
        """Return the token under which somebody was at work from one moment to another, 0 if nobody was."""
        return next((token for token, (start, end, _) in self.spans.items() if start <= from_ns and end >= to_ns), 0)

    def longest_gap_ns(self, since_ns: int, until_ns: int) -> int:
        """Return the longest time without a grant that ended after `since_ns`, or had not ended at `until_ns`."""
        entered = sorted(self.entered_ns)
        first = max(0, bisect_right(entered, since_ns) - 1)
        moments = [*entered[first:], until_ns]
        return max((later - earlier for earlier, later in pairwise(moments)), default=0)


def judge(records: list[Record]) -> Verdict:
    """Judge the records, given in the order in which they were appended.

    A hold overlaps if it begins, by the order or by the times, before every earlier one has ended; or if its client
    found traces of somebody else. A hold that has no end is one that goes on.
    """
    verdict = Verdict()
    entered: dict[int, Record] = {}
    overlapping: set[int] = set()
    latest_end = last_token = 0
    for record in records:
        match record.kind:
            case "enter":
                verdict.acquisitions += 1
                verdict.entered_ns.append(record.at_ns)
                if entered or record.at_ns < latest_end:
                    overlapping.add(record.token)
                if record.token <= last_token:
                    verdict.tokens_increasing = False
                last_token = max(last_token, record.token)
                entered[record.token] = record
            case "leave":
                started = entered.pop(record.token, None)
                latest_end = max(latest_end, record.at_ns)
                if started is not None:
                    verdict.spans[record.token] = (started.at_ns, record.at_ns, record.client)
            case "overlap":
                overlapping.add(record.token)
            case "stale":
                verdict.tokens_increasing = False
            case "released":
                verdict.released[record.token] = record.detail == "held"
            case "lost":
                verdict.lost += 1
            case _:
                verdict.failures.append(f"{record.client}: {record.detail}")
    verdict.overlaps = len(overlapping)
    return verdict
