"""A proposer under watch: after every step the laws of its file must hold; and the scenes that a proposer can be in."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lessor.core import limits
from lessor.core.ballot import NO_BALLOT, Ballot, quorum
from lessor.core.effects import Address, Effects, Role, Send
from lessor.core.encoding import decode, encode
from lessor.core.entries import Batch, Lead, NoOp
from lessor.core.messages import (
    Accept,
    Heartbeat,
    HeartbeatAnswer,
    Leadership,
    Nudge,
    PeerLost,
    Prepare,
    PreVoteAnswer,
    Progress,
    Promise,
    Submit,
    Tick,
    Vote,
)
from lessor.core.proposer import Proposer, Stage

NODE = 2  # between its two peers, so that a ballot of the same counter may stand below or above its own
APPLIED = 10
PROMISED = Ballot(2, 3)
LED_BY = Ballot(3, 1)
START_MS = 1_000
NO_OP = encode(NoOp())


def announced(role: str, leader: Ballot = NO_BALLOT, node: int = NODE) -> list[Send]:
    """What the roles that must know are told of a proposer's place."""
    leadership = Leadership(role, leader, leader.node)
    return [Send(Address(node, local), leadership) for local in (Role.GATEWAY, Role.LEARNER, Role.EXPIRY_TIMER)]


def to_acceptor(node: int, message: Any) -> Send:
    return Send(Address(node, Role.ACCEPTOR), message)


def to_proposer(node: int, message: Any) -> Send:
    return Send(Address(node, Role.PROPOSER), message)


def accepts(accept: Accept, members: Sequence[int] = (1, 2, 3), node: int = NODE) -> list[Send]:
    """An Accept to everyone, the peers first: they have the longer way."""
    return [to_acceptor(member, accept) for member in (*(peer for peer in members if peer != node), node)]


@dataclass
class Watched:
    """A proposer, and what an observer of its messages knows of it; every step is checked against the laws."""

    members: tuple[int, ...] = (1, 2, 3)
    node: int = NODE
    promised: Ballot = PROMISED
    applied: int = APPLIED
    core: Proposer = field(init=False)
    now_ms: int = 0
    first_slot: dict[Ballot, int] = field(default_factory=dict)  # where phase 1 of a ballot begins
    whole: dict[Ballot, dict[int, None]] = field(default_factory=dict)  # who has promised a ballot to the last page
    own_promise: dict[Ballot, None] = field(default_factory=dict)
    values: dict[tuple[Ballot, int], bytes] = field(default_factory=dict)
    led_from_ms: dict[Ballot, int] = field(default_factory=dict)  # the first tick after phase 1

    def __post_init__(self) -> None:
        self.core = Proposer(self.node, self.members, self.promised, self.applied)

    def step(self, message: Any) -> Effects:
        self._note(message)
        highest, stage = self.core.highest, self.core.stage
        effects = self.core.step(message)
        assert effects.writes == [], "a proposer has no disk: its own acceptor writes"
        assert self.core.highest >= highest, "what was seen is never unseen"
        for send in effects.sends:
            self._check(send)
        if self.core.stage is Stage.LEADER:
            ballot = self.core.ballot
            assert len(self.whole.get(ballot, ())) >= quorum(len(self.members)), f"{ballot} leads without its phase 1"
            self._check_window(ballot)
        if isinstance(message, Tick):
            if self.core.stage is Stage.LEADER:
                since_ms = self.now_ms - self.led_from_ms.setdefault(self.core.ballot, self.now_ms)
                assert self.core.elapsed_ms <= since_ms, "P4: the time of a leader runs ahead of its clock"
            assert self.core.wake_at_ms > self.now_ms, f"spins: wants its tick in the past, in {self.core.stage}"
        if stage is not self.core.stage or isinstance(message, Tick):
            assert self.core.ballot.node in (0, self.node), "nobody uses another's ballot"
        return effects

    def run(self, *messages: Any) -> list[Send]:
        """Step through all of these; return all that was said."""
        return [send for message in messages for send in self.step(message).sends]

    def tick(self, after_ms: int = 0, luck: float = 0.5) -> list[Send]:
        return self.step(Tick(self.now_ms + after_ms, luck)).sends

    def _note(self, message: Any) -> None:
        match message:
            case Tick(now_ms):
                self.now_ms = now_ms
            case Promise(ballot, node, _, _, next_page, _) if ballot == self.core.ballot and node in self.members:
                if node == self.node:
                    self.own_promise[ballot] = None
                if not next_page:
                    self.whole.setdefault(ballot, {})[node] = None
            case Progress(applied_upto):
                self.applied = max(self.applied, applied_upto)
            case _:
                pass

    def _check(self, send: Send) -> None:
        assert isinstance(send.to, Address)
        assert send.to.node in self.members, f"{send} to nobody"
        match send.message:
            case Prepare(ballot, slot):
                if send.to.node == self.node:
                    first = self.first_slot.setdefault(ballot, slot)
                    assert slot >= first, "a page before the first"
                else:
                    assert ballot in self.own_promise, f"{ballot} left the node before its own acceptor promised it"
                assert ballot.node == self.node
                assert ballot > self.promised, f"{ballot} may have been used before the restart"
            case Accept(ballot, slot, entry):
                assert ballot == self.core.ballot, "proposes under a ballot that it no longer leads under"
                assert self.core.stage is Stage.LEADER
                assert slot >= self.first_slot[ballot]
                assert self.values.setdefault((ballot, slot), entry) == entry, f"two values in {slot} under {ballot}"
                self._check_entry(ballot, slot, entry)
            case Heartbeat(ballot, chosen_upto):
                assert (self.core.stage, ballot) == (Stage.LEADER, self.core.ballot), (
                    "a heartbeat of one who does not lead"
                )
                assert chosen_upto <= self.applied, "claims as chosen what it does not know"
            case _:
                pass

    def _check_entry(self, ballot: Ballot, slot: int, data: bytes) -> None:
        entry = decode(data)
        before = [decode(value) for (under, at), value in self.values.items() if under == ballot and at < slot]
        if entry == Lead(ballot):
            assert self.applied >= slot - 1 or (ballot, slot) in self.values, "Lead before all under it was applied"
            assert slot - 1 <= self.applied, "Lead is said only when every slot before it is applied"
        elif isinstance(entry, Batch) and entry.term == ballot:
            assert Lead(ballot) in before, "a batch of its own before its Lead"
            assert entry.elapsed_ms <= self.core.elapsed_ms, "P4: a stamp ahead of its leader's time"

    def _check_window(self, ballot: Ballot) -> None:
        open_slots = [slot for under, slot in self.values if under == ballot and slot > self.applied]
        assert len(open_slots) <= limits.WINDOW_SLOTS, f"P10: {open_slots} are in flight"


