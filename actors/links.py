"""The links of a node: one address book for telling a role, whether it is an actor here or on another node."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import pykka

from ..core import limits
from ..core.effects import Address, Role, Send
from ..core.errors import Malformed
from ..core.messages import (
    Accept,
    Accepted,
    Fetch,
    Fetched,
    FetchSnapshot,
    Heartbeat,
    HeartbeatAnswer,
    Prepare,
    PreVote,
    PreVoteAnswer,
    Promise,
    Refuse,
    SnapshotChunk,
    Stranger,
)
from ..transport.endpoints import of_role
from ..transport.guard import Guard
from ..transport.packets import BadMessage, Sender, decode_peer_packet, encode_peer_packet, payload, split
from ..transport.sockets import Context, Socket, arriving, dealer, send
from .peers import Peers

log = logging.getLogger(__name__)

ACCEPTED_KINDS: dict[Role, tuple[type, ...]] = {
    Role.PROPOSER: (Promise, Refuse, PreVote, PreVoteAnswer, Heartbeat, HeartbeatAnswer),
    Role.ACCEPTOR: (Prepare, Accept, Fetch, Fetched),
    Role.LEARNER: (Accepted, FetchSnapshot, SnapshotChunk),
}
"""What a role may be told by other nodes. Everything else on its port is counted and dropped (P11)."""

COMPLAINT_EVERY_S = 10.0


class Tallies:
    """The node's counters; each name is counted up by many threads, which may lose one in a while, never a crash."""

    def __init__(self) -> None:
        """Start at zero."""
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._complained: dict[str, float] = {}

    def count(self, name: str, times: int = 1) -> None:
        """Count an occurrence."""
        with self._lock:
            self.counts[name] += times

    def put(self, name: str, value: int) -> None:
        """Set a counter that is counted elsewhere."""
        with self._lock:
            self.counts[name] = value

    def all(self) -> list[tuple[str, int]]:
        """Return every counter by name, in the order of their names."""
        with self._lock:
            return sorted(self.counts.items())

    def complain(self, name: str, text: str) -> None:
        """Count an occurrence, and log it, but not more often than every ten seconds for each name."""
        now = time.monotonic()
        with self._lock:
            self.counts[name] += 1
            if now - self._complained.get(name, -COMPLAINT_EVERY_S) < COMPLAINT_EVERY_S:
                return
            self._complained[name] = now
        log.warning("%s: %s", name, text)


class Roster(Protocol):
    """Who was met with which incarnation (the data directory keeps it)."""

    def meet(self, node: int, incarnation: int) -> bool:
        """Return whether `node` is known by this incarnation, or was not known until now."""
        ...

    def known_incarnation(self, node: int) -> int | None:
        """Return the incarnation that `node` was first met with."""
        ...


class Told(Protocol):
    """What can be told a message."""

    def tell(self, message: Any) -> None:
        """Take a message, without ever blocking."""
        ...


class LocalRef:
    """An actor of this node; told before it has started, it finds the messages when it does."""

    def __init__(self) -> None:
        """Start unbound."""
        self._ref: pykka.ActorRef[Any] | None = None
        self._early: list[Any] = []
        self._lock = threading.Lock()

    def bind(self, ref: "pykka.ActorRef[Any]") -> None:
        """Name the actor, and tell it what it has missed."""
        with self._lock:
            for message in self._early:
                ref.tell(message)
            self._early = []
            self._ref = ref

    def tell(self, message: Any) -> None:
        """Put the message into the actor's inbox. Telling one that has stopped is no error: the node is stopping."""
        if self._ref is None:
            with self._lock:
                if self._ref is None:
                    self._early.append(message)
                    return
        try:
            self._ref.tell(message)
        except pykka.ActorDeadError:
            log.debug("%s has stopped", self._ref)


class RemoteRef:
    """A role of another node: what it is told in one batch leaves in one packet."""

    def __init__(self, context: Context, endpoint: str, lane: int) -> None:
        """Connect, in the thread that will tell."""
        self.socket: Socket = dealer(context, endpoint, lane)
        self.unsent: list[Any] = []

    def tell(self, message: Any) -> None:
        """Add the message to the packet that leaves with the next flush."""
        self.unsent.append(message)


