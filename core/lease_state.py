"""The replicated state machine: the lease clock, the sessions, the claims and their queues (DESIGN §5 and §6).

Everything here is a function of the log. Laws it keeps:
- a batch of another term than the highest `Lead` before it has no effect at all, nor has a `Lead` below that one;
- what is due at or before a batch's stamp ends before the batch's own commands, in the order of deadlines;
- a grant ends early only by its holder, or with its session where it has no ttl to honour (P4);
- no token is used twice, and every token is larger than all before it (P5);
- claims on one resource are granted in the order of the log (P7), and a claim that ended stands in no queue (P10).
"""

import heapq
import itertools
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Any

from . import limits
from .ballot import NO_BALLOT
from .commands import (
    FOREVER,
    Cancel,
    Claim,
    CloseSession,
    Command,
    Describe,
    ListClaims,
    OpenSession,
    Operation,
    Ping,
    Release,
    Renew,
)
from .consistency import check_records
from .encoding import INT_MAX, decode, dumps, from_list, loads, to_list
from .entries import Batch, Entry, Lead, NoOp
from .errors import Corrupt, InvariantBroken, Malformed
from .events import Event
from .listing import cut_page, numbers_after
from .records import ClaimRecord, KeptReply, SessionRecord, StateHeader
from .requests import Notice
from .results import (
    FAILURES,
    NO_TTL,
    SESSION_EXPIRED,
    STALE_NUMBER,
    TOO_MANY,
    Cancelled,
    ClaimInfo,
    ClaimPage,
    ClaimPhase,
    ClaimStatus,
    Denied,
    Failed,
    NotHeld,
    Pong,
    Released,
    Renewed,
    Result,
    SessionClosed,
    SessionOpened,
)

LEASE_ENDS, WAIT_ENDS, SESSION_ENDS = 0, 1, 2  # at the same millisecond a lease ends first: its waiter gets its turn

QueueKey = tuple[str, tuple[str, ...]]  # namespace and path


@dataclass(slots=True)
class Session:
    """A client's session, with what is derived from the claims: which of them are its own."""

    record: SessionRecord
    replies: dict[int, Result] = field(default_factory=dict)
    claims: dict[int, None] = field(default_factory=dict)


@dataclass(slots=True)
class Outcome:
    """What one entry brought about, beside the new state."""

    answers: list[tuple[int, Result]] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)


