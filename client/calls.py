"""Requests under way, without any I/O: their numbers, sendings, retries, redirects, and the node that they go to.

Laws it keeps:
- a request keeps its number over every retry, so it has one effect (P6);
- an answer anchors the lease clock at the *first* sending of its request, whichever sending it answers (P3);
- a request is called definite only if it never left, or the log has answered it: of what one gateway turned away there
  may be a copy that another one takes in (P9).
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..core import limits, requests
from ..core.commands import (
    ATTACH_STEP,
    SESSIONLESS,
    AttachSession,
    CloseSession,
    OpenSession,
    Operation,
    Ping,
    Renew,
    proof_of,
)
from ..core.errors import BadRequest, LessorError, Malformed
from ..core.requests import Answer, Busy, Notice, Redirect, Rejected, Request
from ..core.results import FAILURES, SESSION_EXPIRED, SESSION_STOLEN, Failed
from ..transport.packets import decode_packet, encode_packet
from .clock import Anchor
from .errors import Unavailable
from .refusals import SessionStolen, refusal

SILENCE_MS = 700
"""A target that says nothing for so long while an answer is due is left for the next one."""

RETRY_MS = 15
"""First wait before a request that nobody would take is sent again; doubled up to `RETRY_MS_MAX`."""

RETRY_MS_MAX = 80
"""An election takes some ten to some hundred milliseconds: longer waits would add to the outage."""

UNREACHED_MS = 250
"""A target that cannot be sent to for so long is left for the next one, though nobody says what is wrong with it: the
lookup of its name, or its first packet, may be waiting for an answer that never comes."""

BROKEN_MS = 2_000
"""A node whose connection broke is not believed to lead for so long, unless it is heard again: the others may not have
noticed yet."""

REQUESTS_PER_PACKET = 256
"""Requests in one packet."""

WINDOW = limits.REPLIES_PER_SESSION_MAX // 4
"""So many requests may be without an answer at once; others wait here for their turn, since the service keeps no more
answers than four times this for a session. What keeps leases and sessions alive may go beyond, up to half of that."""

URGENT = (Ping, Renew, CloseSession, OpenSession, AttachSession)

DATA_BYTES_PER_PACKET = limits.PACKET_BYTES_MAX // 2
"""The data of the requests in one packet, before the last: with their names they stay below the largest packet."""


class Call:
    """One request under way, over all its retries. `on_done` gets a result, or an error that may be raised."""

    __slots__ = (
        "deadline_ms",
        "doubtful",
        "first_sent_ms",
        "left",
        "next_send_ms",
        "number",
        "on_done",
        "operation",
        "sent_ms",
        "tries",
        "unanswered",
        "why",
    )

    def __init__(self, operation: Operation, on_done: Callable[[Any], None], deadline_ms: int | None) -> None:
        """Start unsent; None as deadline: for as long as the client lives."""
        self.number = 0
        self.operation = operation
        self.on_done = on_done
        self.deadline_ms = deadline_ms
        self.first_sent_ms: int | None = None
        self.sent_ms = 0
        self.next_send_ms = 0
        self.tries = 0
        self.unanswered = 0
        self.left = 0
        self.doubtful = False
        self.why = "no node of the cluster answers"

    @property
    def indefinite(self) -> bool:
        """Whether some sending of it may have taken effect, or may yet."""
        return self.doubtful or self.left > 0

    def start_over(self) -> None:
        """Forget its number and its sendings: it will be begun anew, under another session."""
        self.number = self.unanswered = self.left = self.next_send_ms = 0
        self.first_sent_ms = None


@dataclass(frozen=True, slots=True)
class Packet:
    """Requests that are to be sent to a node."""

    endpoint: str
    frame: bytes
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the requests tell their owner beside their outcomes."""

    on_notice: Callable[[Notice], None]
    on_session_expired: Callable[[Call], None]
    on_target_changed: Callable[[], None]
    on_misunderstood: Callable[[LessorError], None]


