"""How one client acquires, without any I/O: claims that wait, the news of grants, and what is withdrawn again.

Laws it keeps:
- a claim that nobody waits for any more is withdrawn, and released if it was granted meanwhile;
- an acquire that failed is called definite only if no claim of it can still be granted (P9);
- a place in the line is given up only if the grant was certainly of no use any more (P7).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..core import limits
from ..core.commands import FOREVER, Claim, Operation, Ping
from ..core.errors import LessorError
from ..core.resources import Mode
from ..core.results import FREE, Cancelled, ClaimPhase, ClaimStatus, Pong
from .calls import Call, Calls
from .errors import AcquireTimeout, Unavailable
from .leases import Leases
from .records import Acquire, LeaseRecord, LeaseState, Terms, Waiting, granted
from .states import Loss

WITHDRAW_GRACE_MS = 500
"""How long past its timeout an acquire waits for the word that its claim is withdrawn, to be definite."""


class Acquiring:
    """The part of a protocol that acquires; the other part sends what it asks, and tells it what the service says."""

    _calls: Calls
    _leases: Leases

    def __init__(self) -> None:
        """Start with nobody waiting."""
        self._waiting: dict[int, Acquire] = {}
        self._acquires: dict[int, Acquire] = {}

    # --- what the other part does ------------------------------------------------------------------------------------

    def call(self, operation: Operation, on_done: Callable[[Any], None], deadline_ms: int | None) -> Call:
        """Begin a request."""
        raise NotImplementedError

    def release(self, lease: LeaseRecord, on_done: Callable[[Any], None], deadline_ms: int | None) -> None:
        """Give a lease back."""
        raise NotImplementedError

    def _begin(self, call: Call) -> None:
        raise NotImplementedError

    def _cancel(self, claim: int, on_done: Callable[[Any], None]) -> None:
        raise NotImplementedError

    def _give_back(self, token: int) -> None:
        raise NotImplementedError

    def _forget(self, call: Call) -> bool:
        raise NotImplementedError

    def _why(self, call: Call) -> str:
        raise NotImplementedError

    def _ponged(self, pong: Pong) -> None:
        raise NotImplementedError

    def _claim_answered(self) -> None:
        raise NotImplementedError

    # --- acquiring ---------------------------------------------------------------------------------------------------

    def acquire(
        self,
        operation: Claim,
        on_done: Callable[[Any], None],
        deadline_ms: int | None,
        terms: Terms = Terms(),  # noqa: B008 - it is frozen
        *,
        auto_renew: bool = True,
    ) -> Acquire:
        """Begin to acquire; `on_done` gets the LeaseRecord, a Denied, or an error."""
        if operation.wait_ms and operation.resources[0].mode == Mode.OBSERVE:
            # so that the end of its claim can only mean that it has seen what it came for
            operation = replace(operation, wait_ms=FOREVER)
        acquire = Acquire(operation, on_done, deadline_ms, terms if auto_renew else replace(terms, auto_renew=False))
        self._acquires[id(acquire)] = acquire
        self._calls.wake_by(deadline_ms)
        self._claim(acquire)
        return acquire

    def abandon(self, acquire: Acquire) -> None:
        """Nobody waits for this acquire any more: withdraw it, and release it if it was granted meanwhile."""
        if acquire.lease is not None:
            self.release(acquire.lease, _ignore, None)
        elif not acquire.finished:
            acquire.on_done = _ignore
            self._withdraw(acquire)

    def waiting(self, on_done: Callable[[Any], None], deadline_ms: int | None) -> None:
        """Have `on_done` get what stands in line here, in the order of its coming, and how many stand before it."""

        def look(claims: list[int]) -> None:
            asked = claims[: limits.CLAIMS_PER_PING_MAX]

            def done(result: Any) -> None:
                if not isinstance(result, Pong):
                    on_done(result)
                    return
                self._ponged(result)
                beyond = [claim for claim in sorted(self._waiting) if asked and claim > asked[-1]]
                if beyond:
                    look(beyond)
                else:
                    lines = [self._waiting[claim] for claim in sorted(self._waiting)]
                    on_done([Waiting.of(acquire) for acquire in lines if not acquire.observes])

            self.call(Ping(tuple(asked)), done, deadline_ms)

        look(sorted(self._waiting))

    def _claim(self, acquire: Acquire) -> None:
        acquire.claim = 0
        acquire.call = self.call(acquire.operation, lambda result: self._claimed(acquire, result), None)

    def _claimed(self, acquire: Acquire, result: Any) -> None:
        if isinstance(result, ClaimStatus):
            if result.phase == ClaimPhase.GONE:
                self._finish(acquire, result)  # of an observer: it has seen what it came for, or may not wait for it
            elif acquire.finished or acquire.withdrawing:
                self._withdraw_claim(acquire, result.claim)
            elif result.phase == ClaimPhase.HELD:
                self._granted(acquire, result)
            else:
                acquire.claim = result.claim
                acquire.waiters_ahead = result.waiters_ahead
                self._waiting[result.claim] = acquire
        elif acquire.ghost:
            self._finish(acquire, Unavailable(f"{_name(acquire)}: the session ended meanwhile", indefinite=True))
        else:
            self._finish(acquire, result)
        self._claim_answered()

    def _claim_status(self, status: ClaimStatus) -> None:
        acquire = self._waiting.get(status.claim)
        if acquire is None:
            return
        if status.phase == ClaimPhase.HELD:
            self._granted(acquire, status)
        elif status.phase == ClaimPhase.GONE:
            del self._waiting[status.claim]
            if acquire.observes and not acquire.withdrawing:
                # its session lives, and waits for it without end: nothing but this ends its claim, though the push that
                # said so may have been lost
                self._finish(acquire, replace(status, why=FREE))
            elif acquire.withdrawing or (acquire.deadline_ms is not None and self._calls.now_ms >= acquire.deadline_ms):
                self._finish(acquire, _timed_out(acquire, indefinite=False))
            else:
                self._claim(acquire)  # it went before its time: somebody removed it
        else:
            acquire.waiters_ahead = status.waiters_ahead

    def _ask_about(self, claim: int) -> None:
        """Ask for one claim, in addition to the pings that ask for those that wait in turns."""

        def done(result: Any) -> None:
            if isinstance(result, Pong):
                self._ponged(result)

        self._begin(Call(Ping((claim,)), done, None))

    def _granted(self, acquire: Acquire, status: ClaimStatus) -> None:
        self._waiting.pop(status.claim, None)
        if acquire.finished or acquire.withdrawing:
            self._withdraw_claim(acquire, status.claim)
            return
        lease = granted(acquire, status, self._calls.session)
        if self._calls.now_ms < self._leases.safe_until_ms(lease):
            self._leases.add(lease, acquire.terms.max_hold_ms, acquire.terms.progress_ms)
            acquire.lease = lease
            self._finish(acquire, lease)
        elif self._leases.expires_at_ms(lease) > self._calls.anchor.clock_ms:
            # It looks as if the news had come too late. But the anchor may be from before the lease clock stood still:
            # a push brings none, and the answer to a question one from when that was asked for the first time. A new
            # question may do better, and the place in the line need not be given up. This comes to an end: either an
            # answer comes within the time that is left, or the lease clock has gone by that much.
            acquire.claim, acquire.token = status.claim, status.token
            self._waiting[status.claim] = acquire
            self._ask_about(status.claim)
        else:
            # the news of the grant came too late to be of use: give it back and stand in line again
            self._leases.end(lease, LeaseState.LOST, "it expired before the news of it came", Loss.EXPIRED)
            acquire.ghost = True
            self._give_back(lease.token)
            self._claim(acquire)

    def _acquire_timed_out(self, acquire: Acquire) -> None:
        if acquire.withdrawing:
            self._finish(acquire, _timed_out(acquire, indefinite=True))
            return
        call = acquire.call
        assert call is not None
        if acquire.claim:
            acquire.deadline_ms = self._calls.now_ms + WITHDRAW_GRACE_MS
            self._calls.wake_by(acquire.deadline_ms)
        else:
            doubt = call.indefinite or acquire.ghost
            self._finish(acquire, Unavailable(f"{_name(acquire)}: {self._why(call)}", indefinite=doubt))
        self._withdraw(acquire)

    def _withdraw(self, acquire: Acquire) -> None:
        acquire.withdrawing = True
        if acquire.claim:
            self._withdraw_claim(acquire, acquire.claim)
        elif acquire.call is not None and not acquire.call.indefinite:
            self._forget(acquire.call)
            self._finish(acquire, _timed_out(acquire, indefinite=False))
        # otherwise the claim is withdrawn when its answer says under which number it stands

    def _withdraw_claim(self, acquire: Acquire, claim: int) -> None:
        def done(result: Any) -> None:
            self._waiting.pop(claim, None)
            if isinstance(result, Cancelled):
                self._finish(acquire, _timed_out(acquire, indefinite=False))

        self._waiting.pop(claim, None)
        self._cancel(claim, done)

    def _finish(self, acquire: Acquire, outcome: Any) -> None:
        self._acquires.pop(id(acquire), None)
        if not acquire.finished:
            acquire.finished = True
            acquire.on_done(outcome)


def _timed_out(acquire: Acquire, *, indefinite: bool) -> LessorError:
    if not acquire.operation.wait_ms:
        return Unavailable(f"{_name(acquire)}: the news of the grant did not come in time", indefinite=indefinite)
    return AcquireTimeout(f"{_name(acquire)} was not granted in time", indefinite=indefinite or acquire.ghost)


def _name(acquire: Acquire) -> str:
    return repr("/".join(acquire.operation.resources[0].path))


def _ignore(_: Any) -> None:
    """Take an outcome that nobody waits for."""
