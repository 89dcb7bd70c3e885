"""The replicated state machine: the lease clock, and the parts of the state that a command is carried out on.

Everything here is a function of the log. Laws it keeps (DESIGN §5 and §6):
- a batch of another term than the highest `Lead` before it has no effect at all, nor has a `Lead` below that one;
- what is due at or before a batch's stamp ends before the batch's own commands, in the order of deadlines;
- a grant ends early only by its holder or an operator, or with its session where it has no ttl to honour (P4);
- no token is used twice, and every token is larger than all before it (P5);
- claims that overlap are granted in the order of the log (P7), and a claim that ended stands in no queue (P10).
"""

from collections.abc import Callable, Sequence
from typing import Any

from . import limits
from .ballot import NO_BALLOT
from .book import Book, Outcome, failed
from .claims import Claims
from .commands import (
    DEFAULT_NAMESPACE,
    LOOKS,
    PING_NUMBERS,
    REPEATABLE,
    SESSIONLESS,
    Adopt,
    AlterNamespace,
    Amend,
    AttachSession,
    Break,
    Cancel,
    Claim,
    Command,
    CreateNamespace,
    CreateSemaphore,
    DeleteSemaphore,
    DropNamespace,
    EndSession,
    EraseRegister,
    KeepAlive,
    OpenSession,
    Operation,
    Pin,
    Ping,
    PutRegister,
    Release,
    Renew,
    Transact,
    Unpin,
    UpdateSemaphore,
)
from .consistency import check_records
from .deadlines import NAME_OPENS, SESSION_ENDS, Deadline, Deadlines
from .deadlocks import Deadlocks
from .encoding import decode, dumps, from_list, loads, to_list
from .entries import Batch, Entry, Lead, NoOp
from .errors import Corrupt, InvariantBroken, Malformed
from .lapses import Lapses
from .looks import Looks
from .namespaces import Namespaces
from .pins import Pins
from .records import RECORD_KINDS, ClaimRecord, StateHeader
from .registers import Registers
from .results import (
    NAMESPACE_IN_USE,
    NO_SUCH_NAMESPACE,
    SESSION_EXPIRED,
    TOO_MANY,
    Cancelled,
    ClaimPage,
    ClaimStatus,
    Done,
    KeptAlive,
    NotHeld,
    Pong,
    Released,
    Result,
    SessionClosed,
    SessionOpened,
)
from .semaphores import Semaphores
from .sessions import Session, Sessions
from .transactions import Transactions

__all__ = ["LeaseState", "Outcome", "Session"]


GROWING = (Claim, CreateSemaphore, UpdateSemaphore, Pin, CreateNamespace, PutRegister, Transact)
"""Operations that may add to the state. An opened session does too, but who has none could not even tidy up."""


