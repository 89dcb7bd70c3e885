"""The proposer's shell: it also watches the connections to the other proposers, since a broken one is a hint."""

import logging
from typing import Any

import zmq

from ..core.ballot import Ballot
from ..core.effects import Address, Role, Send
from ..core.messages import Leadership, PeerLost
from ..core.proposer import Proposer
from ..transport.sockets import Socket, monitor_connection, read_monitor
from .inbox import Batch
from .links import Links
from .shell import Fate, Shell, now_ms

log = logging.getLogger(__name__)

GREETING_EVERY_MS = 1_000
"""How often a node says who it is. Followers have nothing else to say to each other, and yet each must know each: one
that comes back without its journal would find a vote for its word with whoever has never met it before."""


class ProposerShell(Shell):
    """Stands, leads and proposes; it writes nothing, its own acceptor does."""

    role_name = "proposer"

    def __init__(
        self, fate: Fate, links: Links, port: Socket, members: tuple[int, ...], promised: Ballot, applied: int
    ) -> None:
        """Take over the bound port."""
        super().__init__(fate, links)
        self.port = port
        self.members = members
        self.promised = promised
        self.applied = applied
        self._monitors: list[Socket] = []
        self._greet_at_ms = 0
        self._leaderless = False

    def set_up(self) -> None:
        """Build the core and watch the peers."""
        node = self.links.sender.node
        self.core = Proposer(node, self.members, self.promised, self.applied)
        self.links.connect(Role.PROPOSER, Role.ACCEPTOR)
        self.inbox.read_from(self.port, self.links.reader(self.port, Role.PROPOSER, self.guard(self.port)))
        for peer in self.core.peers:
            monitor = monitor_connection(self.links.remote(Address(peer, Role.PROPOSER)).socket)
            self._monitors.append(monitor)
            self.inbox.read_from(monitor, self._watch(peer, monitor), rare=True)

    def _watch(self, peer: int, monitor: Socket) -> Any:
        def read(batch: list[Any]) -> None:
            if zmq.EVENT_DISCONNECTED in read_monitor(monitor):
                batch.append(PeerLost(peer))

        return read

    def on_receive(self, batch: Batch) -> None:
        """Do as any shell; and now and then say who this is, and what is wrong with the others."""
        super().on_receive(batch)
        now = now_ms()
        if now >= self._greet_at_ms:
            self._greet_at_ms = now + GREETING_EVERY_MS
            reached = self.links.greet(Role.PROPOSER)
            for line in self.links.peers.look(now, reached):
                log.warning("%s", line)

    def speak(self, sends: list[Send]) -> None:
        """Log a change of leadership, then send."""
        for item in sends:
            if isinstance(item.message, Leadership) and item.to == Address(self.links.sender.node, Role.GATEWAY):
                self._log(item.message)
        # the mean of these is how well batching works: `lessor bench` shows it
        self.links.tallies.put("batches", self.core.batches)
        self.links.tallies.put("batched_commands", self.core.batched_commands)
        super().speak(sends)

    def _log(self, leadership: Leadership) -> None:
        node = self.links.sender.node
        if leadership.leader == node:
            log.info("node %d leads under ballot %s", node, leadership.ballot)
        elif leadership.leader:
            log.info("node %d follows node %d under ballot %s", node, leadership.leader, leadership.ballot)
        else:  # told once: without a majority, it stands and gives up again and again
            level = logging.DEBUG if self._leaderless else logging.INFO
            log.log(level, "node %d is %s; no leader is known", node, leadership.role)
        self._leaderless = not leadership.leader

    def tear_down(self) -> None:
        """Close the port and the monitors."""
        for monitor in self._monitors:
            monitor.close()
        self.port.close()
