"""What a client keeps of a lease that it holds, and of an acquire that is under way."""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..core.commands import Claim
from .calls import Call


class LeaseState(enum.Enum):
    """Where a lease stands, for its holder."""

    HELD = "held"
    LOST = "lost"
    RELEASED = "released"


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
    renew_at_ms: int = 0
    renewing: bool = False
    on_change: Callable[["LeaseRecord"], None] | None = None


@dataclass(slots=True, eq=False)
class Acquire:
    """An acquire under way. `on_done` gets a LeaseRecord, a Denied, or an error."""

    operation: Claim
    on_done: Callable[[Any], None]
    deadline_ms: int | None
    auto_renew: bool
    claim: int = 0  # once it stands in the queue
    call: Call | None = None
    waiters_ahead: int = 0
    finished: bool = False
    withdrawing: bool = False
    lease: LeaseRecord | None = None
    ghost: bool = False  # a session that ended may have left a grant behind, which lives until its ttl runs out
