"""Deadlines on the lease clock: a heap of what is due when; entries that no longer hold are skipped."""

import heapq
from collections.abc import Callable, Iterator

LEASE_ENDS, NAME_OPENS, WAIT_ENDS, SESSION_ENDS = range(4)
"""At the same millisecond a lease ends, and a closed name opens, before a waiter gives up: he gets his turn."""

Deadline = tuple[int, int, int]
"""When, what, and the number of the claim, session or lapsed lease."""


class Deadlines:
    """What is due, earliest first."""

    def __init__(self) -> None:
        """Start with nothing due."""
        self._heap: list[Deadline] = []

    def __len__(self) -> int:
        """Return how many entries there are, outdated ones among them."""
        return len(self._heap)

    def add(self, at_ms: int, kind: int, number: int) -> None:
        """Have something be due."""
        heapq.heappush(self._heap, (at_ms, kind, number))

    def due(self, clock_ms: int) -> Iterator[Deadline]:
        """Yield what is due at this time, in order, each when it is asked for: others may be added meanwhile."""
        while self._heap and self._heap[0][0] <= clock_ms:
            yield heapq.heappop(self._heap)

    def next_ms(self, outdated: Callable[[Deadline], bool]) -> int:
        """Return when the next thing is due, 0 if nothing is."""
        while self._heap and outdated(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else 0

    def weed(self, outdated: Callable[[Deadline], bool]) -> None:
        """Forget all that is outdated, and of several entries for one thing all but the first."""
        first: dict[tuple[int, int], Deadline] = {}
        for deadline in sorted(self._heap):
            if not outdated(deadline):
                first.setdefault(deadline[1:], deadline)
        self._heap = list(first.values())  # in order, and so a heap
