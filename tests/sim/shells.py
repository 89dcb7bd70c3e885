"""A simulated world of production nodes: the real shells in Pykka's loop, without threads, on the real SQLite files.

`actors/node.py` starts the roles, `actors/inbox.py` gathers their batches, `actors/links.py` and the transport speak
for them in encoded packets, the journal is on a disk. The world decides from its seed when each role has its turn, what
becomes of each packet, and at which commit a process dies. Everything else is as in the world of the pure cores.
"""

import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import pykka
import zmq

from lessor.actors.node import Node as ProductionNode
from lessor.actors.node import NodeConfig
from lessor.actors.shell import Shell
from lessor.core.acceptor import Acceptor
from lessor.core.effects import Address, Connection, Role, Send
from lessor.core.errors import Malformed
from lessor.core.gateway import FromClient
from lessor.core.learner import Learner
from lessor.core.messages import PeerLost, Tick
from lessor.core.proposer import Proposer
from lessor.core.requests import Redirect
from lessor.storage.directory import DataDirectory, Identity
from lessor.storage.failures import StorageFailed
from lessor.transport.feed import topic_of
from lessor.transport.packets import decode_packet, decode_peer_packet

from .checkers.base import Checker, Violated
from .checkers.catalogue import ALL
from .clock import Clock
from .node import Node, endpoint
from .shells_disk import WatchedDirectory
from .shells_law import ShellLaw, Turn
from .shells_seams import Asleep, SimInbox, SimSocket, simulated
from .world import World

CHECKERS: tuple[type[Checker], ...] = (*ALL, ShellLaw)
MEMORY = Path("/dev/shm")
"""Where files cost no disk: what a sync is worth is for tests/storage to see."""

ROOT_NAME = "lessor-sim"
"""The name of a world's directory begins with this, and goes on with the number of its process."""


