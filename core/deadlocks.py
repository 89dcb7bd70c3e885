"""Deadlocks among claims taken one after another: a circle of flows of control that all wait for each other.

A flow that asks for one claim after another stands still while it waits for one. Sets asked for at once need none of
this: a claim enters all its queues together.
"""

import itertools

from . import limits
from .claims import Claims
from .records import ClaimRecord
from .results import ChainLink, DeadlockDetected

NAME_FRAME_BYTES = 3


class Deadlocks:
    """Finds the circle that a claim would close."""

    def __init__(self, claims: Claims) -> None:
        """Look at these claims."""
        self._claims = claims
        claims.find_circle = self.find

    def find(self, claim: ClaimRecord) -> DeadlockDetected | None:
        """Return the circle that would close if this claim had to wait, None if there is none.

        The search is bounded by numbers that are the same on every node; what lies beyond is not found.
        """
        claims = self._claims
        own = (claim.session, claim.chain)
        oldest = itertools.islice(claims.chains.get(own, ()), limits.DEADLOCK_LOOK_MAX)
        if not any(claims.all[other].token for other in oldest):
            return None  # who holds nothing is waited for by nobody
        came_from: dict[int, int] = {}
        reached: dict[tuple[int, int], None] = {}
        waiting = [claim]
        left = limits.DEADLOCK_LOOK_MAX
        while waiting and left >= 0:
            one = waiting.pop()
            blockers, looked = claims.queues_of(one.namespace).in_the_way(one.claim, one.resources, left)
            left -= looked
            for number in blockers:
                blocker = claims.all.get(number)
                if blocker is None or not blocker.chain:
                    continue
                chain = (blocker.session, blocker.chain)
                if chain in reached or (one.watermark and not _observed(one, blocker)):
                    continue
                reached[chain] = None
                came_from[number] = one.claim
                if chain == own:
                    return self._circle(number, claim.claim, came_from)
                latest = reversed(claims.chains.get(chain, {}))  # who stands still waits for what it asked for last
                for other in itertools.islice(latest, max(0, left)):
                    next_one = claims.all[other]
                    left -= 1 if next_one.token else len(next_one.resources)
                    if not next_one.token:
                        if other != number:
                            came_from[other] = number
                        waiting.append(next_one)
        return None

    def _circle(self, last: int, first: int, came_from: dict[int, int]) -> DeadlockDetected:
        links: list[ChainLink] = []
        number, size, left_out = last, 0, 0
        while number != first:
            claim = self._claims.all[number]
            if claim.token or not links:
                link = ChainLink(claim.holder, claim.namespace, claim.resources[0].path, claim.token)
                size += sum(len(name.encode()) + NAME_FRAME_BYTES for name in (link.holder, link.namespace, *link.path))
                if not links or (size <= limits.CIRCLE_BYTES_MAX and len(links) < limits.CIRCLE_LINKS_MAX):
                    links.append(link)
                else:
                    left_out += 1
            number = came_from[number]
        return DeadlockDetected(tuple(reversed(links)), left_out)


def _observed(observer: ClaimRecord, other: ClaimRecord) -> bool:
    """Return whether an observer waits for the end of a claim: of each grant that it found, and of all below."""
    path = observer.resources[0].path
    below = any(len(each.path) > len(path) and each.path[: len(path)] == path for each in other.resources)
    return other.token > 0 and (below or other.token <= observer.watermark)
