"""What the production shells stand on in a simulated world: ZeroMQ, Pykka's threads, clock and luck, each at its seam.

The shells, their inbox, the links, the sockets' options and the codec are the product's own. Replaced are the five
things below them that have a will of their own: a `zmq.Socket`, a `zmq.Poller`, the waker, the thread of an actor (by
the methods that Pykka documents for new types of actors), and the modules `time`, `random` and `secrets`.
"""

import logging
import random
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from unittest import mock

import pykka
import zmq

from lessor.actors import inbox as inbox_module
from lessor.actors import node as node_module
from lessor.actors.inbox import Envelope, Inbox
from lessor.actors.shell import Shell
from lessor.core.effects import Role
from lessor.storage import directory as directory_module
from lessor.transport.endpoints import parse

if TYPE_CHECKING:
    from .shells import ShellNode, ShellWorld

BASE_PORT = 7411
OUT, IN = int(zmq.POLLOUT), int(zmq.POLLIN | zmq.POLLOUT)
STOP_TURNS = 10_000
"""Turns within which an actor that was asked to stop must have done so."""


class Asleep(BaseException):
    """No error: an actor would sleep now, for so many milliseconds or until it is woken; 0: only to let others in."""

    def __init__(self, wait_ms: int | None) -> None:
        """Say for how long."""
        super().__init__(wait_ms)
        self.wait_ms = wait_ms


# --- ZeroMQ ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SimFrame:
    """A frame of a message, and whether another follows."""

    bytes: bytes
    more: bool


class SimSocket:
    """A socket of one node, with the calls that the product makes. What it sends is the node's word to the world."""

    def __init__(self, node: "ShellNode", kind: int) -> None:
        """Start without an address."""
        self.node = node
        self.kind = kind
        self.arrived: deque[list[bytes]] = deque()
        self.frames: list[bytes] = []  # of a message that has begun to be sent
        self.place: tuple[int, Role] | None = None  # where it listens, or whom it calls
        self.poller: SimPoller | None = None
        self.monitor: SimSocket | None = None
        self.closed = False

    def setsockopt(self, option: int, value: Any) -> None:
        """Take an option; that ZeroMQ keeps it is for tests/transport to see."""

    def get(self, option: int) -> int:
        """Return whether there is something to read."""
        assert option == zmq.EVENTS
        return IN if self.arrived else OUT

    def bind(self, endpoint: str) -> None:
        """Listen."""
        self.place = _place(endpoint)
        self.node.ports[self.place[1]] = self
        if self.kind == zmq.XPUB:
            self.arrived.append([b"\x01"])  # somebody follows the feed, all of it

    def connect(self, endpoint: str) -> None:
        """Call another node."""
        self.place = _place(endpoint)
        self.node.dealers.append(self)

    def get_monitor_socket(self, events: int) -> "SimSocket":
        """Return where the events of this socket can be read."""
        self.monitor = SimSocket(self.node, zmq.PAIR)
        return self.monitor

    def recv(self, flags: int = 0, *, copy: bool) -> "SimFrame":
        """Return the next frame of what has arrived first."""
        assert not copy
        if not self.arrived:
            raise zmq.Again
        frames = self.arrived[0]
        frame = SimFrame(frames.pop(0), bool(frames))
        if not frames:
            self.arrived.popleft()
        return frame

    def recv_multipart(self, flags: int = 0, *, copy: bool = True) -> list[Any]:
        """Return what has arrived first."""
        if not self.arrived:
            raise zmq.Again
        frames = self.arrived.popleft()
        return [*frames] if copy else [zmq.Frame(frame) for frame in frames]

    def send(self, frame: bytes, flags: int = 0) -> None:
        """Speak, once the last frame is there."""
        assert not self.closed, "a closed socket was spoken to"
        self.frames.append(frame)
        if not flags & zmq.SNDMORE:
            frames, self.frames = self.frames, []
            self.node.speak(self, frames)

    def arrive(self, frames: list[bytes]) -> None:
        """Have something to read."""
        self.arrived.append(frames)
        if self.poller is not None:
            self.poller.inbox.wake(0)

    def close(self, linger: int | None = None) -> None:
        """Be deaf and dumb from now on."""
        self.closed = True
        self.arrived.clear()