class LeaseState:
    """The state after `applied_upto` slots. The same log gives the same bytes of `snapshot()` on every node (P1)."""

    def __init__(self, header: StateHeader | None = None) -> None:
        """Start with nothing held, or with a header to which sessions and claims are then restored."""
        self.header = header if header is not None else StateHeader()
        self.book = Book(self.header)
        self._deadlines = Deadlines()
        self.namespaces = Namespaces(self.book)
        self.lapses = Lapses(self.book)
        self.pins = Pins(self.book)
        self.sessions_open = Sessions(self.book, self._deadlines)
        self.claims = Claims(self.book, self._deadlines, self.sessions_open, self.namespaces, self.lapses, self.pins)
        self.semaphores = Semaphores(self.book, self.claims, self.namespaces)
        self.registers = Registers(self.book, self.claims, self.namespaces)
        self._deadlocks = Deadlocks(self.claims)
        self._transactions = Transactions(self.claims, self.pins, self.registers, self.semaphores)
        self.looks = Looks(
            self.book,
            self.sessions_open,
            self.claims,
            self.lapses,
            self.pins,
            self.semaphores,
            self.registers,
            self.namespaces,
        )
        self._strict = False
        self._do: dict[type, Callable[[Any, Session], Result]] = {
            Claim: lambda one, session: self.claims.claim(one, session, strict=self._strict),
            Cancel: self._cancel,
            Amend: self.claims.amend,
            Renew: lambda one, _: self.claims.renew(one.token, one.ttl_ms),
            Release: self._release,
            Break: self._break,
            Adopt: lambda one, session: self.claims.adopt(one.token, session),
            CreateSemaphore: lambda one, _: self.semaphores.create(one, strict=self._strict),
            UpdateSemaphore: lambda one, _: self.semaphores.update(one),
            DeleteSemaphore: lambda one, _: self.semaphores.delete(one),
            Pin: lambda one, _: self.pins.pin(one),
            Unpin: self._unpin,
            CreateNamespace: lambda one, _: self.namespaces.create(one),
            AlterNamespace: lambda one, _: self.namespaces.alter(one),
            DropNamespace: self._drop_namespace,
            PutRegister: lambda one, _: self.registers.put(one),
            EraseRegister: lambda one, _: self.registers.erase(one),
            Transact: self._transact,
        }

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
        return len(self.sessions_open)

    @property
    def held(self) -> int:
        """How many claims are granted."""
        return len(self.claims.by_token)

    @property
    def waiting(self) -> int:
        """How many claims wait."""
        return len(self.claims.all) - self.held

    def next_deadline_ms(self) -> int:
        """Return when on the lease clock the next thing is due, 0 if nothing is."""
        return self._deadlines.next_ms(self._outdated)

    # --- applying ----------------------------------------------------------------------------------------------------

    def apply(self, slot: int, entry: Entry, *, answering: bool = True) -> Outcome:
        """Apply the entry of the next slot. Looks are carried out only where somebody waits for the answer.

        Raises:
            InvariantBroken: the slot is not the next one, or the clock would go back.
            Corrupt: a command in the entry cannot be read.
        """
        header = self.header
        if slot != header.applied_upto + 1:
            raise InvariantBroken(f"slot {slot} cannot follow slot {header.applied_upto}")
        header.applied_upto = slot
        self.book.outcome = outcome = Outcome()
        match entry:
            case Lead(ballot):
                if ballot > header.term:
                    header.term = ballot
                    header.base_ms = header.clock_ms
                    self._give_grace()
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
        if len(self._deadlines) > 2 * (len(self.claims.all) + self.sessions + len(self.lapses)) + 1000:
            self._deadlines.weed(self._outdated)
        self.claims.weed()
        self.looks.history.extend(outcome.events)
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
        once = not isinstance(operation, REPEATABLE)
        if not once and type(operation) in SESSIONLESS:
            return self._execute_without_session(command, answering)
        session = self.sessions_open.get(command.session)
        refused = SESSION_EXPIRED if session is None else session.refuses(command.number, command.proof)
        if session is None or refused:
            return failed(refused)
        self.sessions_open.touch(session, command.acked_below)
        if once:
            kept = self.sessions_open.kept(session, command.number)
            if kept is not None:
                return kept
            self._strict = command.strict
            result = self._no_room(operation) or self._carry_out(operation, session)
            self.sessions_open.keep(session, command.number, result)
            return result
        if isinstance(operation, Ping):
            return self._ping(operation.claims if answering else (), session)
        return SessionClosed(self._end_session(session, "session_closed"))

    def _no_room(self, operation: Operation) -> Result | None:
        """Return the refusal of what would add to a state that is full.

        All else must go on: what ends something makes room, and what keeps something alive was promised. Looked at
        here alone, so that no transaction can stop half way.
        """
        if not self.book.room.full:
            return None
        if not isinstance(operation, GROWING) and not (isinstance(operation, Amend) and operation.data):
            return None
        return failed(TOO_MANY, f"the state takes {limits.STATE_BYTES_MAX} bytes and more: nothing can be added")

    def _execute_without_session(self, command: Command, answering: bool) -> Result:  # noqa: FBT001
        match command.operation:
            case OpenSession() as operation:
                # a session in the default one is always there to be had: by which the first namespace is created
                absent = operation.namespace != DEFAULT_NAMESPACE and not self.namespaces.created(operation.namespace)
                if command.strict and absent:
                    return failed(NO_SUCH_NAMESPACE, f"there is no namespace {operation.namespace!r}")
                return self.sessions_open.open(operation)
            case AttachSession() as operation:
                opened = self.sessions_open.attach(operation)
                return self.looks.attached(opened) if answering and isinstance(opened, SessionOpened) else opened
            case KeepAlive(pings):
                return self._keep_alive(pings)
            case EndSession(number):
                session = self.sessions_open.get(number)
                return SessionClosed(self._end_session(session, "session_closed") if session is not None else 0)
            case look:
                assert isinstance(look, LOOKS)
                return self.looks.answer(look) if answering else ClaimPage((), 0, 0)

    def _carry_out(self, operation: Operation, session: Session) -> Result:
        return self._do[type(operation)](operation, session)

    # --- time --------------------------------------------------------------------------------------------------------

    def _advance_clock(self, clock_ms: int) -> None:
        if clock_ms < self.header.clock_ms:
            raise InvariantBroken(f"the lease clock would go back from {self.header.clock_ms} to {clock_ms} ms")
        self.header.clock_ms = clock_ms
        for deadline_ms, kind, number in self._deadlines.due(clock_ms):
            if kind == SESSION_ENDS:
                self._session_due(number, deadline_ms)
            elif kind == NAME_OPENS:
                lapsed = self.lapses.opened(number)
                if lapsed is not None:
                    self.claims.open(lapsed.claim, lapsed.namespace, lapsed.resources)
            else:
                self.claims.due(number, kind, deadline_ms)
        self.lapses.sweep()

    def _session_due(self, number: int, deadline_ms: int) -> None:
        session = self.sessions_open.get(number)
        if session is None:
            return
        if session.record.expires_at_ms > deadline_ms:  # kept alive since
            self._deadlines.add(session.record.expires_at_ms, SESSION_ENDS, number)
        else:
            self._end_session(session, "session_expired")

    def _outdated(self, deadline: Deadline) -> bool:
        _, kind, number = deadline
        if kind == SESSION_ENDS:
            return self.sessions_open.get(number) is None
        if kind == NAME_OPENS:
            return self.lapses.record(number) is None
        return self.claims.outdated(number, kind)

    def _give_grace(self) -> None:
        records = self.namespaces.shelf.records()
        grace_ms = {each.name: each.config.session_grace_ms for each in records if each.config.session_grace_ms}
        self.sessions_open.give_grace(grace_ms)

    # --- sessions ----------------------------------------------------------------------------------------------------

    def _keep_alive(self, pings: tuple[int, ...]) -> Result:
        if len(pings) % PING_NUMBERS:
            raise Corrupt(f"signs of life in slot {self.applied_upto} do not come in fours")
        keep = self.sessions_open.keep_alive
        places = range(0, len(pings), PING_NUMBERS)
        return KeptAlive(tuple([keep(*pings[place : place + PING_NUMBERS]) for place in places]))

    def _ping(self, claims: Sequence[int], session: Session) -> Pong:
        left = limits.WAITERS_COUNTED_MAX
        status: list[ClaimStatus] = []
        for claim in dict.fromkeys(claims):
            status.append(self.claims.status_for(claim, session, left))
            left = max(0, left - status[-1].waiters_ahead)
        return Pong(session.record.expires_at_ms, tuple(status))

    def _end_session(self, session: Session, kind: str) -> int:
        """End a session and its claims; return how many grants were released."""
        released = self.claims.end_of_session(session, kind)
        self.sessions_open.remove(session)
        self.book.emit(kind, session=session.record.session, namespace=session.record.namespace)
        return released

    # --- what concerns more than one part ----------------------------------------------------------------------------

    def _cancel(self, operation: Cancel, session: Session) -> Cancelled:
        return self.claims.cancel(operation.claim, session)

    def _release(self, operation: Release, session: Session) -> Result:
        claim = self.claims.granted(operation.token)
        if claim is None:
            return NotHeld()
        self.claims.end(claim, "released", notify=claim.session != session.record.session)
        return Released()

    def _break(self, operation: Break, session: Session) -> Result:  # noqa: ARG002 - every part is called like this
        claim = self.claims.granted(operation.token)
        if claim is None:
            return NotHeld()
        self.claims.end(claim, "broken", notify=True, why=operation.reason)
        return Released()

    def _unpin(self, operation: Unpin, session: Session) -> Result:  # noqa: ARG002
        done = self.pins.unpin(operation)
        if done.changed and not self.pins.of(operation.namespace, operation.path):
            self.claims.unpinned(operation.namespace, operation.path)
        return done

    def _transact(self, operation: Transact, session: Session) -> Result:
        declined = self._transactions.look(operation)
        if declined is not None:
            return declined
        return self._transactions.carry_out(operation, lambda step: self._carry_out(step, session))

    def _drop_namespace(self, operation: DropNamespace, session: Session) -> Result:
        """Remove a namespace; with force everything in it, but the sessions: their clients find it empty."""
        name = operation.name
        if not self.namespaces.created(name):
            return failed(NO_SUCH_NAMESPACE, f"namespace {name!r} was not created")
        shelves = (self.semaphores.shelf, self.pins.shelf, self.registers.shelf)
        claims = self.namespaces.claims.get(name, 0)
        records = [record for shelf in shelves for record in shelf.records() if record.namespace == name]
        others = sum(one.record.namespace == name and one is not session for one in self.sessions_open.every())
        if (claims or records or others) and not operation.force:
            used = f"{claims} claims, {len(records)} records and {others} sessions of others"
            return failed(NAMESPACE_IN_USE, f"namespace {name!r} is in use: {used}")
        for record in list(self.pins.shelf.records()):
            if record.namespace == name:
                self.pins.shelf.drop((name, record.path))
        # the last first, so that none is granted by the end of another
        for claim in [claim for claim in reversed(self.claims.records()) if claim.namespace == name]:
            if claim.claim in self.claims.all:
                self.claims.end(
                    claim, "broken" if claim.token else "cancelled", notify=True, why="its namespace was dropped"
                )
        for semaphore in self.semaphores.shelf.records():
            if semaphore.namespace == name:
                self.semaphores.drop((name, semaphore.path))
        for register in self.registers.shelf.records():
            if register.namespace == name:
                self.registers.shelf.drop((name, register.path))
        self.namespaces.drop(name)
        return Done(changed=True)

    # --- rows and snapshots ------------------------------------------------------------------------------------------

    @property
    def tables(self) -> dict[str, Any]:
        """The parts that are kept as rows, by the names of their tables: see `records.RECORD_KINDS`.

        Each has `record(number)`, `records()` and `changed`.
        """
        return {
            "sessions": self.sessions_open,
            "claims": self.claims,
            "lapses": self.lapses,
            "semaphores": self.semaphores.shelf,
            "pins": self.pins.shelf,
            "registers": self.registers.shelf,
            "namespaces": self.namespaces.shelf,
        }

    def forget_changes(self) -> None:
        """Count as changed from now on only what changes from now on."""
        for table in self.tables.values():
            table.changed.clear()

    def snapshot(self) -> bytes:
        """Return the whole state as bytes, the same on every node that applied the same slots."""
        return dumps(self.plain())

    def plain(self) -> list[Any]:
        """Return the whole state as plain lists, numbers, strings and bytes: what a snapshot is made of."""
        rows = [list(map(to_list, table.records())) for table in self.tables.values()]
        return [to_list(self.header), *rows]

    @classmethod
    def restore(cls, data: bytes) -> "LeaseState":
        """Return the state of a snapshot.

        Raises:
            Malformed: the bytes are no snapshot of a consistent state.
        """
        parts: Any = loads(data)
        count = len(RECORD_KINDS)
        if type(parts) is not list or len(parts) != 1 + count or not all(type(part) is list for part in parts):
            raise Malformed(f"a snapshot has a header and {count} lists of records")
        header, *rows = parts
        return cls.from_records(from_list(header), *[[from_list(row) for row in part] for part in rows])

    @classmethod
    def from_records(cls, header: Any, *rows: list[Any]) -> "LeaseState":
        """Return the state of these records, in the order of `RECORD_KINDS`; those at the end may be left out.

        Raises:
            Malformed: they are of wrong kinds, or do not fit together.
        """
        given = [*rows, *([] for _ in range(len(RECORD_KINDS) - len(rows)))]
        sessions, claims, lapses, semaphores, pins, registers, namespaces = check_records(header, *given)
        state = cls(header)
        for record in namespaces:
            state.namespaces.shelf.put(record.name, record)
        for record in sessions:
            state.sessions_open.add(Session(record, {reply.number: reply.result for reply in record.replies}))
        for record in semaphores:
            state.semaphores.restore(record)
        for record in pins:
            state.pins.shelf.put((record.namespace, record.path), record)
        for record in registers:
            state.registers.shelf.put((record.namespace, record.path), record)
        state._restore_claims(claims, lapses)
        state.forget_changes()
        return state

    def _restore_claims(self, claims: list[Any], lapses: list[Any]) -> None:
        """Queue what waits in the order of arrival, after all was taken that is held, in the order of the tokens."""
        for record in lapses:
            self.lapses.restore(record)
            if record.closed_until_ms:
                self._deadlines.add(record.closed_until_ms, NAME_OPENS, record.number)
        closed = [record for record in lapses if record.closed_until_ms]
        granted = [claim for claim in claims if claim.token]
        for record in sorted((*closed, *granted), key=lambda record: record.token):
            if isinstance(record, ClaimRecord):
                self.claims.add(record)
            else:
                self.claims.hold_closed(record)
        for claim in claims:
            if not claim.token:
                self.claims.add(claim)
        self.claims.restored()