class ShellNode(Node):
    """One node, with the face of the one of the pure cores, and the production node behind it."""

    world: "ShellWorld"

    def __init__(self, world: "ShellWorld", number: int) -> None:
        """Start down, without a data directory."""
        super().__init__(world, number)
        self.production: ProductionNode | None = None
        self.shells: dict[Role, Shell] = {}
        self.ports: dict[Role, SimSocket] = {}
        self.dealers: list[SimSocket] = []
        self.turn: Turn | None = None
        self.planned: dict[Role, int] = {}
        self.busy_until_us: dict[Role, int] = {}
        self.dying = False  # the process is gone, and only the rest of its turn is still to be unwound
        self.stopping = False
        self.error: tuple[Role, BaseException] | None = None

    @property
    def now_ms(self) -> int:
        """What its clock shows."""
        return self.clock.now_ms(self.world.now_us)

    @property
    def proposer(self) -> Proposer:
        """Its proposer, while it is up."""
        core: Proposer = self.shells[Role.PROPOSER].core
        return core

    @property
    def learner(self) -> Learner:
        """Its learner, while it is up."""
        core: Learner = self.shells[Role.LEARNER].core
        return core

    @property
    def acceptor(self) -> Acceptor:
        """Its acceptor, while it is up."""
        core: Acceptor = self.shells[Role.ACCEPTOR].core
        return core

    # --- life and death ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the production node from its directory, with another value on the clock and another rate."""
        world = self.world
        self.life += 1
        self.up = True
        self.dying = self.stopping = False
        self.disk.failing = world.now_us < self.full_until_us
        self.error = None
        self.paused_until_us = 0
        self.clock = Clock.draw(world.rng, world.now_us, world.options.drift_ppm)
        world.running = self
        config = NodeConfig(self.number, {member: endpoint(member) for member in world.members}, self.path)
        try:
            self.production = ProductionNode(config, self._fatal)
            self.production.start()
        except Exception as error:  # noqa: BLE001 - whatever it is, a real process ends
            world.raise_found()
            world.stopped_itself(self, Role.LEARNER, error)
            return
        for checker in world.hooks.started:
            checker.started(self)
        world.node_up(self)

    @property
    def path(self) -> Path:
        """Its data directory."""
        return self.world.root / f"n{self.number}"

    def launch(self, actor: Shell) -> None:
        """Start an actor: what its thread would do first, now; the rest in its turns."""
        role = Role[_key(actor.role_name)]
        self.shells[role] = actor
        inbox = _inbox(actor)
        inbox.role, inbox.actor = role, actor
        self.turn = turn = Turn(role, starting=True)
        try:
            actor._actor_loop_setup()
        finally:
            self.turn = None
        for output in turn.outputs:
            output()
        if not actor.actor_stopped.is_set():
            self._spy(role, actor.core)
            self.plan_turn(role, self.world.now_us)

    def _spy(self, role: Role, core: Any) -> None:
        """Have the law see each step, and the world each value that is applied."""
        step = core.step

        def seen(message: Any) -> Any:
            effects = step(message)
            turn, law = self.turn, self.world.law
            if turn is not None and type(message) is not Tick:
                turn.stepped.append(message)
            if turn is not None and law is not None and not self.dying:
                law.stepped(self, turn, message, effects)
            return effects

        core.step = seen
        if role is Role.LEARNER:
            apply = core._apply

            def applied(vote: Any, effects: Any) -> None:
                apply(vote, effects)
                self.world.applied(self, vote)

            core._apply = applied

    def crash(self) -> None:
        """Lose everything that is not on the disk, as by SIGKILL; what the kernel would close is closed."""
        self._unwind()
        super().crash()

    def stop(self) -> None:
        """End in good order, by the production node's own `stop`."""
        assert self.production is not None
        self.stopping = True
        self.world.running = self
        self.production.stop()
        self._after_turn()
        if self.up:
            self.crash()

    def _unwind(self) -> None:
        self.dying = True
        for actor in self.shells.values():
            pykka.ActorRegistry.unregister(actor.actor_ref)
            actor.actor_stopped.set()
            actor._close()
        if self.production is not None:
            self.production.directory.close()
        self.production = None
        self.shells, self.ports, self.dealers = {}, {}, []
        self.planned, self.busy_until_us = {}, {}
        if self.world.law is not None:
            self.world.law.forget(self)

    def _fatal(self, role_name: str, error: BaseException) -> None:
        """A role has failed: as `lessor serve` has it, the process is gone at once."""
        self.dying = True
        self.error = (Role.__members__.get(_key(role_name), Role.GATEWAY), error)

    # --- turns -------------------------------------------------------------------------------------------------------

    def plan_turn(self, role: Role, at_us: int) -> None:
        """Have an actor go on at a time, if it would not sooner anyway."""
        at_us = max(at_us, self.busy_until_us.get(role, 0), self.paused_until_us)
        planned = self.planned.get(role)
        if planned is None or at_us < planned:
            self.planned[role] = at_us
            self.world.at(at_us, self._go_on, role, at_us, self.life)

    def _go_on(self, role: Role, at_us: int, life: int) -> None:
        if not self.up or life != self.life or self.planned.get(role) != at_us:
            return
        del self.planned[role]
        if at_us < self.paused_until_us:
            self.plan_turn(role, self.paused_until_us)
        else:
            self.take_turn(role)

    def take_turn(self, role: Role) -> None:
        """Let an actor run until it has dealt with one batch, or would sleep."""
        world = self.world
        actor = self.shells[role]
        inbox = _inbox(actor)
        world.running = self
        self.turn = turn = Turn(role)
        inbox.has_turn = True
        sleeps: int | None = None
        try:
            actor._actor_loop_running()
            actor._actor_loop_teardown()
        except Asleep as asleep:
            sleeps = asleep.wait_ms
        finally:
            self.turn = None
        world.raise_found()
        self.busy_until_us[role] = world.now_us + turn.commit_us
        if world.trace is not None and (turn.stepped or turn.said):
            world.trace_step(self, role, turn.stepped)
        if self._after_turn():
            return
        if world.law is not None and not turn.crashes:
            world.law.turn_ended(self, turn)
        self._let_out(turn)
        if not self.up or actor.actor_stopped.is_set():
            return
        if sleeps == 0:
            self.plan_turn(role, world.now_us + world.options.hop_us)
        elif sleeps is not None:
            self.plan_turn(role, max(self.clock.when_us(self.now_ms + sleeps), world.now_us + 100))

    def _after_turn(self) -> bool:
        """Bury the process if it has died in this turn; return whether it has."""
        if self.error is None:
            return False
        world, (role, error) = self.world, self.error
        self.error = None
        if isinstance(error, StorageFailed) and str(error) == "simulated":
            world.count_fault("a write that failed" if self.disk.failing else "a torn transaction")
            self.crash()
            world.restart_later(self)
        else:
            assert isinstance(error, Exception)
            world.stopped_itself(self, role, error)
        return True

    def _let_out(self, turn: Turn) -> None:
        """Have everything leave that the role has said, when its commit is over; or a part, if the process dies."""
        world = self.world
        if turn.crashes:
            kept = 0 if self.dying else world.rng.randint(0, len(turn.outputs))
            if not self.dying:
                world.count_fault(
                    "crash between commit and send" if kept < len(turn.outputs) else "crash after the send"
                )
            self._release(self.life, turn.outputs[:kept])
            self.crash()
            world.restart_later(self)
        elif turn.outputs and turn.commit_us and not self.stopping:
            world.at(world.now_us + turn.commit_us, self._release, self.life, turn.outputs)
        else:
            self._release(self.life, turn.outputs)

    def _release(self, life: int, outputs: Sequence[Callable[[], None]]) -> None:
        if not self.up or life != self.life:
            return
        if self.world.now_us < self.paused_until_us:
            self.world.at(self.paused_until_us, self._release, life, outputs)
            return
        for output in outputs:
            output()

    # --- the disk ----------------------------------------------------------------------------------------------------

    def commit(
        self, role: Role, writes: Sequence[Any], carry_out: Callable[[], None], *, replaced: bool = False
    ) -> None:
        """Carry a transaction out, unless the process dies before it, or the disk fails."""
        world, turn, options = self.world, self.turn, self.world.options
        assert turn is not None
        assert turn.role is role

        def written() -> None:
            carry_out()
            if role is Role.ACCEPTOR:
                self.disk.commit(writes)
                for checker in world.hooks.committed:
                    checker.committed(self, writes)

        if self.dying:
            return
        if replaced:
            world.mark("catch-up by a snapshot")
        finishing = self.shells[role].actor_stopped.is_set()
        if world.law is not None and not turn.starting and not finishing:
            world.law.commits(self, turn, writes)
        if turn.starting or self.stopping:
            written()
            return
        turn.commit_us = world.commit_us() * (20 if world.now_us < self.slow_disk_until_us else 1)
        crash = world.random() / options.crash_at_commit if options.crash_at_commit and world.faulty else 9.0
        if crash < 0.3:
            world.count_fault("crash before the commit")
            self.dying = turn.crashes = True
            return
        if self.disk.failing or crash < 0.5:
            if world.now_us >= self.full_until_us and world.random() < 0.5:
                written()  # torn: SQLite's recovery finds the transaction whole, or not at all
            raise StorageFailed("simulated")
        written()
        if replaced and options.crash_at_install and world.faulty:
            crash = min(crash, world.random() / options.crash_at_install)
        turn.crashes = crash < 1.0

    # --- what leaves -------------------------------------------------------------------------------------------------

    def tell(self, inbox: SimInbox, envelope: Any) -> None:
        """Carry what one role of this node tells another."""
        to = inbox.role
        self._said([Send(Address(self.number, to), envelope.message)], partial(self._told, to, self.life, envelope))

    def _told(self, role: Role, life: int, envelope: Any) -> None:
        actor = self.shells.get(role)
        if life != self.life or self.dying or actor is None or actor.actor_stopped.is_set():
            return
        if self.world.law is not None:
            self.world.law.arrived(self, role, [envelope.message], told=True)
        _inbox(actor).put_now(envelope)

    def speak(self, socket: SimSocket, frames: list[bytes]) -> None:
        """Carry what a socket sends."""
        world = self.world
        if socket.kind == zmq.XPUB:
            events = decode_packet(frames[-1])
            # what happens to a set is told once more under each of its further paths
            events = [event for event in events if frames[0] == topic_of(event.namespace, event.path)]
            if self.turn is not None:
                self.turn.said += [Send(Address(self.number, Role.FEED), event) for event in events]
            for checker in world.hooks.events:
                checker.events(self, events)
        elif socket.kind == zmq.ROUTER:
            connection = Connection(frames[0])
            answers = [Send(connection, message) for message in decode_packet(frames[-1])]
            if any(type(send.message) is Redirect and not send.message.number for send in answers):
                world.mark("a client told that its node leads no more")
            self._said(answers, lambda: world.answer(self, connection, frames[-1]))
        else:
            assert socket.place is not None
            to = Address(*socket.place)
            _, messages = decode_peer_packet(frames[-1])
            other = world.nodes[to.node]
            arrive = partial(other.arrive_packet, to.role, frames[-1], messages)
            self._said(
                [Send(to, message) for message in messages],
                lambda: world.network.send(self.number, to.node, arrive),
            )
            if not other.up:
                raise zmq.Again  # nobody is connected

    def _said(self, sends: list[Send], output: Callable[[], None]) -> None:
        """Have the checkers see what is said at the moment it is said, and let it out later."""
        turn, world = self.turn, self.world
        if self.dying:
            return
        if turn is None:
            output()
            return
        turn.said += sends
        if turn.role is Role.ACCEPTOR or turn.role is Role.PROPOSER:
            world.see_sends(self, turn.role, sends)
        turn.outputs.append(output)

    # --- what arrives ------------------------------------------------------------------------------------------------

    def arrive_packet(self, role: Role, frame: bytes, messages: Sequence[Any]) -> None:
        """Take in a packet from another node."""
        if self.up:
            if self.world.law is not None:
                self.world.law.arrived(self, role, messages, told=False)
            self.ports[role].arrive([b"peer", frame])

    def arrive_from_client(self, life: int, connection: Connection, frame: bytes) -> None:
        """Take in a packet from a client."""
        if not self.up or life != self.life:
            self.world.refuse_connection(connection)
            return
        try:
            messages = [FromClient(connection, message) for message in decode_packet(frame)]
        except Malformed as error:
            raise self.world.violated("P11", f"a client sent what cannot be read: {error}") from error
        if self.world.law is not None:
            self.world.law.arrived(self, Role.GATEWAY, messages, told=False)
        self.ports[Role.GATEWAY].arrive([connection.identity, frame])

    def arrive(self, role: Role, messages: Sequence[Any]) -> None:
        """Hear that connections to peers broke: nothing else comes by itself."""
        for message in messages:
            assert isinstance(message, PeerLost)
            for dealer in self.dealers:
                if dealer.place == (message.node, role) and dealer.monitor is not None:
                    dealer.monitor.arrive([struct.pack("=hi", zmq.EVENT_DISCONNECTED, 0), b""])