class LeaseState:
    """The state after `applied_upto` slots. The same log gives the same bytes of `snapshot()` on every node (P1)."""

    def __init__(self, header: StateHeader | None = None) -> None:
        """Start with nothing held, or with a header to which sessions and claims are then restored."""
        self.header = header if header is not None else StateHeader()
        self.changed_sessions: dict[int, None] = {}
        self.changed_claims: dict[int, None] = {}
        self._sessions: dict[int, Session] = {}
        self._session_by_key: dict[bytes, int] = {}
        self._claims: dict[int, ClaimRecord] = {}  # in the order of their numbers, which is the order of arrival
        self._numbers: list[int] = []  # the same order, to begin a page in the middle; some may have ended
        self._claim_by_token: dict[int, int] = {}
        self._queues: dict[QueueKey, OrderedDict[int, None]] = {}
        self._deadlines: list[tuple[int, int, int]] = []  # a heap; entries that no longer hold are skipped
        self._outcome = Outcome()

    # --- reading -----------------------------------------------------------------------------------------------------

    @property
    def applied_upto(self) -> int:
        """The last slot applied."""
        return self.header.applied_upto

    @property
    def clock_ms(self) -> int:
        """The lease clock."""
        return self.header.clock_ms

    @property
    def revision(self) -> int:
        """The number of events so far."""
        return self.header.revision

    @property
    def sessions(self) -> int:
        """How many sessions are open."""
        return len(self._sessions)

    @property
    def held(self) -> int:
        """How many claims are granted."""
        return len(self._claim_by_token)

    @property
    def waiting(self) -> int:
        """How many claims wait."""
        return len(self._claims) - len(self._claim_by_token)

    def next_deadline_ms(self) -> int:
        """Return when on the lease clock the next thing is due, 0 if nothing is."""
        while self._deadlines and self._outdated(*self._deadlines[0]):
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else 0

    # --- applying ----------------------------------------------------------------------------------------------------

    def apply(self, slot: int, entry: Entry, *, answering: bool = True) -> Outcome:
        """Apply the entry of the next slot. Reads are carried out only where somebody waits for the answer.

        Raises:
            InvariantBroken: the slot is not the next one, or the clock would go back.
            Corrupt: a command in the entry cannot be read.
        """
        header = self.header
        if slot != header.applied_upto + 1:
            raise InvariantBroken(f"slot {slot} cannot follow slot {header.applied_upto}")
        header.applied_upto = slot
        self._outcome = outcome = Outcome()
        match entry:
            case Lead(ballot):
                if ballot > header.term:
                    header.term = ballot
                    header.base_ms = header.clock_ms
            case Batch(term, elapsed_ms, commands):
                if term == header.term != NO_BALLOT:
                    self._advance_clock(header.base_ms + elapsed_ms)
                    for data in commands:
                        command = self._read(data)
                        result = self._execute(command, answering)
                        if answering:
                            outcome.answers.append((command.tag, result))
            case NoOp():
                pass
        if len(self._deadlines) > 2 * (len(self._claims) + len(self._sessions)) + 1000:
            self._deadlines = [deadline for deadline in self._deadlines if not self._outdated(*deadline)]
            heapq.heapify(self._deadlines)
        if len(self._numbers) > 2 * len(self._claims) + 1000:
            self._numbers = list(self._claims)
        return outcome

    def _read(self, data: bytes) -> Command:
        try:
            command = decode(data)
        except Malformed as error:
            raise Corrupt(f"a command in slot {self.applied_upto} cannot be read: {error}") from error
        if not isinstance(command, Command):
            raise Corrupt(f"a command in slot {self.applied_upto} is a {type(command).__name__}")
        return command

    def _execute(self, command: Command, answering: bool) -> Result:  # noqa: FBT001 - private
        operation = command.operation
        match operation:
            case OpenSession():
                return self._open_session(operation)
            case Describe() | ListClaims():
                return self._read_claims(operation) if answering else ClaimPage((), 0, 0)
            case _:
                pass
        session = self._sessions.get(command.session)
        if session is None:
            return _failed(SESSION_EXPIRED)
        self._touch(session, command.acked_below)
        match operation:
            case Ping(claims):
                asked = dict.fromkeys(claims) if answering else {}
                left = limits.WAITERS_COUNTED_MAX
                status: list[ClaimStatus] = []
                for claim in asked:
                    status.append(self._status(claim, session, left))
                    left = max(0, left - status[-1].waiters_ahead)
                return Pong(session.record.expires_at_ms, tuple(status))
            case CloseSession():
                return SessionClosed(self._end_session(session, "session_closed"))
            case _:
                return self._execute_once(command, session)

    def _execute_once(self, command: Command, session: Session) -> Result:
        number = command.number
        if number < session.record.acked_below:
            return _failed(STALE_NUMBER)
        kept = session.replies.get(number)
        if kept is not None:
            return kept
        record = session.record
        if number < record.refused_below or len(session.replies) >= limits.REPLIES_PER_SESSION_MAX:
            # nothing is kept of a refusal but this: a copy of the command that comes late must stay without effect
            record.refused_below = max(record.refused_below, min(number + 1, INT_MAX))
            return _failed(TOO_MANY)
        result = self._carry_out(command.operation, session)
        session.replies[number] = result
        return result

    def _carry_out(self, operation: Operation, session: Session) -> Result:
        match operation:
            case Claim():
                return self._claim(operation, session)
            case Cancel(number):
                return self._cancel(number, session)
            case Renew(token, ttl_ms):
                return self._renew(token, ttl_ms)
            case Release(token):
                claim = self._granted(token)
                if claim is None:
                    return NotHeld()
                self._end_claim(claim, "released", notify=claim.session != session.record.session)
                return Released()
            case _:
                raise InvariantBroken(f"{type(operation).__name__} is carried out elsewhere")

    # --- time --------------------------------------------------------------------------------------------------------

    def _advance_clock(self, clock_ms: int) -> None:
        if clock_ms < self.header.clock_ms:
            raise InvariantBroken(f"the lease clock would go back from {self.header.clock_ms} to {clock_ms} ms")
        self.header.clock_ms = clock_ms
        while self._deadlines and self._deadlines[0][0] <= clock_ms:
            deadline_ms, kind, number = heapq.heappop(self._deadlines)
            if kind == SESSION_ENDS:
                session = self._sessions.get(number)
                if session is None:
                    continue
                if session.record.expires_at_ms > deadline_ms:  # kept alive since
                    heapq.heappush(self._deadlines, (session.record.expires_at_ms, SESSION_ENDS, number))
                    continue
                self._end_session(session, "session_expired")
                continue
            claim = self._claims.get(number)
            if claim is None or (claim.token == 0) != (kind == WAIT_ENDS):
                continue
            if claim.ends_at_ms > deadline_ms:  # renewed since
                heapq.heappush(self._deadlines, (claim.ends_at_ms, kind, number))
                continue
            self._end_claim(claim, "expired" if kind == LEASE_ENDS else "timed_out", notify=True)

    def _outdated(self, deadline_ms: int, kind: int, number: int) -> bool:
        if kind == SESSION_ENDS:
            return number not in self._sessions
        claim = self._claims.get(number)
        if claim is None or (claim.token == 0) != (kind == WAIT_ENDS):
            return True
        return claim.ends_at_ms < deadline_ms  # never: a deadline only moves later

    # --- sessions ----------------------------------------------------------------------------------------------------

    def _open_session(self, operation: OpenSession) -> Result:
        number = self._session_by_key.get(operation.key)
        if number is None:
            if len(self._sessions) >= limits.SESSIONS_MAX:
                return _failed(TOO_MANY)
            self.header.last_session += 1
            number = self.header.last_session
            record = SessionRecord(
                session=number,
                key=operation.key,
                timeout_ms=operation.timeout_ms,
                description=operation.description,
                expires_at_ms=self.clock_ms + operation.timeout_ms,
                acked_below=0,
                refused_below=0,
                replies=(),
            )
            self._add_session(Session(record))
            self._emit("session_opened", session=number, expires_at_ms=record.expires_at_ms)
        session = self._sessions[number]
        self._touch(session, 0)
        return SessionOpened(number, session.record.expires_at_ms)

    def _add_session(self, session: Session) -> None:
        record = session.record
        self._sessions[record.session] = session
        self._session_by_key[record.key] = record.session
        self.changed_sessions[record.session] = None
        heapq.heappush(self._deadlines, (record.expires_at_ms, SESSION_ENDS, record.session))

    def _touch(self, session: Session, acked_below: int) -> None:
        """Keep the session alive, and forget the answers that its client has seen."""
        record = session.record
        record.expires_at_ms = max(record.expires_at_ms, self.clock_ms + record.timeout_ms)
        if acked_below > record.acked_below:
            record.acked_below = acked_below
            for number in [number for number in session.replies if number < acked_below]:
                del session.replies[number]
        self.changed_sessions[record.session] = None

    def _end_session(self, session: Session, kind: str) -> int:
        """End a session and its claims; return how many grants were released.

        A grant with a ttl outlives the *expiry* of its session as a detached lease: its ttl is a promise (P4).
        """
        number = session.record.session
        released = 0
        claims = [self._claims[claim] for claim in session.claims]
        for claim in claims:  # first those that wait, lest one is granted by the end of another
            if claim.token == 0:
                self._end_claim(claim, "cancelled")
        for claim in claims:
            if claim.token == 0:
                continue
            if claim.detached or (claim.ttl_ms and kind == "session_expired"):
                claim.detached, claim.session = True, 0
                self.changed_claims[claim.claim] = None
            else:
                released += 1
                self._end_claim(claim, "released" if kind == "session_closed" else "expired")
        del self._sessions[number]
        del self._session_by_key[session.record.key]
        self.changed_sessions[number] = None
        self._emit(kind, session=number)
        return released

    # --- claims ------------------------------------------------------------------------------------------------------

    def _claim(self, operation: Claim, session: Session) -> Result:
        keys = [(operation.namespace, resource.path) for resource in operation.resources]
        in_the_way = [self._queues[key] for key in keys if key in self._queues]
        if in_the_way and operation.wait_ms == 0:
            head = self._claims[next(iter(in_the_way[0]))]
            return Denied(head.holder, head.token, self._expires_at(head))
        if len(self._claims) >= limits.CLAIMS_MAX:
            return _failed(TOO_MANY)
        self.header.last_claim += 1
        claim = ClaimRecord(
            claim=self.header.last_claim,
            namespace=operation.namespace,
            resources=operation.resources,
            holder=operation.holder,
            data=operation.data,
            session=session.record.session,
            detached=operation.detached,
            ttl_ms=operation.ttl_ms,
            since_ms=self.clock_ms,
            token=0,
            ends_at_ms=0 if operation.wait_ms in (0, FOREVER) else self.clock_ms + operation.wait_ms,
        )
        self._add_claim(claim)
        if in_the_way:
            self._emit_for(claim, "queued")
        else:
            self._grant(claim)
        return self._status(claim.claim, session)

    def _add_claim(self, claim: ClaimRecord) -> None:
        self._claims[claim.claim] = claim
        self._numbers.append(claim.claim)
        for resource in claim.resources:
            self._queues.setdefault((claim.namespace, resource.path), OrderedDict())[claim.claim] = None
        if claim.session:
            self._sessions[claim.session].claims[claim.claim] = None
        if claim.token:
            self._claim_by_token[claim.token] = claim.claim
        if claim.ends_at_ms:
            kind = LEASE_ENDS if claim.token else WAIT_ENDS
            heapq.heappush(self._deadlines, (claim.ends_at_ms, kind, claim.claim))
        self.changed_claims[claim.claim] = None

    def _grant(self, claim: ClaimRecord) -> None:
        self.header.last_token += 1
        claim.token = self.header.last_token
        claim.since_ms = self.clock_ms
        claim.ends_at_ms = self.clock_ms + claim.ttl_ms if claim.ttl_ms else 0
        self._claim_by_token[claim.token] = claim.claim
        if claim.ends_at_ms:
            heapq.heappush(self._deadlines, (claim.ends_at_ms, LEASE_ENDS, claim.claim))
        self.changed_claims[claim.claim] = None
        self._emit_for(claim, "granted")

    def _end_claim(self, claim: ClaimRecord, kind: str, *, notify: bool = False) -> None:
        """Take a claim out of its queues, and grant what it stood before."""
        del self._claims[claim.claim]
        session = self._sessions.get(claim.session)
        if session is not None:
            del session.claims[claim.claim]
            if notify:
                self._notify(claim, ClaimStatus(claim.claim, ClaimPhase.GONE, claim.token, 0, 0))
        if claim.token:
            del self._claim_by_token[claim.token]
        self.changed_claims[claim.claim] = None
        self._emit_for(claim, kind)
        for resource in claim.resources:
            key = (claim.namespace, resource.path)
            queue = self._queues[key]
            was_head = next(iter(queue)) == claim.claim
            del queue[claim.claim]
            if not queue:
                del self._queues[key]
            elif was_head:
                self._grant_if_ready(self._claims[next(iter(queue))])

    def _grant_if_ready(self, claim: ClaimRecord) -> None:
        if claim.token == 0 and all(
            next(iter(self._queues[claim.namespace, resource.path])) == claim.claim for resource in claim.resources
        ):
            self._grant(claim)
            session = self._sessions[claim.session]  # a claim leaves its queue when its session ends
            self._notify(claim, self._status(claim.claim, session))

    def _cancel(self, number: int, session: Session) -> Result:
        claim = self._claims.get(number)
        if claim is None or claim.session != session.record.session:
            return Cancelled(ClaimPhase.GONE)
        was = ClaimPhase.HELD if claim.token else ClaimPhase.WAITING
        self._end_claim(claim, "released" if claim.token else "cancelled")
        return Cancelled(was)

    def _renew(self, token: int, ttl_ms: int) -> Result:
        claim = self._granted(token)
        if claim is None:
            return NotHeld()
        if claim.ttl_ms == 0:
            return _failed(NO_TTL)
        ends_at_ms = self.clock_ms + (ttl_ms or claim.ttl_ms)
        if ends_at_ms > claim.ends_at_ms:  # the heap's earlier entry is put back when it comes up
            claim.ends_at_ms = ends_at_ms
            self.changed_claims[claim.claim] = None
            self._emit_for(claim, "renewed")
        return Renewed(claim.ends_at_ms)

    def _granted(self, token: int) -> ClaimRecord | None:
        number = self._claim_by_token.get(token)
        return None if number is None else self._claims[number]

    def _expires_at(self, claim: ClaimRecord) -> int:
        if claim.token == 0:
            return 0
        return claim.ends_at_ms or self._sessions[claim.session].record.expires_at_ms

    def _status(self, number: int, session: Session, count_max: int | None = None) -> ClaimStatus:
        """Return where a claim stands. Places in the queue are counted up to `count_max`; beyond, it is not known."""
        count_max = limits.WAITERS_COUNTED_MAX if count_max is None else count_max
        claim = self._claims.get(number)
        if claim is None or claim.session != session.record.session:
            return ClaimStatus(number, ClaimPhase.GONE, 0, 0, 0)
        if claim.token:
            return ClaimStatus(number, ClaimPhase.HELD, claim.token, self._expires_at(claim), 0)
        ahead = 0
        for resource in claim.resources:
            queue = self._queues[claim.namespace, resource.path]
            waiters = itertools.islice(queue, 1, count_max + 1)
            counted = sum(1 for _ in itertools.takewhile(lambda other: other != number, waiters))
            ahead = max(ahead, counted if counted < count_max else limits.WAITERS_COUNTED_MAX)
        return ClaimStatus(number, ClaimPhase.WAITING, 0, 0, ahead)

    def _read_claims(self, query: Describe | ListClaims) -> ClaimPage:
        if isinstance(query, ListClaims):
            numbers = numbers_after(self._numbers, query.after)
            return cut_page(numbers, self._claims, query.namespace, query.limit, self._info)
        queue = self._queues.get((query.namespace, query.path), OrderedDict())
        page = cut_page(iter(queue), self._claims, "", limits.LIST_PAGE_MAX, self._info)
        holders = sum(claim.phase == ClaimPhase.HELD for claim in page.claims[:1])
        return replace(page, waiting=len(queue) - holders)

    def _info(self, claim: ClaimRecord) -> ClaimInfo:
        return ClaimInfo(
            claim=claim.claim,
            namespace=claim.namespace,
            path=claim.resources[0].path,
            phase=ClaimPhase.HELD if claim.token else ClaimPhase.WAITING,
            holder=claim.holder,
            session=claim.session,
            token=claim.token,
            ttl_ms=claim.ttl_ms,
            since_ms=claim.since_ms,
            expires_at_ms=self._expires_at(claim),
            detached=claim.detached,
            data=claim.data,
        )

    # --- telling -----------------------------------------------------------------------------------------------------

    def _notify(self, claim: ClaimRecord, status: ClaimStatus) -> None:
        self._outcome.notices.append(Notice(claim.session, self.clock_ms, status))

    def _emit_for(self, claim: ClaimRecord, kind: str) -> None:
        self._emit(kind, claim=claim, session=claim.session, expires_at_ms=self._expires_at_of_event(claim, kind))

    def _expires_at_of_event(self, claim: ClaimRecord, kind: str) -> int:
        return self._expires_at(claim) if kind in ("granted", "renewed") else 0

    def _emit(self, kind: str, *, session: int, claim: ClaimRecord | None = None, expires_at_ms: int = 0) -> None:
        self.header.revision += 1
        self._outcome.events.append(
            Event(
                revision=self.header.revision,
                slot=self.applied_upto,
                clock_ms=self.clock_ms,
                kind=kind,
                namespace=claim.namespace if claim else "",
                path=claim.resources[0].path if claim else (),
                claim=claim.claim if claim else 0,
                token=claim.token if claim else 0,
                session=session,
                holder=claim.holder if claim else "",
                expires_at_ms=expires_at_ms,
            )
        )

    # --- rows and snapshots ------------------------------------------------------------------------------------------

    def session_record(self, number: int) -> SessionRecord | None:
        """Return a session as it is kept on disk, None if it has ended."""
        session = self._sessions.get(number)
        if session is None:
            return None
        session.record.replies = tuple(KeptReply(key, session.replies[key]) for key in sorted(session.replies))
        return session.record

    def claim_record(self, number: int) -> ClaimRecord | None:
        """Return a claim as it is kept on disk, None if it has ended."""
        return self._claims.get(number)

    def all_sessions(self) -> list[SessionRecord]:
        """Return every session in the order of their numbers."""
        return [record for number in sorted(self._sessions) if (record := self.session_record(number)) is not None]

    def all_claims(self) -> list[ClaimRecord]:
        """Return every claim in the order of their numbers."""
        return [self._claims[number] for number in sorted(self._claims)]

    def snapshot(self) -> bytes:
        """Return the whole state as bytes, the same on every node that applied the same slots."""
        sessions = [to_list(record) for record in self.all_sessions()]
        claims = [to_list(record) for record in self.all_claims()]
        return dumps([to_list(self.header), sessions, claims])

    @classmethod
    def restore(cls, data: bytes) -> "LeaseState":
        """Return the state of a snapshot.

        Raises:
            Malformed: the bytes are no snapshot of a consistent state.
        """
        parts: Any = loads(data)
        if type(parts) is not list or len(parts) != 3 or not all(type(part) is list for part in parts):
            raise Malformed("a snapshot has a header, sessions and claims")
        return cls.from_records(
            from_list(parts[0]), [from_list(row) for row in parts[1]], [from_list(row) for row in parts[2]]
        )

    @classmethod
    def from_records(cls, header: Any, sessions: list[Any], claims: list[Any]) -> "LeaseState":
        """Return the state of these records.

        Raises:
            Malformed: they are of wrong kinds, or do not fit together.
        """
        claims = sorted(claims, key=lambda claim: getattr(claim, "claim", 0))
        check_records(header, sessions, claims)
        state = cls(header)
        for record in sessions:
            state._add_session(Session(record, {reply.number: reply.result for reply in record.replies}))
        for claim in claims:
            state._add_claim(claim)
        state.changed_sessions.clear()
        state.changed_claims.clear()
        return state


def _failed(code: str) -> Failed:
    return Failed(code, FAILURES[code])
