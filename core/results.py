"""What a command is answered with."""

import enum
from dataclasses import dataclass
from typing import Annotated

from . import limits
from .commands import Holder, Namespace, Path
from .encoding import MaxBytes, MaxItems, wire


class ClaimPhase(enum.IntEnum):
    """Where a claim stands. A claim that ended is remembered by nobody, so GONE says nothing of the reason."""

    GONE = 0
    WAITING = 1
    HELD = 2


@wire(60)
@dataclass(frozen=True, slots=True)
class SessionOpened:
    """The session's number, and when on the lease clock it ends unless it is kept alive."""

    session: int
    expires_at_ms: int


@wire(61)
@dataclass(frozen=True, slots=True)
class SessionClosed:
    """The session has ended; so many grants were released."""

    released: int


@wire(62)
@dataclass(frozen=True, slots=True)
class ClaimStatus:
    """Where claim `claim` stands; `expires_at_ms` is on the lease clock."""

    claim: int
    phase: int
    token: int
    expires_at_ms: int
    waiters_ahead: int


@wire(63)
@dataclass(frozen=True, slots=True)
class Pong:
    """The session lives on until `expires_at_ms` at least; and this is the state of the claims asked for."""

    expires_at_ms: int
    claims: Annotated[tuple[ClaimStatus, ...], MaxItems(limits.CLAIMS_PER_PING_MAX)]


@wire(64)
@dataclass(frozen=True, slots=True)
class Denied:
    """Certainly not held: somebody else holds it, or stands in line for it (P9)."""

    holder: Holder
    token: int
    expires_at_ms: int


@wire(65)
@dataclass(frozen=True, slots=True)
class Cancelled:
    """The claim is gone; `was` is the phase in which it was found."""

    was: int


@wire(66)
@dataclass(frozen=True, slots=True)
class Renewed:
    """The grant lasts until `expires_at_ms` on the lease clock at least."""

    expires_at_ms: int


@wire(67)
@dataclass(frozen=True, slots=True)
class NotHeld:
    """No grant with this token is held: it was released, has expired, or never was."""


@wire(68)
@dataclass(frozen=True, slots=True)
class Released:
    """The grant of this token was held until now, and is no more."""


@wire(69)
@dataclass(frozen=True, slots=True)
class Failed:
    """The command had no effect, for the reason `code` (one of `FAILURES`)."""

    code: Annotated[str, MaxBytes(64)]
    detail: Annotated[str, MaxBytes(1024)]


@wire(70)
@dataclass(frozen=True, slots=True)
class ClaimInfo:
    """All that is known of one claim, for people and tools."""

    claim: int
    namespace: Namespace
    path: Path
    phase: int
    holder: Holder
    session: int
    token: int
    ttl_ms: int
    since_ms: int
    expires_at_ms: int
    detached: bool
    data: Annotated[bytes, MaxBytes(limits.DATA_BYTES_MAX)]


@wire(71)
@dataclass(frozen=True, slots=True)
class ClaimPage:
    """Claims in order. Others may follow after claim `upto`, if it is not 0; a page may also have none at all then.

    `waiting` counts those that wait: in the whole queue that was described, or in this page of a listing.
    """

    claims: Annotated[tuple[ClaimInfo, ...], MaxItems(limits.LIST_PAGE_MAX)]
    waiting: int
    upto: int


SESSION_EXPIRED = "session_expired"
STALE_NUMBER = "stale_number"
TOO_MANY = "too_many"
NO_TTL = "no_ttl"

FAILURES = {
    SESSION_EXPIRED: "the session has ended, or never was",
    STALE_NUMBER: "the answer to this request was acknowledged long ago",
    TOO_MANY: "a limit of the service is reached",
    NO_TTL: "the lease has no ttl: it lives as long as its session",
}

Result = (
    SessionOpened
    | SessionClosed
    | ClaimStatus
    | Pong
    | Denied
    | Cancelled
    | Renewed
    | NotHeld
    | Released
    | Failed
    | ClaimPage
)
