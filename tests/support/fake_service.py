"""A service, a network and clients in virtual time: the production protocol against the production state machine.

The service is the real gateways and the real lease state; between them stands, instead of consensus, a log that the
one leader appends to at once (or, while it is held up, that may yet be adopted by the next leader, or lost). What the
network does to a packet is a function of the packet, so that a test may go through all packets of a conversation.
After every event the world checks P3, P8 and P9 (`World.check`).
"""

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lessor.client.errors import AcquireTimeout, ClientClosed, ServiceBusy, Unavailable
from lessor.client.protocol import Acquire, LeaseRecord, LeaseState, Protocol, Terms
from lessor.core.ballot import NO_BALLOT, Ballot
from lessor.core.commands import FOREVER, Claim, Operation
from lessor.core.effects import Connection, Send
from lessor.core.entries import Batch, Entry, Lead
from lessor.core.errors import Malformed
from lessor.core.gateway import FromClient, Gateway, NodeFacts
from lessor.core.learner import Applied
from lessor.core.lease_state import LeaseState as State
from lessor.core.messages import Leadership, Submit, Tick
from lessor.core.records import ClaimRecord
from lessor.core.requests import Rejected, Request
from lessor.core.resources import Resource
from lessor.core.results import Denied
from lessor.transport.packets import BadMessage, decode_packet, encode_packet

LATENCY_MS = 1.0
"""How long a packet or the making of a connection takes, if the network does nothing else with it."""

CONNECT_TIMEOUT_MS = 2_000.0
"""A connection to a node from which nothing comes is given up after this long."""

RECONNECT_MS = 100.0
"""A connection that cannot be made is tried again after this long."""

TURNS_MAX = 2_000
"""A client that takes more turns than this in one moment of time is spinning."""

DEFINITE = "certainly not held"


# --- the service -----------------------------------------------------------------------------------------------------