def _place(endpoint: str) -> tuple[int, Role]:
    host, port = parse(endpoint)
    return int(host.removeprefix("n")), Role(port - BASE_PORT)


class SimContext:
    """A context of one node."""

    def __init__(self, node: "ShellNode") -> None:
        """Belong to `node`."""
        self.node = node

    def socket(self, kind: int) -> SimSocket:
        """Return a new socket."""
        return SimSocket(self.node, kind)

    def get(self, option: int) -> int:
        """Return the number of ZeroMQ's threads."""
        assert option == zmq.IO_THREADS
        return 1

    def destroy(self, linger: int | None = None) -> None:
        """Have nothing to destroy."""


class SimWaker:
    """A waker that nobody has to poll: it has the actor's next turn planned."""

    def __init__(self, inbox: "SimInbox") -> None:
        """Wake the actor of `inbox`."""
        self.inbox = inbox
        self.rung = False
        self.closed = False

    def fileno(self) -> int:
        """Return a number that no socket has."""
        return id(self)

    def ring(self) -> None:
        """Wake the actor, which takes as long as a hop between threads does."""
        assert not self.closed, "a waker was rung after it was closed"
        self.rung = True
        self.inbox.wake(self.inbox.node.world.options.hop_us)

    def hush(self) -> None:
        """Be rung no more."""
        self.rung = False

    def close(self) -> None:
        """Be gone."""
        self.closed = True


class SimPoller:
    """A poller that never waits: where it would, the actor's turn is over."""

    def __init__(self, inbox: "SimInbox") -> None:
        """Belong to `inbox`."""
        self.inbox = inbox
        self.sockets: list[SimSocket] = []

    def register(self, what: Any, flags: int = 0) -> None:
        """Look at a socket from now on; the waker is known already."""
        if isinstance(what, SimSocket):
            self.sockets.append(what)
            what.poller = self

    def poll(self, timeout: int | None = None) -> list[tuple[Any, int]]:
        """Return what is ready, or give the turn away."""
        waker = self.inbox.waker
        ready: list[tuple[Any, int]] = [(waker.fileno(), zmq.POLLIN)] if waker.rung else []
        ready += [(socket, zmq.POLLIN) for socket in self.sockets if socket.arrived]
        if not ready and timeout != 0:
            self.inbox.sleeps = True
            raise Asleep(timeout)
        return ready


# --- Pykka -----------------------------------------------------------------------------------------------------------


