"""Whole clusters of cores: conversations told step by step, and seeded storms of every fault that a network knows."""

import heapq
import os
import random
from collections.abc import Callable
from typing import Any

import pytest

from lessor.core import limits
from lessor.core.ballot import NO_BALLOT, Ballot
from lessor.core.commands import FOREVER, Claim, Command, OpenSession, Operation, Ping, Release, Renew
from lessor.core.effects import Address, Role, Send
from lessor.core.encoding import encode
from lessor.core.expiry_timer import ExpiryTimer
from lessor.core.messages import (
    Accept,
    Accepted,
    Fetch,
    Fetched,
    Heartbeat,
    HeartbeatAnswer,
    PeerLost,
    Prepare,
    PreVoteAnswer,
    Promise,
    Submit,
    Tick,
)
from lessor.core.proposer import Proposer, Stage
from lessor.core.resources import Resource

from ..support.consensus import CALM, CORES, HURRY, Node, Observer, Violated, WatchedLearner, Weather

SIZES = (3, 5, 3, 5, 4, 2, 1)


class Cluster:
    """Nodes, a network and a scheduler, all decided by one seed, under the eyes of an observer."""

    def __init__(self, seed: int, size: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.weather = Weather.draw(self.rng)
        self.observer = Observer(size, f"LESSOR_CLUSTER_SEEDS={seed} python -m pytest tests/core/test_cluster.py")
        self.members = tuple(range(1, size + 1))
        self.nodes = {number: Node(number) for number in self.members}
        self.cut: set[tuple[int, int, Role]] = set()
        self.pool: list[tuple[int, int, Role, Any]] | None = None  # in anarchy: what is on its way, in no order
        self.late: dict[tuple[int, int, Role], int] = {}  # links that take their time
        self.events: list[tuple[int, int, Callable[[], None]]] = []
        self.sequence = 0
        self.trace: list[str] | None = None
        self.commands = 0
        for number in self.members:
            self.restart(number)

    @property
    def now(self) -> int:
        """Real time."""
        return self.observer.now

    @now.setter
    def now(self, time: int) -> None:
        self.observer.now = time

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
        learner.watch = lambda vote: self.observer.see_applied(node, vote)
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
        self.observer.mark("crash")
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
        taken = len(inbox) if self.weather is CALM or rng.random() < 0.9 else rng.randint(0, len(inbox))
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
                    self.observer.see_proposer(node, effects.sends)
        except Violated:
            raise
        except Exception as error:
            what = f"node {node.number}: {role.name.lower()} raised {type(error).__name__}: {error}"
            raise self.observer.violated(what) from error
        crash = rng.random() if writes or rng.random() < 0.1 else 1.0
        if crash < self.weather.crash / 2:
            self.crash(node.number)  # before the commit
            return
        node.disk.commit(writes, node.learner.state)
        if role is Role.ACCEPTOR:
            self.observer.see_acceptor(node, sends)
        elif role is Role.LEARNER:
            self.observer.see_learner(node, sends, closely=rng.random() < 0.2)
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
                raise self.observer.violated(
                    f"node {node.number}: {role.name.lower()} spins, it wants its tick in the past"
                )
            self._wake(node, role, self.now + int((wake_at - clock) / node.rate) + 1)

    def _route(self, node: Node, send: Send) -> None:
        if not isinstance(send.to, Address):
            return
        number, role = send.to.node, send.to.role
        if number == node.number:
            if role in CORES:
                self._receive(number, role, send.message)  # in this process: never lost, in order
            return
        if number not in self.nodes:
            raise self.observer.violated(f"node {node.number} speaks to node {number}, which there is not")
        rng, weather = self.rng, self.weather
        for _ in range(1 + (rng.random() < weather.repeat)):
            if self.pool is not None:
                rare = isinstance(send.message, Heartbeat | HeartbeatAnswer) and weather is not CALM
                if not rare or rng.random() < 0.2:
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
        if type(message) not in getattr(node.cores[role], "patient", ()):  # that would wait for whatever comes next
            self._wake(node, role, self.now + (self.rng.random() < 0.2))

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
        pool: list[tuple[int, int, Role, Any]] = []
        self.pool = pool
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
                raise self.observer.violated("after healing nobody leads, or somebody stays behind")
            self.run_until(self.now + 30)
        leader = self.leaders()[0]
        tags = self.submit(leader, 3)
        self.run_until(self.now + 60)
        if self.leaders() != [leader] or not all(tag in self.observer.answered for tag in tags):
            raise self.observer.violated("a healthy leader did not get its commands chosen, or lost its place")
        end = self.now + patience
        while len({node.learner.applied_upto for node in self.nodes.values()}) > 1:
            if self.now >= end:
                raise self.observer.violated("after healing somebody stays behind")
            self.run_until(self.now + 10)
        if len({node.learner.state.snapshot() for node in self.nodes.values()}) > 1:
            raise self.observer.violated("P1: after healing the nodes differ")

    def _settled(self) -> bool:
        leaders = self.leaders()
        if len(leaders) != 1:
            return False
        ballot, applied = leaders[0].proposer.ballot, leaders[0].learner.applied_upto
        return leaders[0].learner.state.header.term == ballot and all(
            node.proposer.leader == ballot and node.learner.applied_upto >= applied - 2 for node in self.nodes.values()
        )


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in HURRY.items():
        monkeypatch.setattr(limits, name, value)


# --- storms: safety under faults, then heal and demand convergence ---------------------------------------------------


def seeds(default: int) -> list[int]:
    """LESSOR_CLUSTER_SEEDS=17 runs one seed, 1000-1999 a thousand of them."""
    first, _, last = os.environ.get("LESSOR_CLUSTER_SEEDS", f"0-{default - 1}").partition("-")
    return list(range(int(first), int(last or first) + 1))


@pytest.mark.parametrize("seed", seeds(40))
def test_a_cluster_keeps_its_promises_in_a_storm(seed: int) -> None:
    """P1, P2 and P4 after every step, under loss, delay, repetition, cuts, pauses and crashes; then progress."""
    cluster = Cluster(seed, SIZES[seed % len(SIZES)])
    cluster.storm(400)
    cluster.heal()


@pytest.mark.parametrize("seed", seeds(100))
def test_a_cluster_keeps_its_promises_in_anarchy(seed: int) -> None:
    """The same, when messages arrive in any order at all and anybody stands at any time."""
    cluster = Cluster(seed, SIZES[seed % len(SIZES)])
    cluster.anarchy(500)
    cluster.heal()


# --- conversations ---------------------------------------------------------------------------------------------------


class Conversation:
    """A cluster in which a message arrives only when the test says so."""

    def __init__(self, size: int) -> None:
        self.cluster = Cluster(0, size)
        self.cluster.weather = CALM
        self.cluster.pool = []
        self.settle()

    def settle(self) -> None:
        """Let every node do what it has been told; what it tells itself arrives at once."""
        while busy := self.cluster._busy():
            self.cluster._perform(*busy[0])

    def deliver(self, kind: type, to: int, sender: int | None = None, *, slot: int | None = None) -> int:
        """Let the messages of this kind arrive that are on their way; return how many there were."""
        pool = self.cluster.pool
        assert pool is not None
        chosen = [
            item
            for item in pool
            if isinstance(item[3], kind)
            and item[1] == to
            and sender in (None, item[0])
            and slot in (None, getattr(item[3], "slot", None))
        ]
        self.cluster.pool = [item for item in pool if item not in chosen]
        for item in chosen:
            self.cluster._arrive(*item)
            self.settle()
        return len(chosen)

    def stand(self, node: int) -> None:
        """Let a node ask for promises, as if the others had granted their pre-votes."""
        self.cluster._campaign(self.cluster.nodes[node])
        self.settle()
        assert self.cluster.nodes[node].proposer.stage in (Stage.PREPARING, Stage.LEADER)

    def lead(self, node: int, *others: int) -> Ballot:
        """Make a node leader by the promises of these others."""
        self.stand(node)
        for other in others:
            assert self.deliver(Prepare, other, node)
            assert self.deliver(Promise, node, other)
        proposer = self.cluster.nodes[node].proposer
        assert proposer.stage is Stage.LEADER
        return proposer.ballot

    def choose(self, node: int, *others: int, slot: int) -> None:
        """Have a leader's value of a slot chosen by these others, and let it know."""
        for other in others:
            assert self.deliver(Accept, other, node, slot=slot)
            assert self.deliver(Accepted, node, other, slot=slot)
        assert self.cluster.nodes[node].learner.applied_upto >= slot

    def tick(self, node: int, elapsed_ms: int = 1, role: Role = Role.PROPOSER) -> None:
        """Let a role look at its clock."""
        self.cluster.now += elapsed_ms
        self.cluster._perform(self.cluster.nodes[node], role)
        self.settle()


def test_a_late_accept_of_a_lower_ballot_cannot_replace_a_value_that_was_fetched() -> None:
    """P1: what an acceptor has recorded as chosen it serves to others, whatever arrives from the past."""
    talk = Conversation(5)
    assert talk.lead(1, 2, 3) == Ballot(1, 1)  # its Accept of slot 1 stays on its way to everybody
    assert talk.lead(2, 3, 4) == Ballot(1, 2)
    talk.choose(2, 3, 4, slot=1)
    talk.tick(2, limits.HEARTBEAT_MS)
    assert talk.deliver(Heartbeat, 5, 2)
    talk.tick(5, limits.FETCH_RETRY_MS, Role.LEARNER)
    talk.tick(2, limits.SAVE_EVERY_MS, Role.LEARNER)
    assert talk.deliver(Fetch, 2, 5)
    assert talk.deliver(Fetched, 5, 2)
    assert talk.cluster.nodes[5].learner.applied_upto == 1
    chosen = talk.cluster.nodes[5].disk.votes[1]
    assert talk.deliver(Accept, 5, 1, slot=1)
    assert talk.cluster.nodes[5].disk.votes[1] == chosen


def test_a_leader_never_claims_what_was_chosen_under_a_higher_ballot() -> None:
    """P1: its followers would apply what they accepted from it in those slots, which may be something else."""
    talk = Conversation(5)
    assert talk.lead(2, 4, 5) == Ballot(1, 2)
    assert talk.deliver(Accept, 4, 2, slot=1)  # a minority has it: 2 and 4
    assert talk.lead(3, 1, 5) == Ballot(1, 3)
    talk.choose(3, 1, 5, slot=1)  # another value, by 1, 3 and 5
    talk.cluster.submit(talk.cluster.nodes[3])
    talk.settle()
    assert talk.deliver(Accept, 2, 3) == 2  # the second one says that slot 1 is chosen
    assert talk.cluster.nodes[2].learner.applied_upto == 1
    talk.tick(2, limits.HEARTBEAT_MS)
    talk.deliver(Heartbeat, 4, 2)
    talk.deliver(Accept, 4, 2)
    assert talk.cluster.nodes[4].learner.applied_upto == 0
    assert talk.cluster.nodes[2].proposer.stage is not Stage.LEADER


def test_a_candidate_that_learns_of_values_of_a_higher_ballot_gives_up() -> None:
    """A promise that was late would make it leader of a ballot which others have passed."""
    talk = Conversation(3)
    talk.stand(2)
    assert talk.deliver(Prepare, 1, 2)  # the promise stays on its way
    assert talk.lead(3, 1) == Ballot(1, 3)
    talk.choose(3, 1, slot=1)
    talk.cluster.submit(talk.cluster.nodes[3])
    talk.settle()
    assert talk.deliver(Accept, 2, 3) == 2
    assert talk.cluster.nodes[2].learner.applied_upto == 1
    assert talk.deliver(Promise, 2, 1)
    assert talk.cluster.nodes[2].proposer.stage not in (Stage.PREPARING, Stage.LEADER)
