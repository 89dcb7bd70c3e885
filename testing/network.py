"""The network of a test cluster: every connection to a node runs through here, where it can be cut.

One thread hands bytes on, between a port that others connect to (a door) and the node behind it. Each ordered pair of
nodes has doors of its own, and so have the clients, so that each direction between any two parties can be silenced. A
silenced direction swallows nothing and closes nothing: as with packets that are lost on the way, nobody is told, and
what was under way arrives once the network is whole again, unless somebody has given the connection up by then.
"""

import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from ..core.effects import Role
from ..core.errors import LessorError
from ..transport.ports import AddressInUse, free_base_port

CLIENTS: Final = 0
"""The number by which the clients go, all of them as one party."""

CLIENT_ROLES: Final = (Role.GATEWAY, Role.FEED)
PEER_ROLES: Final = (Role.PROPOSER, Role.ACCEPTOR, Role.LEARNER)

HOST: Final = "127.0.0.1"
PIECE_BYTES: Final = 64 * 1024
BUFFER_BYTES: Final = 256 * 1024
"""As much is taken from a sender before the receiver has taken it: as a network's own buffers do, it holds him back."""

TRIES: Final = 20
RESET: Final = b"\x01\x00\x00\x00\x00\x00\x00\x00"
"""SO_LINGER with no time to linger: closing breaks the connection."""

Way = tuple[int, int]
"""From a party to a party."""


class Network:
    """The doors of a cluster, and the thread that serves them."""

    def __init__(self, nodes: Iterable[int]) -> None:
        """Take the ports; every node is down until `up` says where it listens.

        Raises:
            AddressInUse, NoFreePorts: there are not enough ports.
        """
        self._selector = selectors.DefaultSelector()
        self._silent: set[Way] = set()
        self._frozen: set[int] = set()
        self._pipes: set[Pipe] = set()
        self._orders: deque[_Order] = deque()
        self._closing = False
        nodes = list(nodes)
        self._base_of: dict[Way, int] = {}
        self._doors: list[Door] = []
        self._bell, self._ear = socket.socketpair()
        try:
            for target in nodes:
                for source in (CLIENTS, *nodes):
                    if source != target:
                        self._take_ports((source, target))
        except BaseException:
            self._let_go()
            raise
        self._ear.setblocking(False)
        self._selector.register(self._ear, selectors.EVENT_READ, lambda _: self._ear.recv(PIECE_BYTES))
        self._thread = threading.Thread(target=self._run, name="lessor-network", daemon=True)
        self._thread.start()

    def endpoint(self, source: int, target: int) -> str:
        """Return where `source` reaches `target`."""
        return f"tcp://{HOST}:{self._base_of[source, target]}"

    # --- faults ------------------------------------------------------------------------------------------------------

    def up(self, node: int, base: int) -> None:
        """Open the doors of a node, which listens at `base`."""

        def order() -> None:
            for door in self._doors:
                if door.way[1] == node:
                    door.open(base)

        self._have_done(order)

    def down(self, node: int) -> None:
        """Break every connection from and to a node, as the end of its process does; nobody gets another one."""

        def order() -> None:
            for door in self._doors:
                if door.way[1] == node:
                    door.shut()
            for pipe in list(self._pipes):
                if node in pipe.way:
                    pipe.close()

        self._have_done(order)

    def freeze(self, node: int) -> None:
        """Let a node neither hear nor be heard."""
        self._change(lambda: self._frozen.add(node))

    def thaw(self, node: int) -> None:
        """Undo `freeze`."""
        self._change(lambda: self._frozen.discard(node))

    def silence(self, ways: Iterable[Way]) -> None:
        """Let nothing pass on these ways, in this direction."""
        ways = list(ways)
        self._change(lambda: self._silent.update(ways))

    def heal(self, ways: Iterable[Way] | None = None) -> None:
        """Undo every `silence`, or that of these ways."""
        healed = None if ways is None else list(ways)
        self._change(self._silent.clear if healed is None else lambda: self._silent.difference_update(healed))

    def passes(self, source: int, target: int) -> bool:
        """Return whether what `source` says comes to `target`."""
        return (source, target) not in self._silent and not self._frozen & {source, target}

    def close(self) -> None:
        """Break every connection and give the ports back. May be called twice."""
        self._closing = True
        try:
            self._bell.send(b"!")
        except OSError:
            return
        self._thread.join()

    # --- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closing:
                for key, mask in self._selector.select():
                    key.data(mask)
                while self._orders:
                    self._orders.popleft().carry_out()
        finally:
            self._closing = True
            self._let_go()
            while self._orders:
                self._orders.popleft().done.set()

    def _have_done(self, what: Callable[[], None]) -> None:
        """Have the thread do this, and wait until it is done."""
        order = _Order(what)
        self._orders.append(order)
        if self._closing:
            raise LessorError("the cluster is closed")
        self._bell.send(b"!")
        order.done.wait()
        if order.error is not None:
            raise order.error

    def _change(self, what: Callable[[], object]) -> None:
        def order() -> None:
            what()
            for pipe in list(self._pipes):
                pipe.look()

        self._have_done(order)

    def _take_ports(self, way: Way) -> None:
        for _ in range(TRIES):
            base = free_base_port(HOST)
            roles = CLIENT_ROLES if way[0] == CLIENTS else PEER_ROLES
            doors: list[Door] = []
            try:
                for role in roles:
                    doors.append(Door(self._selector, way, base + role, role, self._accept))  # noqa: PERF401 - closed below
            except OSError:  # somebody was faster
                for door in doors:
                    door.close()
                continue
            self._doors += doors
            self._base_of[way] = base
            return
        raise AddressInUse(f"no free ports were found on {HOST} in {TRIES} tries")

    def _accept(self, door: "Door", accepted: socket.socket) -> None:
        pipe = Pipe(self._selector, door.way, accepted, self.passes, self._pipes.discard)
        self._pipes.add(pipe)
        pipe.connect((HOST, door.target_base + door.role))

    def _let_go(self) -> None:
        for pipe in list(self._pipes):
            pipe.close()
        for door in self._doors:
            door.close()
        self._selector.close()
        self._ear.close()
        self._bell.close()


