"""What a client keeps of a lease that it holds, and of an acquire that is under way."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..core.commands import Claim
from ..core.resources import Mode, Resource
from ..core.results import ClaimStatus
from .calls import Call
from .states import LeaseState, Loss

__all__ = ["Acquire", "LeaseRecord", "LeaseState", "Terms", "granted"]


@dataclass(frozen=True, slots=True)
class Terms:
    """How a lease is kept alive: renewed in the background or not, how long at most, and while its work goes on.

    0 stands for without end.
    """

    auto_renew: bool = True
    max_hold_ms: int = 0
    progress_ms: int = 0


@dataclass(slots=True, eq=False)
class LeaseRecord:
    """A lease of this client. `expires_at_ms` is on the lease clock; without ttl the session's counts."""

    namespace: str
    path: tuple[str, ...]
    holder: str
    data: bytes
    claim: int
    token: int
    ttl_ms: int
    expires_at_ms: int
    auto_renew: bool
    detached: bool
    session: int
    state: LeaseState = LeaseState.HELD
    reason: str = ""
    loss: Loss | None = None
    renew_at_ms: int = 0
    renewing: bool = False
    renewed_ms: int = 0
    lateness_ms: int = 0
    hold_until_ms: int = 0
    bound_ms: int = 0  # on the lease clock: when the service ends it, however it is renewed (0: it does not)
    progress_ms: int = 0
    progress_at_ms: int = 0
    kept_until: Callable[[int], int] | None = None  # of the own deadline and that of a keeper, the later
    on_change: Callable[["LeaseRecord"], None] | None = None

    resources: tuple[Resource, ...] = ()
    laid_down: int = 0  # so many requests of this client are under way that may end it
    vanished: bool = False  # the service has said meanwhile that it is not held

    @property
    def over(self) -> bool:
        """Whether it has been lost or released."""
        return self.state is LeaseState.LOST or self.state is LeaseState.RELEASED


@dataclass(slots=True, eq=False)
class Acquire:
    """An acquire under way. `on_done` gets a LeaseRecord, a Denied, or an error."""

    operation: Claim
    on_done: Callable[[Any], None]
    deadline_ms: int | None
    terms: Terms
    claim: int = 0  # once it stands in the queue
    call: Call | None = None
    waiters_ahead: int = 0
    finished: bool = False
    withdrawing: bool = False
    lease: LeaseRecord | None = None
    token: int = 0  # of a grant of which it is not known yet whether the news came in time
    ghost: bool = False  # a session that ended may have left a grant behind, which lives until its ttl runs out

    @property
    def observes(self) -> bool:
        """Whether it only waits for others to let go."""
        return self.operation.resources[0].mode == Mode.OBSERVE


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a client stands in line for. `waiters_ahead`: so many claims that wait came before it, on any of its paths.

    Those who hold are not among them. Where a client waits for much, in long lines, not all of it is counted: 1000
    stands for as many or more, and for what was not counted.
    """

    name: str
    path: tuple[str, ...]
    resources: tuple[Resource, ...]
    holder: str
    waiters_ahead: int

    @classmethod
    def of(cls, acquire: Acquire) -> "Waiting":
        """Return it as users see it."""
        claim = acquire.operation
        path = claim.resources[0].path
        return cls("/".join(path), path, claim.resources, claim.holder, acquire.waiters_ahead)

    @property
    def position(self) -> int:
        """Its place in line: 1 for the next one."""
        return self.waiters_ahead + 1


def granted(acquire: Acquire, status: ClaimStatus, session: int) -> LeaseRecord:
    """Return the record of a lease from the news of its grant."""
    claim = acquire.operation
    return LeaseRecord(
        namespace=claim.namespace,
        path=claim.resources[0].path,
        resources=claim.resources,
        holder=claim.holder,
        data=claim.data,
        claim=status.claim,
        token=status.token,
        ttl_ms=status.ttl_ms,  # the namespace may have one for those who ask for none
        bound_ms=status.hold_until_ms,
        expires_at_ms=status.expires_at_ms,
        auto_renew=acquire.terms.auto_renew,
        detached=claim.detached,
        session=session,
    )
