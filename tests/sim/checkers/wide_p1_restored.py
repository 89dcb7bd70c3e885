"""P1 for what is restored: a state made from a snapshot does and says what the one does that it was taken from."""

from typing import TYPE_CHECKING

from lessor.core.commands import ReadEvents
from lessor.core.entries import Entry
from lessor.core.errors import Malformed
from lessor.core.lease_state import LeaseState, Outcome
from lessor.core.results import ClaimPage, Result

from .base import Checker, exactly

if TYPE_CHECKING:
    from ..world import World

EVERY = 6


def _unordered(result: Result) -> object:
    """Return a result without the order in which what lies below a path is described: it is any."""
    if isinstance(result, ClaimPage):
        return sorted(result.claims, key=lambda one: one.claim), result.waiting, result.revision, result.about
    return result


class WideRestored(Checker):
    """Keeps a twin of the state that is made anew from a snapshot every few slots."""

    promise = "P1"
    wide = True

    def __init__(self, world: "World") -> None:
        """Start with the empty state."""
        super().__init__(world)
        self.twin = LeaseState()

    def outcome(self, slot: int, entry: Entry, outcome: Outcome) -> None:
        """Have the twin apply the slot, too, and compare all that came of it."""
        state = self.world.referee.state
        try:
            other = self.twin.apply(slot, entry)
        except Exception as error:
            raise self.fail(f"slot {slot}: after a restart it could not be applied: {error!r}") from error
        if other.events != outcome.events:
            raise self.fail(
                f"slot {slot}: after a restart there would be {other.events}, and there was {outcome.events}"
            )
        if other.notices != outcome.notices:
            raise self.fail(f"slot {slot}: after a restart {other.notices} would be pushed, not {outcome.notices}")
        for command, mine, its in zip(self.world.ledger.commands, outcome.answers, other.answers, strict=True):
            # what a node remembers of the events is no part of the state
            if _unordered(mine[1]) != _unordered(its[1]) and not isinstance(command.operation, ReadEvents):
                raise self.fail(f"slot {slot}: after a restart {command} would be answered {its[1]}, not {mine[1]}")
        if slot % EVERY == 0:
            if exactly(self.twin) != exactly(state):
                raise self.fail(f"after slot {slot} a state that was restored before differs")
            try:
                self.twin = LeaseState.restore(state.snapshot())
            except Malformed as error:
                raise self.fail(f"after slot {slot} the state cannot be restored: {error}") from error
