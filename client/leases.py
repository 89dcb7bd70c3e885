"""The leases that one client holds, without any I/O: their deadlines, renewals, jeopardy and loss.

Laws it keeps:
- a lease is lost no later than its deadline on this client's own clock, whatever the network does (P8);
- each loss has its reason, and is told first thing after a suspend or a stall that ran over the deadline;
- a lease that this client may just have ended, as by a transaction, is not held while that is open; its deadline and
  its loss still count.
"""

from collections.abc import Callable, Iterable
from typing import Any

from ..core.commands import Operation, Renew
from ..core.events import KINDS
from ..core.results import HELD_LONG, OVERDUE, TAKEN_OVER, ClaimPhase, ClaimStatus, NotHeld, Renewed
from .calls import Calls
from .records import LeaseRecord
from .states import LeaseState, Loss

NOT_HELD = "the service says that it is not held any more"

STALL_MS = 500
"""A turn that comes so much later than it was asked for means that the process stood still."""

RETRY_SHARE = 20
"""A renewal that the service refused for the moment is asked for again after the ttl divided by this."""

Ask = Callable[[Operation, Callable[[Any], None], int | None], Any]


def why_gone(told: ClaimStatus | NotHeld) -> tuple[Loss, str]:
    """Return why the service ended a grant: the one place that reads it from what the service said."""
    why = told.why if isinstance(told, ClaimStatus) else ""
    if not why or why in KINDS:
        return (Loss.EXPIRED, "it expired") if why == "expired" else (Loss.ENDED, NOT_HELD)
    if why in (HELD_LONG, OVERDUE):
        return (Loss.MAX_HOLD if why == HELD_LONG else Loss.EXPIRED), why
    return (Loss.TAKEN_OVER if why.startswith(TAKEN_OVER) else Loss.BROKEN), why