class Service:
    """Nodes with their gateways, and the one log; the lease clock runs while somebody leads."""

    def __init__(self, nodes: int, rate: float) -> None:
        self.state = State()
        self.rate = rate
        self.endpoints = {node: f"tcp://node{node}:7411" for node in range(1, nodes + 1)}
        self.gateways: dict[int, Gateway] = {}
        self.leader = 0
        self.ballot = NO_BALLOT
        self.held_up = False
        self.pending: list[bytes] = []  # proposed while held up
        self.reply: Callable[[int, Request], Any] = lambda node, request: None
        self.executed: dict[bytes, list[int]] = {}  # the claims that came of the acquire with these data
        self.kinds: list[str] = []  # of the events so far
        self.log: list[Entry] = []
        self._elapsed_ms = 0.0
        self._looked_at = 0.0
        self._still_until = 0.0
        for node in self.endpoints:
            self.restart(node)

    def restart(self, node: int) -> None:
        self.gateways[node] = Gateway(NodeFacts(node, "fake", "0", self.endpoints))
        if self.leader and self.leader != node:
            self.believe(node, self.leader)

    def believe(self, node: int, leader: int) -> list[Send]:
        """Have a node hear that `leader` leads (0: nobody); what was under way through it is redirected."""
        role = "leader" if leader == node else "follower"
        return self.gateways[node].step(Leadership(role, self.ballot if leader else NO_BALLOT, leader)).sends

    # --- time ----------------------------------------------------------------------------------------------------

    def elapsed_ms(self, now: float) -> int:
        ran = max(0.0, now - max(self._looked_at, min(self._still_until, now)))
        if self.leader:
            self._elapsed_ms += ran * self.rate
        self._looked_at = max(self._looked_at, now)
        return int(self._elapsed_ms)

    def clock_ms(self, now: float) -> int:
        """The lease clock as a batch that is stamped now would show it."""
        return self.state.header.base_ms + self.elapsed_ms(now)

    def stand_still(self, now: float, ms: float) -> None:
        """Let the lease clock stand still from now on, as after a leader's stall."""
        self.elapsed_ms(now)
        self._still_until = now + ms

    def due_in_ms(self, now: float) -> float | None:
        """Return for how long at least nothing more is due; None: nothing ever, as things are."""
        deadline_ms = self.state.next_deadline_ms()
        if not deadline_ms or not self.leader or self.held_up:
            return None
        self.elapsed_ms(now)
        left_ms = deadline_ms - self.state.header.base_ms - self._elapsed_ms
        still_ms = max(0.0, self._still_until - now)
        return still_ms + max(0.0, left_ms / self.rate)

    # --- the log -------------------------------------------------------------------------------------------------

    def elect(self, node: int, now: float, *, adopt: bool) -> None:
        """A new leader takes over; what the old one had proposed and not seen chosen is adopted, or lost."""
        if adopt and self.pending:
            self._apply(Batch(self.ballot, self.elapsed_ms(now), tuple(self.pending)))
        self.elapsed_ms(now)
        self.pending = []
        self.held_up = False
        self.leader = node
        self.ballot = Ballot(self.ballot.counter + 1, node)
        self._elapsed_ms = 0.0
        self._still_until = now
        self._apply(Lead(self.ballot))

    def depose(self, now: float) -> None:
        """Nobody leads from now on; the lease clock stands still."""
        self.elapsed_ms(now)
        self.leader = 0

    def commit(self, now: float) -> list[Send]:
        """Append what is proposed to the log, with what is due by now, and answer."""
        batch = Batch(self.ballot, self.elapsed_ms(now), tuple(self.pending))
        self.pending = []
        return self._apply(batch)

    def _apply(self, entry: Entry) -> list[Send]:
        self.log.append(entry)
        outcome = self.state.apply(self.state.applied_upto + 1, entry)
        self.kinds += [event.kind for event in outcome.events]
        for number in self.state.claims.changed:
            claim = self.state.claims.record(number)
            if claim is not None and number not in self.executed.setdefault(claim.data, []):
                self.executed[claim.data].append(number)
        self.state.claims.changed.clear()
        if not self.leader:
            return []
        applied = Applied(self.ballot, self.state.clock_ms, tuple(outcome.answers), tuple(outcome.notices))
        return self.gateways[self.leader].step(applied).sends

    # --- requests ------------------------------------------------------------------------------------------------

    def handle(self, node: int, connection: Connection, frame: bytes, now: float) -> list[Send]:
        """What the node does with a client's packet, as the shell of its gateway would."""
        gateway = self.gateways[node]
        try:
            messages = decode_packet(frame)
        except Malformed as error:
            return [Send(connection, Rejected(0, str(error)[:1000]))]
        sends: list[Send] = []
        for message in messages:
            if isinstance(message, BadMessage):
                sends.append(Send(connection, Rejected(message.raw[2], message.error[:1000])))
                continue
            scripted = self.reply(node, message)
            if scripted is not None:
                sends.append(Send(connection, scripted))
            else:
                sends += gateway.step(FromClient(connection, message)).sends
        for send in gateway.step(Tick(int(now))).sends:
            assert isinstance(send.message, Submit)
            if node == self.leader and send.message.ballot == self.ballot:
                self.pending += send.message.commands
        if self.pending and not self.held_up:
            sends += self.commit(now)
        return sends


# --- the network -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hop:
    """A packet on its way between a client and a node."""

    index: int
    at: float
    up: bool  # to the node
    client: int
    node: int
    frame: bytes

    @property
    def messages(self) -> list[Any]:
        """What is in it."""
        return decode_packet(self.frame)

    def __str__(self) -> str:
        """Show what went where, for a failure's message."""
        arrow = "->" if self.up else "<-"
        return f"#{self.index} {self.at:g} ms: client {self.client} {arrow} node {self.node}: {self.messages}"


Fate = Callable[[Hop], Sequence[float]]
"""After how long each copy of the packet arrives; none: it is lost."""


def as_it_should(hop: Hop) -> Sequence[float]:
    return (LATENCY_MS,)


