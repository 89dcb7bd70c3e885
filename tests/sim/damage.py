"""Packets that nobody sent in good faith: damaged and forged copies of real ones, put before the production readers.

A copy with a flipped bit may be well-formed and say something else. No reader can see that, and TCP's checksum is there
to; so what then differs from the original goes no further here.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import zmq

from lessor.actors.gateway import GatewayShell
from lessor.actors.links import Links, Tallies
from lessor.core.effects import Address, Connection, Role
from lessor.core.gateway import FromClient
from lessor.core.messages import Heartbeat
from lessor.transport.packets import BadMessage, Sender, decode_packet, encode_packet, encode_peer_packet
from lessor.transport.sockets import arriving

from .shells_seams import SimFrame

if TYPE_CHECKING:
    from .client import SimClient
    from .node import Node
    from .world import World

CLUSTER = 1
STRANGE = 1000
"""What is added to the number of a cluster or an incarnation to have another one."""

OTHER_ROLE = {Role.PROPOSER: Role.ACCEPTOR, Role.ACCEPTOR: Role.LEARNER, Role.LEARNER: Role.PROPOSER}


class Port:
    """Stands for a socket that one packet has come in at; what is sent goes nowhere."""

    def __init__(self, frames: list[bytes]) -> None:
        self.frames = [*frames]

    def recv(self, flags: int, *, copy: bool) -> SimFrame:
        """Return the packet's frames, once."""
        assert not copy
        if not self.frames:
            raise zmq.Again
        return SimFrame(self.frames.pop(0), bool(self.frames))

    def send(self, *_: Any) -> None:
        """Take what is sent."""


class Roster:
    """Every node was met as it is: the incarnation of node n is n."""

    def meet(self, node: int, incarnation: int) -> bool:
        """Return whether `node` is known by this incarnation."""
        return incarnation == node

    def known_incarnation(self, node: int) -> int:
        """Return the incarnation of a node."""
        return node


class Quiet(Tallies):
    """Counts, and writes no log."""

    def complain(self, name: str, text: str) -> None:
        """Count."""
        self.count(name)


class Door(Links):
    """The production check of what comes from other nodes and from clients, without sockets."""

    def __init__(self, node: int, members: Sequence[int]) -> None:
        """Stand before node `node`."""
        self.said: list[Any] = []
        nobody = cast(Any, None)
        endpoints = dict.fromkeys(members, "tcp://nowhere:1")
        super().__init__(Sender(CLUSTER, node, node), endpoints, Roster(), Quiet(), nobody, {}, self.said.append)

    def remote(self, address: Address) -> Any:
        """Return whom to tell that he is a stranger here: nobody."""
        return Nobody

    def flush(self) -> None:
        """Nothing waits."""


class Nobody:
    """Is told, and does not heed."""

    @staticmethod
    def tell(message: Any) -> None:
        """Do nothing."""


class ClientDoor:
    """As much of the gateway's shell as reads packets from clients: its own methods, without its sockets."""

    _take: Any = GatewayShell._take
    _answer: Any = GatewayShell._answer

    def __init__(self, node: "Node", frame: bytes) -> None:
        """Stand before the gateway of `node`, with one packet that has come."""
        self.links = node.door
        self.port = Port([b"hostile", frame])
        self._arriving = partial(arriving, cast(Any, self.port))
        self.core = node.desks[Role.GATEWAY].core