def _key(role_name: str) -> str:
    return role_name.upper().replace(" ", "_")


def _inbox(actor: Shell) -> SimInbox:
    return cast(SimInbox, actor.actor_inbox)


def _new_root() -> Path:
    """Return a new directory; those of processes that were killed in the middle of a world are removed."""
    where = MEMORY if MEMORY.is_dir() else Path(tempfile.gettempdir())
    for left in where.glob(f"{ROOT_NAME}-*"):
        pid = left.name.removeprefix(f"{ROOT_NAME}-").split("-")[0]
        if pid.isdecimal() and not _runs(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{ROOT_NAME}-{os.getpid()}-", dir=where))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


class ShellWorld(World):
    """One world of production nodes."""

    nodes: dict[int, ShellNode]  # type: ignore[assignment]
    running: ShellNode
    root: Path

    def __init__(
        self,
        seed: int,
        checkers: Sequence[type[Checker]] = CHECKERS,
        *,
        trace: list[str] | None = None,
        changes: dict[str, Any] | None = None,
    ) -> None:
        """Draw the world."""
        self.found: Violated | None = None
        super().__init__(seed, checkers, trace=trace, changes=changes)
        self.law = next((checker for checker in self.checkers if isinstance(checker, ShellLaw)), None)
        self.nodes = {member: ShellNode(self, member) for member in self.members}

    def run(self) -> None:
        """Run both phases, in a directory that is gone afterwards."""
        self.root = _new_root()
        try:
            with simulated(self):
                try:
                    super().run()
                finally:
                    for node in self.nodes.values():
                        node._unwind()
        finally:
            shutil.rmtree(self.root)

    def damages(self) -> bool:
        """Nobody is hostile here: the law of the shells counts every complaint as a failure."""
        return False

    def open_directory(self, path: Path, identity: Identity) -> DataDirectory:
        """Open the data directory of a node."""
        return WatchedDirectory(path, identity, self.nodes[identity.node])

    def violated(self, promise: str, what: str) -> Violated:
        """Return the failure of a promise; raised within a shell, it would only end the node."""
        violated = super().violated(promise, what.replace(str(self.root), "..."))
        self.found = self.found or violated
        return violated

    def raise_found(self) -> None:
        """Raise what was found broken while a shell was running."""
        if self.found is not None:
            raise self.found
