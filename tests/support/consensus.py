"""Helpers of the consensus tests: a simulated disk, a checked acceptor, and a cluster of cores in virtual time."""

import heapq
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from lessor.core import limits
from lessor.core.acceptor import Acceptor
from lessor.core.ballot import NO_BALLOT, Ballot, quorum
from lessor.core.commands import FOREVER, Claim, Command, OpenSession, Operation, Ping, Release, Renew, Resource
from lessor.core.effects import Address, Effects, Role, Send
from lessor.core.encoding import decode, encode
from lessor.core.entries import Batch
from lessor.core.expiry_timer import ExpiryTimer
from lessor.core.lease_state import LeaseState
from lessor.core.learner import Applied, Learner
from lessor.core.messages import (
    Accept,
    Accepted,
    Chosen,
    Fetched,
    Heartbeat,
    HeartbeatAnswer,
    Learn,
    PeerLost,
    Prepare,
    PreVoteAnswer,
    Promise,
    Refuse,
    ReplaceState,
    SaveState,
    Submit,
    Tick,
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
    def on(cls, disk: Disk, node: int = 2, members: tuple[int, ...] = (1, 2, 3), applied_upto: int = 0) -> "CheckedAcceptor":
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


# --- a cluster of cores in virtual time ------------------------------------------------------------------------------

CORES = (Role.PROPOSER, Role.ACCEPTOR, Role.LEARNER, Role.EXPIRY_TIMER)


class Violated(AssertionError):
    """A promise was broken; the text names the seed that shows it."""


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


class Cluster:
    """Nodes, a network and a scheduler, all decided by one seed; checks P1, P2, P4 and the laws of Paxos as it goes."""

    def __init__(self, seed: int, size: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.weather = Weather.draw(self.rng)
        self.now = 0
        self.members = tuple(range(1, size + 1))
        self.nodes = {number: Node(number) for number in self.members}
        self.cut: set[tuple[int, int, Role]] = set()
        self.pool: list[tuple[int, int, Role, Any]] | None = None  # in anarchy: what is on its way, in no order
        self.late: dict[tuple[int, int, Role], int] = {}  # links that take their time
        self.events: list[tuple[int, int, Callable[[], None]]] = []
        self.sequence = 0
        self.trace: list[str] | None = None
        self.commands = 0
        # what no node can see
        self.accepted: dict[tuple[int, Ballot], dict[int, None]] = {}
        self.proposed: dict[tuple[int, Ballot], bytes] = {}
        self.stamped_at: dict[tuple[int, Ballot], int] = {}
        self.chosen: dict[int, bytes] = {}
        self.chosen_under: dict[int, Ballot] = {}
        self.lead_by: dict[Ballot, tuple[int, int]] = {}
        self.states: dict[int, bytes] = {}
        self.ahead: dict[int, int] = {0: 0}  # after each slot: how far the lease clock is ahead of real time, at most
        self.answered: dict[int, None] = {}
        self.marks: dict[str, int] = {}
        for number in self.members:
            self.restart(number)

    # --- running ---------------------------------------------------------------------------------------------------

    def at(self, time: int, do: Callable[[], None]) -> None:
        """Do something at a time."""
        self.sequence += 1
        heapq.heappush(self.events, (time, self.sequence, do))

    def run_until(self, time: int) -> None:
        """Let everything happen that happens before `time`."""
        while self.events and self.events[0][0] <= time:
            self.now, _, do = heapq.heappop(self.events)
            do()
        self.now = time

    def violated(self, what: str) -> Violated:
        """Return the failure, with the one line that reproduces it."""
        return Violated(f"{what} | LESSOR_CLUSTER_SEEDS={self.seed} python -m pytest tests/core/test_cluster.py -k seed")

    def mark(self, what: str) -> None:
        """Remember that an interesting state was reached."""
        self.marks[what] = self.marks.get(what, 0) + 1

    def restart(self, number: int) -> None:
        """Start a node from its disk, with another value on its clock."""
        node = self.nodes[number]
        state = node.disk.lease_state()
        node.life += 1
        node.up = True
        node.clock_from, node.clock_base = self.now, self.rng.randrange(1_000_000)
        node.rate = 1.0 - self.rng.random() * self.weather.drift
        node.paused_until = 0
        acceptor = node.disk.acceptor(number, self.members, state.applied_upto)
        learner = WatchedLearner(number, self.members, state)
        learner.watch = lambda vote: self._see_applied(node, vote)
        node.cores = {
            Role.PROPOSER: Proposer(number, self.members, acceptor.promised, state.applied_upto),
            Role.ACCEPTOR: acceptor,
            Role.LEARNER: learner,
            Role.EXPIRY_TIMER: ExpiryTimer(number),
        }
        node.inboxes = {role: [] for role in CORES}
        node.run_at = dict.fromkeys(CORES)
        for send in acceptor.recover().sends:
            self._route(node, send)
        for role in CORES:
            self._wake(node, role, self.now)

    def crash(self, number: int) -> None:
        """Lose everything of a node that is not on its disk."""
        node = self.nodes[number]
        node.up = False
        node.cores, node.inboxes = {}, {}
        self.mark("crash")
        if self.pool is None:
            self.at(self.now + self.rng.randrange(1, 80), lambda: None if node.up else self.restart(number))

    def _wake(self, node: Node, role: Role, time: int) -> None:
        if self.pool is not None:
            return
        time = max(time, node.paused_until, self.now)
        planned = node.run_at[role]
        if planned is None or time < planned:
            node.run_at[role] = time
            self.at(time, lambda life=node.life: self._run(node, role, time, life))  # type: ignore[misc]

    def _run(self, node: Node, role: Role, time: int, life: int) -> None:
        if not node.up or node.life != life or node.run_at[role] != time:
            return
        node.run_at[role] = None
        if node.paused_until > self.now:
            self._wake(node, role, node.paused_until)
        else:
            self._perform(node, role)

    def _perform(self, node: Node, role: Role) -> None:
        """Step a role through what has arrived, commit once, then send: the shell of DESIGN §2, with its crashes."""
        rng, core = self.rng, node.cores[role]
        inbox = node.inboxes[role]
        taken = len(inbox) if rng.random() < 0.9 else rng.randint(0, len(inbox))
        batch, node.inboxes[role] = inbox[:taken], inbox[taken:]
        clock = node.clock(self.now)
        writes: list[Any] = []
        sends: list[Send] = []
        try:
            for message in [*batch, Tick(clock, rng.random())]:
                effects = core.step(message)
                if self.trace is not None and (not isinstance(message, Tick) or effects.sends or effects.writes):
                    self.trace.append(f"{self.now:6} n{node.number} {role.name} {message} -> {effects}")
                writes += effects.writes
                sends += effects.sends
                if role is Role.PROPOSER:
                    self._see_proposed(node, effects.sends)
        except Violated:
            raise
        except Exception as error:
            what = f"node {node.number}: {role.name.lower()} raised {type(error).__name__}: {error}"
            raise self.violated(what) from error
        crash = rng.random() if writes or rng.random() < 0.1 else 1.0
        if crash < self.weather.crash / 2:
            self.crash(node.number)  # before the commit
            return
        node.disk.commit(writes, node.learner.state)
        self._check(node, role, sends)
        if crash < self.weather.crash:
            for send in sends[: rng.randint(0, len(sends))]:
                self._route(node, send)
            self.crash(node.number)  # after it
            return
        for send in sends:
            self._route(node, send)
        if node.inboxes[role]:
            self._wake(node, role, self.now + 1)
        elif role is not Role.ACCEPTOR and (wake_at := core.wake_at_ms) is not None:
            if wake_at <= clock:
                raise self.violated(f"node {node.number}: {role.name.lower()} spins, it wants its tick in the past")
            self._wake(node, role, self.now + int((wake_at - clock) / node.rate) + 1)

    def _route(self, node: Node, send: Send) -> None:
        if not isinstance(send.to, Address):
            return
        number, role = send.to.node, send.to.role
        if number == node.number:
            if role in CORES:
                self._receive(number, role, send.message)  # in this process: never lost, in order
            elif isinstance(send.message, Applied):
                self._see_answers(node, send.message)
            return
        if number not in self.nodes:
            raise self.violated(f"node {node.number} speaks to node {number}, which there is not")
        rng, weather = self.rng, self.weather
        for _ in range(1 + (rng.random() < weather.repeat)):
            if self.pool is not None:
                if not isinstance(send.message, Heartbeat | HeartbeatAnswer) or rng.random() < 0.2:
                    self.pool.append((node.number, number, role, send.message))
                continue
            if rng.random() < weather.loss or (node.number, number, role) in self.cut:
                continue
            late = rng.randrange(weather.slow_ms) if rng.random() < weather.slow else rng.randrange(3)
            late += rng.randint(0, self.late.get((node.number, number, role), 0))
            self.at(self.now + late, lambda: self._arrive(node.number, number, role, send.message))

    def _arrive(self, sender: int, number: int, role: Role, message: Any) -> None:
        if self.nodes[number].up and (sender, number, role) not in self.cut:
            self._receive(number, role, message)

    def _receive(self, number: int, role: Role, message: Any) -> None:
        node = self.nodes[number]
        node.inboxes[role].append(message)
        self._wake(node, role, self.now + (self.rng.random() < 0.2))

    # --- checking --------------------------------------------------------------------------------------------------

    def _see_proposed(self, node: Node, sends: list[Send]) -> None:
        for send in sends:
            message = send.message
            if isinstance(message, Prepare) and isinstance(send.to, Address) and send.to.node != node.number:
                if self.lead_by.setdefault(message.ballot, (node.number, node.life)) != (node.number, node.life):
                    raise self.violated(f"ballot {message.ballot} was used twice")
                if node.disk.promised < message.ballot:
                    raise self.violated(f"ballot {message.ballot} was used before its own node promised it")
            elif isinstance(message, Accept):
                key = (message.slot, message.ballot)
                if self.lead_by.setdefault(message.ballot, (node.number, node.life)) != (node.number, node.life):
                    raise self.violated(f"a value under {message.ballot} by another than who prepared it")
                if key not in self.proposed:
                    self.proposed[key] = message.entry
                    entry = decode(message.entry)
                    if isinstance(entry, Batch) and entry.term == message.ballot:
                        self.stamped_at[key] = self.now
                elif self.proposed[key] != message.entry:
                    raise self.violated(f"two values in slot {message.slot} under {message.ballot}")

    def _see_accepted(self, node: Node, vote: Vote) -> None:
        voters = self.accepted.setdefault((vote.slot, vote.ballot), {})
        voters[node.number] = None
        if len(voters) >= quorum(len(self.members)):
            self.chosen_under[vote.slot] = min(vote.ballot, self.chosen_under.get(vote.slot, vote.ballot))
            if self.chosen.setdefault(vote.slot, vote.entry) != vote.entry:
                raise self.violated(f"P1: two values were chosen in slot {vote.slot}")

    def _see_applied(self, node: Node, vote: Vote) -> None:
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

    def _see_answers(self, node: Node, applied: Applied) -> None:
        if applied.ballot.node != node.number:
            raise self.violated(f"node {node.number} answered for the leader of {applied.ballot}")
        for tag, _ in applied.answers:
            if tag in self.answered:
                raise self.violated(f"command {tag} was answered twice")
            self.answered[tag] = None

    def _check(self, node: Node, role: Role, sends: list[Send]) -> None:
        if role is Role.ACCEPTOR:
            acceptor: Acceptor = node.cores[role]
            for send in sends:
                if isinstance(send.message, Learn):
                    self._see_accepted(node, send.message.vote)
                elif isinstance(send.message, Fetched):
                    self.mark("fetched" if send.message.votes else "truncated")
            for slot, vote in acceptor.votes.items():
                if vote.ballot > acceptor.promised:
                    raise self.violated(f"node {node.number} would let a lower ballot replace its vote in slot {slot}")
                if slot <= acceptor.applied_upto and vote.entry != self.chosen.get(slot):
                    raise self.violated(f"P1: the journal of node {node.number} would serve a wrong value in slot {slot}")
            if vars(node.disk.acceptor(node.number, self.members, acceptor.applied_upto)) != vars(acceptor):
                raise self.violated(f"P2: a restart of acceptor {node.number} would not come back as what was running")
        elif role is Role.PROPOSER:
            if node.proposer.stage is Stage.LEADER:
                for slot in range(node.proposer.applied_upto, 0, -1):
                    if slot in self.chosen_under and self.chosen_under[slot] > node.proposer.ballot:
                        what = f"slot {slot} was chosen under {self.chosen_under[slot]}"
                        raise self.violated(f"leader {node.proposer.ballot} says that it has chosen all slots, but {what}")
        elif role is Role.LEARNER:
            state = node.learner.state
            if state.applied_upto in self.states or self.rng.random() < 0.2:
                snapshot = state.snapshot()
                if self.states.setdefault(state.applied_upto, snapshot) != snapshot:
                    raise self.violated(f"P1: node {node.number} differs in its state after slot {state.applied_upto}")
            if state.clock_ms > self.now:
                raise self.violated(f"P4: the lease clock of node {node.number} is {state.clock_ms} at {self.now} ms")

    # --- clients and faults ----------------------------------------------------------------------------------------

    def leaders(self) -> list[Node]:
        """Return the nodes that believe that they lead."""
        return [node for node in self.nodes.values() if node.up and node.proposer.stage is Stage.LEADER]

    def submit(self, node: Node, count: int = 1) -> list[int]:
        """Hand commands to a node that believes that it leads; return their tags."""
        tags = list(range(self.commands + 1, self.commands + 1 + count))
        self.commands += count
        commands = tuple(encode(Command(tag, self.rng.randint(1, 3), tag, 0, self._operation(tag))) for tag in tags)
        self._receive(node.number, Role.PROPOSER, Submit(node.proposer.ballot, commands))
        return tags

    def _operation(self, tag: int) -> Operation:
        rng = self.rng
        match rng.randrange(6):
            case 0:
                return OpenSession(tag.to_bytes(16, "big"), 500, "x" * rng.randrange(200))
            case 1:
                return Ping(())
            case 2:
                return Release(rng.randint(1, 10))
            case 3:
                return Renew(rng.randint(1, 10), 0)
            case _:
                resource = Resource((rng.choice("ab"),))
                return Claim("n", (resource,), "h", b"", rng.choice((0, 300)), rng.choice((0, FOREVER)), detached=False)

    def _client(self, until: int) -> None:
        if self.now >= until:
            return
        for node in self.leaders():
            if self.rng.random() < 0.7:
                self.submit(node, self.rng.randint(1, 3))
        self.at(self.now + self.rng.randint(1, 12), lambda: self._client(until))

    def _fault(self, until: int) -> None:
        if self.now >= until:
            return
        rng = self.rng
        leaders = self.leaders()
        node = rng.choice(leaders) if leaders and rng.random() < 0.6 else self.nodes[rng.choice(self.members)]
        match rng.randrange(16):
            case 0 if self.weather.crash and node.up:
                self.crash(node.number)
            case 1 | 2 | 3:
                self.cut.update(self._some_links(node.number))
            case 4 | 5:
                self.cut = {link for link in self.cut if rng.random() < 0.3}
            case 6 | 7 | 8 | 9:
                self.late.update(dict.fromkeys(self._some_links(node.number), rng.choice((0, 5, 20, 60, 200))))
            case 10 | 11 | 12 | 13:
                self._campaign(self.nodes[rng.choice(self.members)])
            case 14 if node.up:
                node.paused_until = self.now + rng.randrange(self.weather.pause_ms)
            case _:
                for other in self.nodes.values():
                    if other.up and rng.random() < 0.8:
                        self._receive(other.number, Role.PROPOSER, PeerLost(other.proposer.leader.node))
        self.at(self.now + rng.randint(1, 2 * self.weather.fault_every_ms), lambda: self._fault(until))

    def _campaign(self, node: Node) -> None:
        """Have a node stand although there may be a leader: safety must not rest on patience or on the pre-vote."""
        if not node.up or node.proposer.stage is not Stage.FOLLOWER:
            return
        asked = Ballot(node.proposer.highest.counter + 1, node.number)
        self._receive(node.number, Role.PROPOSER, PeerLost(node.proposer.leader.node))
        answers = [PreVoteAnswer(asked, peer, granted=True, highest=NO_BALLOT) for peer in node.proposer.peers]
        if self.pool is None:
            for answer in answers:
                self.at(self.now + 6, lambda answer=answer: self._arrive(0, node.number, Role.PROPOSER, answer))  # type: ignore[misc]
            return
        self._perform(node, Role.PROPOSER)
        self.now += limits.ELECTION_HINT_SPREAD_MS * 2
        if node.up:
            self._perform(node, Role.PROPOSER)
        if node.up:
            node.inboxes[Role.PROPOSER] += answers

    def _some_links(self, number: int) -> list[tuple[int, int, Role]]:
        """Return the links between a node and some others: one way or both, all of its sockets or those of one role."""
        rng = self.rng
        others = [other for other in self.members if other != number and rng.random() < 0.6]
        roles = rng.choice((CORES, CORES, (Role.PROPOSER,), (Role.ACCEPTOR,), (Role.LEARNER,)))
        out, back = rng.choice(((True, True), (True, False), (False, True)))
        links = [(number, other, role) for other in others for role in roles if out]
        return links + [(other, number, role) for other in others for role in roles if back]

    def storm(self, duration: int) -> None:
        """Run with faults and clients."""
        until = self.now + duration
        self.at(self.now, lambda: self._client(until))
        self.at(self.now + 1, lambda: self._fault(until))
        self.run_until(until)

    def anarchy(self, steps: int) -> None:
        """Run without any order of time: what is on its way arrives whenever it likes, and who likes stands."""
        rng = self.rng
        self.pool = pool = []
        self.events.clear()
        muted = rng.choice(((), (Role.PROPOSER,), (Role.PROPOSER,), (Role.ACCEPTOR,), (Role.LEARNER,)))
        stand, submit = rng.choice((0.02, 0.05, 0.1)), rng.choice((0.05, 0.1, 0.2))
        leak = rng.choice((0.02, 0.05, 0.15))
        rift: dict[int, bool] = {}
        for _ in range(steps):
            if rng.random() < 0.02:
                rift = {number: rng.random() < 0.4 for number in self.members} if rng.random() < 0.8 else {}
            node = self.nodes[rng.choice(self.members)]
            if not node.up:
                if rng.random() < 0.1:
                    self.restart(node.number)
                continue
            chance = rng.random()
            if chance < stand:
                self._campaign(node)
            elif chance < stand + submit:
                for leader in self.leaders():
                    self.submit(leader)
            elif chance < stand + submit + 0.1:
                self.now += rng.randrange(12)
                for role in CORES:
                    if node.up:
                        self._perform(node, role)
            elif pool:
                near = [at for at, (a, b, *_) in enumerate(pool) if not rift or rift[a] == rift[b]]
                phase_1 = [at for at in near if isinstance(pool[at][3], Prepare | Promise)]
                if phase_1 and rng.random() < 0.5:
                    at = rng.choice(phase_1)
                elif near and rng.random() > leak:
                    at = rng.choice(near)
                else:
                    at = rng.randrange(len(pool))
                message = pool[at] if rng.random() < self.weather.repeat else pool.pop(at)
                if rng.random() >= (0.8 if message[2] in muted else self.weather.loss):
                    self._arrive(*message)
            if len(pool) > 100:
                del pool[rng.randrange(len(pool))]
            while rng.random() < 0.98 and (busy := self._busy()):
                self._perform(*rng.choice(busy))
        self.pool = None
        for message in pool:
            self.at(self.now + rng.randrange(50), lambda message=message: self._arrive(*message))  # type: ignore[misc]

    def _busy(self) -> list[tuple[Node, Role]]:
        nodes = [node for node in self.nodes.values() if node.up]
        return [(node, role) for node in nodes for role in CORES if node.inboxes[role]]

    def heal(self, patience: int = 5000) -> None:
        """End the faults, then demand one leader, that what it is given is chosen, and that all nodes agree."""
        self.weather = CALM
        self.cut.clear()
        self.late.clear()
        for node in self.nodes.values():
            node.paused_until = 0
            node.run_at = dict.fromkeys(CORES)
            if not node.up:
                self.restart(node.number)
            for role in CORES:
                self._wake(node, role, self.now)
        end = self.now + patience
        self.run_until(self.now + 300)  # what was lost is noticed, and who has lost a majority steps down
        while not self._settled():
            if self.now >= end:
                raise self.violated("after healing nobody leads, or somebody stays behind")
            self.run_until(self.now + 30)
        leader = self.leaders()[0]
        tags = self.submit(leader, 3)
        self.run_until(self.now + 60)
        if self.leaders() != [leader] or not all(tag in self.answered for tag in tags):
            raise self.violated("a healthy leader did not get its commands chosen, or lost its place")
        end = self.now + patience
        while len({node.learner.applied_upto for node in self.nodes.values()}) > 1:
            if self.now >= end:
                raise self.violated("after healing somebody stays behind")
            self.run_until(self.now + 10)
        if len({node.learner.state.snapshot() for node in self.nodes.values()}) > 1:
            raise self.violated("P1: after healing the nodes differ")

    def _settled(self) -> bool:
        leaders = self.leaders()
        if len(leaders) != 1:
            return False
        ballot, applied = leaders[0].proposer.ballot, leaders[0].learner.applied_upto
        return leaders[0].learner.state.header.term == ballot and all(
            node.proposer.leader == ballot and node.learner.applied_upto >= applied - 2 for node in self.nodes.values()
        )
