"""The book that all parts of the lease state write in: the header, and what the entry now applied brings about."""

from dataclasses import dataclass, field

from .events import Event
from .records import ClaimRecord, StateHeader
from .requests import Notice
from .results import FAILURES, ClaimStatus, Failed, Result, shortened
from .room import Room

Key = tuple[str, tuple[str, ...]]
"""Namespace and path."""


@dataclass(slots=True)
class Outcome:
    """What one entry brought about, beside the new state."""

    answers: list[tuple[int, Result]] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)


class Book:
    """Numbers, the lease clock, events and notices."""

    __slots__ = ("header", "outcome", "room")

    def __init__(self, header: StateHeader) -> None:
        """Go on with the numbers of this header."""
        self.header = header
        self.outcome = Outcome()
        self.room = Room()

    @property
    def clock_ms(self) -> int:
        """The lease clock."""
        return self.header.clock_ms

    def next_item(self) -> int:
        """Return a number that no record before had."""
        self.header.last_item += 1
        return self.header.last_item

    def notify(self, session: int, status: ClaimStatus) -> None:
        """Have a session told about one of its claims."""
        self.outcome.notices.append(Notice(session, self.clock_ms, status))

    def emit(
        self,
        kind: str,
        *,
        session: int = 0,
        namespace: str = "",
        path: tuple[str, ...] = (),
        token: int = 0,
        holder: str = "",
        expires_at_ms: int = 0,
        why: str = "",
    ) -> None:
        """Tell the feed of something that is no claim."""
        self._append(
            Event(
                revision=self._next_revision(),
                slot=self.header.applied_upto,
                clock_ms=self.clock_ms,
                kind=kind,
                namespace=namespace,
                path=path,
                claim=0,
                token=token,
                session=session,
                holder=holder,
                expires_at_ms=expires_at_ms,
                why=why,
            )
        )

    def emit_claim(self, kind: str, claim: ClaimRecord, *, expires_at_ms: int = 0, why: str = "") -> None:
        """Tell the feed of what happened to a claim."""
        resources = claim.resources
        self._append(
            Event(
                revision=self._next_revision(),
                slot=self.header.applied_upto,
                clock_ms=self.clock_ms,
                kind=kind,
                namespace=claim.namespace,
                path=resources[0].path,
                claim=claim.claim,
                token=claim.token,
                session=claim.session,
                holder=claim.holder,
                expires_at_ms=expires_at_ms,
                others=tuple([other.path for other in resources[1:]]) if len(resources) > 1 else (),
                why=why,
            )
        )

    def _next_revision(self) -> int:
        self.header.revision += 1
        return self.header.revision

    def _append(self, event: Event) -> None:
        self.outcome.events.append(event)


def failed(code: str, detail: str = "") -> Failed:
    """Return the failure of this code, with its usual text or a better one."""
    return Failed(code, shortened(detail or FAILURES[code]))