@dataclass(slots=True)
class Outcome:
    """What a caller was told, and when; being told twice is a failure."""

    tag: bytes
    value: Any = None
    at: float = -1.0
    acquire: Acquire | None = None
    done: bool = False

    @property
    def lease(self) -> LeaseRecord:
        assert isinstance(self.value, LeaseRecord), f"{self.tag!r} got {self.value!r}"
        return self.value

    @property
    def definite_failure(self) -> bool:
        """Whether it says that the claim is certainly not held (P9)."""
        if isinstance(self.value, AcquireTimeout | ClientClosed | Unavailable):
            return not self.value.indefinite
        return isinstance(self.value, Denied | ServiceBusy)


class FakeClient:
    """A protocol run as `client/engine.py` runs it, on a clock of its own."""

    def __init__(self, world: "World", number: int, session_timeout_ms: int, rate: float, offset_ms: float) -> None:
        self.world = world
        self.number = number
        self.rate = rate
        self.offset_ms = offset_ms
        self.connected: dict[int, bool] = {}  # False: it is being made
        self.dead = False
        self.tick_every_ms = 0.0
        self.packets = 0
        self.changes: list[tuple[int, LeaseRecord]] = []  # what was lost or released
        self.states: list[tuple[int, int, LeaseState]] = []
        self._wake_at = -1.0
        self._turns = (-1.0, 0)
        keys = random.Random(f"keys of {number}")
        luck = random.Random(f"luck of {number}")
        endpoints = list(world.service.endpoints.values())
        self.protocol = Protocol(endpoints, lambda: keys.randbytes(16), session_timeout_ms, "", luck.random)
        self.protocol.now_ms = self.now_ms

    @property
    def now_ms(self) -> int:
        """The client's own clock."""
        return int(self.offset_ms + self.world.now * self.rate)

    def when(self, local_ms: float) -> float:
        """The world's time at which the client's clock shows `local_ms`."""
        at = max(self.world.now, (local_ms - self.offset_ms) / self.rate)
        while int(self.offset_ms + at * self.rate) < local_ms:
            at += 0.001
        return at

    # --- what a user does ----------------------------------------------------------------------------------------

    def begin(self, do: Callable[[Callable[[Any], None]], Any], tag: bytes = b"") -> Outcome:
        outcome = Outcome(tag)

        def done(value: Any) -> None:
            assert not outcome.done, f"{tag!r} was told {outcome.value!r} and then {value!r}"
            outcome.value, outcome.at, outcome.done = value, self.world.now, True
            if isinstance(value, LeaseRecord):
                value.on_change = self._changed
            if outcome.definite_failure and tag:
                self.world.gone[tag] = DEFINITE

        self.protocol.now_ms = self.now_ms
        begun = do(done)
        if isinstance(begun, Acquire):
            outcome.acquire = begun
            self.world.acquires.append(outcome)
        self.turn()
        return outcome

    def _changed(self, lease: LeaseRecord) -> None:
        self.states.append((self.now_ms, lease.token, lease.state))
        self.changes += [(self.now_ms, lease)] * lease.over

    def acquire(
        self,
        name: str = "x",
        ttl_ms: int = 30_000,
        timeout_ms: int = FOREVER,
        *,
        detached: bool = False,
        size: int = 0,
        **terms: Any,
    ) -> Outcome:
        """Acquire as `Caller.acquire` does; 0 as `timeout_ms`: try."""
        tag = f"{self.number}.{len(self.world.acquires)}".encode().ljust(size)
        claim = Claim("default", (Resource((name,)),), f"client {self.number}", tag, ttl_ms, timeout_ms, detached)
        deadline = None if timeout_ms == FOREVER else self.now_ms + (timeout_ms or 10_000)
        return self.begin(lambda done: self.protocol.acquire(claim, done, deadline, Terms(**terms)), tag)

    def abandon(self, outcome: Outcome) -> None:
        """As `Caller.acquire` does when its wait is interrupted: nobody looks at the outcome any more."""
        assert outcome.acquire is not None
        self.protocol.now_ms = self.now_ms
        self.protocol.abandon(outcome.acquire)
        self.turn()

    def release(self, lease: LeaseRecord, within_ms: int = 10_000) -> Outcome:
        return self.begin(lambda done: self.protocol.release(lease, done, self.now_ms + within_ms))

    def renew(self, lease: LeaseRecord, ttl_ms: int = 0, within_ms: int = 10_000) -> Outcome:
        return self.begin(lambda done: self.protocol.renew(lease, ttl_ms, done, self.now_ms + within_ms))

    def call(self, operation: Operation, within_ms: int = 10_000) -> Outcome:
        return self.begin(lambda done: self.protocol.call(operation, done, self.now_ms + within_ms))

    def close(self, within_ms: int = 2_000) -> Outcome:
        return self.begin(lambda done: self.protocol.close(done, self.now_ms + within_ms))

    def die(self) -> None:
        """Say nothing any more, as a process that was killed."""
        self.dead = True

    def believes(self) -> list[LeaseRecord]:
        """The leases that the client would call held if it were asked now."""
        return [] if self.dead else [lease for lease in self.protocol.leases.values() if self.holds(lease)]

    def holds(self, lease: LeaseRecord) -> bool:
        return not lease.over and self.now_ms < self.protocol.safe_until_ms(lease)

    # --- the engine ----------------------------------------------------------------------------------------------

    def turn(self, *, force: bool = False) -> None:
        """As `Engine._turn`, once what happened has been told to the protocol."""
        if self.dead:
            return
        at, turns = self._turns
        self._turns = (self.world.now, turns + 1 if at == self.world.now else 0)
        assert turns < TURNS_MAX, f"client {self.number} spins at {self.world.now} ms"
        wake_at = self.protocol.wake_at_ms()
        if force or (wake_at is not None and self.now_ms >= wake_at):
            self.protocol.tick(self.now_ms)
        for packet in self.protocol.take_output():
            self.packets += 1
            node = self.world.node_at(packet.endpoint)
            if self.connected.get(node):
                self.world.send(self, node, packet.frame, up=True)
            else:
                self.protocol.not_sent(packet)
                if node not in self.connected:
                    self.connected[node] = False
                    self.world.at(self.world.now + LATENCY_MS, lambda node=node: self._connect(node))  # type: ignore[misc]
        self._plan_wake()

    def _plan_wake(self) -> None:
        wake_at = self.protocol.wake_at_ms()
        if self.tick_every_ms:
            at = self.world.now - self.world.now % 1 + self.tick_every_ms
        elif wake_at is not None:
            at = self.when(wake_at)
        else:
            return
        if self._wake_at <= self.world.now or at < self._wake_at:  # an earlier one looks again by itself
            self._wake_at = at
            self.world.at(at, lambda: self._woken(at), after=self.number)

    def _woken(self, at: float) -> None:
        if at == self._wake_at:
            self._wake_at = -1.0
            self.turn(force=bool(self.tick_every_ms))

    def _connect(self, node: int, *, given_up: bool = False) -> None:
        if node in self.world.silent and not given_up:
            self.world.at(self.world.now + CONNECT_TIMEOUT_MS, lambda: self._connect(node, given_up=True))
            return
        up = node in self.world.up and node not in self.world.silent
        self.connected[node] = up
        endpoint = self.world.service.endpoints.get(node, "")
        if self.dead or not endpoint:
            return
        if up:
            self.protocol.connected(endpoint, self.now_ms)
        else:
            self.protocol.disconnected(endpoint, self.now_ms)
            self.world.at(self.world.now + RECONNECT_MS, lambda: self._connect(node))
        self.turn()

    def receive(self, node: int, frame: bytes) -> None:
        if not self.dead and self.connected.get(node):
            self.protocol.receive(self.world.service.endpoints[node], frame, self.now_ms)
            self.turn()

    def lose_connection(self, node: int) -> None:
        """The connection breaks, and is made again as soon as the node is there."""
        if self.connected.get(node) and not self.dead:
            self.connected[node] = False
            self.protocol.disconnected(self.world.service.endpoints[node], self.now_ms)
            self.world.at(self.world.now + RECONNECT_MS, lambda: self._connect(node))
            self.turn()


