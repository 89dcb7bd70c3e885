"""P7 for the whole lease model: nobody overtakes, nothing waits for what is free, deadlocks are told."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lessor.core.commands import Claim
from lessor.core.entries import Entry
from lessor.core.lease_state import Outcome
from lessor.core.records import ClaimRecord
from lessor.core.resources import reduced
from lessor.core.results import ClaimPhase, ClaimStatus, DeadlockDetected

from .base import Checker
from .wide_view import Once, View, blockers, look, observes, overlap, overlapping

if TYPE_CHECKING:
    from lessor.core.events import Event

    from ..world import World


class WideFair(Checker):
    """Compares every claim that waits with every other one, after each slot."""

    promise = "P7"
    wide = True

    def outcome(self, slot: int, entry: Entry, outcome: Outcome) -> None:
        """Look at what was granted before its turn, and at what still waits although it is its turn."""
        before, view = look(self.world)
        if not outcome.events:
            return
        for event in outcome.events:
            claim = view.claims.get(event.claim)
            if event.kind == "granted" and claim is not None:
                self._must_be_first(view, claim)
            if event.kind == "cancelled" and event.why == "it is free":
                self._must_be_free(view, before.claims.get(event.claim), event)
        for claim in view.waiting:
            if not blockers(view, claim):
                raise self.fail(f"claim {claim.claim} ({claim.resources}) waits for what is free")
        for observer in view.observers:
            path = observer.resources[0].path
            below = any(
                one.namespace == observer.namespace and overlap(path, each.path) and len(each.path) > len(path)
                for one in view.held
                for each in one.resources
            )
            if not below and not blockers(view, observer):
                raise self.fail(f"observer {observer.claim} of {path} was not told that it is free")

    def _must_be_first(self, view: View, claim: ClaimRecord) -> None:
        for other in view.waiting:
            if other.claim < claim.claim and overlapping(other, claim):
                raise self.fail(f"claim {claim.claim} ({claim.resources}) is granted before claim {other.claim}")

    def _must_be_free(self, view: View, observer: ClaimRecord | None, event: "Event") -> None:
        for one in view.held:
            if observer is not None and one.token <= observer.watermark and overlapping(one, observer):
                raise self.fail(f"observer {event.claim} was told that it is free, and {one.who} has it")


class WideDeadlocks(Checker):
    """Walks from chain to chain: a circle is reported when it would close, and nothing else is called one."""

    promise = "P7"
    wide = True

    def __init__(self, world: "World") -> None:
        """Start with nothing asked."""
        super().__init__(world)
        self.once = Once()

    def outcome(self, slot: int, entry: Entry, outcome: Outcome) -> None:
        """Look at the last command of a slot: what is there now is what it found, and left."""
        before, view = look(self.world)
        carried_out = list(self.once.carried_out(self.world.ledger.commands, outcome))
        if not carried_out or carried_out[-1][0] is not self.world.ledger.commands[-1]:
            return
        command, result = carried_out[-1]
        operation = command.operation
        if not isinstance(operation, Claim) or not operation.chain:
            return
        if isinstance(result, ClaimStatus) and result.phase == ClaimPhase.WAITING:
            claim = view.claims.get(result.claim)
            if claim is not None and claim.claim not in before.claims and _closes_a_circle(view, claim):
                raise self.fail(f"claim {claim.claim} waits, and closes a circle that nobody was told of")
        elif isinstance(result, DeadlockDetected):
            number = self.world.referee.state.header.last_claim + 1
            asked = _asked(operation, number, command.session)
            if not _closes_a_circle(view, asked):
                raise self.fail(f"{operation} would close no circle, and is refused for {result.circle}")


def _asked(operation: Claim, number: int, session: int) -> ClaimRecord:
    return ClaimRecord(
        number,
        operation.namespace,
        reduced(operation.resources),
        operation.holder,
        b"",
        session,
        detached=False,
        ttl_ms=0,
        since_ms=0,
        token=0,
        ends_at_ms=0,
        chain=operation.chain,
    )


def _closes_a_circle(view: View, claim: ClaimRecord) -> bool:
    """Return whether the chain of a claim waits, through others, for what it holds itself."""
    own = (claim.session, claim.chain)
    if not any(other.token and (other.session, other.chain) == own for other in view.claims.values()):
        return False
    reached: dict[tuple[int, int], None] = {}
    todo = [claim]
    while todo:
        for chain in _waits_for(view, todo.pop()):
            if chain == own:
                return True
            if chain not in reached:
                reached[chain] = None
                todo += [one for one in view.claims.values() if not one.token and (one.session, one.chain) == chain]
    return False


def _waits_for(view: View, claim: ClaimRecord) -> Iterator[tuple[int, int]]:
    for blocker in blockers(view, claim):
        other = view.claims.get(blocker.claim)
        if other is None or blocker.closed or not other.chain or other.claim == claim.claim:
            continue
        if other.token or not observes(claim):
            yield other.session, other.chain
