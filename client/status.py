"""Asks every node how it is, all at once, each for itself: what a node says here is its own view and no consensus."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import zmq

from ..core.ballot import NO_BALLOT, Ballot, quorum
from ..core.errors import Malformed
from ..core.requests import Rejected, StatusAnswer, StatusRequest
from ..transport import sockets
from ..transport.packets import decode_packet, encode_packet

POLL_MS = 10
"""How often it is tried whether a connection stands."""


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """What one endpoint answered, or why there is no answer."""

    endpoint: str
    answer: StatusAnswer | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """What the nodes say, in the order in which they were asked."""

    nodes: tuple[NodeStatus, ...]

    @property
    def answers(self) -> list[StatusAnswer]:
        """The answers that came."""
        return [node.answer for node in self.nodes if node.answer is not None]

    @property
    def leader(self) -> int:
        """The leader that is known under the highest ballot, 0 if no node knows any."""
        known = [answer for answer in self.answers if answer.leader]
        return max(known, key=_ballot).leader if known else 0

    @property
    def ballot(self) -> Ballot:
        """The ballot under which the leader leads."""
        return max((answer.ballot for answer in self.answers if answer.leader), default=NO_BALLOT)

    @property
    def majority(self) -> bool:
        """Whether a majority of those that were asked has answered."""
        return len(self.answers) >= quorum(len(self.nodes))

    @property
    def healthy(self) -> bool:
        """Whether the service works, as far as can be seen from here: a majority answers, and a leader is known."""
        return self.majority and self.leader != 0


def ask_status(endpoints: Sequence[str], timeout: float = 2.0) -> ClusterStatus:
    """Ask every endpoint, in parallel, and return what came within `timeout` seconds."""
    context = sockets.make_context(len(endpoints))
    try:
        return _ask(context, list(endpoints), timeout)
    finally:
        sockets.end_context(context)


class _Asked:
    """One endpoint, while its answer is waited for."""

    def __init__(self, context: sockets.Context, endpoint: str, lane: int) -> None:
        self.endpoint = endpoint
        self.found: NodeStatus | None = None
        self.dealer = sockets.dealer(context, endpoint, lane)
        self.monitor = sockets.monitor_connection(self.dealer)
        self._sent = False

    def look(self) -> None:
        """Ask if there is a connection by now, and take in what has come."""
        # nothing is queued for a connection that does not stand yet, so the question is tried until it goes out
        if not self._sent and sockets.send(self.dealer, [encode_packet([StatusRequest(1)])]):
            self._sent = True
        for frames in sockets.receive(self.dealer):
            self.found = _read(self.endpoint, frames[-1])
        events = sockets.read_monitor(self.monitor)
        if self.found is None and zmq.EVENT_CLOSED in events:
            self.found = NodeStatus(self.endpoint, None, "cannot be reached")
        elif self.found is None and zmq.EVENT_DISCONNECTED in events:
            self.found = NodeStatus(self.endpoint, None, "it broke the connection off")


def _ask(context: sockets.Context, endpoints: list[str], timeout: float) -> ClusterStatus:
    asked = {endpoint: _Asked(context, endpoint, lane) for lane, endpoint in enumerate(dict.fromkeys(endpoints))}
    poller = zmq.Poller()
    for each in asked.values():
        poller.register(each.dealer, zmq.POLLIN)
        poller.register(each.monitor, zmq.POLLIN)
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and any(each.found is None for each in asked.values()):
        poller.poll(POLL_MS)
        for each in asked.values():
            each.look()
    for each in asked.values():
        each.dealer.disable_monitor()
        each.monitor.close()
        each.dealer.close()
    silent = f"no answer in {timeout:g} s"
    return ClusterStatus(tuple(asked[endpoint].found or NodeStatus(endpoint, None, silent) for endpoint in endpoints))


def _read(endpoint: str, frame: bytes) -> NodeStatus:
    try:
        messages = decode_packet(frame)
    except Malformed as error:
        return NodeStatus(endpoint, None, f"it answers in another language: {error}")
    for message in messages:
        if isinstance(message, StatusAnswer):
            return NodeStatus(endpoint, message)
        if isinstance(message, Rejected):
            return NodeStatus(endpoint, None, f"it does not understand the question: {message.reason}")
    return NodeStatus(endpoint, None, "it answers something else")


def _ballot(answer: StatusAnswer) -> Ballot:
    return answer.ballot
