"""P9: what was definitely not done was not done and will not be; what is said not to be held is not held."""

from typing import TYPE_CHECKING

from lessor.core.entries import Entry
from lessor.core.lease_state import Outcome
from lessor.core.results import NotHeld

from ..history import Verdict
from .base import Checker

if TYPE_CHECKING:
    from ..history import Op
    from ..world import World


class Definite(Checker):
    """Traces every grant to the call that asked for it, by the holder's name, which is the call's own."""

    promise = "P9"

    def __init__(self, world: "World") -> None:
        """Start with nothing denied."""
        super().__init__(world)
        self.denied: dict[str, Op] = {}
        self.refused: dict[int, Op] = {}  # releases that certainly do not happen, by token

    def ended(self, op: "Op") -> None:
        """A call ended: hold its word against the log."""
        ledger = self.world.ledger
        if op.verdict is Verdict.NOT_DONE and op.kind == "acquire":
            self.world.mark("a definite no")
            self.denied[op.holder] = op
            for story in ledger.by_holder.get(op.holder, ()):
                if story.token and story.ended_us is None:
                    raise self.fail(f"{op} was told that it is certainly not held, and holds token {story.token}")
        elif op.verdict is Verdict.NOT_DONE and op.kind == "release" and not isinstance(op.result, NotHeld):
            self.world.mark("a release that certainly did not happen")
            self.refused[op.token] = op
        if isinstance(op.result, NotHeld):
            held = ledger.grants.get(op.token)
            if held is not None and held.ended_us is None:
                raise self.fail(f"{op} was told that token {op.token} is not held, and it is")
        elif op.verdict is Verdict.UNKNOWN:
            self.world.mark("an outcome not known")

    def outcome(self, slot: int, entry: Entry, outcome: Outcome) -> None:
        """What was denied must not come to pass."""
        for event in outcome.events:
            if event.kind == "granted" and event.holder in self.denied:
                raise self.fail(f"token {event.token} is granted to {self.denied[event.holder]}")
            if event.kind == "released" and event.token in self.refused and not self.world.options.wide:
                # in a wide world others may have ended it: with a transaction, or with the session that adopted it
                self._must_have_asked_again(event.token)

    def _must_have_asked_again(self, token: int) -> None:
        """Another release may have done it; or its client did, since it lost the lease, or closed."""
        refused = self.refused[token]
        for op in self.world.history.ops:
            again = op is not refused and op.kind == "release" and op.token == token
            closed = op.kind == "close" and op.client == refused.client and op.start_us >= refused.start_us
            lost = op.kind == "acquire" and op.token == token and op.lost_us
            if again or closed or lost:
                return
        raise self.fail(f"token {token} is released, and {refused} was told that it certainly would not be")
