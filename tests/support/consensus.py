"""Helpers of the consensus tests: a simulated disk, a checked acceptor, and an observer who sees all of a cluster."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from lessor.core.acceptor import Acceptor
from lessor.core.ballot import NO_BALLOT, Ballot, quorum
from lessor.core.effects import Address, Effects, Role, Send
from lessor.core.encoding import decode
from lessor.core.entries import Batch
from lessor.core.learner import Applied, Learner
from lessor.core.lease_state import LeaseState
from lessor.core.messages import (
    Accept,
    Accepted,
    Chosen,
    Fetched,
    Learn,
    Prepare,
    Promise,
    Refuse,
    ReplaceState,
    SaveState,
    Truncate,
    Vote,
    Watermark,
    WritePromise,
    WriteVote,
    WriteWatermark,
)
from lessor.core.proposer import Proposer, Stage

# --- one node's disk -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Disk:
    """What one node has durably written: its journal, and its lease state as a snapshot."""

    promised: Ballot = NO_BALLOT
    votes: dict[int, Vote] = field(default_factory=dict)
    truncated_upto: int = 0
    watermark: tuple[Ballot, int] = (NO_BALLOT, 0)
    state: bytes | None = None

    def commit(self, writes: Iterable[Any], state: LeaseState | None = None) -> None:
        """Carry out what a core asked to be written, knowing nothing of why."""
        for row in writes:
            match row:
                case WritePromise(ballot):
                    self.promised = ballot
                case WriteVote(vote):
                    self.votes[vote.slot] = vote
                case WriteWatermark(ballot, chosen_upto):
                    self.watermark = (ballot, chosen_upto)
                case Truncate(upto):
                    self.votes = {slot: vote for slot, vote in self.votes.items() if slot > upto}
                    self.truncated_upto = upto
                case SaveState() | ReplaceState():
                    assert state is not None
                    self.state = state.snapshot()
                case _:
                    raise AssertionError(f"nobody asked for a {type(row).__name__}")

    def acceptor(self, node: int, members: tuple[int, ...], applied_upto: int = 0) -> Acceptor:
        """Return the acceptor that starts from this disk."""
        votes = list(self.votes.values())
        return Acceptor(node, members, self.promised, votes, self.truncated_upto, self.watermark, applied_upto)

    def lease_state(self) -> LeaseState:
        """Return the lease state as it was last saved."""
        return LeaseState() if self.state is None else LeaseState.restore(self.state)


def check_durable(acceptor: Acceptor, disk: Disk, sends: Iterable[Send]) -> None:
    """Fail if the acceptor knows or claims what the disk does not (P2)."""
    rebuilt = disk.acceptor(acceptor.node, acceptor.members, acceptor.applied_upto)
    assert vars(rebuilt) == vars(acceptor), "a restart would not come back as what was running"
    for send in sends:
        match send.message:
            case Promise(ballot, _, _, votes, _, truncated_upto):
                assert disk.promised == ballot, "a promise that is not on disk"
                assert all(disk.votes[vote.slot] == vote for vote in votes), "a vote told that is not on disk"
                assert disk.truncated_upto == truncated_upto
            case Accepted(ballot, _, slot):
                assert disk.promised == ballot, "an accepted ballot that is not on disk"
                assert slot <= disk.truncated_upto or disk.votes[slot].ballot == ballot, "an accept that is not on disk"
            case Refuse(ballot, _, promised):
                assert disk.promised == promised > ballot, "a refusal for a promise that is not on disk"
            case Learn(vote):
                assert disk.votes[vote.slot] == vote, "a vote learnt that is not on disk"
            case Chosen(vote):
                assert disk.votes[vote.slot].entry == vote.entry, "a chosen value that is not on disk"
            case Fetched(_, votes, _):
                assert all(disk.votes[vote.slot] == vote for vote in votes), "a value served that is not on disk"
            case Watermark(ballot, _):
                assert disk.promised >= ballot, "a watermark of a ballot that was not promised"
            case _:
                pass


@dataclass(slots=True)
class CheckedAcceptor:
    """An acceptor on its disk; after every step the laws of its file must hold, and a restart must change nothing."""

    live: Acceptor
    disk: Disk

    @classmethod
    def on(cls, disk: Disk, node: int = 2, members: tuple[int, ...] = (1, 2, 3), applied_upto: int = 0) -> Self:
        """Start one from a disk."""
        return cls(disk.acceptor(node, members, applied_upto), disk)

    def step(self, message: Any) -> Effects:
        """Step, write, and check."""
        promised, votes = self.live.promised, dict(self.live.votes)
        effects = self.live.step(message)
        self.disk.commit(effects.writes)
        assert self.live.promised >= promised, "the promise fell"
        for slot, vote in self.live.votes.items():
            assert vote.ballot <= self.live.promised, "a vote above the promise: a lower ballot could replace it"
            if slot in votes:
                assert vote.ballot >= votes[slot].ballot, "a vote gave way to one of a lower ballot"
            elif isinstance(message, Accept):
                assert vote.ballot >= promised, "accepted below the promise"
        check_durable(self.live, self.disk, effects.sends)
        return effects


# --- a node ----------------------------------------------------------------------------------------------------------


class Violated(AssertionError):
    """A promise was broken; the text names the line that shows it."""


class WatchedLearner(Learner):
    """A learner that shows every value that it applies."""

    watch: Callable[[Vote], None]

    def _apply(self, vote: Vote, effects: Effects) -> None:
        super()._apply(vote, effects)
        self.watch(vote)


class Node:
    """One node: its disk, and, while it is up, its cores and their inboxes."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.disk = Disk()
        self.up = False
        self.life = 0
        self.clock_from = 0  # real time and clock at the start of this life
        self.clock_base = 0
        self.rate = 1.0
        self.paused_until = 0
        self.cores: dict[Role, Any] = {}
        self.inboxes: dict[Role, list[Any]] = {}
        self.run_at: dict[Role, int | None] = {}

    def clock(self, now: int) -> int:
        """Return what the node's monotonic clock shows at real time `now`."""
        return self.clock_base + int((now - self.clock_from) * self.rate)

    @property
    def proposer(self) -> Proposer:
        """The node's proposer."""
        core: Proposer = self.cores[Role.PROPOSER]
        return core

    @property
    def acceptor(self) -> Acceptor:
        """The node's acceptor."""
        core: Acceptor = self.cores[Role.ACCEPTOR]
        return core

    @property
    def learner(self) -> WatchedLearner:
        """The node's learner."""
        core: WatchedLearner = self.cores[Role.LEARNER]
        return core


