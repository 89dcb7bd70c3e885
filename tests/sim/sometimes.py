"""Interesting states that a swarm must have reached at some time: one that never did has tested less than it seems."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from lessor.core.effects import Send
from lessor.core.entries import Batch, Entry, Lead, NoOp
from lessor.core.errors import LessorError
from lessor.core.lease_state import Outcome
from lessor.core.messages import Accept, Behind, Fetched, Prepare, Truncate
from lessor.core.proposer import Stage
from lessor.core.results import TOO_MANY, Failed

from .checkers.base import Checker
from .reading import read
from .wide_sometimes import WIDE_SOMETIMES

if TYPE_CHECKING:
    from .client import SimClient
    from .history import Op
    from .node import Node
    from .world import World

SOMETIMES: Final = (
    "a change of leader with slots open",
    "a no-op in a gap",
    "a straggler found and discarded",
    "two that believe to lead",
    "duelling candidates",
    "a candidate that had to catch up first",
    "catch-up by votes",
    "catch-up by a snapshot",
    "a journal truncated",
    "an expiry in the first batch of a leader",
    "a lease kept over three leaders",
    "a lease that outlived its session",
    "a session that expired",
    "a lease that expired",
    "a wait that timed out",
    "a turn that came in a longer queue",
    "a claim refused for want of room",
    "a lease in jeopardy",
    "a lease called lost",
    "a client that lost a lease and got one again",
    "an acquire given up",
    "an old token used",
    "a ticket handed over",
    "a client closed",
    "a retry that found its answer",
    "a definite no",
    "an outcome not known",
    "an acquire of which nothing is known",
    "a release that certainly did not happen",
    "a client told that its node leads no more",
)
"""All of them; a swarm that is large enough and has not reached one fails."""

WORLDS_ENOUGH: Final = 2000
"""So many worlds reach every one of these many times over: the rarest comes in one world of a hundred."""

COMMON: Final = (
    "a change of leader with slots open",
    "catch-up by votes",
    "a journal truncated",
    "a lease that expired",
    "a claim refused for want of room",
    "a lease in jeopardy",
    "a lease called lost",
    "an acquire given up",
    "a client closed",
    "a retry that found its answer",
    "a definite no",
    "an outcome not known",
    "a lease broken",
    "an old token refused",
)
"""Those that come in one world of five, at least."""

WORLDS_FEW: Final = 100
"""So many worlds reach every common one: a small swarm can fail, too."""

EVERY: Final = (*SOMETIMES, *WIDE_SOMETIMES)
"""Those of wide worlds, too."""

RARE: Final = (
    "a pinned lease that outlived its session",
    "an overdue lease that ended with its pin",
    "an overdue pinned lease that changed hands",
)
"""Reached by so few worlds, 2 to 7 of 2,000, that no swarm is held to them; `lessor sim --json` tells of them, too."""


def never(marks: Counter[str]) -> list[str]:
    """Return what was not reached."""
    return [mark for mark in EVERY if not marks[mark]]


def missed(marks: Counter[str], worlds: int) -> list[str]:
    """Return what so many worlds should have reached, and did not."""
    return [mark for mark in never(marks) if worlds >= (WORLDS_FEW if mark in COMMON else WORLDS_ENOUGH)]


class Observer(Checker):
    """Marks these states; fails nothing."""

    def __init__(self, world: "World") -> None:
        """Start before the first leader."""
        super().__init__(world)
        self.leads = 0
        self.since_lead = 0
        self.granted_at_lead: dict[int, int] = {}
        self.lost: dict[int, None] = {}

    def proposer_sends(self, node: "Node", sends: Sequence[Send]) -> None:
        """Look at elections."""
        mark = self.world.mark
        for send in sends:
            message = send.message
            if type(message) is Accept:
                if node.proposer._backlog and message.slot <= node.learner.applied_upto + 3:
                    entry = read(message.entry)
                    if isinstance(entry, NoOp):
                        mark("a no-op in a gap")
                    elif isinstance(entry, Batch) and entry.term != message.ballot:
                        mark("a change of leader with slots open")
            elif type(message) is Prepare:
                others = [other for other in self.world.nodes.values() if other is not node and other.up]
                if any(other.proposer.stage is Stage.PREPARING for other in others):
                    mark("duelling candidates")
                if len(self.world.leaders()) > 1:
                    mark("two that believe to lead")
            elif type(message) is Behind:
                mark("a candidate that had to catch up first")

    def acceptor_sends(self, node: "Node", sends: Sequence[Send]) -> None:
        """Look at catch-up."""
        for send in sends:
            message = send.message
            if type(message) is Fetched and message.votes:
                self.world.mark("catch-up by votes")

    def committed(self, node: "Node", writes: Sequence[Any]) -> None:
        """Look at truncation."""
        if any(type(write) is Truncate for write in writes):
            self.world.mark("a journal truncated")

    def outcome(self, slot: int, entry: Entry, outcome: Outcome) -> None:
        """Look at what the log brings about."""
        mark, ledger = self.world.mark, self.world.ledger
        if isinstance(entry, Lead):
            self.leads += 1
            self.since_lead = 0
            return
        self.since_lead += isinstance(entry, Batch)
        if any(isinstance(result, Failed) and result.code == TOO_MANY for _, result in outcome.answers):
            mark("a claim refused for want of room")
        for event in outcome.events:
            match event.kind:
                case "granted":
                    self.granted_at_lead[event.token] = self.leads
                case "expired":
                    mark("a lease that expired")
                    if self.since_lead == 1 and self.leads > 1:
                        mark("an expiry in the first batch of a leader")
                case "timed_out":
                    mark("a wait that timed out")
                case "session_expired":
                    mark("a session that expired")
                    if any(story.session == event.session for live in ledger.live.values() for story in live.values()):
                        mark("a lease that outlived its session")
                case "released" | "renewed" if (
                    event.token and self.leads >= self.granted_at_lead.get(event.token, 99) + 2
                ):
                    mark("a lease kept over three leaders")
                case _:
                    pass

    def ended(self, op: "Op") -> None:
        """Look at how calls end."""
        if op.kind != "acquire":
            return
        if op.token and op.client in self.lost:
            self.world.mark("a client that lost a lease and got one again")
        if isinstance(op.result, LessorError) and op.result.indefinite:
            self.world.mark("an acquire of which nothing is known")

    def client_turn(self, client: "SimClient") -> None:
        """Look at losses."""
        if client.app.losses:
            self.lost[client.number] = None
