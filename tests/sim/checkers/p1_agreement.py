"""P1: a slot once chosen never changes; every node applies the same and reaches the same state, byte for byte."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lessor.core.ballot import Ballot
from lessor.core.effects import Address, Send
from lessor.core.events import Event
from lessor.core.messages import Accept, Chosen, Fetched, Prepare

from .base import Checker, exactly

if TYPE_CHECKING:
    from ..node import Node
    from ..world import World


class Agreement(Checker):
    """One value per slot and ballot, one chosen per slot, one state per slot, one line of events."""

    promise = "P1"

    def __init__(self, world: "World") -> None:
        """Start with nothing proposed."""
        super().__init__(world)
        self.proposed: dict[tuple[int, Ballot], bytes] = {}
        self.lives: dict[Ballot, tuple[int, int]] = {}
        self.states: dict[int, str] = {}
        self.published: dict[int, Event] = {}

    def started(self, node: "Node") -> None:
        """In every slot that its state holds, the journal holds the chosen value: it would serve it as that."""
        chosen, applied_upto = self.world.referee.chosen, node.learner.applied_upto
        for slot, vote in node.acceptor.votes.items():
            if slot <= applied_upto and chosen.get(slot) != vote.entry:
                raise self.fail(
                    f"node {node.number} starts with what was not chosen in slot {slot}, which it has applied"
                )

    def committed(self, node: "Node", writes: Sequence[Any]) -> None:
        """A quorum of disks may now hold a second value in a slot."""
        twice = self.world.referee.twice
        if twice is not None:
            raise self.fail(f"a second value was chosen in slot {twice[0]}, under {twice[1]}")

    def applied(self, node: "Node", slot: int, entry: bytes) -> None:
        """What is applied must be what is chosen, and leave the same state everywhere."""
        if self.world.referee.chosen.get(slot) != entry:
            raise self.fail(f"node {node.number} applied in slot {slot} what was not chosen there")
        if slot % self.world.options.snapshot_every == 0:
            self._compare(node, slot)

    def _compare(self, node: "Node", slot: int) -> None:
        state = exactly(node.learner.state)
        if self.states.setdefault(slot, state) != state:
            raise self.fail(f"node {node.number} differs in its state after slot {slot}")

    def events(self, node: "Node", events: Sequence[Event]) -> None:
        """The same revision must be the same event on every node."""
        for event in events:
            if self.published.setdefault(event.revision, event) != event:
                raise self.fail(f"node {node.number} tells revision {event.revision} as {event}")

    def acceptor_sends(self, node: "Node", sends: Sequence[Send]) -> None:
        """What is served as chosen must be chosen."""
        chosen = self.world.referee.chosen
        for send in sends:
            message = send.message
            votes = message.votes if type(message) is Fetched else (message.vote,) if type(message) is Chosen else ()
            for vote in votes:
                if chosen.get(vote.slot) != vote.entry:
                    raise self.fail(f"node {node.number} serves in slot {vote.slot} what was not chosen there")

    def proposer_sends(self, node: "Node", sends: Sequence[Send]) -> None:
        """A ballot belongs to one life of one node, and has one value per slot."""
        life = (node.number, node.life)
        for send in sends:
            message = send.message
            if type(message) is Prepare:
                remote = type(send.to) is Address and send.to.node != node.number
                if remote and self.lives.setdefault(message.ballot, life) != life:
                    raise self.fail(f"ballot {message.ballot} was prepared in two lives")
            elif type(message) is Accept:
                if self.lives.setdefault(message.ballot, life) != life:
                    raise self.fail(f"a value under {message.ballot} by another than who prepared it")
                if self.proposed.setdefault((message.slot, message.ballot), message.entry) != message.entry:
                    raise self.fail(f"two values were proposed in slot {message.slot} under {message.ballot}")

    def finished(self) -> None:
        """At rest, all have the same state."""
        snapshots = {number: node.learner.state.snapshot() for number, node in self.world.nodes.items()}
        for number, snapshot in snapshots.items():
            if snapshot != snapshots[1]:
                raise self.fail(f"node {number} differs in its state from node 1, at rest")
