"""The world of a scenario: nodes and clients in memory, a clock that stands, and messages that wait to be delivered.

Nodes are the production cores in a shell that does what actors/shell.py does; at their door stands the production
check of who may speak (actors/links.py). Clients are the production protocol. What a node tells itself arrives at once.
Nothing is left to chance: node n of a cluster draws the same luck, 0.3 × (n − 1), whenever it draws.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from lessor.actors.links import Links, Tallies
from lessor.client.calls import Packet
from lessor.client.protocol import Protocol
from lessor.core.effects import Address, Connection, Role, Send
from lessor.core.encoding import decode
from lessor.core.entries import Batch
from lessor.core.expiry_timer import ExpiryTimer
from lessor.core.gateway import FromClient, Gateway, NodeFacts
from lessor.core.learner import Events
from lessor.core.messages import PeerLost, ReplaceState, Stranger, Tick, Vote
from lessor.core.proposer import Proposer, Stage
from lessor.transport.packets import Sender, decode_packet, decode_peer_packet, encode_packet, encode_peer_packet

from ..sim.disk import Disk
from ..support.consensus import WatchedLearner
from .words import ms, show, span

ROLES = (Role.LEARNER, Role.GATEWAY, Role.EXPIRY_TIMER, Role.ACCEPTOR, Role.PROPOSER)
MESSAGES, SLOTS, OUTCOMES, NOTHING = range(4)
"""How much is told: every message, or only what is chosen and who leads, or only what became of sessions and leases."""


@dataclass(eq=False, slots=True)
class Flight:
    """One message on its way."""

    sender: str
    to: str
    message: Any
    role: Role = Role.GATEWAY
    identity: Sender | None = None  # of a node that speaks to a node
    copy: bool = False

    def __str__(self) -> str:
        return f"{self.sender}->{self.to} {show(self.message)}{' (copy)' if self.copy else ''}"

    def matches(self, words: list[str]) -> bool:
        """Return whether all these words are in its line; `n1->` and `->n2` stand for one end of its way."""
        ends = {f"{self.sender}->", f"->{self.to}"}
        return set(words) <= ends | {type(self.message).__name__} | set(
            str(self).replace("[", " ").replace("]", " ").replace(";", " ").split()
        )


class Met(dict[int, int]):
    """The peers that a node has met, with their incarnations, as its data directory keeps them."""

    def meet(self, node: int, incarnation: int) -> bool:
        return self.setdefault(node, incarnation) == incarnation

    def known_incarnation(self, node: int) -> int | None:
        return self.get(node)


class Door(Links):
    """The production check of what comes from other nodes, without sockets."""

    def __init__(self, node: "Node") -> None:
        members = dict.fromkeys(node.world.members, "")
        super().__init__(node.identity, members, node.met, Tallies(), None, {}, node.hear_of_itself)  # type: ignore[arg-type]
        self.node = node

    def remote(self, address: Address) -> Any:
        door = self

        class Ref:
            def tell(self, message: Any) -> None:
                door.node.world.send(Flight(door.node.name, f"n{address.node}", message, address.role, door.sender))

        return Ref()

    def flush(self) -> None:
        """Nothing waits: each message flies alone."""

    def enter(self, flight: Flight) -> list[Any]:
        """Return what of a packet reaches the role that it was sent to."""
        assert flight.identity is not None
        sender, messages = decode_peer_packet(encode_peer_packet(flight.identity, [flight.message]))
        batch: list[Any] = []
        self._strangers.clear()  # they are told so at most once in a second of real time, which does not count here
        if self._known(sender, flight.role):
            for message in messages:
                self._take(message, sender, (type(flight.message),), batch)
        else:
            self.node.world.tell(
                OUTCOMES, f"{self.node.name} does not listen to {flight.sender}: it has lost its journal"
            )
        return batch


class Node:
    """One node. Its disk, and whom it has met, outlive a crash."""

    def __init__(self, world: "World", number: int) -> None:
        self.world, self.number, self.name = world, number, f"n{number}"
        self.incarnation = number
        self.luck = 0.3 * (number - 1)
        self.up = self.fresh = False
        self.stalled_until = 0
        self.wipe()

    def wipe(self) -> None:
        """Give it an empty directory."""
        self.disk, self.met = Disk(), Met()
        self.incarnation += 10
        self.fresh = True

    @property
    def identity(self) -> Sender:
        return Sender(1, self.number, self.incarnation)

    @property
    def clock(self) -> int:
        """What its clock shows: no two clocks agree."""
        return self.world.now + 1_000_000 * self.number

    @property
    def stalled(self) -> bool:
        return self.world.now < self.stalled_until

    def start(self) -> None:
        world = self.world
        self.disk.reconcile()
        state = self.disk.lease_state()
        self.learner = WatchedLearner(self.number, world.members, state)
        self.applied: list[Vote] = []
        self.learner.watch = self.applied.append
        acceptor = self.disk.acceptor(self.number, world.members, state.applied_upto)
        self.proposer = Proposer(self.number, world.members, acceptor.promised, state.applied_upto)
        facts = NodeFacts(self.number, "scenario", "0", {number: f"n{number}" for number in world.members})
        cores = (self.learner, Gateway(facts), ExpiryTimer(self.number), acceptor, self.proposer)
        self.cores: dict[Role, Any] = dict(zip(ROLES, cores, strict=True))
        self.inboxes: dict[Role, list[Any]] = {role: [] for role in ROLES}
        self.door = Door(self)
        self.up = True
        self.speak(acceptor.recover().sends)
        for role in ROLES:
            self.perform(role)

    def stop(self) -> None:
        """Lose all that is not on the disk; what is on its way to it is lost, and all connections break."""
        self.up = self.fresh = False
        world = self.world
        world.flights = [flight for flight in world.flights if flight.to != self.name]
        for peer in world.nodes.values():
            if peer.up:
                peer.inboxes[Role.PROPOSER].append(PeerLost(self.number))
        for client in world.clients.values():
            client.protocol.disconnected(self.name, world.now)

    def hear_of_itself(self, stranger: Stranger) -> None:
        """Do what actors/node.py does: end, if this began with an empty directory and its peers know of another."""
        if self.fresh and stranger.incarnation != self.incarnation:
            self.world.tell(OUTCOMES, f"{self.name} stops for good: the cluster knows it with another journal")
            self.stop()

    def arrive(self, flight: Flight) -> None:
        if flight.identity is not None:
            messages = self.door.enter(flight)
        else:
            (message,) = decode_packet(encode_packet([flight.message]))
            messages = [FromClient(Connection(flight.sender.encode()), message)]
        self.inboxes[flight.role] += messages

    # --- the shell ---------------------------------------------------------------------------------------------------

    def perform(self, role: Role) -> None:
        """Step all that has arrived, then a Tick, write, then speak."""
        core, batch = self.cores[role], self.inboxes[role]
        self.inboxes[role] = []
        stood = (self.proposer.stage, self.proposer.leader)
        writes: list[Any] = []
        sends: list[Send] = []
        for message in [*batch, Tick(self.clock, self.luck)]:
            effects = core.step(message)
            writes += effects.writes
            sends += effects.sends
        if role is Role.ACCEPTOR:
            self.disk.commit(writes)
        elif writes:
            replaced = any(isinstance(write, ReplaceState) for write in writes)
            self.disk.save(self.learner.state, replaced=replaced)
            if replaced:
                self.world.tell(SLOTS, f"{self.name} installs the snapshot of slot {self.learner.applied_upto}")
        if (self.proposer.stage, self.proposer.leader) != stood:
            self.world.tell(*self._standing(stood[0]))
        self.world.see_applied(self, [send.message for send in sends if send.to == Address(self.number, Role.FEED)])
        self.speak(sends)

    def _standing(self, before: Stage) -> tuple[int, str]:
        proposer = self.proposer
        match proposer.stage:
            case Stage.ASKING:
                return SLOTS, f"{self.name} asks who would vote for {proposer.ballot}"
            case Stage.PREPARING:
                return SLOTS, f"{self.name} prepares {proposer.ballot}"
            case Stage.LEADER:
                return OUTCOMES, f"{self.name} leads under {proposer.ballot}"
        if proposer.leader.node:
            return OUTCOMES, f"{self.name} follows n{proposer.leader.node} under {proposer.leader}"
        if before is Stage.LEADER:
            return OUTCOMES, f"{self.name} leads no more"
        return SLOTS, f"{self.name} gives way"

    def speak(self, sends: list[Send]) -> None:
        for send in sends:
            if isinstance(send.to, Connection):
                self.world.send(Flight(self.name, send.to.identity.decode(), send.message))
            elif send.to.node != self.number:
                self.world.send(Flight(self.name, f"n{send.to.node}", send.message, send.to.role, self.identity))
            elif send.to.role is not Role.FEED:
                self.inboxes[send.to.role].append(send.message)


class Client:
    """One client: the production protocol, and what its program is told."""

    def __init__(self, world: "World", name: str, endpoints: list[str], timeout_ms: int) -> None:
        self.world, self.name = world, name
        self.keys = 0
        self.protocol = Protocol(endpoints, self._key, timeout_ms, "", lambda: 0.5)
        self.protocol.now_ms = world.now

    def _key(self) -> bytes:
        self.keys += 1
        return f"{self.name}{self.keys}".encode().ljust(16, b".")

    def arrive(self, flight: Flight) -> None:
        self.protocol.receive(flight.sender, encode_packet([flight.message]), self.world.now)

    def turn(self) -> bool:
        """Send what there is to send; return whether there was anything."""
        sent = self.protocol.take_output()
        for packet in sent:
            self._send(packet)
        return bool(sent)

    def _send(self, packet: Packet) -> None:
        if not self.world.nodes[packet.endpoint].up:
            self.protocol.not_sent(packet)
            return
        for message in decode_packet(packet.frame):
            self.world.send(Flight(self.name, packet.endpoint, message))


class World:
    """Everything there is; `lines` is what the script prints of it."""

    def __init__(self) -> None:
        self.now = 0
        self.members: tuple[int, ...] = ()
        self.nodes: dict[str, Node] = {}
        self.clients: dict[str, Client] = {}
        self.flights: list[Flight] = []
        self.held: list[list[str]] = []  # what matches stays on its way
        self.cut: list[list[str]] = []  # what matches is lost
        self.lines: list[str] = []
        self.level = MESSAGES
        self.prefix: Callable[[], str] = str
        self._chosen: dict[int, bytes] = {}
        self._states: dict[int, bytes] = {}
        self._last_token = 0

    def tell(self, level: int, line: str) -> None:
        """Print a line, unless less is wanted to be told."""
        if level >= self.level:
            self.lines.append(self.prefix() + line)

    def see_applied(self, node: Node, told: list[Any]) -> None:
        """Print what is chosen and what came of it, once; and demand that all nodes agree (P1) and tokens grow (P5)."""
        applied, node.applied[:] = list(node.applied), []
        events = [event for message in told if isinstance(message, Events) for event in message.events]
        late = [vote.slot for vote in applied if vote.slot in self._chosen]
        if late:
            self.tell(MESSAGES, f"{node.name} applies {span('slot', late[0], late[-1])}")
        for vote in applied:
            assert self._chosen.get(vote.slot, vote.entry) == vote.entry, f"P1: two values in slot {vote.slot}"
            if vote.slot in self._chosen:
                continue
            self._chosen[vote.slot] = vote.entry
            entry = decode(vote.entry)
            over = isinstance(entry, Batch) and entry.term != node.learner.state.header.term
            self.tell(
                SLOTS,
                f"slot {vote.slot} chosen: {show(entry)}" + (", without effect: that term is over" if over else ""),
            )
            for event in events:
                if event.slot == vote.slot:
                    self.tell(OUTCOMES, ("  " if self.level < OUTCOMES else "") + show(event))
                    if event.kind == "granted":
                        assert event.token > self._last_token, f"P5: token {event.token} after {self._last_token}"
                        self._last_token = event.token
        state = node.learner.state
        assert self._states.setdefault(state.applied_upto, state.snapshot()) == state.snapshot(), "P1: states differ"

    # --- messages ----------------------------------------------------------------------------------------------------

    def send(self, flight: Flight) -> None:
        """Put a message on its way."""
        lost = any(flight.matches(words) for words in self.cut) or (
            flight.to in self.nodes and not self.nodes[flight.to].up
        )
        self.tell(MESSAGES, f"{flight}{', lost' if lost else ''}")
        if not lost:
            self.flights.append(flight)

    def find(self, words: list[str]) -> list[Flight]:
        """Return what is on its way and matches."""
        found = [flight for flight in self.flights if flight.matches(words)]
        if not found:
            raise ValueError(f"nothing on its way matches: {' '.join(words)}")
        return found

    def deliver(self, flight: Flight) -> None:
        """Let a message arrive, and everybody do what follows from it."""
        self.flights.remove(flight)
        if flight.to in self.nodes:
            if self.nodes[flight.to].up:
                self.nodes[flight.to].arrive(flight)
        elif flight.to in self.clients:
            self.clients[flight.to].arrive(flight)
        self.settle()

    def deliver_all(self) -> None:
        """Deliver until nothing is on its way but what is held back."""
        for _ in range(10_000):
            free = [flight for flight in self.flights if not any(flight.matches(words) for words in self.held)]
            if not free:
                return
            self.deliver(free[0])
        raise AssertionError("the conversation does not end")

    def settle(self) -> None:
        """Let everybody do what it has been told, without any time or message between them."""
        while True:
            for node, role in self._running():
                if node.inboxes[role]:
                    node.perform(role)
                    break
            else:
                turns = [client.turn() for client in self.clients.values()]
                if not any(turns):
                    return

    def _running(self) -> Iterator[tuple[Node, Role]]:
        for node in self.nodes.values():
            for role in ROLES:
                if node.up and not node.stalled:
                    yield node, role

    # --- time --------------------------------------------------------------------------------------------------------

    def advance(self, duration_ms: int, then: Callable[[], None]) -> None:
        """Let time pass: at each moment at which somebody wants to look at the clock, let him, and do `then`."""
        end = self.now + duration_ms
        while self.now < end:
            self.now = min(end, max(self.now + 1, min(self._wakes(), default=end)))
            for node, role in list(self._running()):
                wake = getattr(node.cores[role], "wake_at_ms", None)
                if node.up and wake is not None and node.clock >= wake:
                    node.perform(role)
            for client in self.clients.values():
                wake = client.protocol.wake_at_ms()
                if wake is not None and self.now >= wake:
                    client.protocol.tick(self.now)
            self.settle()
            then()

    def _wakes(self) -> Iterator[int]:
        for node in self.nodes.values():
            if node.stalled:
                yield node.stalled_until
        for node, role in self._running():
            wake = getattr(node.cores[role], "wake_at_ms", None)
            if wake is not None:
                yield wake - node.clock + self.now
        for client in self.clients.values():
            wake = client.protocol.wake_at_ms()
            if wake is not None:
                yield wake

    def stamp(self) -> str:
        """Return the time, as the beginning of a line."""
        return f"{ms(self.now):>8}  "
