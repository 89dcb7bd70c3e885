"""P4: a claim or an extension that succeeded holds for at least its duration, counted from the start of the call."""

from typing import TYPE_CHECKING

from lessor.core import limits
from lessor.core.entries import Batch, Entry, Lead
from lessor.core.lease_state import Outcome
from lessor.core.results import Renewed

from ..clock import MS
from ..history import Verdict
from .base import Checker

if TYPE_CHECKING:
    from ..history import Op
    from ..node import Node
    from ..world import World

WHOLE_MS = 1
"""A clock in whole milliseconds shows up to one more between two moments than has passed, and so a lease may end early
by less than one. (A client takes it off its deadlines.)"""

DRIFT = limits.CLOCK_RATE_DRIFT_PPM / 1_000_000


class AtLeast(Checker):
    """The lease clock is never ahead of true time, from any slot to any later one; and no grant expires early."""

    promise = "P4"

    def __init__(self, world: "World") -> None:
        """Start with the clock at zero."""
        super().__init__(world)
        self.ahead_ms = 0.0  # how far the lease clock was ahead of true time at least, after any slot
        self.safe_until_us: dict[int, int] = {}  # by token, in true time

    def applied(self, node: "Node", slot: int, entry: bytes) -> None:
        """No node's lease clock may have come further than time has."""
        clock_ms = node.learner.state.clock_ms
        if clock_ms > self.world.now_us / MS * (1 + DRIFT):
            raise self.fail(f"the lease clock of node {node.number} is {clock_ms} ms")

    def outcome(self, slot: int, entry: Entry, outcome: Outcome) -> None:
        """Between any two stamps no more may have passed on the lease clock than in truth."""
        world = self.world
        state = world.referee.state
        if isinstance(entry, Lead) and entry.ballot != state.header.term:
            # a `Lead` is proposed once all before it is chosen, so every later leader finds that, and begins behind it
            raise self.fail(f"the term of {entry.ballot} begins in slot {slot}, in that of {state.header.term}")
        if isinstance(entry, Batch) and entry.term == state.header.term:
            stamped_us = world.referee.stamped_us.get((slot, entry.term))
            if stamped_us is not None:
                ahead_ms = state.clock_ms - stamped_us / MS * (1 + DRIFT)
                if ahead_ms > self.ahead_ms + WHOLE_MS:
                    raise self.fail(
                        f"the lease clock ran {ahead_ms - self.ahead_ms:.3f} ms faster than time by slot {slot}"
                    )
                self.ahead_ms = min(self.ahead_ms, ahead_ms)
        for event in outcome.events:
            until_us = self.safe_until_us.get(event.token, 0)
            if event.kind == "expired" and event.token and world.now_us <= until_us - WHOLE_MS * MS:
                early_ms = (until_us - world.now_us) / MS
                raise self.fail(f"token {event.token} expired {early_ms:.3f} ms before its time")

    def ended(self, op: "Op") -> None:
        """A call that succeeded says until when at least."""
        if (op.kind == "acquire" and op.verdict is Verdict.DONE and op.ttl_ms) or (
            op.kind == "renew" and isinstance(op.result, Renewed)
        ):
            self._until(op.token, op.start_us, op.ttl_ms)

    def _until(self, token: int, start_us: int, ttl_ms: int) -> None:
        until_us = start_us + int(ttl_ms * MS / (1 + DRIFT))
        self.safe_until_us[token] = max(self.safe_until_us.get(token, 0), until_us)
        story = self.world.ledger.grants.get(token)
        ended_us = None if story is None or story.ending != "expired" else story.ended_us
        if ended_us is not None and ended_us <= until_us - WHOLE_MS * MS:
            raise self.fail(f"token {token} had expired {(until_us - ended_us) / MS:.3f} ms before its time")