@dataclass(slots=True)
class Weather:
    """The faults of one run, drawn from its seed: a swarm, so that each run dwells on a few of them."""

    loss: float
    repeat: float
    slow: float  # messages that come up to `slow_ms` late
    slow_ms: int
    crash: float  # around a commit
    fault_every_ms: int
    pause_ms: int
    drift: float

    @classmethod
    def draw(cls, rng: random.Random) -> "Weather":
        """Draw one."""
        return cls(
            loss=rng.choice((0, 0.02, 0.1, 0.3)),
            repeat=rng.choice((0, 0.05, 0.3)),
            slow=rng.choice((0, 0.1, 0.5, 1)),
            slow_ms=rng.choice((10, 30, 80)),
            crash=rng.choice((0, 0, 0.001, 0.004)),
            fault_every_ms=rng.choice((2, 5, 15)),
            pause_ms=rng.choice((30, 100)),
            drift=rng.choice((0, 0, 0.3)),
        )


CORES = (Role.PROPOSER, Role.ACCEPTOR, Role.LEARNER, Role.EXPIRY_TIMER)

HURRY = {
    # a tenth of the time, and small pages, chunks and journals, so that a short run meets all of them
    "HEARTBEAT_MS": 10,
    "ELECTION_TIMEOUT_MIN_MS": 70,
    "ELECTION_TIMEOUT_SPREAD_MS": 70,
    "ELECTION_HINT_SPREAD_MS": 5,
    "ELECTION_RETRY_SPREAD_MS": 20,
    "ELECTION_FIRST_MIN_MS": 20,
    "ELECTION_FIRST_SPREAD_MS": 30,
    "ELECTION_RESEND_MS": 10,
    "CANDIDACY_MS": 60,
    "LEADER_STALL_MS": 40,
    "RETRANSMIT_MS": 25,
    "FETCH_RETRY_MS": 30,
    "SAVE_EVERY_MS": 50,
    "SAVE_EVERY_SLOTS": 5,
    "JOURNAL_RETAIN_SLOTS": 12,
    "PAGE_SLOTS": 3,
    "SNAPSHOT_CHUNK_BYTES": 150,
    "BATCH_COMMANDS_MAX": 2,
}

CALM = Weather(loss=0, repeat=0, slow=0, slow_ms=1, crash=0, fault_every_ms=0, pause_ms=1, drift=0)


# --- what no node can see --------------------------------------------------------------------------------------------


