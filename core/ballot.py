"""A ballot: the number under which one node proposes, unique to it and totally ordered (Paxos Made Simple, §2.2)."""

from typing import NamedTuple


class Ballot(NamedTuple):
    """Ordered by counter, then by node, so that no two nodes ever share one."""

    counter: int
    node: int

    def __str__(self) -> str:
        """Return `counter.node`, as it is shown to people."""
        return f"{self.counter}.{self.node}"


NO_BALLOT = Ballot(0, 0)
"""Below every ballot that anybody can propose under."""


def quorum(members: int) -> int:
    """Return how many of `members` nodes are a majority; any two majorities share a node.

    >>> [quorum(n) for n in (1, 2, 3, 4, 5)]
    [1, 2, 2, 3, 3]
    """
    return members // 2 + 1