class Calls:
    """The requests of one client, and the node that it takes for the leader."""

    def __init__(self, endpoints: list[str], luck: Callable[[], float], hooks: Hooks) -> None:
        """Start with the first endpoint.

        Args:
            endpoints: where the nodes' gateways are; redirects may add to them.
            luck: draws a number in [0, 1), to jitter retries.
            hooks: of the owner.
        """
        self.endpoints = list(endpoints)
        self.target = self.endpoints[0]
        self.anchor = Anchor()
        self.now_ms = 0
        self.session = 0
        self.attach = 0
        self._proof = 0
        self.wake_ms: int | None = None
        self._luck = luck
        self._hooks = hooks
        self._last_number = 0
        self._open: dict[int, Call] = {}
        self._due: deque[Call] = deque()
        self._urgent: dict[int, Call] = {}  # held back until there is room, by identity
        self._held_back: dict[int, Call] = {}
        self._heard_at_ms = 0
        self._unreached_since_ms: int | None = None
        self._broken_at_ms: dict[str, int] = {}
        self._hops = 0  # redirects followed since the last answer

    # --- what is under way -------------------------------------------------------------------------------------------

    def begin(self, call: Call) -> None:
        """Give a call its number, and have it sent; one for which there is no room is held back."""
        if not self._has_room(call) or self._queue(call):
            call.why = "too many requests are under way"
            self._queue(call)[id(call)] = call
        else:
            self._admit(call)

    def _queue(self, call: Call) -> dict[int, Call]:
        return self._urgent if isinstance(call.operation, URGENT) else self._held_back

    def _has_room(self, call: Call) -> bool:
        return len(self._open) < (2 * WINDOW if isinstance(call.operation, URGENT) else WINDOW)

    def _admit(self, call: Call) -> None:
        self._last_number += 1
        call.number = self._last_number
        self._open[call.number] = call
        self._due.append(call)

    def enter(self, session: int, attach: int, key: bytes) -> None:
        """Ask in this session from now on, under numbers that tell this attachment of it from those before."""
        self.session, self.attach, self._proof = session, attach, proof_of(key)
        self._last_number = attach * ATTACH_STEP + self._last_number % ATTACH_STEP

    def begin_later(self, call: Call) -> None:
        """Give a call its number, and have it sent after a short random while."""
        self.begin(call)
        if call.number:
            self._due.remove(call)
            self._try_later(call)

    def forget(self, call: Call) -> bool:
        """Take a call out of what is under way; False if it was over."""
        if not call.number:
            return self._queue(call).pop(id(call), None) is not None
        return self._open.pop(call.number, None) is not None

    def under_way(self) -> list[Call]:
        """Return every call that has no outcome yet, in the order of their numbers."""
        return [*self._open.values(), *self._urgent.values(), *self._held_back.values()]

    def forget_all(self) -> list[Call]:
        """Take everything out, and return it."""
        calls, self._open, self._due = self.under_way(), {}, deque()
        self._urgent, self._held_back = {}, {}
        return calls

    def wake_by(self, at_ms: int | None) -> None:
        """Have `wake_ms` be no later than this."""
        if at_ms is not None and (self.wake_ms is None or at_ms < self.wake_ms):
            self.wake_ms = at_ms

    def count_wake(self) -> None:
        """Count `wake_ms` anew, from the calls alone."""
        self.wake_ms = None
        for call in self.under_way():
            self.wake_by(call.deadline_ms)
        for call in self._open.values():
            if call.next_send_ms:
                self.wake_by(call.next_send_ms)
            if call.unanswered:
                self.wake_by(self._heard_at_ms + SILENCE_MS)
                if not call.next_send_ms:
                    self.wake_by(call.sent_ms + SILENCE_MS)

    # --- what happens ------------------------------------------------------------------------------------------------

    def receive(self, endpoint: str, frame: bytes) -> None:
        """Take in a packet from a gateway. What cannot be read is ignored: a retry asks again."""
        self._broken_at_ms.pop(endpoint, None)
        if endpoint == self.target:
            self._heard_at_ms = self.now_ms
            self._unreached_since_ms = None
        try:
            messages = decode_packet(frame)
        except Malformed:
            return
        for message in messages:
            match message:
                case Answer():
                    self._answer(message)
                case Notice():
                    self._hooks.on_notice(message)
                case Redirect():
                    self._redirect(endpoint, message)
                case Busy(number):
                    self._busy(number)
                case Rejected(number, reason):
                    self._rejected(number, reason)
                case requests.SessionStolen(session, attach) if session == self.session and attach > self.attach:
                    self._stolen(FAILURES[SESSION_STOLEN])
                case _:
                    pass

    def connected(self, endpoint: str) -> None:
        """Learn that a connection stands: what could not be sent before goes out now."""
        if endpoint == self.target:
            self._set_target(endpoint, at_once=True)

    def disconnected(self, endpoint: str) -> None:
        """Learn that a connection broke, or could not be made: whoever leads next is elsewhere, or soon back."""
        self._broken_at_ms[endpoint] = self.now_ms
        if endpoint == self.target:
            self._set_target(self._next_endpoint(), at_once=False)

    def not_sent(self, packet: Packet) -> None:
        """Learn that a packet did not leave, since nobody is connected: its requests certainly had no effect yet."""
        for number in packet.numbers:
            call = self._open.get(number)
            if call is not None:
                call.unanswered = max(0, call.unanswered - 1)
                call.left -= 1
                if not call.next_send_ms:
                    self._try_later(call)
        if packet.endpoint != self.target:
            return
        if self._unreached_since_ms is None:
            self._unreached_since_ms = self.now_ms
        elif self.now_ms - self._unreached_since_ms >= UNREACHED_MS:
            self._set_target(self._next_endpoint(), at_once=True)

    def send_what_is_due(self) -> None:
        """Send again what has waited long enough, and leave a target that is silent."""
        if any(call.unanswered for call in self._open.values()) and self.now_ms - self._heard_at_ms >= SILENCE_MS:
            self._set_target(self._next_endpoint(), at_once=True)
        for call in self._open.values():
            # the node may be heard all the time, and yet this one answer have been lost
            lost = call.unanswered and not call.next_send_ms and self.now_ms - call.sent_ms >= SILENCE_MS
            if lost or (call.next_send_ms and self.now_ms >= call.next_send_ms):
                self._send_again(call)

    def take_output(self) -> list[Packet]:
        """Return what is to be sent now; requests of many callers travel in one packet."""
        out: list[Packet] = []
        for queue in (self._urgent, self._held_back):
            while queue and self._has_room(call := next(iter(queue.values()))):
                del queue[id(call)]
                self._admit(call)
        while self._due:
            requests: dict[int, Request] = {}
            data_bytes = 0
            while self._due and len(requests) < REQUESTS_PER_PACKET and data_bytes < DATA_BYTES_PER_PACKET:
                call = self._due.popleft()
                if call.number in self._open and call.number not in requests:
                    requests[call.number] = self._request(call)
                    data_bytes += len(getattr(call.operation, "data", b""))
            if requests:
                out.append(Packet(self.target, encode_packet(requests.values()), tuple(requests)))
        return out

    # --- answers -----------------------------------------------------------------------------------------------------

    def _answer(self, answer: Answer) -> None:
        call = self._open.get(answer.number)
        if call is None or call.first_sent_ms is None:
            return  # what nobody asks, or not yet
        del self._open[answer.number]
        self._hops = 0
        # the first sending: the answer may be to any of them, and an anchor must not be too late
        self.anchor.learn(call.first_sent_ms, self.now_ms, answer.clock_ms)
        result = answer.result
        if not isinstance(result, Failed):
            call.on_done(result)
        elif result.code == SESSION_EXPIRED and not isinstance(call.operation, SESSIONLESS):
            self._hooks.on_session_expired(call)
        elif result.code == SESSION_STOLEN:
            call.on_done(self._stolen(result.detail))
        else:
            call.on_done(refusal(result, doubtful=call.doubtful))

    def _stolen(self, detail: str) -> SessionStolen:
        error = SessionStolen(detail)
        # what was asked before it was stolen may have had its effect, or may be the thief's by now
        error.indefinite = True
        self._hooks.on_misunderstood(error)
        return error

    def _redirect(self, endpoint: str, redirect: Redirect) -> None:
        call = self._open.get(redirect.number)
        if call is None:
            if redirect.number == 0 and endpoint == self.target:
                self._hooks.on_target_changed()  # the target leads no more: no push will come from it
            return
        call.unanswered = max(0, call.unanswered - 1)
        call.doubtful = call.doubtful or redirect.indefinite
        if endpoint != self.target:  # it was left meanwhile: its word on who leads counts no more
            if not call.unanswered and not call.next_send_ms:
                self._try_later(call)
            return
        broken_at_ms = self._broken_at_ms.get(redirect.endpoint)
        if redirect.endpoint and (broken_at_ms is None or self.now_ms - broken_at_ms > BROKEN_MS):
            call.why = "the leader does not answer"
            if redirect.endpoint not in self.endpoints:
                self.endpoints.append(redirect.endpoint)
            if redirect.endpoint != self.target:
                self._hops += 1  # two nodes that each name the other must not be asked in a tight circle
                self._set_target(redirect.endpoint, at_once=self._hops <= len(self.endpoints))
                return
        else:
            call.why = "no leader is elected (is a majority of the nodes running?)"
            self.target = self._next_endpoint()
            self._unreached_since_ms = None
            self._hooks.on_target_changed()
        if not call.next_send_ms:
            self._try_later(call)

    def _busy(self, number: int) -> None:
        call = self._open.get(number)
        if call is not None:
            call.unanswered = max(0, call.unanswered - 1)
            call.why = "the service is busy"
            self._try_later(call)

    def _rejected(self, number: int, reason: str) -> None:
        call = self._open.pop(number, None)
        if call is not None:
            call.on_done(BadRequest(reason))
        elif number == 0:
            doubt = any(call.doubtful or call.left > 1 for call in self._open.values())
            text = f"the service does not understand this client: {reason}"
            self._hooks.on_misunderstood(Unavailable(text, indefinite=doubt))

    # --- sending -----------------------------------------------------------------------------------------------------

    def _request(self, call: Call) -> Request:
        if not any(other.unanswered for other in self._open.values()):
            self._heard_at_ms = self.now_ms  # the silence is counted from the first question
        self.wake_by(self._heard_at_ms + SILENCE_MS)
        if call.first_sent_ms is None:
            call.first_sent_ms = self.now_ms
        call.sent_ms = self.now_ms
        self.wake_by(self.now_ms + SILENCE_MS)
        call.tries += 1
        call.unanswered += 1
        call.left += 1
        if isinstance(call.operation, SESSIONLESS):
            return Request(0, call.number, 0, call.operation)
        # of one attachment they grow, so the first is the lowest that is open; those of none may be from an earlier one
        acked_below = next(number for number in self._open if number // ATTACH_STEP == self.attach)
        return Request(self.session, call.number, acked_below, call.operation, self._proof)

    def _send_again(self, call: Call) -> None:
        call.next_send_ms = 0
        call.sent_ms = self.now_ms
        self._due.append(call)

    def _try_later(self, call: Call) -> None:
        wait_ms = min(RETRY_MS_MAX, RETRY_MS << max(0, min(call.tries - 1, 8)))
        call.next_send_ms = self.now_ms + int(wait_ms * (0.75 + 0.5 * self._luck()))
        self.wake_by(call.next_send_ms)

    def _next_endpoint(self) -> str:
        return self.endpoints[(self.endpoints.index(self.target) + 1) % len(self.endpoints)]

    def _set_target(self, endpoint: str, *, at_once: bool) -> None:
        """Go on with another node, or with the same on a new connection; everything under way is sent again."""
        self.target = endpoint
        self._heard_at_ms = self.now_ms
        self._unreached_since_ms = None
        for call in self._open.values():
            if at_once and call.tries:
                self._send_again(call)
            elif call.tries and not call.next_send_ms:
                self._try_later(call)
        self._hooks.on_target_changed()