# --- the way to each stage -------------------------------------------------------------------------------------------


def promise(watched: Watched, node: int, votes: Iterable[Vote] = (), next_page: int = 0, truncated: int = 0) -> Promise:
    """A promise of what the proposer stands under."""
    core = watched.core
    return Promise(core.ballot, node, core.applied_upto + 1, tuple(votes), next_page, truncated)


def follow(watched: Watched, leader: Ballot = LED_BY) -> None:
    watched.run(Tick(START_MS), Heartbeat(leader, APPLIED), Tick(START_MS))


def ask(watched: Watched) -> None:
    """Let patience run out, whoever it was with."""
    watched.tick(max(START_MS - watched.now_ms, 0))
    while watched.core.stage is Stage.FOLLOWER:
        watched.tick(watched.core.wake_at_ms - watched.now_ms)


def prepare(watched: Watched) -> None:
    """Ask, and be granted by just as many as it takes."""
    ask(watched)
    for peer in watched.core.peers:
        if watched.core.stage is Stage.ASKING:
            watched.run(PreVoteAnswer(watched.core.ballot, peer, True, NO_BALLOT))
    assert watched.core.stage is Stage.PREPARING


def lead(watched: Watched, votes: Iterable[Vote] = ()) -> list[Send]:
    """Win, finding `votes` in the own journal; return what is said when phase 1 ends. No tick has followed yet."""
    prepare(watched)
    said = watched.run(promise(watched, watched.node, votes))
    for peer in watched.core.peers:
        if watched.core.stage is Stage.PREPARING:
            said = watched.run(promise(watched, peer))
    assert watched.core.stage is Stage.LEADER
    return said


def reign(watched: Watched) -> None:
    """Lead, with `Lead` chosen and the clock counting."""
    lead(watched)
    watched.tick()
    apply(watched, watched.applied + 1)
    watched.tick()


def apply(watched: Watched, upto: int) -> None:
    watched.run(Progress(upto, 0, watched.core.ballot))


