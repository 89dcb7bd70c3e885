"""The client gateway: lets requests in within bounds, sends them on their way, and brings the answers back.

Laws it keeps:
- every request is answered once: with its outcome, a redirect, Busy or Rejected - unless this node dies;
- what was passed on and is not known to have failed is never answered as if it certainly had (P9);
- no more is under way than the limits allow (P10).
"""

from collections import OrderedDict
from dataclasses import dataclass

from . import limits
from .ballot import NO_BALLOT
from .commands import Command, check
from .effects import Address, Connection, Effects, Role
from .encoding import INT_MAX, encode
from .errors import BadRequest
from .learner import Applied, Summary
from .messages import Leadership, Submit, Tick
from .requests import Answer, Busy, Counter, Redirect, Rejected, Request, StatusAnswer, StatusRequest


@dataclass(frozen=True, slots=True)
class FromClient:
    """What a client sent, over which connection."""

    connection: Connection
    message: Request | StatusRequest


@dataclass(frozen=True, slots=True)
class Counters:
    """From the shell: the node's counters, for `lessor status`."""

    counters: tuple[Counter, ...]


Message = FromClient | Applied | Summary | Leadership | Tick | Counters


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a node knows of itself and its cluster from its configuration."""

    node: int
    cluster: str
    version: str
    endpoints: dict[int, str]  # where clients reach each member


@dataclass(frozen=True, slots=True)
class _Pending:
    connection: Connection
    number: int
    size: int


class Gateway:
    """The pure core of one node's client gateway."""

    def __init__(self, facts: NodeFacts) -> None:
        """Start knowing no leader."""
        self.facts = facts
        self.leadership = Leadership("follower", NO_BALLOT, 0)
        self.summary = Summary(0, 0, 0, 0, 0, 0, 0)
        self.counters: tuple[Counter, ...] = ()
        self._last_tag = 0
        self._pending: dict[int, _Pending] = {}
        self._pending_bytes = 0
        self._commands: list[bytes] = []
        self._connections: OrderedDict[int, Connection] = OrderedDict()  # by session, for pushes
        self.answered = 0
        self.busy = 0

    @property
    def leads(self) -> bool:
        """Whether this node leads, as far as the gateway has heard."""
        return self.leadership.leader == self.facts.node

    def step(self, message: Message) -> Effects:
        """Decide on one message."""
        effects = Effects()
        match message:
            case FromClient(connection, Request() as request):
                self._request(connection, request, effects)
            case Applied():
                self._applied(message, effects)
            case Tick():
                if self._commands:
                    submit = Submit(self.leadership.ballot, tuple(self._commands))
                    self._commands = []
                    effects.send(Address(self.facts.node, Role.PROPOSER), submit)
            case FromClient(connection, StatusRequest(number)):
                effects.send(connection, self._status(number))
            case Leadership():
                self._change_leadership(message, effects)
            case Summary():
                self.summary = message
            case Counters(counters):
                self.counters = counters
        return effects

    def _request(self, connection: Connection, request: Request, effects: Effects) -> None:
        if not self.leads:
            effects.send(connection, self._redirect(request.number, indefinite=False))
            return
        if not 0 < request.number < INT_MAX:  # the state keeps the number after it, too
            reason = f"a request's number is from 1 to {INT_MAX - 1}, not {request.number}"
            effects.send(connection, Rejected(request.number, reason))
            return
        try:
            check(request.operation)
        except BadRequest as error:
            effects.send(connection, Rejected(request.number, str(error)))
            return
        command = encode(
            Command(self._last_tag + 1, request.session, request.number, request.acked_below, request.operation)
        )
        too_many = len(self._pending) >= limits.GATEWAY_IN_FLIGHT_MAX
        if too_many or self._pending_bytes + len(command) > limits.GATEWAY_IN_FLIGHT_BYTES_MAX:
            self.busy += 1
            effects.send(connection, Busy(request.number))
            return
        self._last_tag += 1
        self._pending[self._last_tag] = _Pending(connection, request.number, len(command))
        self._pending_bytes += len(command)
        self._commands.append(command)
        if request.session:
            self._remember(request.session, connection)

    def _remember(self, session: int, connection: Connection) -> None:
        self._connections[session] = connection
        self._connections.move_to_end(session)
        if len(self._connections) > limits.CONNECTIONS_TRACKED_MAX:
            self._connections.popitem(last=False)

    def _applied(self, applied: Applied, effects: Effects) -> None:
        if applied.ballot != self.leadership.ballot:
            return  # of a leadership that ended: its requests were answered then
        for tag, result in applied.answers:
            pending = self._pending.pop(tag, None)
            if pending is not None:
                self._pending_bytes -= pending.size
                self.answered += 1
                effects.send(pending.connection, Answer(pending.number, applied.clock_ms, result))
        for notice in applied.notices:
            connection = self._connections.get(notice.session)
            if connection is not None:
                effects.send(connection, notice)

    def _change_leadership(self, leadership: Leadership, effects: Effects) -> None:
        if leadership.ballot != self.leadership.ballot or leadership.leader != self.leadership.leader:
            self.leadership = leadership
            for pending in self._pending.values():
                effects.send(pending.connection, self._redirect(pending.number, indefinite=True))
            self._pending = {}
            self._pending_bytes = 0
            self._commands = []
            self._connections = OrderedDict()
        self.leadership = leadership

    def _redirect(self, number: int, *, indefinite: bool) -> Redirect:
        leader = self.leadership.leader
        return Redirect(number, leader, self.facts.endpoints.get(leader, ""), indefinite)

    def _status(self, number: int) -> StatusAnswer:
        summary, leadership = self.summary, self.leadership
        return StatusAnswer(
            number=number,
            node=self.facts.node,
            cluster=self.facts.cluster,
            version=self.facts.version,
            role=leadership.role,
            ballot=leadership.ballot,
            leader=leadership.leader,
            leader_endpoint=self.facts.endpoints.get(leadership.leader, ""),
            chosen_upto=summary.chosen_upto,
            applied_upto=summary.applied_upto,
            clock_ms=summary.clock_ms,
            sessions=summary.sessions,
            held=summary.held,
            waiting=summary.waiting,
            revision=summary.revision,
            counters=self.counters,
        )
