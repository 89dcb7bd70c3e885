"""What a step of a core asks of its shell: first write, then send; the core itself never acts."""

import enum
from dataclasses import dataclass, field
from typing import Any


class Role(enum.IntEnum):
    """The roles of a node; the number is also the role's port, counted from the node's base port."""

    GATEWAY = 0
    PROPOSER = 1
    ACCEPTOR = 2
    LEARNER = 3
    FEED = 4
    EXPIRY_TIMER = 5  # local only: it has no port


@dataclass(frozen=True, slots=True)
class Connection:
    """One client's connection to this gateway, by the identity that ZeroMQ gave it."""

    identity: bytes


@dataclass(frozen=True, slots=True)
class Address:
    """One role of one node."""

    node: int
    role: Role


@dataclass(frozen=True, slots=True)
class Send:
    """Tell `message` to the role at `to`; it may be lost, delayed, repeated or overtaken."""

    to: Address | Connection
    message: Any


@dataclass(slots=True)
class Effects:
    """Writes that must be durable before any of the sends leaves (P2), in the order in which they were asked for."""

    writes: list[Any] = field(default_factory=list)
    sends: list[Send] = field(default_factory=list)

    def write(self, row: Any) -> None:
        """Ask for a durable write."""
        self.writes.append(row)

    def send(self, to: Address | Connection, message: Any) -> None:
        """Ask for a message to be sent after the writes are durable."""
        self.sends.append(Send(to, message))