def leader(members: tuple[int, ...] = (1, 2, 3), node: int = NODE) -> Watched:
    """A leader whose window is empty."""
    watched = Watched(members, node)
    reign(watched)
    return watched


def entries(sends: Iterable[Send], node: int = NODE) -> dict[int, Any]:
    """What was proposed, by slot, as the own acceptor hears it."""
    mine = Address(node, Role.ACCEPTOR)
    found = [send.message for send in sends if send.to == mine]
    return {message.slot: decode(message.entry) for message in found if isinstance(message, Accept)}


# --- the scenes ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scene:
    """Where a proposer stands, and what the rules ask about it that it does not show."""

    name: str
    stage: Stage
    make: Callable[[Watched], Any]
    hears: bool = False  # a follower: its leader, lately
    promises: tuple[int, ...] = ()  # a candidate: who has promised to the last page

    def build(self) -> Watched:
        watched = Watched()
        self.make(watched)
        assert watched.core.stage is self.stage, self
        return watched


def _heard_since_the_last_tick(watched: Watched) -> None:
    watched.run(Tick(START_MS), Heartbeat(LED_BY, APPLIED))


def _suspecting(watched: Watched) -> None:
    follow(watched)
    watched.run(PeerLost(LED_BY.node))


def _silent(after_ms: int) -> Callable[[Watched], None]:
    def make(watched: Watched) -> None:
        watched.run(Tick(START_MS), Heartbeat(LED_BY, APPLIED), Tick(START_MS, 0.9), Tick(START_MS + after_ms, 0.9))

    return make


def _asking_after_a_leader(watched: Watched) -> None:
    follow(watched)
    ask(watched)


def _own_promise(watched: Watched) -> None:
    prepare(watched)
    watched.run(promise(watched, NODE))


def _own_first_page(watched: Watched) -> None:
    prepare(watched)
    watched.run(promise(watched, NODE, next_page=APPLIED + 3))


def _full_window(watched: Watched) -> None:
    reign(watched)
    for name in (b"a", b"b", b"c"):
        watched.run(Submit(watched.core.ballot, (name,)), Tick(watched.now_ms))
    assert len(entries(watched.tick(limits.RETRANSMIT_MS))) == limits.WINDOW_SLOTS


def _stalled(watched: Watched) -> None:
    reign(watched)
    watched.tick(limits.LEADER_STALL_MS + 1)


def _found_open(watched: Watched) -> None:
    lead(watched, [Vote(APPLIED + 3, Ballot(1, 1), NO_OP)])
    watched.tick()


def _answered(watched: Watched) -> None:
    reign(watched)
    watched.run(HeartbeatAnswer(watched.core.ballot, 1, APPLIED), Nudge())


MINIMUM_MS = limits.ELECTION_TIMEOUT_MIN_MS

SCENES = (
    Scene("before its first tick", Stage.FOLLOWER, lambda watched: None),
    Scene("follower without a leader", Stage.FOLLOWER, lambda watched: watched.tick(START_MS)),
    Scene("follower, heard since the last tick", Stage.FOLLOWER, _heard_since_the_last_tick, hears=True),
    Scene("follower", Stage.FOLLOWER, follow, hears=True),
    Scene("follower, silence nearly long enough", Stage.FOLLOWER, _silent(MINIMUM_MS - 1), hears=True),
    Scene("follower, silence just long enough", Stage.FOLLOWER, _silent(MINIMUM_MS)),
    Scene("follower that suspects", Stage.FOLLOWER, _suspecting),
    Scene("asking", Stage.ASKING, ask),
    Scene("asking, having followed", Stage.ASKING, _asking_after_a_leader),
    Scene("preparing, before the own promise", Stage.PREPARING, prepare),
    Scene("preparing, after a page of the own promise", Stage.PREPARING, _own_first_page),
    Scene("preparing, after the own promise", Stage.PREPARING, _own_promise, promises=(NODE,)),
    Scene("leader before its first tick", Stage.LEADER, lead),
    Scene("leader that re-proposes", Stage.LEADER, _found_open),
    Scene("leader with an empty window", Stage.LEADER, reign),
    Scene("leader that was answered and nudged", Stage.LEADER, _answered),
    Scene("leader with a full window", Stage.LEADER, _full_window),
    Scene("leader after a stall", Stage.LEADER, _stalled),
)