class Damage:
    """Makes hostile packets of good ones and has them read; each draws what is wrong with it."""

    def __init__(self, world: "World") -> None:
        """Draw from the luck of `world`."""
        self.world = world
        self.rng = world.rng

    # --- what is wrong -----------------------------------------------------------------------------------------------

    def _bytes(self, frame: bytes) -> tuple[str, bytes]:
        """Return damaged bytes, and what was done to them."""
        rng = self.rng
        match rng.randrange(4):
            case 0:
                changed = bytearray(frame)
                for _ in range(rng.choice((1, 1, 3))):
                    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
                return "flipped bits", bytes(changed)
            case 1:
                return "a packet cut off", frame[: rng.randrange(len(frame))]
            case 2:
                return "noise", rng.randbytes(rng.randrange(40))
            case _:
                # the version stands behind the head of the outer list
                return "a foreign version", frame[:1] + bytes([rng.choice((0, 2, 3, 23))]) + frame[2:]

    # --- on the way --------------------------------------------------------------------------------------------------

    def from_node(self, sender: "Node", receiver: "Node", role: Role, messages: Sequence[Any]) -> None:
        """Have a node read what comes in the name of another, at the port of a role."""
        if not receiver.up:
            return
        me = sender.number
        identity = Sender(CLUSTER, me, me)
        kinds: dict[str, Callable[[], tuple[Sender, Sequence[Any], Role]]] = {
            "another cluster": lambda: (Sender(CLUSTER + STRANGE, me, me), messages, role),
            "a stranger": lambda: (Sender(CLUSTER, me, me + STRANGE), messages, role),
            "no member": lambda: (Sender(CLUSTER, STRANGE, STRANGE), messages, role),
            "the receiver's own name": lambda: (Sender(CLUSTER, receiver.number, receiver.number), messages, role),
            "another's port": lambda: (identity, messages, OTHER_ROLE[role]),
            "another's words": lambda: (identity, (Heartbeat(receiver.proposer.highest, 0),), Role.PROPOSER),
        }
        if self.rng.random() < 0.5:
            what, frame = self._bytes(encode_peer_packet(identity, messages))
        else:
            what = self.rng.choice(list(kinds))
            author, said, role = kinds[what]()
            if what == "another's words" and receiver.proposer.highest.node == me:
                return  # it is its own word
            frame = encode_peer_packet(author, said)
        self._read(receiver, what, role, frame, messages)

    def _read(self, node: "Node", what: str, role: Role, frame: bytes, original: Sequence[Any]) -> None:
        read = node.door.reader(cast(Any, Port([b"hostile", frame])), role)
        self._judge(node, what, role, read, lambda message: what == "flipped bits" and message not in original)

    def from_client(self, node: "Node", life: int, frame: bytes) -> None:
        """Have a gateway read what comes from somebody who is no client."""
        if not node.up or life != node.life:
            return
        original = [FromClient(Connection(b"hostile"), message) for message in decode_packet(frame)]
        if self.rng.random() < 0.7:
            what, frame = self._bytes(frame)
        else:
            what, frame = "a role's message", encode_packet([Heartbeat(node.proposer.highest, 0)])
        read = partial(GatewayShell._read, cast(Any, ClientDoor(node, frame)))
        self._judge(node, what, Role.GATEWAY, read, lambda message: what == "flipped bits" and message not in original)

    def _judge(
        self,
        node: "Node",
        what: str,
        role: Role,
        read: Callable[[list[Any]], None],
        misleads: Callable[[Any], bool],
    ) -> None:
        world = self.world
        world.count_fault(f"hostile: {what}")
        counts = node.door.tallies.counts
        before = counts.total() - _usual(counts)
        batch: list[Any] = []
        error: Exception | None = None
        try:
            read(batch)
        except Exception as raised:  # noqa: BLE001 - whatever it is, a real node would end
            error = raised
        reached = [message for message in batch if not misleads(message)]
        counted = counts.total() - _usual(counts) - before
        if len(reached) < len(batch) or node.door.said:
            counted += 1  # a bit flipped within a value: nobody can see that
            node.door.said.clear()
        for checker in world.hooks.hostile:
            checker.hostile(node, what, reached, counted, error)
        if error is not None:
            world.stopped_itself(node, role, error)
        elif reached:
            node.arrive(role, reached)

    def to_client(self, client: "SimClient", connection: Connection, source: str, frame: bytes) -> None:
        """Have a client read damaged bytes from a node."""
        original = decode_packet(frame)
        what, frame = self._bytes(frame)
        found: list[Any] = []
        with suppress(Exception):  # the client is to read it, and to be judged
            found = decode_packet(frame)
        if all(isinstance(message, BadMessage) or message in original for message in found):
            self.world.count_fault(f"hostile, to a client: {what}")
            client.arrive(connection, source, frame)


def _usual(counts: Any) -> int:
    """Return how often was counted what is no complaint."""
    return int(counts["client_packets"] + counts["client_messages"])
