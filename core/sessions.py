"""The sessions of the lease state: opened, kept alive, taken over, ended; and the answers kept for retries."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from . import limits
from .book import Book, failed
from .commands import ATTACH_STEP, AttachSession, OpenSession, proof_of
from .deadlines import SESSION_ENDS, Deadlines
from .encoding import INT_MAX
from .listing import numbers_after
from .records import KeptReply, SessionRecord
from .results import (
    OUT_OF_SEQUENCE,
    SESSION_EXPIRED,
    SESSION_STOLEN,
    STALE_NUMBER,
    TOO_MANY,
    WRONG_KEY,
    Result,
    SessionOpened,
)
from .room import weight_of_answer


@dataclass(slots=True)
class Session:
    """A client's session, with what is derived from the claims: which of them are its own."""

    record: SessionRecord
    replies: dict[int, Result] = field(default_factory=dict)
    claims: dict[int, None] = field(default_factory=dict)
    kept_bytes: int = 0

    def refuses(self, number: int, proof: int) -> str:
        """Return with which code a request is refused that does not come from whoever is attached; "" if it does.

        Who had the session before is told that it was stolen, by his number. To anybody else it is as if it were not
        there: who guesses numbers learns nothing, and a client that took the number of a session from a state that is
        no more (the service was restored from a backup) opens one of its own.
        """
        attach = number // ATTACH_STEP
        if attach < self.record.attach:
            return SESSION_STOLEN
        mine = attach == self.record.attach and proof == proof_of(self.record.key)
        return "" if mine else SESSION_EXPIRED


