"""The signs of life of one client's session, without any I/O; they also ask about its claims, since a push may be lost.

Laws it keeps:
- what waits is asked about with every ping, and at once on a new connection or a new leader;
- what is held is asked about on the same occasions, and with every `LOOK_PINGS`-th ping: who is not told that an
  operator broke his lease, or that it was taken over, learns it so.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ..core import limits
from ..core.commands import Ping, Validate
from ..core.results import TAKEN_OVER, ClaimPhase, ClaimStatus, Pong, Valid
from .calls import Call, Calls
from .leases import Leases
from .records import Acquire, LeaseRecord

T = TypeVar("T")

LOOK_PINGS = 10
"""A ping that asks for nothing travels with those of others and costs next to nothing; one that asks does not."""


class Pings:
    """When the next ping is due, and what it asks."""

    def __init__(
        self,
        calls: Calls,
        timeout_ms: int,
        waiting: dict[int, Acquire],
        leases: Leases,
        on_pong: Callable[[Pong], None],
    ) -> None:
        """Start without a session.

        Args:
            calls: knows the time and the session.
            timeout_ms: of the session.
            waiting: who stands in line, by claim.
            leases: what is held.
            on_pong: is told of each answer.
        """
        self.at_ms = 0
        self.call: Call | None = None
        self._calls = calls
        self._timeout_ms = timeout_ms
        self._waiting = waiting
        self._leases = leases
        self._on_pong = on_pong
        self._count = 0
        self._turns = [0, 0]
        self._look = False

    def session_begins(self) -> None:
        """Begin to count."""
        self.at_ms = self._calls.now_ms + self._timeout_ms // 3
        self._calls.wake_by(self.at_ms)

    def ask_soon(self) -> None:
        """On a new connection ask for the claims: the news of them may have been lost with the old one."""
        self._look = True
        if (self._waiting or self._held()) and self.call is None:
            self.at_ms = self._calls.now_ms
            self._calls.wake_by(self.at_ms)

    def send_if_due(self) -> None:
        """Send a ping, if it is time."""
        if self.call is not None or self._calls.now_ms < self.at_ms:
            return
        self._count += 1
        held: list[LeaseRecord] = []
        if self._look or self._count % LOOK_PINGS == 0:
            held = self._in_turn(1, self._held(), limits.CLAIMS_PER_PING_MAX // 2)
            self._look = False
            self._look_at_outlived()
        # a session with more waiting claims than fit asks for them in turns
        waiting = self._in_turn(0, list(self._waiting), limits.CLAIMS_PER_PING_MAX - len(held))

        def done(result: Any) -> None:
            self.call = None
            self.session_begins()
            if isinstance(result, Pong):
                self._take(result, held)

        self.call = Call(Ping((*waiting, *[lease.claim for lease in held])), done, None)
        self._calls.begin(self.call)

    def _take(self, pong: Pong, held: list[LeaseRecord]) -> None:
        self._on_pong(pong)
        self._leases.claims_gone(held, pong.claims)

    def _held(self) -> list[LeaseRecord]:
        return [lease for lease in self._leases.every() if lease.session == self._calls.session]

    def _look_at_outlived(self) -> None:
        """Ask about leases that have outlived their session: whoever takes one over, nobody can be told."""
        outlived = [lease for lease in self._leases.every() if lease.session not in (0, self._calls.session)]
        for lease in outlived[: limits.CLAIMS_PER_PING_MAX // 2]:
            self._calls.begin(Call(Validate(lease.token), self._looked, None))

    def _looked(self, result: Any) -> None:
        if isinstance(result, Valid) and result.claim.session not in (0, self._calls.session):
            info = result.claim
            why = f"{TAKEN_OVER} by session {info.session}"
            self._leases.gone(ClaimStatus(info.claim, ClaimPhase.GONE, info.token, 0, 0, why=why))

    def _in_turn(self, which: int, items: Sequence[T], most: int) -> list[T]:
        start = self._turns[which] % len(items) if items else 0
        asked = [*items, *items][start : start + min(len(items), most)]
        self._turns[which] += len(asked)
        return asked