class Observer:
    """Sees all that the nodes of a cluster write, say and apply, and raises when a promise or a law of Paxos breaks."""

    def __init__(self, size: int, rerun: str) -> None:
        self.size = size
        self.rerun = rerun
        self.now = 0  # real time
        self.accepted: dict[tuple[int, Ballot], dict[int, None]] = {}
        self.proposed: dict[tuple[int, Ballot], bytes] = {}
        self.stamped_at: dict[tuple[int, Ballot], int] = {}
        self.chosen: dict[int, bytes] = {}
        self.chosen_under: dict[int, Ballot] = {}
        self.owners: dict[Ballot, tuple[int, int]] = {}
        self.states: dict[int, bytes] = {}
        self.ahead: dict[int, int] = {0: 0}  # after each slot: how far the lease clock is ahead of real time, at most
        self.answered: dict[int, None] = {}
        self.marks: dict[str, int] = {}

    def violated(self, what: str) -> Violated:
        """Return the failure, with the one line that reproduces it."""
        return Violated(f"{what} | {self.rerun}")

    def mark(self, what: str) -> None:
        """Remember that an interesting state was reached."""
        self.marks[what] = self.marks.get(what, 0) + 1

    def see_proposer(self, node: Node, sends: list[Send]) -> None:
        """A ballot has one owner, who promised it first; one value per slot under it; no claim for another's slots."""
        for send in sends:
            match send.message:
                case Prepare(ballot) if isinstance(send.to, Address) and send.to.node != node.number:
                    if self.owners.setdefault(ballot, (node.number, node.life)) != (node.number, node.life):
                        raise self.violated(f"ballot {ballot} was used twice")
                    if node.disk.promised < ballot:
                        raise self.violated(f"ballot {ballot} was used before its own node promised it")
                case Accept(ballot, slot, data):
                    if self.owners.setdefault(ballot, (node.number, node.life)) != (node.number, node.life):
                        raise self.violated(f"a value under {ballot} by another than who prepared it")
                    if self.proposed.setdefault((slot, ballot), data) != data:
                        raise self.violated(f"two values in slot {slot} under {ballot}")
                    entry = decode(data)
                    if isinstance(entry, Batch) and entry.term == ballot:
                        self.stamped_at.setdefault((slot, ballot), self.now)
                case _:
                    pass
        leader = node.proposer
        if leader.stage is Stage.LEADER:
            for slot, under in self.chosen_under.items():
                if slot <= leader.applied_upto and under > leader.ballot:
                    what = f"leader {leader.ballot} claims slot {slot}, which was chosen under {under}"
                    raise self.violated(f"P1: {what}")

    def see_acceptor(self, node: Node, sends: list[Send]) -> None:
        """A quorum for one value at the most; the journal serves nothing but chosen values; P2."""
        acceptor = node.acceptor
        for send in sends:
            if isinstance(send.message, Learn):
                self._see_vote(node, send.message.vote)
            elif isinstance(send.message, Fetched):
                self.mark("fetched" if send.message.votes else "truncated")
        for slot, vote in acceptor.votes.items():
            if vote.ballot > acceptor.promised:
                raise self.violated(f"P1: node {node.number} would let a lower ballot replace its vote in slot {slot}")
            if slot <= acceptor.applied_upto and vote.entry != self.chosen.get(slot):
                raise self.violated(f"P1: the journal of node {node.number} serves a wrong value in slot {slot}")
        if vars(node.disk.acceptor(node.number, acceptor.members, acceptor.applied_upto)) != vars(acceptor):
            raise self.violated(f"P2: a restart of acceptor {node.number} would not come back as what was running")

    def _see_vote(self, node: Node, vote: Vote) -> None:
        voters = self.accepted.setdefault((vote.slot, vote.ballot), {})
        voters[node.number] = None
        if len(voters) >= quorum(self.size):
            self.chosen_under[vote.slot] = min(vote.ballot, self.chosen_under.get(vote.slot, vote.ballot))
            if self.chosen.setdefault(vote.slot, vote.entry) != vote.entry:
                raise self.violated(f"P1: two values were chosen in slot {vote.slot}")

    def see_applied(self, node: Node, vote: Vote) -> None:
        """Only what was chosen is applied (P1), and the lease clock gains nothing on real time (P4)."""
        slot, state = vote.slot, node.learner.state
        if self.chosen.get(slot) != vote.entry:
            raise self.violated(f"P1: node {node.number} applied in slot {slot} what was not chosen there")
        ahead = self.ahead[slot - 1]
        entry = decode(vote.entry)
        if isinstance(entry, Batch) and entry.term == state.header.term:
            mine = state.clock_ms - self.stamped_at[slot, entry.term]
            if mine > ahead:
                raise self.violated(f"P4: the lease clock ran faster than time by {mine - ahead} ms at slot {slot}")
            ahead = mine
        elif isinstance(entry, Batch):
            self.mark("straggler")
        self.ahead[slot] = ahead

    def see_learner(self, node: Node, sends: list[Send], *, closely: bool) -> None:
        """The same state after the same slot (P1), a clock that is not ahead (P4), one answer per command."""
        state = node.learner.state
        if closely or state.applied_upto in self.states:
            snapshot = state.snapshot()
            if self.states.setdefault(state.applied_upto, snapshot) != snapshot:
                raise self.violated(f"P1: node {node.number} differs in its state after slot {state.applied_upto}")
        if state.clock_ms > self.now:
            raise self.violated(f"P4: the lease clock of node {node.number} is {state.clock_ms} at {self.now} ms")
        for send in sends:
            if isinstance(send.message, Applied):
                self._see_answers(node, send.message)

    def _see_answers(self, node: Node, applied: Applied) -> None:
        if applied.ballot.node != node.number:
            raise self.violated(f"node {node.number} answered for the leader of {applied.ballot}")
        for tag, _ in applied.answers:
            if tag in self.answered:
                raise self.violated(f"command {tag} was answered twice")
            self.answered[tag] = None
