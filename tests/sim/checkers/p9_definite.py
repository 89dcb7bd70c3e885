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

    def ended(self, op: "Op") -> None:
        """A call ended: hold its word against the log."""
        ledger = self.world.ledger
        if op.verdict is Verdict.NOT_DONE and op.kind == "acquire":
            self.world.mark("a definite no")
            self.denied[op.holder] = op
            for story in ledger.by_holder.get(op.holder, ()):
                if story.token and story.ended_us is None:
                    raise self.fail(f"{op} was told that it is certainly not held, and holds token {story.token}")
        elif isinstance(op.result, NotHeld):
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
