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
from .checks import check
from .commands import SESSIONLESS, Command, KeepAlive, Ping
from .effects import Address, Connection, Effects, Role
from .encoding import INT_MAX, encode
from .errors import BadRequest
from .learner import Applied, Summary
from .messages import Leadership, Submit, Tick
from .requests import Answer, Busy, Counter, Redirect, Rejected, Request, SessionStolen, StatusAnswer, StatusRequest
from .results import (
    FAILURES,
    SESSION_EXPIRED,
    SESSION_STOLEN,
    Failed,
    KeptAlive,
    Pong,
    Result,
    SessionOpened,
    shortened,
)


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
    strict: bool = False  # whether a namespace is not made by being used


@dataclass(frozen=True, slots=True)
class _Pending:
    connection: Connection
    session: int  # 0: of none
    number: int
    size: int


@dataclass(frozen=True, slots=True)
class _Sign:
    """A sign of life that waits for others, to travel with them as one command."""

    connection: Connection
    session: int
    number: int
    acked_below: int
    proof: int


_ENDED = {0: SESSION_EXPIRED, 1: SESSION_STOLEN}
"""What `KeptAlive` says of a session that does not live on for this client."""
_STRANGE = (SESSION_EXPIRED, SESSION_STOLEN)
"""How requests are refused that do not come from whoever is attached."""


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
        self._signs: list[_Sign] = []
        self._folded: dict[int, list[_Sign]] = {}  # by the tag of the command that carries them
        self._fold_at_ms: int | None = None
        self._now_ms = 0
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
            case Tick(now_ms):
                self._now_ms = now_ms
                self._fold()
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
            effects.send(connection, Rejected(request.number, shortened(str(error))))
            return
        if isinstance(request.operation, Ping) and not request.operation.claims and request.session:
            self._take_sign(connection, request, effects)
            return
        command = encode(
            Command(
                self._last_tag + 1,
                request.session,
                request.number,
                request.acked_below,
                request.operation,
                self.facts.strict,
                request.proof,
            )
        )
        if len(command) > limits.BATCH_BYTES_MAX:  # no node could read an entry with it
            reason = f"a command has at most {limits.BATCH_BYTES_MAX} bytes, not {len(command)}"
            effects.send(connection, Rejected(request.number, reason))
            return
        too_many = len(self._pending) >= limits.GATEWAY_IN_FLIGHT_MAX
        if too_many or self._pending_bytes + len(command) > limits.GATEWAY_IN_FLIGHT_BYTES_MAX:
            self.busy += 1
            effects.send(connection, Busy(request.number))
            return
        self._last_tag += 1
        session = 0 if isinstance(request.operation, SESSIONLESS) else request.session
        self._pending[self._last_tag] = _Pending(connection, session, request.number, len(command))
        self._pending_bytes += len(command)
        self._commands.append(command)

    def _take_sign(self, connection: Connection, request: Request, effects: Effects) -> None:
        """Let a ping that asks for nothing wait for others a while."""
        folded = sum(map(len, self._folded.values()))
        if len(self._signs) + folded >= limits.GATEWAY_IN_FLIGHT_MAX:
            self.busy += 1
            effects.send(connection, Busy(request.number))
            return
        self._signs.append(_Sign(connection, request.session, request.number, request.acked_below, request.proof))
        if self._fold_at_ms is None:
            self._fold_at_ms = self._now_ms + limits.PING_FOLD_MS

    def _fold(self) -> None:
        """Put the signs of life that have waited long enough into one command."""
        while self._signs and (self._now_ms >= (self._fold_at_ms or 0) or len(self._signs) >= limits.PINGS_FOLDED_MAX):
            signs, self._signs = self._signs[: limits.PINGS_FOLDED_MAX], self._signs[limits.PINGS_FOLDED_MAX :]
            self._last_tag += 1
            self._folded[self._last_tag] = signs
            fours = ((sign.session, sign.number, sign.acked_below, sign.proof) for sign in signs)
            pings = tuple([part for four in fours for part in four])
            self._commands.append(encode(Command(self._last_tag, 0, 0, 0, KeepAlive(pings), self.facts.strict)))
        if not self._signs:
            self._fold_at_ms = None

    @property
    def wake_at_ms(self) -> int | None:
        """When on the node's monotonic clock this core wants its next tick, if no message comes before."""
        return self._fold_at_ms

    def _remember(self, session: int, connection: Connection) -> None:
        """Push to this connection from now on: over it came a request of the session that was no stranger's."""
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
                if isinstance(result, SessionOpened):
                    robbed = self._connections.get(result.session)
                    self._remember(result.session, pending.connection)
                    if result.attach and robbed not in (None, pending.connection):
                        assert robbed is not None
                        effects.send(robbed, SessionStolen(result.session, result.attach))
                elif pending.session and not (isinstance(result, Failed) and result.code in _STRANGE):
                    self._remember(pending.session, pending.connection)
            elif isinstance(result, KeptAlive):
                self._answer_signs(self._folded.pop(tag, []), result, applied.clock_ms, effects)
        for notice in applied.notices:
            connection = self._connections.get(notice.session)
            if connection is not None:
                effects.send(connection, notice)

    def _answer_signs(self, signs: list[_Sign], kept: KeptAlive, clock_ms: int, effects: Effects) -> None:
        for sign, expires_at_ms in zip(signs, kept.expires_at_ms, strict=True):
            self.answered += 1
            result: Result = Pong(expires_at_ms, ())
            if expires_at_ms in _ENDED:
                code = _ENDED[expires_at_ms]
                result = Failed(code, FAILURES[code])
            else:
                self._remember(sign.session, sign.connection)
            effects.send(sign.connection, Answer(sign.number, clock_ms, result))

    def _change_leadership(self, leadership: Leadership, effects: Effects) -> None:
        if leadership.ballot != self.leadership.ballot or leadership.leader != self.leadership.leader:
            self.leadership = leadership
            for pending in self._pending.values():
                effects.send(pending.connection, self._redirect(pending.number, indefinite=True))
            for sign in (*(sign for signs in self._folded.values() for sign in signs), *self._signs):
                effects.send(sign.connection, self._redirect(sign.number, indefinite=True))
            # who waits for a push will not get it from here: he is to ask whoever leads next, and so be known there
            told = {send.to: None for send in effects.sends}
            for connection in dict.fromkeys(self._connections.values()):
                if connection not in told:
                    effects.send(connection, self._redirect(0, indefinite=False))
            self._pending = {}
            self._pending_bytes = 0
            self._commands = []
            self._signs, self._folded, self._fold_at_ms = [], {}, None
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
            namespaces=summary.namespaces,
            semaphores=summary.semaphores,
            pins=summary.pins,
            registers=summary.registers,
            lapsed=summary.lapsed,
        )
