"""The client gateway's shell: packets from and to clients."""

from collections.abc import Sequence
from typing import Any

from ..core import limits
from ..core.effects import Connection, Send
from ..core.encoding import INT_MAX
from ..core.errors import Malformed
from ..core.gateway import Counters, FromClient, Gateway, NodeFacts
from ..core.requests import Counter, Rejected, Request, StatusRequest
from ..core.results import shortened
from ..transport.packets import BadMessage, decode_packet, encode_packet, payload, split
from ..transport.sockets import Socket, send
from .links import Links
from .shell import Fate, Shell

COUNTERS_MAX = 64
"""Counters in one status answer; there are about twenty."""


class GatewayShell(Shell):
    """Owns the clients' port."""

    role_name = "gateway"

    def __init__(self, fate: Fate, links: Links, port: Socket, facts: NodeFacts) -> None:
        """Take over the bound port."""
        super().__init__(fate, links)
        self.port = port
        self.facts = facts

    def set_up(self) -> None:
        """Build the core."""
        self.core = Gateway(self.facts)
        self._arriving = self.guard(self.port).arriving
        self.inbox.read_from(self.port, self._read)

    def _read(self, batch: list[Any]) -> None:
        taken = 0
        for frames in self._arriving():
            connection = Connection(frames[0])
            try:
                messages = decode_packet(payload(frames))
            except Malformed as error:
                self.links.tallies.complain("packets_malformed", f"from a client: {error}")
                self._answer(connection, [Rejected(0, shortened(str(error)))])
                continue
            self.links.tallies.count("client_packets")
            self.links.tallies.count("client_messages", len(messages))
            rejections: list[Rejected] = []
            for message in messages:
                self._take(connection, message, batch, rejections)
            if rejections:
                self._answer(connection, rejections)
            taken += len(messages)
            if taken >= limits.PACKET_MESSAGES_MAX:
                return  # the rest has its turn after what these have led to

    def _take(self, connection: Connection, message: Any, batch: list[Any], rejections: list[Rejected]) -> None:
        if isinstance(message, Request):
            batch.append(FromClient(connection, message))
        elif isinstance(message, StatusRequest):
            self.links.tallies.put("requests_answered", self.core.answered)
            self.links.tallies.put("requests_busy", self.core.busy)
            counters = tuple(Counter(name, value) for name, value in self.links.tallies.all()[:COUNTERS_MAX])
            batch.append(Counters(counters))
            batch.append(FromClient(connection, message))
        else:
            error = message.error if isinstance(message, BadMessage) else f"{type(message).__name__} is no request"
            self.links.tallies.complain("messages_malformed", f"from a client: {error}")
            rejections.append(Rejected(_number_of(message), shortened(error)))

    def speak(self, sends: list[Send]) -> None:
        """Answer each client in one packet, or in as few as may be; tell the roles the rest."""
        answers: dict[Connection, list[Any]] = {}
        others: list[Send] = []
        for item in sends:
            if isinstance(item.to, Connection):
                answers.setdefault(item.to, []).append(item.message)
            else:
                others.append(item)
        for connection, messages in answers.items():
            self._answer(connection, messages)
        self.links.speak(others)

    def _answer(self, connection: Connection, messages: Sequence[Any]) -> None:
        for packet in split(messages, encode_packet):
            if not send(self.port, [connection.identity, packet]):
                self.links.tallies.count("answers_dropped")

    def tear_down(self) -> None:
        """Close the port."""
        self.port.close()


def _number_of(message: Any) -> int:
    """Return the number of a request that could not be read, 0 if even that cannot be made out."""
    raw = getattr(message, "raw", None)
    number = raw[2] if type(raw) is list and len(raw) > 2 else 0
    return number if type(number) is int and 0 <= number <= INT_MAX else 0
