"""A simulated node: the production cores in shells that do what actors/shell.py does, on a simulated disk and clock.

Each role steps all that has arrived, then a Tick, then commits once, and speaks when the commit is done. Between these
a node may crash or be stopped for a while, as between any two of them in a real process.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lessor.actors.inbox import PATIENCE_MESSAGES
from lessor.core.acceptor import Acceptor
from lessor.core.effects import Address, Connection, Role, Send
from lessor.core.errors import Malformed
from lessor.core.expiry_timer import ExpiryTimer
from lessor.core.gateway import FromClient, Gateway, NodeFacts
from lessor.core.learner import Events, Learner
from lessor.core.messages import PeerLost, ReplaceState, Tick, Vote
from lessor.core.proposer import Proposer, Stage
from lessor.core.requests import Redirect, Request, StatusRequest
from lessor.transport.packets import decode_packet, encode_packet

from .clock import Clock
from .damage import Door
from .disk import Disk, DiskFailed

if TYPE_CHECKING:
    from .world import World

ROLES = (Role.LEARNER, Role.GATEWAY, Role.EXPIRY_TIMER, Role.ACCEPTOR, Role.PROPOSER)
"""In the order in which actors/node.py starts them."""


def endpoint(node: int) -> str:
    """Return where clients reach a node."""
    return f"tcp://n{node}:7411"


class Desk:
    """One role of a running node: its core, and what has arrived for it."""

    __slots__ = ("alarm_us", "busy", "core", "inbox", "patient", "planned_us", "role", "waits", "wakes")

    def __init__(self, role: Role, core: Any) -> None:
        self.role = role
        self.core = core
        self.wakes = hasattr(core, "wake_at_ms")
        self.waits = hasattr(core, "patient")
        self.patient: tuple[type, ...] = ()  # what it is not woken for, since its last turn
        self.inbox: list[Any] = []
        self.busy = False  # a commit is under way
        self.planned_us: int | None = None
        self.alarm_us: int | None = None  # the next event that looks whether it is to run


class SimLearner(Learner):
    """A learner that shows every value that it applies, after it did."""

    sim_node: "Node"

    def _apply(self, vote: Vote, effects: Any) -> None:
        super()._apply(vote, effects)
        self.sim_node.world.applied(self.sim_node, vote)


class Node:
    """One node. What is on its disk, and its place in the world, outlives a crash."""

    def __init__(self, world: "World", number: int) -> None:
        """Start down, with an empty disk."""
        self.world = world
        self.number = number
        self.disk = Disk()
        self.up = False
        self.life = 0
        self.clock = Clock(0, 0.0, 0.0)
        self.paused_until_us = 0
        self.slow_disk_until_us = 0
        self.full_until_us = 0  # its disk
        self.desks: dict[Role, Desk] = {}
        self.door = Door(number, world.members)
        self.facts = NodeFacts(number, "sim", "0", {member: endpoint(member) for member in world.members})

    @property
    def proposer(self) -> Proposer:
        """Its proposer, while it is up."""
        core: Proposer = self.desks[Role.PROPOSER].core
        return core

    @property
    def learner(self) -> Learner:
        """Its learner, while it is up."""
        core: Learner = self.desks[Role.LEARNER].core
        return core

    @property
    def acceptor(self) -> Acceptor:
        """Its acceptor, while it is up."""
        core: Acceptor = self.desks[Role.ACCEPTOR].core
        return core

    @property
    def leads(self) -> bool:
        """Whether it believes that it leads."""
        return self.up and self.proposer.stage is Stage.LEADER

    # --- life and death ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start from the disk, with another value on the clock and another rate."""
        world = self.world
        self.up = True
        self.life += 1
        self.disk.failing = world.now_us < self.full_until_us
        self.paused_until_us = 0
        self.clock = Clock.draw(world.rng, world.now_us, world.options.drift_ppm)
        self.disk.reconcile()
        try:
            state = self.disk.lease_state()
        except Malformed as error:
            world.stopped_itself(self, Role.LEARNER, error)
            return
        learner = SimLearner(self.number, world.members, state)
        learner.sim_node = self
        acceptor = self.disk.acceptor(self.number, world.members, state.applied_upto)
        proposer = Proposer(self.number, world.members, acceptor.promised, state.applied_upto)
        cores = (learner, Gateway(self.facts), ExpiryTimer(self.number), acceptor, proposer)
        self.desks = {role: Desk(role, core) for role, core in zip(ROLES, cores, strict=True)}
        for checker in world.hooks.started:
            checker.started(self)
        self._speak(self.desks[Role.ACCEPTOR], acceptor.recover().sends)
        for desk in self.desks.values():
            self._plan(desk, world.now_us)
        world.node_up(self)

    def crash(self) -> None:
        """Lose everything that is not on the disk."""
        self.up = False
        self.desks = {}
        self.world.node_down(self)

    def stop(self) -> None:
        """End in good order: the learner's shell writes down what is left."""
        learner = self.learner
        if not self.desks[Role.LEARNER].busy:
            self.disk.save(learner.state, replaced=False)
        self.crash()

    def pause(self, for_us: int, *, suspend: bool = False) -> None:
        """Stand still; with `suspend`, its monotonic clock too."""
        if suspend:
            self.paused_until_us = max(self.paused_until_us, self.world.now_us) + for_us
            self.clock.stand_still(for_us)
        else:
            self.paused_until_us = max(self.paused_until_us, self.world.now_us + for_us)

    # --- what arrives ------------------------------------------------------------------------------------------------

    def arrive(self, role: Role, messages: Sequence[Any]) -> None:
        """Take in a packet from another node."""
        if self.up:
            desk = self.desks[role]
            desk.inbox += messages
            self._wake_now(desk)

    def arrive_from_client(self, life: int, connection: Connection, frame: bytes) -> None:
        """Take in a packet from a client."""
        if not self.up or life != self.life:
            self.world.refuse_connection(connection)
            return
        try:
            messages = decode_packet(frame)
        except Malformed as error:
            raise self.world.violated("P11", f"a client sent what cannot be read: {error}") from error
        desk = self.desks[Role.GATEWAY]
        for message in messages:
            if not isinstance(message, Request | StatusRequest):
                raise self.world.violated("P11", f"a client sent a {type(message).__name__}")
            desk.inbox.append(FromClient(connection, message))
        self._wake_now(desk)

    def lose_peer(self, peer: int) -> None:
        """Hear that the connection to a peer broke."""
        if self.up:
            self.arrive(Role.PROPOSER, [PeerLost(peer)])

    # --- the shell ---------------------------------------------------------------------------------------------------

    def _wake_now(self, desk: Desk) -> None:
        if desk.busy:
            return
        if self.world.now_us < self.paused_until_us:
            self._plan(desk, self.paused_until_us)
        else:
            desk.planned_us = None
            self._perform(desk)

    def _plan(self, desk: Desk, at_us: int) -> None:
        if desk.busy or (desk.planned_us is not None and desk.planned_us <= at_us):
            return
        desk.planned_us = at_us
        if desk.alarm_us is None or at_us < desk.alarm_us:
            desk.alarm_us = at_us
            self.world.at(at_us, self._run, desk, at_us)

    def _run(self, desk: Desk, at_us: int) -> None:
        if desk.alarm_us == at_us:
            desk.alarm_us = None
        if desk.planned_us is None or desk.busy or self.desks.get(desk.role) is not desk:
            return
        if desk.planned_us > at_us:  # it was woken since, and sleeps longer now
            if desk.alarm_us is None:
                desk.alarm_us = desk.planned_us
                self.world.at(desk.planned_us, self._run, desk, desk.planned_us)
            return
        desk.planned_us = None
        if at_us < self.paused_until_us:
            self._plan(desk, self.paused_until_us)
        else:
            self._perform(desk)

    def _perform(self, desk: Desk) -> None:
        """Step all that has arrived, then a Tick, commit once, then speak."""
        world = self.world
        step = desk.core.step
        batch = desk.inbox
        writes: list[Any] = []
        sends: list[Send] = []
        try:
            if batch:
                desk.inbox = []
                for message in batch:
                    effects = step(message)
                    if effects.writes:
                        writes += effects.writes
                    if effects.sends:
                        sends += effects.sends
            effects = step(Tick(self.clock.now_ms(world.now_us), world.random()))
        except world.passing:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, a real node ends
            world.stopped_itself(self, desk.role, error)
            return
        if world.trace is not None and (batch or effects.sends):
            world.trace_step(self, desk.role, batch)
        if effects.writes:
            writes += effects.writes
        if effects.sends:
            sends += effects.sends
        if writes:
            desk.busy = True
            commit_us = world.commit_us()
            if world.now_us < self.slow_disk_until_us:
                commit_us *= 20
            world.at(world.now_us + commit_us, self._commit, desk, writes, sends)
            if world.speaks_early:
                self._speak(desk, sends)
        else:
            if sends:
                self._speak(desk, sends)
            self._rest(desk)

    def _commit(self, desk: Desk, writes: list[Any], sends: list[Send]) -> None:
        world = self.world
        if self.desks.get(desk.role) is not desk:
            return  # it crashed meanwhile: nothing of it is on the disk
        if world.now_us < self.paused_until_us:
            world.at(self.paused_until_us, self._commit, desk, writes, sends)
            return
        crash = (
            world.random() / world.options.crash_at_commit if world.options.crash_at_commit and world.faulty else 9.0
        )
        try:
            if crash < 0.3:
                world.count_fault("crash before the commit")
                self._die()
                return
            if self.disk.failing or crash < 0.5:
                # torn: SQLite's recovery finds the transaction whole, or not at all
                self._fail_to_write(desk, writes)
            self._write(desk, writes)
        except DiskFailed:
            world.count_fault("a write that failed" if self.disk.failing else "a torn transaction")
            self._die()
            return
        if desk.role is Role.LEARNER and type(writes[-1]) is ReplaceState and world.faulty:
            crash = (
                min(crash, world.random() / world.options.crash_at_install) if world.options.crash_at_install else crash
            )
        if crash < 1.0:
            told = world.rng.randint(0, len(sends))
            world.count_fault("crash between commit and send" if told < len(sends) else "crash after the send")
            self._speak(desk, sends[:told])
            self._die()
            return
        desk.busy = False
        if not world.speaks_early:
            self._speak(desk, sends)
        self._rest(desk)

    def _fail_to_write(self, desk: Desk, writes: list[Any]) -> None:
        if self.world.now_us >= self.full_until_us and self.world.random() < 0.5:
            self._write(desk, writes)
        raise DiskFailed

    def _die(self) -> None:
        self.crash()
        self.world.restart_later(self)

    def _write(self, desk: Desk, writes: list[Any]) -> None:
        if desk.role is Role.ACCEPTOR:
            self.disk.commit(writes)
            for checker in self.world.hooks.committed:
                checker.committed(self, writes)
        else:
            replaced = any(isinstance(write, ReplaceState) for write in writes)
            if replaced:
                self.world.mark("catch-up by a snapshot")
            self.disk.save(desk.core.state, replaced=replaced)

    def _rest(self, desk: Desk) -> None:
        world = self.world
        if desk.inbox:
            self._plan(desk, max(world.now_us + world.options.hop_us, self.paused_until_us))
            return
        if desk.waits:
            desk.patient = desk.core.patient
        if desk.wakes and (wake_at_ms := desk.core.wake_at_ms) is not None:
            self._plan(desk, max(self.clock.when_us(wake_at_ms), world.now_us + 100))

    # --- what leaves -------------------------------------------------------------------------------------------------

    def _speak(self, desk: Desk, sends: list[Send]) -> None:
        world = self.world
        if desk.role is Role.ACCEPTOR or desk.role is Role.PROPOSER:
            world.see_sends(self, desk.role, sends)
        packets: dict[tuple[int, Role], list[Any]] = {}
        answers: dict[Connection, list[Any]] = {}
        for send in sends:
            to = send.to
            if type(to) is Address:
                if to.node == self.number:
                    self._tell(to.role, send.message)
                else:
                    packets.setdefault((to.node, to.role), []).append(send.message)
            elif type(to) is Connection:
                answers.setdefault(to, []).append(send.message)
                if type(send.message) is Redirect and not send.message.number:
                    world.mark("a client told that its node leads no more")
        for (number, role), messages in packets.items():
            other = world.nodes[number]
            world.network.send(self.number, number, other.arrive, role, messages)
            if world.damages():
                world.network.send(self.number, number, world.damage.from_node, self, other, role, messages)
        for connection, messages in answers.items():
            world.answer(self, connection, encode_packet(messages))

    def _tell(self, role: Role, message: Any) -> None:
        world = self.world
        if role is Role.FEED:
            if isinstance(message, Events):
                for checker in world.hooks.events:
                    checker.events(self, message.events)
            return
        desk = self.desks.get(role)
        if desk is not None:
            desk.inbox.append(message)
            # what can wait is read as soon as anything else wakes the role
            if not desk.busy and (type(message) not in desk.patient or len(desk.inbox) > PATIENCE_MESSAGES):
                self._plan(desk, max(world.now_us + world.options.hop_us, self.paused_until_us))