class Sessions:
    """Every open session, by its number and by its key."""

    def __init__(self, book: Book, deadlines: Deadlines) -> None:
        """Start with none."""
        self.changed: dict[int, None] = {}
        self._book = book
        self._deadlines = deadlines
        self._sessions: dict[int, Session] = {}
        self._by_key: dict[bytes, int] = {}
        self._numbers: list[int] = []  # in their order; some may have ended
        self.in_namespace: Counter[str] = Counter()
        """How many there are in each namespace."""

    def __len__(self) -> int:
        """Return how many sessions are open."""
        return len(self._sessions)

    def get(self, number: int) -> Session | None:
        """Return a session, None if it has ended."""
        return self._sessions.get(number)

    def __getitem__(self, number: int) -> Session:
        """Return a session that is known to be there."""
        return self._sessions[number]

    def numbers_after(self, number: int) -> Iterator[int]:
        """Yield the numbers above this one, in order; some may be of sessions that have ended."""
        return numbers_after(self._numbers, number)

    def every(self) -> Iterator[Session]:
        """Yield every session in the order of their numbers."""
        return (self._sessions[number] for number in sorted(self._sessions))

    # --- opening and attaching ---------------------------------------------------------------------------------------

    def open(self, operation: OpenSession) -> Result:
        """Open a session, or find the one that this key has opened."""
        number = self._by_key.get(operation.key)
        if number is None:
            if len(self._sessions) >= limits.SESSIONS_MAX:
                return failed(TOO_MANY, f"{limits.SESSIONS_MAX} sessions are open: no more are allowed")
            header = self._book.header
            header.last_session += 1
            number = header.last_session
            record = SessionRecord(
                session=number,
                key=operation.key,
                timeout_ms=operation.timeout_ms,
                description=operation.description,
                expires_at_ms=header.clock_ms + operation.timeout_ms,
                acked_below=0,
                refused_below=0,
                replies=(),
                namespace=operation.namespace,
            )
            self.add(Session(record))
            self._book.emit(
                "session_opened", session=number, namespace=operation.namespace, expires_at_ms=record.expires_at_ms
            )
        session = self._sessions[number]
        self.touch(session, 0)
        return SessionOpened(number, session.record.expires_at_ms, session.record.attach)

    def attach(self, operation: AttachSession) -> Result:
        """Hand a session over to whoever knows its key (YDB: by session id, sequence number and protection key)."""
        session = self._sessions.get(operation.session)
        if session is None:
            return failed(SESSION_EXPIRED)
        record = session.record
        repeated = operation.new_key and (record.attach, record.key) == (operation.attach, operation.new_key)
        if not repeated and record.key != operation.key:
            # a key is replaced only by attaching: whoever is behind has most likely had the right one
            behind = operation.new_key and operation.attach <= record.attach
            return failed(OUT_OF_SEQUENCE if behind else WRONG_KEY)
        if operation.attach < record.attach or (
            operation.new_key and not repeated and operation.attach == record.attach
        ):
            return failed(OUT_OF_SEQUENCE, f"the session was attached for the {record.attach}. time meanwhile")
        if not repeated and operation.new_key in self._by_key:
            return failed(WRONG_KEY)
        if operation.attach > record.attach:
            record.attach = operation.attach
            record.acked_below = record.refused_below = operation.attach * ATTACH_STEP
            self._forget(session, list(session.replies))
            if operation.new_key:
                del self._by_key[record.key]
                record.key = operation.new_key
                self._by_key[record.key] = record.session
        room = self._book.room
        room.give(record)
        record.timeout_ms, record.description = operation.timeout_ms, operation.description
        room.take(record)
        self.touch(session, 0)
        self._book.emit(
            "session_attached", session=record.session, namespace=record.namespace, expires_at_ms=record.expires_at_ms
        )
        return SessionOpened(record.session, record.expires_at_ms, record.attach)

    def add(self, session: Session) -> None:
        """Take in a session that is open, with a higher number than those before."""
        record = session.record
        self._sessions[record.session] = session
        self._by_key[record.key] = record.session
        self._numbers.append(record.session)
        self.in_namespace[record.namespace] += 1
        self._book.room.take(record)
        for number, result in session.replies.items():
            self.keep(session, number, result)
        self.changed[record.session] = None
        self._deadlines.add(record.expires_at_ms, SESSION_ENDS, record.session)

    def remove(self, session: Session) -> None:
        """Forget a session."""
        number = session.record.session
        del self._sessions[number]
        del self._by_key[session.record.key]
        if len(self._numbers) > 2 * len(self._sessions) + 1000:
            self._numbers = sorted(self._sessions)
        self.in_namespace[session.record.namespace] -= 1
        if not self.in_namespace[session.record.namespace]:
            del self.in_namespace[session.record.namespace]
        self._book.room.give(session.record)
        self._forget(session, list(session.replies))
        self.changed[number] = None

    # --- keeping alive -----------------------------------------------------------------------------------------------

    def touch(self, session: Session, acked_below: int) -> None:
        """Keep the session alive, and forget the answers that its client has seen."""
        record = session.record
        record.expires_at_ms = max(record.expires_at_ms, self._book.clock_ms + record.timeout_ms)
        if acked_below > record.acked_below:
            record.acked_below = acked_below
            self._forget(session, [number for number in session.replies if number < acked_below])
        self.changed[record.session] = None

    def give_grace(self, grace_ms: dict[str, int]) -> None:
        """Let each session of these namespaces live its whole timeout from now, and so much longer (YDB)."""
        for session in self._sessions.values() if grace_ms else ():
            record = session.record
            if record.namespace in grace_ms:
                alive_ms = self._book.clock_ms + record.timeout_ms + grace_ms[record.namespace]
                record.expires_at_ms = max(record.expires_at_ms, alive_ms)
                self.changed[record.session] = None

    def keep_alive(self, session: int, number: int, acked_below: int, proof: int) -> int:
        """Do for one ping of many what `KeptAlive` says."""
        found = self._sessions.get(session)
        refused = SESSION_EXPIRED if found is None else found.refuses(number, proof)
        if found is None or refused:
            return int(refused == SESSION_STOLEN)
        self.touch(found, acked_below)
        return found.record.expires_at_ms

    # --- answers for retries -----------------------------------------------------------------------------------------

    def kept(self, session: Session, number: int) -> Result | None:
        """Return the answer to a request that was carried out or refused before, None if it is a new one (P6)."""
        record = session.record
        if number < record.acked_below:
            return failed(STALE_NUMBER)
        kept = session.replies.get(number)
        if kept is not None:
            return kept
        most = limits.REPLIES_WHEN_FULL_MAX if self._book.room.full else limits.REPLIES_PER_SESSION_MAX
        overrun = len(session.replies) >= most or session.kept_bytes >= limits.REPLIES_BYTES_PER_SESSION_MAX
        if overrun or number < record.refused_below:
            # nothing is kept of a refusal but this: a copy of the command that comes late must stay without effect
            record.refused_below = max(record.refused_below, min(number + 1, INT_MAX))
            there = f"{len(session.replies)} answers of this session, {session.kept_bytes} bytes,"
            return failed(TOO_MANY, f"{there} are not acknowledged: that is too much, or was when this was refused")
        return None

    def keep(self, session: Session, number: int, result: Result) -> None:
        """Keep the answer to a request until its client acknowledges it."""
        session.replies[number] = result
        taken = weight_of_answer(result)
        session.kept_bytes += taken
        self._book.room.taken += taken

    def _forget(self, session: Session, numbers: list[int]) -> None:
        for number in numbers:
            given = weight_of_answer(session.replies.pop(number))
            session.kept_bytes -= given
            self._book.room.taken -= given

    # --- rows --------------------------------------------------------------------------------------------------------

    def record(self, number: int) -> SessionRecord | None:
        """Return a session as it is kept on disk, None if it has ended."""
        session = self._sessions.get(number)
        if session is None:
            return None
        session.record.replies = tuple(KeptReply(key, session.replies[key]) for key in sorted(session.replies))
        return session.record

    def records(self) -> list[SessionRecord]:
        """Return every session in the order of their numbers."""
        return [record for number in sorted(self._sessions) if (record := self.record(number)) is not None]