class Leases:
    """What a client holds, by token."""

    def __init__(
        self,
        calls: Calls,
        ask: Ask,
        give_up: Callable[[LeaseRecord], None],
        luck: Callable[[], float],
        session_timeout_ms: int,
        session_until: Callable[[LeaseRecord], int],
    ) -> None:
        """Start with nothing.

        Args:
            calls: knows the time and the anchor, and when to wake.
            ask: begins a request.
            give_up: gives back a grant that was this client's, unless it is somebody else's by now.
            luck: draws a number in [0, 1), to jitter renewals.
            session_timeout_ms: stands for the ttl of a lease without one.
            session_until: when, on the lease clock, the session of a lease ends (0: it is not this client's any more).
        """
        self.held: dict[int, LeaseRecord] = {}
        self.renewing = True  # until the client is closed
        self._calls = calls
        self._laid_down: dict[int, LeaseRecord] = {}
        self._ask = ask
        self._give_up = give_up
        self._luck = luck
        self._session_timeout_ms = session_timeout_ms
        self._session_until = session_until
        self._suspended_at_ms = -1

    def every(self) -> list[LeaseRecord]:
        """Return what is held, and what is laid down."""
        return [*self.held.values(), *self._laid_down.values()]

    def find(self, token: int) -> LeaseRecord | None:
        """Return the lease of a token, held or laid down."""
        return self.held.get(token) or self._laid_down.get(token)

    def on(self, namespace: str, path: tuple[str, ...] | None = None) -> list[int]:
        """Return the tokens of the leases in a namespace, or of those on one path of it."""
        return [
            lease.token
            for lease in self.every()
            if lease.namespace == namespace and (path is None or any(each.path == path for each in lease.resources))
        ]

    def add(self, lease: LeaseRecord, max_hold_ms: int, progress_ms: int) -> None:
        """Begin to hold a lease."""
        now_ms = self._calls.now_ms
        lease.renewed_ms = lease.progress_at_ms = now_ms
        lease.hold_until_ms = now_ms + max_hold_ms if max_hold_ms else 0
        lease.progress_ms = progress_ms
        self.held[lease.token] = lease
        self._schedule(lease)
        self.wake_for(lease)

    # --- deadlines ---------------------------------------------------------------------------------------------------

    def safe_until_ms(self, lease: LeaseRecord) -> int:
        """Return the deadline of a lease on this client's clock."""
        return _safe_until_ms(lease, self._granted_until_ms(lease))

    def _granted_until_ms(self, lease: LeaseRecord) -> int:
        until_ms = self._calls.anchor.safe_until_ms(self.expires_at_ms(lease))
        return until_ms if lease.kept_until is None else lease.kept_until(until_ms)

    def expires_at_ms(self, lease: LeaseRecord) -> int:
        """Return when on the lease clock it ends, unless something is done for it."""
        expires_at_ms = lease.expires_at_ms
        if not lease.ttl_ms:
            expires_at_ms = max(expires_at_ms, self._session_until(lease))
        return min(expires_at_ms, lease.bound_ms) if lease.bound_ms else expires_at_ms

    def _jeopardy_from_ms(self, lease: LeaseRecord, until_ms: int) -> int:
        """Return from when on a lease that is kept alive is in jeopardy; its deadline, if nobody keeps it alive.

        It is renewed when a third of its ttl has passed. When it is late by half of what was left, a third is left.
        """
        if lease.hold_until_ms and until_ms >= lease.hold_until_ms:
            return lease.hold_until_ms
        if not lease.auto_renew and lease.ttl_ms:
            return until_ms
        return until_ms - (lease.ttl_ms or self._session_timeout_ms) // 3

    def wake_for(self, lease: LeaseRecord) -> None:
        """Have the client wake in time for what happens next to a lease."""
        # one look at the deadline: this runs for each lease in each tick
        granted_ms = self._granted_until_ms(lease)
        first_ms = _safe_until_ms(lease, granted_ms)
        if lease.laid_down:
            self._calls.wake_by(first_ms)
            return
        if lease.state is LeaseState.HELD:
            first_ms = min(first_ms, self._jeopardy_from_ms(lease, granted_ms))
        if lease.renew_at_ms < first_ms and self._is_to_be_renewed(lease, granted_ms):
            first_ms = lease.renew_at_ms
        self._calls.wake_by(first_ms)

    # --- what happens ------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Let time pass."""
        for lease in self.every():
            granted_ms = self._granted_until_ms(lease)
            if self._calls.now_ms >= _safe_until_ms(lease, granted_ms):
                self._lose(lease)
            elif not lease.laid_down:
                self._settle(lease, granted_ms)

    def suspended(self) -> None:
        """Learn that the machine was asleep until now: whatever has survived it is renewed at once."""
        self._suspended_at_ms = self._calls.now_ms
        for lease in self.held.values():
            lease.renew_at_ms = min(lease.renew_at_ms, self._calls.now_ms)
        self._calls.wake_by(self._calls.now_ms)

    def progress(self, lease: LeaseRecord) -> None:
        """Learn that the work goes on."""
        lease.progress_at_ms = self._calls.now_ms
        if not lease.over:
            self.wake_for(lease)

    def gone(self, status: ClaimStatus) -> None:
        """Learn from the service that a grant has ended."""
        lease = self.find(status.token)
        if lease is not None:
            self._gone(lease, status)

    def claims_gone(self, asked: Iterable[LeaseRecord], told: Iterable[ClaimStatus]) -> None:
        """Learn from a question which of the leases that were asked about are not this session's any more."""
        gone = {status.claim: status for status in told if status.phase == ClaimPhase.GONE}
        for lease in asked:
            if lease.claim in gone and not lease.over:
                self._gone(lease, gone[lease.claim])

    def _gone(self, lease: LeaseRecord, told: ClaimStatus | NotHeld) -> None:
        if lease.laid_down and not (isinstance(told, ClaimStatus) and told.why):
            lease.vanished = True  # by the transaction, or before it: its answer will say
            return
        # after its deadline it is no news that the service has ended it
        over = self._calls.now_ms >= self.safe_until_ms(lease)
        loss, reason = self.why_over(lease, self._calls.now_ms) if over else why_gone(told)
        self.end(lease, LeaseState.LOST, reason, loss)

    def end(self, lease: LeaseRecord, state: LeaseState, reason: str, loss: Loss | None = None) -> None:
        """Count a lease as over, and tell; the first word on it is the last."""
        if lease.over:
            return
        lease.reason, lease.loss = reason, loss
        for where in (self.held, self._laid_down):
            if where.get(lease.token) is lease:
                del where[lease.token]
        _move(lease, state)

    def let_go(self, lease: LeaseRecord, reason: str) -> None:
        """Count a lease as released, unless its deadline has passed and it only has not been told yet."""
        if self._calls.now_ms < self.safe_until_ms(lease):
            self.end(lease, LeaseState.RELEASED, reason)
        else:
            loss, why = self.why_over(lease, self._calls.now_ms)
            self.end(lease, LeaseState.LOST, why, loss)

    def lay_down(self, tokens: Iterable[int]) -> list[LeaseRecord]:
        """Count these leases as not held while it is open whether this client has ended them; return them."""
        laid_down: list[LeaseRecord] = []
        for token in dict.fromkeys(tokens):
            lease = self.held.pop(token, None) or self._laid_down.get(token)
            if lease is not None:
                lease.laid_down += 1
                self._laid_down[token] = lease
                laid_down.append(lease)
                self.wake_for(lease)
        return laid_down

    def take_up(self, laid_down: Iterable[LeaseRecord], *, released: bool, vanished: int = 0, broken: str = "") -> None:
        """Learn what has become of leases that were laid down.

        Args:
            laid_down: by one call of `lay_down`.
            released: whether all of them have ended.
            vanished: the token of one that was not held.
            broken: why they have ended, if not by a release.
        """
        for lease in laid_down:
            lease.laid_down -= 1
            lease.vanished = lease.vanished or lease.token == vanished
            if released and broken:
                self.end(lease, LeaseState.LOST, broken, Loss.BROKEN)
            elif released:
                self.end(lease, LeaseState.RELEASED, "released")
            elif not lease.over and not lease.laid_down:  # by another request that is under way
                del self._laid_down[lease.token]
                self.held[lease.token] = lease
                if lease.vanished:
                    self._gone(lease, NotHeld())
                else:
                    self.wake_for(lease)
        self.look()

    def _lose(self, lease: LeaseRecord) -> None:
        loss, reason = self.why_over(lease, self._calls.now_ms)
        self.end(lease, LeaseState.LOST, reason, loss)
        if not lease.detached or loss is Loss.MAX_HOLD:
            # the lease clock may have stood still: to the service it is held on, without a ttl for ever
            self._give_up(lease)

    def why_over(self, lease: LeaseRecord, now_ms: int) -> tuple[Loss, str]:
        """Return why a lease whose deadline has passed at that moment was not renewed in time."""
        bounded = lease.bound_ms and now_ms >= self._calls.anchor.safe_until_ms(lease.bound_ms)
        if bounded or (lease.hold_until_ms and now_ms >= lease.hold_until_ms):
            return Loss.MAX_HOLD, "it was held for as long as it may be held (max_hold)"
        if self._suspended_at_ms >= lease.renewed_ms:
            return Loss.SUSPENDED, "it expired while the machine was suspended"
        wake_ms = self._calls.wake_ms  # a user's thread looks without the lock
        if wake_ms is not None and now_ms - wake_ms >= STALL_MS:
            return Loss.EXPIRED, "it expired while this process stood still"
        if not lease.auto_renew:
            return Loss.EXPIRED, "it expired"
        if not _works(lease, now_ms):
            return Loss.NO_PROGRESS, "it expired, since its work made no progress (progress_timeout)"
        return Loss.UNREACHABLE, "it expired before it could be renewed"

    def _settle(self, lease: LeaseRecord, granted_ms: int) -> None:
        """Have a lease be in jeopardy, or out of it."""
        late = self._calls.now_ms >= self._jeopardy_from_ms(lease, granted_ms)
        _move(lease, LeaseState.JEOPARDY if late else LeaseState.HELD)

    # --- renewal -----------------------------------------------------------------------------------------------------

    def renewed(self, lease: LeaseRecord, result: Any) -> None:
        """Take in the answer to a renewal."""
        if isinstance(result, Renewed):
            lease.expires_at_ms = max(lease.expires_at_ms, result.expires_at_ms)
            lease.renewed_ms = self._calls.now_ms
            if not lease.over and not lease.laid_down and self._calls.now_ms < self.safe_until_ms(lease):
                self._settle(lease, self._granted_until_ms(lease))
        elif isinstance(result, NotHeld):
            self._gone(lease, result)

    def renew_what_is_due(self) -> None:
        """Begin the renewals that are due."""
        for lease in list(self.held.values()):
            due = self._calls.now_ms >= lease.renew_at_ms
            if due and self._is_to_be_renewed(lease, self._granted_until_ms(lease)):
                self._renew(lease)

    def _is_to_be_renewed(self, lease: LeaseRecord, granted_ms: int) -> bool:
        if not self.renewing or not lease.auto_renew or not lease.ttl_ms or lease.renewing:
            return False
        if not _works(lease, self._calls.now_ms):
            return False
        return not lease.hold_until_ms or granted_ms < lease.hold_until_ms

    def _renew(self, lease: LeaseRecord) -> None:
        def done(result: Any) -> None:
            lease.renewing = False
            self._schedule(lease)
            if not isinstance(result, Renewed):
                soon_ms = self._calls.now_ms + max(1, lease.ttl_ms // RETRY_SHARE)
                lease.renew_at_ms = min(lease.renew_at_ms, soon_ms)
            self.renewed(lease, result)
            if not lease.over:
                self.wake_for(lease)

        lease.renewing = True
        lease.lateness_ms = self._calls.now_ms - lease.renew_at_ms
        self._ask(Renew(lease.token, 0), done, self.safe_until_ms(lease))

    def _schedule(self, lease: LeaseRecord) -> None:
        # a third of the ttl leaves room for two more tries; the jitter keeps many leases from renewing in step
        lease.renew_at_ms = self._calls.now_ms + int(lease.ttl_ms / 3 * (0.9 + 0.1 * self._luck()))


def _safe_until_ms(lease: LeaseRecord, granted_ms: int) -> int:
    return min(granted_ms, lease.hold_until_ms) if lease.hold_until_ms else granted_ms


def _move(lease: LeaseRecord, state: LeaseState) -> None:
    if lease.state is not state:
        lease.state = state
        if lease.on_change is not None:
            lease.on_change(lease)


def _works(lease: LeaseRecord, now_ms: int) -> bool:
    return not lease.progress_ms or now_ms < lease.progress_at_ms + lease.progress_ms
