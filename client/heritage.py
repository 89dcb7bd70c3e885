"""What goes over from one client to another: a session, by its ticket; and a lease, whose record is made anew."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..core import limits
from ..core.commands import AttachSession, ListClaims, Operation
from ..core.results import ClaimInfo, ClaimPage, ClaimPhase, SessionOpened
from .calls import Call, Calls
from .errors import BadRequest
from .records import LeaseRecord
from .ticket import pack, unpack

SESSION_VERSION = 129
"""The tickets of leases and those of sessions are told apart by this."""


@dataclass(frozen=True, slots=True)
class SessionTicket:
    """What another client needs to take a session over. Its key is a secret."""

    session: int
    key: bytes
    attach: int
    namespace: str
    timeout_ms: int

    def __str__(self) -> str:
        """Return the ticket as text that may stand in an environment variable or a file."""
        return pack(SESSION_VERSION, [self.session, self.key, self.attach, self.namespace, self.timeout_ms])


def read_session(text: Any) -> SessionTicket:
    """Return what stands in a ticket of a session.

    Raises:
        BadRequest: it is none, or was damaged on its way.
    """
    ticket = SessionTicket(*unpack(SESSION_VERSION, text, (int, bytes, int, str, int), "client.session_ticket()"))
    if not (ticket.session > 0 and 0 <= ticket.attach < limits.ATTACHES_MAX):
        raise BadRequest(f"this ticket of a session is of no session that can be attached: {text[:40]!r}")
    return ticket


def record_of(info: ClaimInfo, session: int) -> LeaseRecord:
    """Return the record of a lease that somebody else was granted."""
    return LeaseRecord(
        namespace=info.namespace,
        path=info.resources[0].path if info.resources else info.path,
        resources=info.resources,
        holder=info.holder,
        data=info.data,
        claim=info.claim,
        token=info.token,
        ttl_ms=info.ttl_ms,
        bound_ms=info.hold_until_ms,
        expires_at_ms=info.expires_at_ms,
        auto_renew=True,
        detached=info.detached,
        session=session,
    )


@dataclass(frozen=True, slots=True)
class Heritage:
    """A session that was attached, and the claims that it had then."""

    opened: SessionOpened
    claims: tuple[ClaimInfo, ...]


class Attaching:
    """Takes a session over, and learns what is in it before anything is asked in it.

    Once it is attached, nothing that its former owner has asked can come through any more: so what is told with that,
    or listed after it, is all of it.
    """

    def __init__(
        self, calls: Calls, ticket: SessionTicket, key: bytes, description: str, on_done: Callable[[Any], None]
    ) -> None:
        """Begin; `on_done` gets a Heritage, or an error.

        Args:
            calls: send what is asked.
            ticket: of the session.
            key: the new one, so that a second client with the same ticket is refused.
            description: of the session, for operators.
            on_done: is told of the outcome.
        """
        self.ticket = ticket
        self.call: Call
        self._calls = calls
        self._key = key
        self._on_done = on_done
        self._found: list[ClaimInfo] = []
        self._ask(
            AttachSession(ticket.session, ticket.key, ticket.attach + 1, ticket.timeout_ms, description, key),
            self._attached,
        )

    def _ask(self, operation: Operation, then: Callable[[Any], None]) -> None:
        self.call = Call(operation, then, None)
        self._calls.begin(self.call)

    def _attached(self, result: Any) -> None:
        if not isinstance(result, SessionOpened):
            self._on_done(result)
            return
        old = self.ticket
        self.ticket = SessionTicket(old.session, self._key, result.attach, old.namespace, old.timeout_ms)
        self._opened = result
        self._found += result.claims
        self._go_on(result.upto)

    def _go_on(self, upto: int) -> None:
        """Ask for what did not fit on the page; the numbers of a session's claims are in no order of namespaces."""
        if upto:
            self._ask(ListClaims("", upto, limits.LIST_PAGE_MAX), self._listed)
        else:
            self._on_done(Heritage(self._opened, tuple(self._found)))

    def _listed(self, result: Any) -> None:
        if not isinstance(result, ClaimPage):
            self._on_done(result)
            return
        self._found += [info for info in result.claims if info.session == self.ticket.session]
        self._go_on(result.upto)


def parted(heritage: Heritage) -> tuple[list[LeaseRecord], list[int]]:
    """Return the leases of a session that was attached, and the claims of it that still wait."""
    session = heritage.opened.session
    held = [record_of(info, session) for info in heritage.claims if info.phase == ClaimPhase.HELD]
    return held, [info.claim for info in heritage.claims if info.phase == ClaimPhase.WAITING]