class SimInbox(Inbox):
    """The production inbox, which hands over one batch in each turn of its actor, and tells the world what is told."""

    waker: SimWaker
    poller: SimPoller

    def __init__(self, node: "ShellNode") -> None:
        """Belong to an actor of `node` that is about to start."""
        self.node = node
        self.role = Role.GATEWAY  # until it is known
        self.actor: Shell | None = None
        self.has_turn = False
        self.sleeps = False
        with (
            mock.patch.object(inbox_module, "make_waker", self._make_waker),
            mock.patch.object(zmq, "Poller", self._make_poller),
        ):
            super().__init__()

    def _make_waker(self) -> SimWaker:
        self.waker = SimWaker(self)
        return self.waker

    def _make_poller(self) -> SimPoller:
        self.poller = SimPoller(self)
        return self.poller

    def get(self) -> Envelope:
        """Return the batch of this turn; there is none in the next breath."""
        if self.actor is not None and self.actor.actor_stopped.is_set():
            return super().get()
        if not self.has_turn and self._has_more():
            raise Asleep(0)
        if self.sleeps:
            self.sleeps = self._asleep = False  # what the inbox itself does after its sleep
        envelope = super().get()
        self.has_turn = False
        return envelope

    def look_with(self, look: Callable[[], int]) -> None:
        """Never look: these connections have no kernel that could be asked."""

    def _has_more(self) -> bool:
        """Return whether the actor has something to do, and so would not sleep."""
        if not self.empty() or self.waker.rung or any(socket.arrived for socket in self.poller.sockets):
            return True
        return self.wake_at_ms is not None and self.wake_at_ms <= self.node.now_ms

    def put(self, envelope: Envelope, /) -> None:
        """Have the world carry what an actor tells another; an order to stop comes at once."""
        if envelope.reply_to is not None:
            envelope.reply_to.inbox = self
            super().put(envelope)
        else:
            self.node.tell(self, envelope)

    def put_now(self, envelope: Envelope) -> None:
        """Do what the production inbox does."""
        super().put(envelope)

    def wake(self, after_us: int) -> None:
        """Have the actor's next turn planned."""
        self.node.plan_turn(self.role, self.node.world.now_us + after_us)


class SimFuture(pykka.ThreadingFuture[Any]):
    """A future that does not wait for another thread: it has the actor take its turns until there is an answer."""

    inbox: SimInbox | None = None
    answered = False

    def get(self, *, timeout: float | None = None) -> Any:
        """Return the answer."""
        turns = 0
        while self.inbox is not None and not self.answered:
            if self.inbox.role not in self.inbox.node.shells:
                raise pykka.ActorDeadError(f"the {self.inbox.role.name} has died")
            self.inbox.node.take_turn(self.inbox.role)
            turns += 1
            assert turns < STOP_TURNS, f"the {self.inbox.role.name} does not stop"
        return super().get(timeout=timeout)

    def set(self, value: Any | None = None) -> None:
        """Have an answer."""
        self.answered = True
        super().set(value)

    def set_exception(self, exc_info: Any = None) -> None:
        """Have an error for an answer."""
        self.answered = True
        super().set_exception(exc_info)


# --- all of it -------------------------------------------------------------------------------------------------------


class NoThread:
    """A thread that never runs: the only one that a node starts itself ends it, and by then the process is gone."""

    def __init__(self, **_: Any) -> None:
        """Take anything."""

    def start(self) -> None:
        """Do nothing."""


@contextmanager
def simulated(world: "ShellWorld") -> Iterator[None]:
    """Put the world under the product's feet for the time of a block."""
    clock = SimpleNamespace(
        monotonic_ns=lambda: world.running.now_ms * 1_000_000, monotonic=lambda: world.running.now_ms / 1000
    )
    replaced: dict[str, tuple[Any, Any]] = {"time": (time, clock), "random": (random, world.rng)}
    threads = SimpleNamespace(Event=threading.Event, Lock=threading.Lock, Thread=NoThread)
    with ExitStack() as stack:

        def patch(owner: Any, name: str, value: Any) -> None:
            stack.enter_context(mock.patch.object(owner, name, value))

        for name, module in list(sys.modules.items()):
            if name.startswith(("lessor.actors.", "lessor.transport.")):
                for attribute, (real, simulation) in replaced.items():
                    if getattr(module, attribute, None) is real:
                        patch(module, attribute, simulation)
        patch(directory_module, "secrets", SimpleNamespace(randbelow=world.rng.randrange))
        patch(node_module, "threading", threads)
        patch(node_module, "make_context", lambda lanes=1: SimContext(world.running))
        patch(node_module, "DataDirectory", world.open_directory)
        patch(Shell, "_create_actor_inbox", staticmethod(lambda: SimInbox(world.running)))
        patch(Shell, "_create_future", staticmethod(SimFuture))
        patch(Shell, "_start_actor_loop", lambda actor: world.running.launch(cast(Shell, actor)))
        disabled = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(disabled)
