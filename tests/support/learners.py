"""Helpers of the learner tests: a log with something in every slot, and a learner whose laws are checked."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from lessor.core.ballot import NO_BALLOT, Ballot
from lessor.core.commands import Command, OpenSession
from lessor.core.effects import Address, Effects, Role, Send
from lessor.core.encoding import encode
from lessor.core.entries import Batch, Entry, Lead
from lessor.core.learner import Applied, Events, Learner, Summary
from lessor.core.lease_state import LeaseState
from lessor.core.messages import NextDeadline, Progress, ReplaceState, SaveState, Tick, Vote

ME = 2
MEMBERS = (1, 2, 3)
TERM = Ballot(5, 1)
"""Under which the entries of the log below were proposed."""


@cache
def entry(slot: int, term: Ballot = TERM) -> Entry:
    """A leader's log: its `Lead`, then batches of one command each, which opens a session that nobody pings."""
    if slot == 1:
        return Lead(term)
    command = Command(slot, 0, 0, 0, OpenSession(slot.to_bytes(16, "big"), 60_000, f"session {slot}"))
    return Batch(term, 10 * slot, (encode(command),))


@cache
def vote(slot: int, ballot: Ballot = TERM) -> Vote:
    """The vote for the entry of this log, under any ballot: a later leader proposes what it found."""
    return Vote(slot, ballot, encode(entry(slot)))


@cache
def snapshot_after(slot: int) -> bytes:
    """The state after so many slots of the log."""
    return shadow(entry(number) for number in range(1, slot + 1)).snapshot()


def state_after(slot: int) -> LeaseState:
    """The same as a state of its own."""
    return LeaseState.restore(snapshot_after(slot)) if slot else LeaseState()


def shadow(log: Iterable[Entry]) -> LeaseState:
    """The state after a log, applied by nobody's learner."""
    state = LeaseState()
    for slot, item in enumerate(log, 1):
        state.apply(slot, item)
    return state


@dataclass
class CheckedLearner:
    """A learner with its lease tables; after every step the laws of its file must hold."""

    live: Learner
    tables: bytes
    tables_upto: int
    heard_deadline: NextDeadline | None = None  # by the expiry timer, since this node leads
    effects: Effects = field(default_factory=Effects)  # of the last step

    @classmethod
    def at(cls, slot: int = 0, node: int = ME, members: tuple[int, ...] = MEMBERS) -> "CheckedLearner":
        """Start one from what was saved at a slot."""
        return cls(Learner(node, members, state_after(slot)), snapshot_after(slot), slot)

    @property
    def applied_upto(self) -> int:
        """The last slot applied."""
        return self.live.applied_upto

    def step(self, message: Any) -> list[Send]:
        """Step, write and check; what was asked for is in `effects` too."""
        live = self.live
        applied, highest, saved = live.applied_upto, live.highest, live.saved_upto
        self.effects = effects = live.step(message)
        if any(isinstance(write, SaveState | ReplaceState) for write in effects.writes):
            self.tables, self.tables_upto = live.state.snapshot(), live.applied_upto
        assert live.applied_upto >= applied, "a slot was taken back"
        assert live.highest >= highest, "the highest ballot fell"
        assert saved <= live.saved_upto <= live.applied_upto
        assert self.tables_upto >= live.saved_upto, "said to be saved, and is not (P2)"
        waiting = [*live._open, *live._counts, *live._chosen]
        assert all(slot > live.applied_upto for slot in waiting), "what is applied is remembered for ever (P10)"
        for send in effects.sends:
            match send.message:
                case Applied(ballot):
                    assert ballot == live.leading != NO_BALLOT, "answered for another's ballot"
                case Progress(upto, durable, ballot):
                    assert (upto, durable, ballot) == (live.applied_upto, live.saved_upto, live.highest)
                case NextDeadline():
                    self.heard_deadline = send.message
                case _:
                    pass
        if isinstance(message, Tick):
            wake = live.wake_at_ms
            assert wake is None or wake > message.now_ms, "wants to be woken in the past: the shell would spin"
        return effects.sends

    def without_summary(self, message: Any) -> Effects:
        """Step, and return the effects but for the summary, which has a cadence of its own."""
        sends = [send for send in self.step(message) if not isinstance(send.message, Summary)]
        return Effects(self.effects.writes, sends)

    def told(self, message: Any, kind: type) -> list[Any]:
        """Step, and return the messages of one kind."""
        return [send.message for send in self.step(message) if isinstance(send.message, kind)]


def outcome_sends(slots: Iterable[int], after: int, *, leading: Ballot = NO_BALLOT) -> list[Send]:
    """What applying these slots of the log tells the gateway and the feed: answers only under the own ballot."""
    state, sends = state_after(after), []
    for slot in slots:
        item = entry(slot)
        answering = isinstance(item, Batch) and item.term == leading
        outcome = state.apply(slot, item, answering=answering)
        if answering:
            applied = Applied(leading, state.clock_ms, tuple(outcome.answers), tuple(outcome.notices))
            sends.append(Send(Address(ME, Role.GATEWAY), applied))
        if outcome.events:
            sends.append(Send(Address(ME, Role.FEED), Events(tuple(outcome.events))))
    return sends


def run_until_quiet(
    learners: dict[int, CheckedLearner], sends: list[Send], on_way: Callable[[Send], list[Send]]
) -> int:
    """Let learners talk to each other; `on_way` may drop, repeat or precede a message. Return how many arrived."""
    arrived = 0
    while sends:
        waiting, sends = sends, []
        for send in waiting:
            for item in on_way(send):
                assert isinstance(item.to, Address)
                if item.to.role is Role.LEARNER:
                    arrived += 1
                    sends += learners[item.to.node].step(item.message)
        assert arrived < 10_000, "they talk for ever"
    return arrived
