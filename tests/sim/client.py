"""A simulated client: the production protocol, driven as client/pump.py does, over connections that come and go."""

from typing import TYPE_CHECKING

from lessor.client.calls import Packet
from lessor.client.protocol import Protocol
from lessor.client.pump import SUSPEND_MS
from lessor.client.records import LeaseRecord
from lessor.core.effects import Connection

from .clock import MS, Clock
from .node import endpoint

if TYPE_CHECKING:
    from .world import World

RECONNECT_MS = 100
SPIN_TURNS = 200
"""Turns of an engine in one millisecond of its clock: more is a busy loop."""


class Link:
    """A connection of a client to a node, from its making to its break."""

    __slots__ = ("connection", "life", "node", "up")

    def __init__(self, node: int, connection: Connection) -> None:
        self.node = node
        self.connection = connection
        self.life = 0  # of the node
        self.up = False


class SimClient:
    """One process that uses the service. It may stand still, die, and come back as a new one."""

    def __init__(self, world: "World", number: int) -> None:
        """Start with a new clock and no connection."""
        self.world = world
        self.number = number
        self.alive = True
        self.life = 0
        self.paused_until_us = 0
        self.suspended = False  # and has not noticed yet
        self.clock = Clock.draw(world.rng, world.now_us, world.options.drift_ppm)
        self.links: dict[str, Link] = {}
        self.frames: list[tuple[str, bytes]] = []
        self.changes: list[tuple[str, bool]] = []
        self.planned_us: int | None = None
        self.alarm_us: int | None = None  # the next event that looks whether it is to run
        self._turns = (0, 0)
        self.protocol = self._new_protocol()
        self.app = world.program(self)

    def _new_protocol(self) -> Protocol:
        world = self.world
        nodes = list(world.members)
        world.rng.shuffle(nodes)
        known = nodes[: world.rng.randint(1, len(nodes))]
        protocol = Protocol(
            [endpoint(node) for node in known],
            lambda: world.rng.randbytes(16),
            world.options.session_timeout_ms,
            f"c{self.number}",
            world.random,
        )
        protocol.now_ms = self.now_ms
        return protocol

    @property
    def now_ms(self) -> int:
        """What its clock shows."""
        return self.clock.now_ms(self.world.now_us)

    def believes(self, record: LeaseRecord) -> bool:
        """Return whether its program, if it looked now, would be told that it holds this lease."""
        return (
            self.alive
            and self.protocol.leases.get(record.token) is record
            and (self.now_ms < self.protocol.safe_until_ms(record))
        )

    # --- life and death ----------------------------------------------------------------------------------------------

    def pause(self, for_us: int, *, suspend: bool = False) -> None:
        """Stand still; the clock goes on, even while the machine is suspended, and the engine sees that it was."""
        self.paused_until_us = max(self.paused_until_us, self.world.now_us + for_us)
        if suspend:
            self.suspended = for_us >= SUSPEND_MS * MS
            if self.world.clocks_sleep:
                self.clock.stand_still(for_us)

    def die(self) -> None:
        """End without a word: the connections break, the program forgets all but its tokens."""
        self.alive = False
        self.life += 1
        for link in self.links.values():
            self.world.connections.pop(link.connection.identity, None)
        self.links = {}
        self.frames, self.changes = [], []
        self.planned_us = self.alarm_us = None

    def start_again(self) -> None:
        """Be a new process with a new session."""
        self.alive = True
        self.life += 1
        self.links, self.frames, self.changes = {}, [], []
        self.protocol = self._new_protocol()
        self.app.start_again()

    # --- the engine --------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Have the engine send what there is to send."""
        self._plan(self.world.now_us + self.world.options.hop_us)

    def arrive(self, connection: Connection, source: str, frame: bytes) -> None:
        """Take in a packet from a node."""
        link = self.links.get(source)
        if self.alive and link is not None and link.connection == connection:
            self.frames.append((source, frame))
            self._plan(self.world.now_us)

    def _plan(self, at_us: int) -> None:
        at_us = max(at_us, self.paused_until_us)
        if self.planned_us is None or at_us < self.planned_us:
            self.planned_us = at_us
            self._set_alarm(at_us)

    def _set_alarm(self, at_us: int) -> None:
        if self.alarm_us is None or at_us < self.alarm_us:
            self.alarm_us = at_us
            self.world.at(at_us, self._run, at_us, self.life)

    def _run(self, at_us: int, life: int) -> None:
        if not self.alive or life != self.life:
            return
        if self.alarm_us == at_us:
            self.alarm_us = None
        if self.planned_us is None or self.planned_us > at_us:  # it has run since, and sleeps longer now
            if self.planned_us is not None:
                self._set_alarm(self.planned_us)
            return
        self.planned_us = None
        if at_us < self.paused_until_us:
            self._plan(self.paused_until_us)
            return
        self.turn()

    def turn(self) -> None:
        """Do what client/pump.py does in one turn."""
        world, protocol = self.world, self.protocol
        now = self.now_ms
        if self.suspended:
            self.suspended = False
            protocol.suspended(now)
        frames, self.frames = self.frames, []
        for source, frame in frames:
            self._receive(source, frame, now)
        if self.changes:
            changes, self.changes = self.changes, []
            for source, up in changes:
                (protocol.connected if up else protocol.disconnected)(source, now)
        wake_at = protocol.wake_at_ms()
        if wake_at is not None and now >= wake_at:
            protocol.tick(now)
        for packet in protocol.take_output():
            if not self._send(packet):
                protocol.not_sent(packet)
        for checker in world.hooks.client_turn:
            checker.client_turn(self)
        self._count_turn(now)
        wake_at = protocol.wake_at_ms()
        if wake_at is not None:
            self._plan(max(self.clock.when_us(wake_at), world.now_us + 50))

    def _receive(self, source: str, frame: bytes, now: int) -> None:
        try:
            self.protocol.receive(source, frame, now)
        except self.world.passing:
            raise
        except Exception as error:  # whatever it is, the engine of a real client would end
            raise self.world.violated("client", f"client {self.number} raised {error!r}") from error

    def _count_turn(self, now: int) -> None:
        at, turns = self._turns
        self._turns = (now, turns + 1 if at == now else 0)
        if turns > SPIN_TURNS:
            raise self.world.violated("P10", f"the engine of client {self.number} spins at {now} ms of its clock")

    # --- connections -------------------------------------------------------------------------------------------------

    def _send(self, packet: Packet) -> bool:
        link = self.links.get(packet.endpoint)
        if link is None:
            self._dial(packet.endpoint)
            return False
        if not link.up:
            return False
        world = self.world
        node = world.nodes[link.node]
        if world.trace is not None:
            world.trace_client(self, packet)
        world.network.send(self.number, link.node, node.arrive_from_client, link.life, link.connection, packet.frame)
        if world.damages():
            world.network.send(self.number, link.node, world.damage.from_client, node, link.life, packet.frame)
        return True

    def _dial(self, target: str) -> None:
        world = self.world
        world.last_connection += 1
        link = Link(world.node_at[target], Connection(b"%d" % world.last_connection))
        self.links[target] = link
        world.at(world.now_us + 2 * world.options.latency_us, self._connect, target, link)

    def _connect(self, target: str, link: Link) -> None:
        if self.links.get(target) is not link or link.up:
            return
        world = self.world
        node = world.nodes[link.node]
        if node.up and world.network.reachable(self.number, link.node):
            link.up, link.life = True, node.life
            world.connections[link.connection.identity] = (self, target)
            self._change(target, up=True)
        else:
            self._change(target, up=False)
            world.at(world.now_us + RECONNECT_MS * MS, self._connect, target, link)

    def broken(self, connection: Connection) -> None:
        """Learn that the other side has closed a connection, or does not know it."""
        found = self.world.connections.pop(connection.identity, None)
        if found is None:
            return
        _, target = found
        del self.links[target]
        if self.alive:
            self._change(target, up=False)
            self._dial(target)

    def _change(self, target: str, *, up: bool) -> None:
        self.changes.append((target, up))
        self._plan(self.world.now_us)
