"""The law of a shell: step once each that has arrived, a tick last, commit once all that was asked, then say it all."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lessor.core.effects import Address, Connection, Effects, Role, Send
from lessor.core.learner import Events
from lessor.core.messages import PeerLost, Tick

from .checkers.base import Checker

if TYPE_CHECKING:
    from .shells import ShellNode
    from .world import World

COMPLAINTS = frozenset(
    "packets_malformed messages_malformed messages_misplaced packets_foreign packets_of_strangers called_a_stranger "
    "handshakes_failed".split()
)
"""What a node may count only if somebody misbehaves, and here nobody does."""


SPINS = 10
"""Turns without any effect that a role may have in one millisecond of its clock."""


@dataclass(slots=True)
class Turn:
    """What a role did with one batch."""

    role: Role
    starting: bool = False
    stepped: list[Any] = field(default_factory=list)
    ticks: int = 0
    writes: list[Any] = field(default_factory=list)  # asked for by the core
    sends: list[Send] = field(default_factory=list)  # asked for by the core
    committed: list[Any] = field(default_factory=list)
    commits: int = 0
    commit_us: int = 0
    said: list[Send] = field(default_factory=list)
    outputs: list[Callable[[], None]] = field(default_factory=list)  # what leaves once the commit is over
    crashes: bool = False


@dataclass(slots=True)
class Arrivals:
    """What has arrived for a role and was not yet stepped, in its order: told by this node, and in packets."""

    told: deque[Any] = field(default_factory=deque)
    received: deque[Any] = field(default_factory=deque)

    def take(self, message: Any) -> bool:
        """Return whether this is what has come next."""
        for queue in (self.told, self.received):
            if queue and queue[0] == message:
                queue.popleft()
                return True
        return False


class ShellLaw(Checker):
    """Holds each turn of each shell against what arrived for it and what its core has asked for."""

    promise = "shell"

    def __init__(self, world: "World") -> None:
        """Start with nobody running."""
        super().__init__(world)
        self.arrivals: dict[tuple[int, Role], Arrivals] = {}
        self.idle: dict[tuple[int, Role], tuple[int, int]] = {}  # since when on its clock, and in how many turns

    def forget(self, node: "ShellNode") -> None:
        """A process is gone, and what had arrived with it."""
        self.arrivals = {key: arrivals for key, arrivals in self.arrivals.items() if key[0] != node.number}

    def arrived(self, node: "ShellNode", role: Role, messages: Sequence[Any], *, told: bool) -> None:
        """Something has arrived for a role."""
        arrivals = self.arrivals.setdefault((node.number, role), Arrivals())
        (arrivals.told if told else arrivals.received).extend(messages)

    def stepped(self, node: "ShellNode", turn: Turn, message: Any, effects: Effects) -> None:
        """A core was handed a message."""
        turn.writes += effects.writes
        turn.sends += effects.sends
        if turn.ticks:
            raise self._of(node, turn, f"steps {message} after the tick, so that a stamp is older than what it stamps")
        if type(message) is Tick:
            turn.ticks += 1
            if message.now_ms != node.now_ms:
                raise self._of(node, turn, f"ticks {message.now_ms}, and the clock shows {node.now_ms}")
            return
        if type(message) is PeerLost:
            return  # a hint from ZeroMQ: several may become one
        arrivals = self.arrivals.get((node.number, turn.role))
        if arrivals is None or not arrivals.take(message):
            raise self._of(node, turn, f"steps what has not arrived, not in this order, or once before: {message}")

    def commits(self, node: "ShellNode", turn: Turn, writes: Sequence[Any]) -> None:
        """A role is about to commit."""
        turn.commits += 1
        turn.committed += writes
        if turn.said:
            raise self._of(node, turn, f"speaks before it commits: {turn.said[0].message}")
        if turn.commits > 1:
            raise self._of(node, turn, "commits twice what belongs together")

    def turn_ended(self, node: "ShellNode", turn: Turn) -> None:
        """Everything that was asked for must have been done, once and in order."""
        if turn.ticks > 1 or (turn.stepped and not turn.ticks):
            raise self._of(node, turn, f"ticks {turn.ticks} times for one batch")
        if bool(turn.writes) != bool(turn.commits) or (turn.role is Role.ACCEPTOR and turn.writes != turn.committed):
            raise self._of(node, turn, f"was asked to write {turn.writes}, and wrote {turn.committed}")
        assert node.production is not None
        complaints = COMPLAINTS & node.production.tallies.counts.keys()
        if complaints:
            raise self._of(node, turn, f"complains, though nobody does wrong: {sorted(complaints)}")
        if not turn.sends and not turn.said:
            if turn.ticks and not turn.stepped and not turn.writes:
                self._count_idle(node, turn)
            return
        sends = [send for send in turn.sends if not _has_stopped(node, send.to)] if node.stopping else turn.sends
        asked, said = _by_receiver(sends), _by_receiver(turn.said)
        if asked != said:
            differing = next(to for to in asked | said if asked.get(to) != said.get(to))
            raise self._of(
                node, turn, f"was asked to tell {differing} {asked.get(differing)}, and told {said.get(differing)}"
            )

    def _count_idle(self, node: "ShellNode", turn: Turn) -> None:
        key, now = (node.number, turn.role), node.now_ms
        since, turns = self.idle.get(key, (now, 0))
        self.idle[key] = (now, turns + 1 if since == now else 0)
        if turns > SPINS:
            raise self._of(node, turn, f"spins at {now} ms of its clock")

    def _of(self, node: "ShellNode", turn: Turn, what: str) -> Exception:
        return self.fail(f"the {turn.role.name.lower()} of node {node.number} {what}")


def _has_stopped(node: "ShellNode", to: Address | Connection) -> bool:
    """Return whether this is a role of the same node that a stop in good order has ended already."""
    shell = node.shells.get(to.role) if type(to) is Address and to.node == node.number else None
    return shell is not None and shell.actor_stopped.is_set()


def _by_receiver(sends: Sequence[Send]) -> dict[Address | Connection, list[Any]]:
    found: dict[Address | Connection, list[Any]] = {}
    for send in sends:
        told = found.setdefault(send.to, [])
        if isinstance(send.message, Events):
            told += send.message.events  # the feed is told each event by itself
        else:
            told.append(send.message)
    return {to: told for to, told in found.items() if told}
