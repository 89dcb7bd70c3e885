"""Leases that have lapsed: ended by themselves or by an operator; they can be read for a while, and keep a name closed.

TrexLock shows an entry after its expiry, until the lock is taken again; Consul keeps a lock closed for a delay after an
unclean end. What was released leaves nothing behind.

What keeps a name closed is bounded as a claim is: it counts as one until the name opens. Only what is open is
forgotten, whatever is closed before it.
"""

import bisect

from . import limits
from .book import Book, Key
from .records import ClaimRecord, LapsedRecord
from .resources import Resource
from .results import Lapsed


class Lapses:
    """The leases that lapsed of late."""

    def __init__(self, book: Book) -> None:
        """Start with none."""
        self.changed: dict[int, None] = {}
        self._book = book
        self._lapses: dict[int, LapsedRecord] = {}  # in the order of their numbers: by when they ended
        self._open: list[int] = []  # those of them that keep no name closed, in the same order
        self._closed: dict[str, int] = {}  # how many of the others there are in each namespace
        self._by_key: dict[Key, dict[int, None]] = {}
        self._by_claim: dict[int, int] = {}

    def __len__(self) -> int:
        """Return how many are kept."""
        return len(self._lapses)

    @property
    def closed(self) -> int:
        """How many of them keep names closed."""
        return len(self._lapses) - len(self._open)

    def closed_in(self, namespace: str) -> int:
        """Return how many of them keep names of this namespace closed."""
        return self._closed.get(namespace, 0)

    def add(self, claim: ClaimRecord, why: str, delay_ms: int) -> int:
        """Keep a lease that has just lapsed; return its number."""
        clock_ms = self._book.clock_ms
        record = LapsedRecord(
            number=self._book.next_item(),
            claim=claim.claim,
            namespace=claim.namespace,
            resources=claim.resources,
            holder=claim.holder,
            token=claim.token,
            since_ms=claim.since_ms,
            ended_at_ms=clock_ms,
            closed_until_ms=clock_ms + delay_ms if delay_ms else 0,
            why=why,
        )
        self.restore(record)
        self._forget_the_oldest()
        return record.number

    def restore(self, record: LapsedRecord) -> None:
        """Take in a record, with a higher number than those before."""
        self._lapses[record.number] = record
        if record.closed_until_ms:
            self._closed[record.namespace] = self.closed_in(record.namespace) + 1
        else:
            self._open.append(record.number)
        self._book.room.take(record)
        self._by_claim[record.claim] = record.number
        for resource in record.resources:
            self._by_key.setdefault((record.namespace, resource.path), {})[record.number] = None
        self.changed[record.number] = None

    def opened(self, number: int) -> LapsedRecord | None:
        """Have the names of a lease no longer be closed, and return it; None if it is gone."""
        record = self._lapses.get(number)
        if record is None or not record.closed_until_ms:
            return None
        record.closed_until_ms = 0
        self.changed[number] = None
        left = self._closed.pop(record.namespace) - 1
        if left:
            self._closed[record.namespace] = left
        bisect.insort(self._open, number)
        self._forget_the_oldest()
        return record

    def forget(self, namespace: str, resources: tuple[Resource, ...]) -> None:
        """Forget what lapsed on paths that are granted again."""
        for resource in resources:
            for number in list(self._by_key.get((namespace, resource.path), ())):
                if not self._lapses[number].closed_until_ms:
                    self._drop(self._lapses[number])

    def sweep(self) -> None:
        """Forget what has been readable for long enough, and is no longer closed."""
        late_ms = self._book.clock_ms - limits.LAPSED_KEPT_MS
        while self._open and self._lapses[self._open[0]].ended_at_ms <= late_ms:
            self._drop(self._lapses[self._open[0]])

    def find(self, namespace: str, path: tuple[str, ...]) -> Lapsed | None:
        """Return the lease that last lapsed on a path, if it is remembered."""
        numbers = self._by_key.get((namespace, path))
        if not numbers:
            return None
        record = self._lapses[max(numbers)]
        return Lapsed(
            record.claim,
            record.holder,
            record.token,
            record.since_ms,
            record.ended_at_ms,
            record.closed_until_ms,
            record.why,
        )

    def of(self, claim: int) -> LapsedRecord | None:
        """Return what is remembered of a claim that lapsed."""
        number = self._by_claim.get(claim)
        return None if number is None else self._lapses[number]

    def why(self, claim: int) -> str:
        """Return why a claim lapsed, "" if it did not or that is forgotten."""
        record = self.of(claim)
        return "" if record is None else record.why

    def record(self, number: int) -> LapsedRecord | None:
        """Return a lapsed lease as it is kept on disk, None if it is no more."""
        return self._lapses.get(number)

    def records(self) -> list[LapsedRecord]:
        """Return every lapsed lease in the order of their numbers."""
        return list(self._lapses.values())

    def _forget_the_oldest(self) -> None:
        while len(self._open) > limits.LAPSED_MAX:
            self._drop(self._lapses[self._open[0]])

    def _drop(self, record: LapsedRecord) -> None:
        """Forget one that is open."""
        del self._lapses[record.number]
        del self._open[bisect.bisect_left(self._open, record.number)]
        self._book.room.give(record)
        self.changed[record.number] = None
        del self._by_claim[record.claim]
        for resource in record.resources:
            key = record.namespace, resource.path
            numbers = self._by_key[key]
            numbers.pop(record.number, None)
            if not numbers:
                del self._by_key[key]