class _Order:
    """Something that the network's thread is to do for another one."""

    def __init__(self, what: Callable[[], None]) -> None:
        self.what = what
        self.done = threading.Event()
        self.error: Exception | None = None

    def carry_out(self) -> None:
        try:
            self.what()
        except Exception as error:  # noqa: BLE001 - it is raised where it was ordered
            self.error = error
        finally:
            self.done.set()


class Door:
    """A port at which a node is reached. While it is shut the port is kept, and connections to it are refused."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        way: Way,
        port: int,
        role: Role,
        on_accept: Callable[["Door", socket.socket], None],
    ) -> None:
        """Take the port.

        Raises:
            OSError: somebody has it.
        """
        self.way = way
        self.role = role
        self.target_base = 0
        self._selector = selector
        self._on_accept = on_accept
        self._is_open = False
        self._socket = socket.socket()
        try:
            self._socket.setblocking(False)
            self._reuse(True)
            self._socket.bind((HOST, port))
            self._socket.listen()
            self._refuse()
        except BaseException:
            self._socket.close()
            raise

    def open(self, target_base: int) -> None:
        """Let connections in, on their way to the node at this base."""
        self.target_base = target_base
        if not self._is_open:
            self._reuse(True)
            self._socket.listen()
            self._selector.register(self._socket, selectors.EVENT_READ, self._let_in)
            self._is_open = True

    def shut(self) -> None:
        """Refuse connections."""
        if self._is_open:
            self._leave()
            self._refuse()

    def close(self) -> None:
        """Give the port back."""
        if self._is_open:
            self._leave()
        self._socket.close()

    def _leave(self) -> None:
        self._selector.unregister(self._socket)
        self._is_open = False

    def _refuse(self) -> None:
        # a socket that has listened keeps its port after this (Linux), and none that would reuse ports gets it
        self._socket.shutdown(socket.SHUT_RDWR)
        self._reuse(False)

    def _reuse(self, reuse: bool) -> None:  # noqa: FBT001 - private
        # without it, connections that have just ended would keep the port from listening
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)

    def _let_in(self, _: int) -> None:
        try:
            accepted, _address = self._socket.accept()
        except OSError:
            return  # it has gone again
        try:
            self._on_accept(self, accepted)
        except OSError:
            accepted.close()  # there are no files left for the other half


@dataclass(slots=True, eq=False)
class End:
    """One of the two sockets of a pipe, and what is to be written to it."""

    party: int
    socket: socket.socket
    out: bytearray = field(default_factory=bytearray)
    connecting: bool = False
    said_all: bool = False
    mask: int = 0


class Pipe:
    """A connection from a party to a node, in two halves; the bytes of one are handed to the other."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        way: Way,
        accepted: socket.socket,
        passes: Callable[[int, int], bool],
        on_end: Callable[["Pipe"], None],
    ) -> None:
        """Begin with the half that was let in."""
        self.way = way
        self._selector = selector
        self._passes = passes
        self._on_end = on_end
        self._closed = False
        self.near = End(way[0], accepted)
        self.far = End(way[1], socket.socket(), connecting=True)
        for end in (self.near, self.far):
            end.socket.setblocking(False)
            end.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connect(self, address: tuple[str, int]) -> None:
        """Make the other half."""
        with self._breaking():
            try:
                self.far.socket.connect(address)
            except BlockingIOError:
                pass

    def look(self) -> None:
        """See to it that the selector tells what matters by now."""
        if not self._closed:
            for end, other in ((self.near, self.far), (self.far, self.near)):
                listens = self._passes(end.party, other.party) and not end.said_all and len(other.out) < BUFFER_BYTES
                writes = end.connecting or (bool(end.out) and self._passes(other.party, end.party))
                self._watch(end, listens * selectors.EVENT_READ | writes * selectors.EVENT_WRITE)

    def close(self, *, reset: bool = False) -> None:
        """End both halves, as the end of a process would, or break them."""
        if not self._closed:
            self._closed = True
            for end in (self.near, self.far):
                self._watch(end, 0)
                if reset:
                    try:
                        end.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    except OSError:
                        pass
                end.socket.close()
            self._on_end(self)

    def _watch(self, end: End, mask: int) -> None:
        if mask == end.mask:
            return
        if not mask:
            self._selector.unregister(end.socket)
        elif not end.mask:
            self._selector.register(end.socket, mask, self._handler(end))
        else:
            self._selector.modify(end.socket, mask, self._handler(end))
        end.mask = mask

    def _handler(self, end: End) -> Callable[[int], None]:
        def handle(mask: int) -> None:
            if not self._closed:
                with self._breaking():
                    if mask & selectors.EVENT_WRITE:
                        self._write(end)
                    if mask & selectors.EVENT_READ:
                        self._read(end)

        return handle

    def _read(self, end: End) -> None:
        other = self.far if end is self.near else self.near
        if not self._passes(end.party, other.party):
            return
        data = end.socket.recv(PIECE_BYTES)
        other.out += data
        end.said_all = not data
        if not other.connecting:
            self._write(other)

    def _write(self, end: End) -> None:
        other = self.far if end is self.near else self.near
        if end.connecting:
            error = end.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, "cannot connect")
            end.connecting = False
        if end.out and self._passes(other.party, end.party):
            del end.out[: end.socket.send(end.out)]

    @contextmanager
    def _breaking(self) -> Iterator[None]:
        """End the connection once one half has said all it had to say, or at once if one half is broken."""
        try:
            yield
        except BlockingIOError:
            pass
        except OSError:
            self.close(reset=True)
            return
        if any(one.said_all and not other.out for one, other in ((self.near, self.far), (self.far, self.near))):
            self.close()
        else:
            self.look()