class World:
    """Everything that happens, in virtual milliseconds."""

    def __init__(self, nodes: int = 3, fate: Fate = as_it_should, *, rate: float = 1.0, leader: int = 1) -> None:
        self.now = 0.0
        self.fate = fate
        self.service = Service(nodes, rate)
        self.up = set(self.service.endpoints)
        self.silent: set[int] = set()  # connections stand, and nothing comes through
        self.clients: list[FakeClient] = []
        self.acquires: list[Outcome] = []
        self.gone: dict[bytes, str] = {}
        self.broken: set[int] = set()  # tokens of grants that somebody else has ended
        self.hops: list[Hop] = []
        self._happenings: list[tuple[float, int, int, Callable[[], None]]] = []
        self._sequence = 0
        self._expiry: object = None
        if leader:
            self.elect(leader)

    # --- time ----------------------------------------------------------------------------------------------------

    def at(self, time: float, do: Callable[[], None], after: int = 0) -> None:
        """Do something at a time; of what happens at once, the timers of the clients come last, in their order."""
        self._sequence += 1
        heapq.heappush(self._happenings, (time, after, self._sequence, do))

    def run(self, ms: float) -> None:
        """Let everything happen that happens within the next `ms`."""
        until = self.now + ms
        while self._happenings and self._happenings[0][0] <= until:
            at, _, _, do = heapq.heappop(self._happenings)
            self.now = max(self.now, at)
            do()
            self.check()
        self.now = until

    def until(self, asked: Callable[[], Any], within_ms: float = 60_000) -> None:
        """Let things happen until what is asked for is so."""
        end = self.now + within_ms
        while not asked():
            next_at = self._happenings[0][0] if self._happenings else end + 1
            assert next_at <= end, f"in vain: {self.story()}"
            self.run(max(0.0, next_at - self.now))

    def finish(self, *outcomes: Outcome, within_ms: float = 60_000) -> None:
        """Let things happen until these callers have been told."""
        self.until(lambda: all(outcome.done for outcome in outcomes), within_ms)

    # --- what there is -------------------------------------------------------------------------------------------

    def client(self, session_timeout_ms: int = 10_000, rate: float = 1.0, offset_ms: float = 1_000_000) -> FakeClient:
        client = FakeClient(self, len(self.clients) + 1, session_timeout_ms, rate, offset_ms)
        self.clients.append(client)
        return client

    def node_at(self, endpoint: str) -> int:
        return next((node for node, found in self.service.endpoints.items() if found == endpoint), 0)

    # --- what is done to it --------------------------------------------------------------------------------------

    def elect(self, node: int, *, adopt: bool = False, tell: bool = True) -> None:
        """Let a node lead from now on, and tell every node that is up (or only the leader)."""
        self.service.elect(node, self.now, adopt=adopt)
        for other in sorted(self.up):
            if tell or other == node:
                self.speak(other, self.service.believe(other, node))
        self._plan_expiry()

    def depose(self) -> None:
        """Nobody leads from now on, and every node knows it."""
        self.service.depose(self.now)
        for node in sorted(self.up):
            self.speak(node, self.service.believe(node, 0))

    def believe(self, node: int, leader: int) -> None:
        self.speak(node, self.service.believe(node, leader))

    def kill(self, node: int) -> None:
        """End a node's process: its connections break at once."""
        self.up.discard(node)
        if self.service.leader == node:
            self.service.depose(self.now)
        for client in self.clients:
            client.lose_connection(node)

    def restart(self, node: int) -> None:
        self.up.add(node)
        self.service.restart(node)

    def commit(self) -> None:
        """Let through what was held up."""
        self.service.held_up = False
        self.speak(self.service.leader, self.service.commit(self.now))
        self._plan_expiry()

    def stand_still(self, ms: float) -> None:
        self.service.stand_still(self.now, ms)
        self._plan_expiry()

    def heal(self) -> None:
        """Let the network do as it should, all nodes be up, and one lead."""
        self.fate = as_it_should
        self.silent.clear()
        for node in self.service.endpoints:
            if node not in self.up:
                self.restart(node)
        self.service.reply = lambda node, request: None
        if not self.service.leader:
            self.elect(1)
        if self.service.held_up:
            self.commit()

    # --- packets -------------------------------------------------------------------------------------------------

    def send(self, client: FakeClient, node: int, frame: bytes, *, up: bool) -> None:
        hop = Hop(len(self.hops), self.now, up, client.number, node, frame)
        self.hops.append(hop)
        for delay in self.fate(hop):
            arrive = self._at_node if up else self._at_client
            self.at(self.now + delay, lambda arrive=arrive: arrive(client, node, frame))  # type: ignore[misc]

    def _at_node(self, client: FakeClient, node: int, frame: bytes) -> None:
        if node in self.up and node not in self.silent:
            connection = Connection(str(client.number).encode())
            self.speak(node, self.service.handle(node, connection, frame, self.now))
            self._plan_expiry()

    def _at_client(self, client: FakeClient, node: int, frame: bytes) -> None:
        if node not in self.silent:
            client.receive(node, frame)

    def speak(self, node: int, sends: list[Send]) -> None:
        """Send a node's answers, one packet to each client."""
        packets: dict[Connection, list[Any]] = {}
        for send in sends:
            assert isinstance(send.to, Connection)
            packets.setdefault(send.to, []).append(send.message)
        for connection, messages in packets.items():
            client = self.clients[int(connection.identity) - 1]
            self.send(client, node, encode_packet(messages), up=False)

    def _plan_expiry(self) -> None:
        wait_ms = self.service.due_in_ms(self.now)
        if wait_ms is not None:
            self._expiry = mark = object()
            self.at(self.now + wait_ms, lambda: self._expire(mark))

    def _expire(self, mark: object) -> None:
        service = self.service
        if mark is not self._expiry or not service.leader or service.held_up:
            return
        if service.clock_ms(self.now) >= service.state.next_deadline_ms():
            self.speak(service.leader, service.commit(self.now))
            self._plan_expiry()
        else:
            self.at(self.now + 0.001, lambda: self._expire(mark))  # rounding

    # --- what must be so at every moment -------------------------------------------------------------------------

    def check(self) -> None:
        """P3: who believes that it holds, does. P8: what is over is lost. P9: what is definite stays so."""
        state = self.service.state
        clock_ms = self.service.clock_ms(self.now)
        for client in self.clients:
            for lease in client.believes():
                if lease.token in self.broken:
                    continue
                claim = state.claims.granted(lease.token)
                assert claim is not None, f"P3: client {client.number} believes in {lease}: {self.story()}"
                left_ms = state.claims.expires_at_ms(claim) - clock_ms
                assert left_ms > 0, f"P3: {lease} was over {-left_ms} ms ago: {self.story()}"
            for lease in client.protocol.leases.values():
                over_ms = client.now_ms - client.protocol.safe_until_ms(lease)
                assert over_ms <= 0 or client.dead, f"P8: {lease} is not lost after {over_ms} ms: {self.story()}"
        for claim in self.claims():
            assert claim.data not in self.gone, f"P9: {claim} was said to be {DEFINITE}: {self.story()}"

    def claims(self, tag: bytes = b"") -> list[ClaimRecord]:
        """What is held and waited for in the service, or what came of one acquire."""
        return [claim for claim in self.service.state.claims.records() if not tag or claim.data == tag]

    def leftovers(self) -> list[ClaimRecord]:
        """Claims in the service that no living client knows as its lease, nor waits for."""
        alive = [client for client in self.clients if not client.dead]
        tokens = {lease.token for client in alive for lease in client.protocol.leases.values()}
        waited = {outcome.tag for outcome in self.acquires if not outcome.done}
        return [claim for claim in self.claims() if claim.token not in tokens and claim.data not in waited]

    def story(self) -> str:
        return f"at {self.now:g} ms, after:\n" + "\n".join(str(hop) for hop in self.hops[-60:])
