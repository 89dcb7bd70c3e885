"""The client's side of the protocol without any I/O: sessions, claims, leases and their deadlines.

It is told what happened and what time it is, and says what to send and when to wake it. Laws it keeps:
- a claim that nobody waits for any more is withdrawn, and released if it was granted meanwhile;
- an acquire that failed is called definite only if no claim of it can still be granted (P9).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..core.commands import (
    DEFAULT_NAMESPACE,
    SESSIONLESS,
    Adopt,
    Cancel,
    Claim,
    CloseSession,
    OpenSession,
    Operation,
    Ping,
    Release,
    Renew,
)
from ..core.errors import LessorError
from ..core.requests import Notice
from ..core.results import (
    Cancelled,
    ClaimPhase,
    NotHeld,
    Pong,
    SessionOpened,
)
from .acquiring import WITHDRAW_GRACE_MS
from .calls import Call, Calls, Hooks, Packet
from .clock import Anchor
from .ends import Ends
from .errors import ClientClosed, ServiceBusy, Unavailable
from .heritage import Attaching, Heritage, SessionTicket, parted
from .leases import NOT_HELD, Leases
from .pings import Pings
from .records import Acquire, LeaseRecord, LeaseState, Terms
from .refusals import SessionStolen
from .states import Loss

__all__ = ["NOT_HELD", "WITHDRAW_GRACE_MS", "Acquire", "LeaseRecord", "LeaseState", "Protocol", "Terms"]

CLOSED = "the client was closed while it waited"


@dataclass(slots=True)
class _Session:
    number: int
    expires_at_ms: int
    ticket: SessionTicket


@dataclass(slots=True)
class Recovery:
    """What somebody who asked for it was handed of the leases of a session that was taken over."""

    leases: list[LeaseRecord] = field(default_factory=list)
    abandoned: bool = False


class Protocol(Ends):
    """A client of the service, as a function of messages and time."""

    def __init__(
        self,
        endpoints: list[str],
        key_source: Callable[[], bytes],
        session_timeout_ms: int,
        description: str,
        luck: Callable[[], float],
        namespace: str = DEFAULT_NAMESPACE,
        ticket: SessionTicket | None = None,
    ) -> None:
        """Start with no session; one is opened when it is first needed.

        Args:
            endpoints: where the nodes' gateways are.
            key_source: draws the random key of a new session.
            session_timeout_ms: how long the session outlives the last sign of life.
            description: of the session, for operators.
            luck: draws a number in [0, 1), to jitter renewals.
            namespace: of the session: its settings are those of its namespace.
            ticket: of a session to be taken over, instead of opening one.
        """
        super().__init__()
        self._namespace = namespace
        hooks = Hooks(self._notice, self._session_ended, self._ask_soon, self.fail_all)
        self._calls = Calls(endpoints, luck, hooks)
        self.closed = False
        self.session: _Session | None = None
        self.session_timeout_ms = session_timeout_ms
        self._leases = Leases(
            self._calls,
            self.call,
            self._give_up,
            luck,
            session_timeout_ms,
            self._session_until_ms,
        )
        self._key_source = key_source
        self._description = description
        self._blocked: list[Call] = []  # they wait for the session
        self._opening: Call | None = None
        self._ticket = ticket
        self._attaching: Attaching | None = None
        self._inherited: list[LeaseRecord] = []
        self._closing: Call | None = None
        self._pings = Pings(self._calls, session_timeout_ms, self._waiting, self._leases, self._ponged)
        self._failure = ""

    @property
    def now_ms(self) -> int:
        """What time it is on the client's clock, as far as the protocol has been told."""
        return self._calls.now_ms

    @now_ms.setter
    def now_ms(self, now_ms: int) -> None:
        self._calls.now_ms = now_ms

    @property
    def anchor(self) -> Anchor:
        """What ties the lease clock to the client's."""
        return self._calls.anchor

    @property
    def leases(self) -> dict[int, LeaseRecord]:
        """What is held, by token."""
        return self._leases.held

    @property
    def session_number(self) -> int:
        """The number of the session, 0 while there is none."""
        session = self.session  # asked for without the lock, while it may end
        return session.number if session is not None else 0

    @property
    def endpoints(self) -> list[str]:
        """Where the nodes are, as far as they are known."""
        return self._calls.endpoints

    @property
    def target(self) -> str:
        """The node that is taken for the leader."""
        return self._calls.target

    # --- what the user asks ------------------------------------------------------------------------------------------

    def call(self, operation: Operation, on_done: Callable[[Any], None], deadline_ms: int | None) -> Call:
        """Begin a request; `on_done` is called once, from within a later call of this object."""
        call = Call(operation, on_done, deadline_ms)
        self._calls.wake_by(deadline_ms)
        if self.closed:
            on_done(ClientClosed("the client is closed" + (self._failure and f": {self._failure}")))
        else:
            self._begin(call)
        return call

    def _begin(self, call: Call) -> None:
        if self.session is None and not isinstance(call.operation, SESSIONLESS):
            self._blocked.append(call)
            self._open()
        else:
            self._calls.begin(call)

    def release(self, lease: LeaseRecord, on_done: Callable[[Any], None], deadline_ms: int | None) -> None:
        """Give a lease back. It counts as released from now on; a request in vain goes on in the background.

        One that is over may be somebody else's by now, under the same token, if he had its ticket.
        """
        if lease.over:
            if self._is_of_this_session(lease):
                self.call(
                    Cancel(lease.claim),
                    lambda result: on_done(NotHeld() if isinstance(result, Cancelled) else result),
                    deadline_ms,
                )
            else:
                on_done(NotHeld())
            return

        def done(result: Any) -> None:
            if isinstance(result, ServiceBusy | Unavailable):
                result.indefinite = True  # it is not given up
                self._give_back(lease.token)
            on_done(result)

        self._leases.let_go(lease, "released")
        self.call(Release(lease.token), done, deadline_ms)

    def _give_back(self, token: int) -> None:
        """Release a grant that nobody wants, however often the service is too busy for it."""

        def done(result: Any) -> None:
            if isinstance(result, ServiceBusy | Unavailable):
                self._begin_later(Release(token), done)

        self.call(Release(token), done, None)

    def _give_up(self, lease: LeaseRecord) -> None:
        """Give back what was lost here, but not what somebody else has taken over; without its session it ends."""
        if self._is_of_this_session(lease):
            self._cancel(lease.claim, _ignore)
        elif lease.loss is Loss.MAX_HOLD:
            self._give_back(lease.token)

    def _is_of_this_session(self, lease: LeaseRecord) -> bool:
        return self.session is not None and lease.session == self.session.number

    def _cancel(self, claim: int, on_done: Callable[[Any], None]) -> None:
        def done(result: Any) -> None:
            if isinstance(result, ServiceBusy | Unavailable):
                self._begin_later(Cancel(claim), done)
            else:
                on_done(result)

        self._begin(Call(Cancel(claim), done, None))

    def _begin_later(self, operation: Operation, on_done: Callable[[Any], None]) -> None:
        if self.session is None:
            self.call(operation, on_done, None)  # to wait for a session is to wait
        elif not self.closed:
            self._calls.begin_later(Call(operation, on_done, None))

    def renew(self, lease: LeaseRecord, ttl_ms: int, on_done: Callable[[Any], None], deadline_ms: int | None) -> None:
        """Extend a lease to `ttl_ms` from now at least (0: by its own ttl)."""

        def done(result: Any) -> None:
            self._leases.renewed(lease, result)
            on_done(result)

        self.call(Renew(lease.token, ttl_ms), done, deadline_ms)

    def hold(self, lease: LeaseRecord, terms: Terms) -> None:
        """Hold from now on a lease that somebody else was granted; of an object that had it before it is lost."""
        before = self._leases.find(lease.token)
        if before is not None:
            self._leases.end(before, LeaseState.LOST, "it was resumed by this client itself", Loss.TAKEN_OVER)
        lease.auto_renew = terms.auto_renew
        self._leases.add(lease, terms.max_hold_ms, terms.progress_ms)
        if self.closed:
            self._leases.let_go(lease, CLOSED)

    def recover(self, on_done: Callable[[Any], None], deadline_ms: int | None) -> "Recovery":
        """Have `on_done` get the leases that the session held when it was attached, those that still are; once."""
        recovery = Recovery()

        def done(result: Any) -> None:
            if isinstance(result, Pong) and not recovery.abandoned:
                recovery.leases, self._inherited = self._inherited, []
                result = [lease for lease in recovery.leases if not lease.over]
            on_done(result)

        self.call(Ping(()), done, deadline_ms)
        return recovery

    def abandon_recovery(self, recovery: "Recovery") -> None:
        """Nobody took what was recovered: the next one who asks gets it."""
        recovery.abandoned = True
        self._inherited += recovery.leases

    def session_ticket(self, on_done: Callable[[Any], None], deadline_ms: int | None) -> None:
        """Have `on_done` get the ticket of the session."""

        def done(result: Any) -> None:
            known = isinstance(result, Pong) and self.session is not None
            on_done(self.session.ticket if known and self.session is not None else result)

        self.call(Ping(()), done, deadline_ms)

    def progress(self, lease: LeaseRecord) -> None:
        """Learn that the work under a lease goes on, so that it is renewed on."""
        self._leases.progress(lease)

    def close(self, on_done: Callable[[Any], None], deadline_ms: int) -> None:
        """End the session, and with it everything held and waited for; nothing new is begun. May be called twice."""
        if self.closed:
            on_done(None)
            return

        def done(result: Any) -> None:
            self.end_calls()
            on_done(result)

        for acquire in list(self._acquires.values()):
            if acquire.call is not None and not (acquire.call.number and acquire.call.indefinite):
                self._forget(acquire.call)
            if acquire.claim and acquire.operation.detached:
                # granted meanwhile, it would outlive the session
                self.call(Cancel(acquire.claim), _ignore, deadline_ms)
            doubt = bool(acquire.claim) or acquire.ghost or (acquire.call is not None and acquire.call.indefinite)
            self._finish(acquire, ClientClosed(CLOSED, indefinite=doubt))
        for lease in self._leases.every():
            if not lease.detached:
                self._leases.let_go(lease, "the client was closed")
                if self.session is None or lease.session != self.session.number:
                    self.call(Release(lease.token), _ignore, deadline_ms)  # it has outlived its session
        self.closed, self._leases.renewing = True, False
        closing = Call(CloseSession(), done, deadline_ms)
        self._calls.wake_by(deadline_ms)
        unreached = self.session is None and not (self._opening is not None and self._opening.indefinite)
        if unreached and not any(isinstance(call.operation, Release) for call in self._blocked):
            done(None)
        elif self._unsettled():
            self._closing = closing
            self._blocked.append(closing)
        else:
            self._begin(closing)

    def _unsettled(self) -> bool:
        """Whether a detached claim may be granted that would outlive the session, so that closing must wait for it."""
        return any(isinstance(call.operation, Claim) and call.operation.detached for call in self._calls.under_way())

    def _claim_answered(self) -> None:
        if self._closing is not None and not self._unsettled() and self._forget(self._closing):
            self._begin(self._closing)

    def fail_all(self, error: LessorError) -> None:
        """End everything under way with an error: the client is broken or gone."""
        self.closed, self._leases.renewing = True, False
        self._failure = str(error)
        self.lose_all(str(error), Loss.STOLEN if isinstance(error, SessionStolen) else Loss.FAILED)
        for acquire in list(self._acquires.values()):
            self._finish(acquire, error)
        self.end_calls(error)

    def lose_all(self, reason: str, loss: Loss) -> None:
        """Call every lease lost."""
        for lease in self._leases.every():
            self._leases.end(lease, LeaseState.LOST, reason, loss)

    def end_calls(self, error: LessorError | None = None) -> None:
        """Tell everybody who waits for an answer that none will come."""
        calls, self._blocked = [*self._calls.forget_all(), *self._blocked], []
        for call in calls:
            call.on_done(error or ClientClosed(CLOSED, indefinite=call.indefinite))

    # --- what happens ------------------------------------------------------------------------------------------------

    def receive(self, endpoint: str, frame: bytes, now_ms: int) -> None:
        """Take in a packet from a gateway. What cannot be read is ignored: a retry asks again."""
        self.now_ms = now_ms
        self._calls.receive(endpoint, frame)

    def connected(self, endpoint: str, now_ms: int) -> None:
        """Learn that a connection stands: what could not be sent before goes out now."""
        self.now_ms = now_ms
        self._calls.connected(endpoint)

    def disconnected(self, endpoint: str, now_ms: int) -> None:
        """Learn that a connection broke, or could not be made: whoever leads next is elsewhere, or soon back."""
        self.now_ms = now_ms
        self._calls.disconnected(endpoint)

    def not_sent(self, packet: Packet) -> None:
        """Learn that a packet did not leave, since nobody is connected: its requests certainly had no effect yet."""
        self._calls.not_sent(packet)

    def suspended(self, now_ms: int) -> None:
        """Learn that the machine was asleep until now."""
        self.now_ms = self._pings.at_ms = now_ms
        self._leases.suspended()

    def tick(self, now_ms: int) -> None:
        """Let time pass: deadlines, renewals, pings, retries."""
        self.now_ms = now_ms
        self._leases.look()
        for acquire in list(self._acquires.values()):
            if acquire.deadline_ms is not None and now_ms >= acquire.deadline_ms:
                self._acquire_timed_out(acquire)
        for call in [*self._calls.under_way(), *self._blocked]:
            if call.deadline_ms is not None and now_ms >= call.deadline_ms:
                self._call_timed_out(call)
        self._calls.send_what_is_due()
        self._keep_alive()
        self._count_wake()

    def take_output(self) -> list[Packet]:
        """Return what is to be sent now; requests of many callers travel in one packet."""
        return self._calls.take_output()

    def wake_at_ms(self) -> int | None:
        """Return when `tick` is wanted next, None when only an event matters.

        It may be too early, since what it was counted for may be over; a tick counts it anew.
        """
        return self._calls.wake_ms

    def _count_wake(self) -> None:
        self._calls.count_wake()
        for call in self._blocked:
            self._calls.wake_by(call.deadline_ms)
        for acquire in self._acquires.values():
            self._calls.wake_by(acquire.deadline_ms)
        if self.session is not None and self._pings.call is None and not self.closed:
            self._calls.wake_by(self._pings.at_ms)
        for lease in self._leases.every():
            self._leases.wake_for(lease)

    def _notice(self, notice: Notice) -> None:
        self._claim_status(notice.status)
        if notice.status.phase == ClaimPhase.GONE:
            self._leases.gone(notice.status)

    def safe_until_ms(self, lease: LeaseRecord) -> int:
        """Return the deadline of a lease on this client's clock."""
        return self._leases.safe_until_ms(lease)

    def why_over(self, lease: LeaseRecord, now_ms: int) -> tuple[Loss, str]:
        """Return why a lease whose deadline has passed at that moment was not renewed in time."""
        return self._leases.why_over(lease, now_ms)

    def _session_until_ms(self, lease: LeaseRecord) -> int:
        session = self.session  # a user's thread looks without the lock, while it may end
        return session.expires_at_ms if session is not None and session.number == lease.session else 0

    def _why(self, call: Call) -> str:
        """Return why a call has no outcome: one that waits for the session has none for the reason that has kept it."""
        return self._opening.why if self._opening is not None and not call.number else call.why

    def _call_timed_out(self, call: Call) -> None:
        if self._forget(call):
            if call is self._opening:
                self._opening = None
            call.on_done(Unavailable(self._why(call), indefinite=call.indefinite))

    def _forget(self, call: Call) -> bool:
        """Take a call out of what is under way; False if it was over."""
        if call in self._blocked:
            self._blocked.remove(call)
            return True
        return self._calls.forget(call)

    # --- sessions ----------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        if self._opening is not None or self._attaching is not None:
            return
        key = self._key_source()
        if self._ticket is not None:
            self._attaching = Attaching(self._calls, self._ticket, key, self._description, self._attached)
            return
        operation = OpenSession(key, self.session_timeout_ms, self._description, self._namespace)
        self._opening = Call(operation, lambda result: self._opened(result, key), None)
        self._calls.begin(self._opening)

    def _attached(self, result: Any) -> None:
        assert self._attaching is not None
        self._ticket, self._attaching = self._attaching.ticket, None
        if not isinstance(result, Heritage):
            self._opened(result, self._ticket.key)
            return
        self._inherited, waiting = parted(result)
        if self.closed:  # meanwhile; all that the session holds ends with it, and is not to be believed in (P3)
            self._inherited = []
        for lease in self._inherited:
            self._leases.add(lease, 0, 0)
        for claim in waiting:
            self._blocked.insert(0, Call(Cancel(claim), _ignore, None))  # nobody waits for it any more
        self._opened(result.opened, self._ticket.key)
        self._ticket = None

    def _opened(self, result: Any, key: bytes) -> None:
        self._opening = None
        if not isinstance(result, SessionOpened):
            blocked, self._blocked = self._blocked, []
            for call in blocked:
                call.on_done(Unavailable(str(result), indefinite=True) if call.doubtful else result)
            return
        ticket = SessionTicket(result.session, key, result.attach, self._namespace, self.session_timeout_ms)
        self.session = _Session(result.session, result.expires_at_ms, ticket)
        self._calls.enter(result.session, result.attach, key)
        self._pings.session_begins()
        blocked, self._blocked = self._blocked, []
        for call in blocked:
            self._calls.begin(call)

    def _session_ended(self, call: Call) -> None:
        """Start over with a new session. What was held without a ttl is lost; what waited stands in line again.

        No number is used under two sessions: an answer that comes late from the old one must find nobody. Nor does the
        end of the session settle what was asked under it: a copy of it may have come before that end.
        """
        others = [other for other in self._calls.under_way() if not isinstance(other.operation, SESSIONLESS)]
        ended, self.session, self._pings.call = self.session, None, None
        self._calls.session = 0
        for lease in self._leases.every():
            if not lease.ttl_ms and ended is not None and lease.session == ended.number:
                self._leases.end(lease, LeaseState.LOST, "the session ended", Loss.SESSION_ENDED)
        for acquire in self._acquires.values():
            asked = acquire.call is not None and acquire.call.number and acquire.call.indefinite
            if acquire.claim or asked:
                acquire.ghost = True  # a grant outlives the session by a ttl of its own or its namespace's, or by a pin
            if acquire.token:
                self._give_back(acquire.token)  # it has outlived the session, and would stand before the next claim
                acquire.token = 0
        # the end of a client that is closing ends all its calls: it comes last
        for other in sorted((call, *others), key=lambda other: isinstance(other.operation, CloseSession)):
            self._calls.forget(other)
            self._start_over(other)
        waiting = list(self._waiting.values())
        self._waiting.clear()
        for acquire in waiting:
            self._claim(acquire)
        if not self.closed and (self._blocked or self.leases):
            self._open()

    def _start_over(self, call: Call) -> None:
        match call.operation:
            case Ping():
                call.on_done(Unavailable("the session ended", indefinite=False))
                return
            case Cancel():
                call.on_done(Cancelled(ClaimPhase.GONE))
                return
            case CloseSession():
                call.on_done(None)
                return
            case Claim() | Renew() | Release() | Adopt():
                call.doubtful = call.indefinite
            case _ if call.indefinite:
                # it may have been carried out, and the answers that were kept for retries have ended with the session
                call.on_done(Unavailable("the session ended before an answer came", indefinite=True))
                return
            case _:
                pass
        call.start_over()
        self._blocked.append(call)

    def _keep_alive(self) -> None:
        if self.closed:
            return
        if self.session is not None:
            self._pings.send_if_due()
        self._leases.renew_what_is_due()

    def _ask_soon(self) -> None:
        self._pings.ask_soon()

    def _ponged(self, pong: Pong) -> None:
        if self.session is not None:
            self.session.expires_at_ms = max(self.session.expires_at_ms, pong.expires_at_ms)
            for status in pong.claims:
                self._claim_status(status)


def _ignore(_: Any) -> None:
    """Take an outcome that nobody waits for."""