class Links:
    """The address book of one actor, and its port to other nodes. It belongs to the actor's thread."""

    def __init__(
        self,
        sender: Sender,
        endpoints: dict[int, str],
        roster: Roster,
        tallies: Tallies,
        context: Context,
        locals_: dict[Role, Told],
        on_stranger: Callable[[Stranger], None],
    ) -> None:
        """Start with an empty book: connections are made when they are first needed."""
        self.sender = sender
        self.endpoints = endpoints
        self.roster = roster
        self.tallies = tallies
        self.context = context
        self.on_stranger = on_stranger
        self.locals = locals_
        self.peers = Peers(sender.node, endpoints)
        self._remotes: dict[Address, RemoteRef] = {}
        self._strangers: dict[int, float] = {}

    # --- out ---------------------------------------------------------------------------------------------------------

    def remote(self, address: Address) -> RemoteRef:
        """Return the reference to a role of another node."""
        ref = self._remotes.get(address)
        if ref is None:
            peers = [node for node in self.endpoints if node != self.sender.node]
            lane = 1 + peers.index(address.node)  # lane 0 is for the ports that others connect to
            ref = RemoteRef(self.context, of_role(self.endpoints[address.node], address.role), lane)
            self._remotes[address] = ref
        return ref

    def connect(self, *roles: Role) -> None:
        """Connect to these roles of every other node now: what is said before a connection stands is lost."""
        for node in self.endpoints:
            if node != self.sender.node:
                for role in roles:
                    self.remote(Address(node, role))

    def greet(self, role: Role) -> list[int]:
        """Say nothing but who this is to `role` of every other node, so that each knows each by its incarnation.

        Return to which nodes there is a connection.
        """
        packet = encode_peer_packet(self.sender, [])
        others = [node for node in self.endpoints if node != self.sender.node]
        return [node for node in others if send(self.remote(Address(node, role)).socket, [packet])]

    def speak(self, sends: list[Send]) -> None:
        """Tell everybody what is to be told."""
        node = self.sender.node
        remote = False
        for item in sends:
            to = item.to
            assert isinstance(to, Address)
            if to.node == node:
                self.locals[to.role].tell(item.message)
            elif to.node in self.endpoints:
                self.remote(to).tell(item.message)
                remote = True
        if remote:
            self.flush()

    def flush(self) -> None:
        """Send each role of other nodes its packet; the same messages to several peers are encoded once."""
        encoded: dict[tuple[int, ...], list[bytes]] = {}
        for ref in self._remotes.values():
            if not ref.unsent:
                continue
            messages, ref.unsent = ref.unsent, []
            key = tuple([id(message) for message in messages])
            packets = encoded.get(key)
            if packets is None:
                packets = encoded[key] = split(messages, partial(encode_peer_packet, self.sender))
            for packet in packets:
                self.tallies.count("packets_sent" if send(ref.socket, [packet]) else "packets_dropped")

    # --- in ----------------------------------------------------------------------------------------------------------

    def reader(self, socket: Socket, role: Role, guard: Guard | None = None) -> Callable[[list[Any]], None]:
        """Return what reads the port of `role`: only well-formed messages of known members reach the batch (P11)."""
        kinds = ACCEPTED_KINDS[role]

        def read(batch: list[Any]) -> None:
            taken = 0
            for frames in guard.arriving() if guard is not None else arriving(socket):
                try:
                    sender, messages = decode_peer_packet(payload(frames))
                except Malformed as error:
                    self.tallies.complain("packets_malformed", str(error))
                    continue
                if self._known(sender, role):
                    for message in messages:
                        self._take(message, sender, kinds, batch)
                taken += len(messages)
                if taken >= limits.PACKET_MESSAGES_MAX:
                    return  # the rest has its turn after what these have led to

        return read

    def _take(self, message: Any, sender: Sender, kinds: tuple[type, ...], batch: list[Any]) -> None:
        if isinstance(message, kinds) and _author(message) == sender.node:
            batch.append(message)
        elif isinstance(message, Stranger):
            self.on_stranger(message)
        elif isinstance(message, BadMessage):
            self.tallies.complain("messages_malformed", f"from node {sender.node}: {message.error}")
        else:
            self.tallies.complain("messages_misplaced", f"{type(message).__name__} from node {sender.node}")

    def _known(self, sender: Sender, role: Role) -> bool:
        if sender.cluster != self.sender.cluster or sender.node not in self.endpoints:
            if self.peers.foreign(sender.node):
                self.tallies.count("packets_foreign")  # what is to be told of it, `peers` says
            else:
                self.tallies.complain(
                    "packets_foreign", f"node {sender.node} is no member here; is its --cluster right?"
                )
            return False
        if sender.node == self.sender.node:
            self.tallies.complain("packets_foreign", f"somebody else claims to be node {sender.node}")
            return False
        if self.roster.meet(sender.node, sender.incarnation):
            self.peers.heard(sender.node)
            return True
        self.tallies.complain(
            "packets_of_strangers", f"node {sender.node} came back without its journal; it is not listened to"
        )
        now = time.monotonic()
        known = self.roster.known_incarnation(sender.node)
        if known and now - self._strangers.get(sender.node, -1.0) >= 1.0:
            self._strangers[sender.node] = now
            ref = self.remote(Address(sender.node, role if role in ACCEPTED_KINDS else Role.PROPOSER))
            ref.tell(Stranger(sender.node, known))
            self.flush()
        return False

    def close(self) -> None:
        """Close every connection."""
        for ref in self._remotes.values():
            ref.socket.close()


def _author(message: Any) -> int:
    """Return which node must have sent a message."""
    node = getattr(message, "node", None)
    return int(node) if node is not None else int(message.ballot.node)
