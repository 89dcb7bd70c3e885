"""How a client goes on with a lease that somebody else was granted, by its ticket; without any I/O.

The service is asked what the lease is, and then to make it this client's session's own; whoever had it is told. If
nobody waits for the outcome any more, nothing is asked further, and what was taken over is given back.
"""

from collections.abc import Callable
from typing import Any

from ..core.commands import Adopt, Validate
from ..core.results import ClaimPhase, ClaimStatus, NotHeld, Valid
from .errors import LeaseLost
from .heritage import record_of
from .protocol import Protocol
from .records import LeaseRecord, Terms
from .ticket import Ticket


class Resuming:
    """One lease being resumed."""

    def __init__(
        self,
        protocol: Protocol,
        ticket: Ticket,
        terms: Terms,
        on_done: Callable[[Any], None],
        deadline_ms: int,
        *,
        adopt: bool = True,
    ) -> None:
        """Begin; `on_done` gets a LeaseRecord, or an error. Without `adopt` the lease stays with whoever has it."""
        self._protocol = protocol
        self._ticket = ticket
        self._terms = terms
        self._on_done = on_done
        self._deadline_ms = deadline_ms
        self._adopt = adopt
        self._abandoned = False
        self._lease: LeaseRecord | None = None
        protocol.call(Validate(ticket.token), self._validated, deadline_ms)

    def abandon(self) -> None:
        """Nobody waits for the outcome any more."""
        self._abandoned = True
        if self._lease is not None and self._adopt:
            self._protocol.release(self._lease, _ignore, None)

    def _validated(self, result: Any) -> None:
        if self._abandoned:
            return
        if not isinstance(result, Valid):
            self._over(result)
        elif self._adopt:
            self._info = result.claim
            self._protocol.call(Adopt(self._ticket.token), self._adopted, self._deadline_ms)
        else:
            self._hold(record_of(result.claim, 0))

    def _adopted(self, result: Any) -> None:
        if not isinstance(result, ClaimStatus) or result.phase != ClaimPhase.HELD:
            self._over(result)
            return
        lease = record_of(self._info, self._protocol.session_number)
        lease.expires_at_ms = result.expires_at_ms
        protocol = self._protocol
        late = protocol.now_ms >= protocol.safe_until_ms(lease)
        if late and lease.ttl_ms and lease.expires_at_ms > protocol.anchor.clock_ms and not self._abandoned:
            # the answer is to a question that was first asked long ago: a new one ties the clocks better
            protocol.call(Adopt(self._ticket.token), self._adopted, self._deadline_ms)
        else:
            self._hold(lease)

    def _hold(self, lease: LeaseRecord) -> None:
        self._lease = lease
        self._protocol.hold(lease, self._terms)
        if self._abandoned:
            self.abandon()
        else:
            self._on_done(lease)

    def _over(self, result: Any) -> None:
        if isinstance(result, NotHeld | ClaimStatus):
            ticket = self._ticket
            result = LeaseLost(f"{ticket.name!r} is not held any more: its ticket is of token {ticket.token}")
        self._on_done(result)


def _ignore(_: Any) -> None:
    """Take an outcome that nobody waits for."""
