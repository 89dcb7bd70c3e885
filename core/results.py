"""What a command is answered with."""

import enum
from dataclasses import dataclass
from typing import Annotated, Final

from . import limits
from .commands import Data, Description, Holder, Namespace, NamespaceConfig, Reason, Resources
from .encoding import MaxBytes, MaxItems, wire
from .events import Event
from .resources import Name, Path


class ClaimPhase(enum.IntEnum):
    """Where a claim stands."""

    GONE = 0
    WAITING = 1
    HELD = 2


@wire(61)
@dataclass(frozen=True, slots=True)
class SessionClosed:
    """The session has ended; so many grants were released."""

    released: int


@wire(62)
@dataclass(frozen=True, slots=True)
class ClaimStatus:
    """Where claim `claim` stands; times are on the lease clock, and `hold_until_ms` 0 says that no renewal is bounded.

    `why` says of one that is GONE how it ended, for as long as that is remembered.
    """

    claim: int
    phase: int
    token: int
    expires_at_ms: int
    waiters_ahead: int
    ttl_ms: int = 0
    hold_until_ms: int = 0
    why: Reason = ""


@wire(63)
@dataclass(frozen=True, slots=True)
class Pong:
    """The session lives on until `expires_at_ms` at least; and this is the state of the claims asked for."""

    expires_at_ms: int
    claims: Annotated[tuple[ClaimStatus, ...], MaxItems(limits.CLAIMS_PER_PING_MAX)]


@wire(64)
@dataclass(frozen=True, slots=True)
class Denied:
    """Certainly not held: somebody else holds it, or stands in line for it (P9).

    Without a holder nobody can be named, and `why` says what is in the way; a name that is closed opens at
    `expires_at_ms`.
    """

    holder: Holder
    token: int
    expires_at_ms: int
    why: Annotated[str, MaxBytes(limits.DETAIL_BYTES_MAX)] = ""


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


def shortened(text: str) -> str:
    """Return as much of a text as an answer has room for: it may name a path, which can be longer.

    An answer that could be written and not be read would stop whoever reads it, from a snapshot or from the disk.
    """
    whole = text.encode()
    most = limits.DETAIL_BYTES_MAX
    return text if len(whole) <= most else whole[: most - len("…".encode())].decode(errors="ignore") + "…"


@wire(69)
@dataclass(frozen=True, slots=True)
class Failed:
    """The command had no effect, for the reason `code` (one of `FAILURES`)."""

    code: Annotated[str, MaxBytes(64)]
    detail: Annotated[str, MaxBytes(limits.DETAIL_BYTES_MAX)]


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
    data: Data
    resources: Resources = ()
    hold_until_ms: int = 0


@wire(60)
@dataclass(frozen=True, slots=True)
class SessionOpened:
    """The session's number, and when on the lease clock it ends unless it is kept alive.

    Who attached it gets its claims with that: the first page of them, as `ClaimPage` has it. No answer to this is kept:
    a repetition tells of the claims as they are then.
    """

    session: int
    expires_at_ms: int
    attach: int = 0
    claims: Annotated[tuple[ClaimInfo, ...], MaxItems(limits.LIST_PAGE_MAX)] = ()
    upto: int = 0


@wire(131)
@dataclass(frozen=True, slots=True)
class Lapsed:
    """A lease that ended otherwise than by its holder, of late; its name is closed until `closed_until_ms`."""

    claim: int
    holder: Holder
    token: int
    since_ms: int
    ended_at_ms: int
    closed_until_ms: int
    why: Reason


@wire(132)
@dataclass(frozen=True, slots=True)
class About:
    """What is known of a path beside its claims.

    `limit` 0: no semaphore. `units` are held by counting and reading claims of this very path. `version` 0: it has no
    register.
    """

    limit: int
    ephemeral: bool
    units: int
    data: Data
    version: int
    pins: Annotated[tuple[Name, ...], MaxItems(limits.PINS_PER_NAME_MAX)]
    lapsed: Annotated[tuple[Lapsed, ...], MaxItems(1)]


@wire(71)
@dataclass(frozen=True, slots=True)
class ClaimPage:
    """Claims in order. Others may follow after claim `upto`, if it is not 0; a page may also have none at all then.

    `waiting` counts those that wait: in the whole queue that was described, or in this page of a listing. `revision` is
    that of the last event before this was read; `about` is there when a resource was described.
    """

    claims: Annotated[tuple[ClaimInfo, ...], MaxItems(limits.LIST_PAGE_MAX)]
    waiting: int
    upto: int
    revision: int = 0
    about: Annotated[tuple[About, ...], MaxItems(1)] = ()


@wire(133)
@dataclass(frozen=True, slots=True)
class KeptAlive:
    """Until when each of the sessions lives that a `KeepAlive` named; 0: it has ended, 1: it was stolen."""

    expires_at_ms: Annotated[tuple[int, ...], MaxItems(limits.PINGS_FOLDED_MAX)]


@wire(134)
@dataclass(frozen=True, slots=True)
class Done:
    """Carried out; `changed` tells whether that made any difference."""

    changed: bool


@wire(135)
@dataclass(frozen=True, slots=True)
class ChainLink:
    """One link of a circle: this holder holds the grant of `token` on `path`, and waits for what the next one holds."""

    holder: Holder
    namespace: Namespace
    path: Path
    token: int


@wire(136)
@dataclass(frozen=True, slots=True)
class DeadlockDetected:
    """Not queued: the wait would never have ended, since those in the circle all wait for each other.

    The last link is the one who asked. Of a circle too large to tell, so many links before the first are `left_out`.
    """

    circle: Annotated[tuple[ChainLink, ...], MaxItems(limits.CIRCLE_LINKS_MAX)]
    left_out: int = 0


@wire(137)
@dataclass(frozen=True, slots=True)
class Register:
    """What a register holds: `version` 0 is none. `token` is that of the grant under which it was written.

    The version is the revision of the write: it grows with each, and is never that of an earlier register of this name.
    """

    version: int
    token: int
    data: Data


@wire(138)
@dataclass(frozen=True, slots=True)
class VersionDiffers:
    """Not written: the register has another version, this one."""

    version: int


@wire(139)
@dataclass(frozen=True, slots=True)
class Valid:
    """The grant is held, and here is all that is known of it."""

    claim: ClaimInfo


@wire(140)
@dataclass(frozen=True, slots=True)
class NamespaceInfo:
    """A namespace: its config, whether it was created or is merely used, and how much is in it."""

    number: int
    name: Namespace
    created: bool
    config: NamespaceConfig
    claims: int
    sessions: int


@wire(141)
@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session, for operators."""

    number: int
    namespace: Namespace
    description: Description
    timeout_ms: int
    expires_at_ms: int
    attach: int
    held: int
    waiting: int


@wire(142)
@dataclass(frozen=True, slots=True)
class SemaphoreInfo:
    """A semaphore that was created; how many units are held, and how many claims wait for some."""

    number: int
    namespace: Namespace
    path: Path
    limit: int
    units: int
    waiting: int
    data: Data


@wire(143)
@dataclass(frozen=True, slots=True)
class PinInfo:
    """A path that is pinned, and by whom."""

    number: int
    namespace: Namespace
    path: Path
    entities: Annotated[tuple[Name, ...], MaxItems(limits.PINS_PER_NAME_MAX)]


@wire(144)
@dataclass(frozen=True, slots=True)
class RegisterInfo:
    """A register, without its data."""

    number: int
    namespace: Namespace
    path: Path
    version: int
    token: int


Listed = NamespaceInfo | SessionInfo | SemaphoreInfo | PinInfo | RegisterInfo
LISTED: Final = ("namespaces", "sessions", "semaphores", "pins", "registers")
"""What `ListRecords` lists."""


@wire(145)
@dataclass(frozen=True, slots=True)
class RecordPage:
    """Records in the order of their numbers; others may follow after number `upto`, if it is not 0, even after none."""

    records: Annotated[tuple[Listed, ...], MaxItems(limits.LIST_PAGE_MAX)]
    upto: int


@wire(146)
@dataclass(frozen=True, slots=True)
class EventPage:
    """Events after the revision that was asked for. What concerns the path up to revision `upto` has been told.

    `missed_upto`: events up to this one are not kept any more, so that some may not be told (0: none is missing).
    """

    events: Annotated[tuple[Event, ...], MaxItems(limits.EVENT_PAGE_MAX)]
    upto: int
    missed_upto: int


FREE: Final = "it is free"
"""Why the claim of an observer is gone when it has seen what it came for."""

HELD_LONG: Final = "it was held for as long as it may be"
"""Why a grant has expired that was renewed."""

OVERDUE: Final = "it was overdue, and its last pin is gone"
"""Why a grant has expired that was kept by a pin alone."""

TAKEN_OVER: Final = "it was taken over"
"""How the reason begins why a grant is gone that another session has adopted."""

SESSION_EXPIRED = "session_expired"
SESSION_STOLEN = "session_stolen"
WRONG_KEY = "wrong_key"
OUT_OF_SEQUENCE = "out_of_sequence"
STALE_NUMBER = "stale_number"
TOO_MANY = "too_many"
NO_TTL = "no_ttl"
TTL_TOO_LONG = "ttl_too_long"
NO_SUCH_NAMESPACE = "no_such_namespace"
NAMESPACE_EXISTS = "namespace_exists"
NAMESPACE_IN_USE = "namespace_in_use"
BAD_CONFIG = "bad_config"
NO_SUCH_SEMAPHORE = "no_such_semaphore"
SEMAPHORE_EXISTS = "semaphore_exists"
SEMAPHORE_IN_USE = "semaphore_in_use"
LIMIT_DIFFERS = "limit_differs"
COUNT_TOO_LARGE = "count_too_large"
CANNOT_GROW = "cannot_grow"
NOT_COVERED = "not_covered"

FAILURES = {
    SESSION_EXPIRED: "the session has ended, or never was",
    SESSION_STOLEN: "the session was taken over by another client",
    WRONG_KEY: "the session was opened with another key",
    OUT_OF_SEQUENCE: "the session was attached later than this attachment",
    STALE_NUMBER: "the answer to this request was acknowledged long ago",
    TOO_MANY: "a limit of the service is reached",
    NO_TTL: "the lease has no ttl: it lives as long as its session",
    TTL_TOO_LONG: "the namespace allows no ttl as long as this",
    NO_SUCH_NAMESPACE: "there is no such namespace, and this service makes none by its being used",
    NAMESPACE_EXISTS: "the namespace was created before",
    NAMESPACE_IN_USE: "the namespace is in use",
    BAD_CONFIG: "the settings of the namespace would contradict each other",
    NO_SUCH_SEMAPHORE: "there is no such semaphore",
    SEMAPHORE_EXISTS: "the semaphore was created before",
    SEMAPHORE_IN_USE: "the semaphore is held or waited for, or claims without a semaphore stand there",
    LIMIT_DIFFERS: "the semaphore has another limit, or was created",
    COUNT_TOO_LARGE: "the semaphore has fewer units than this: it would never be granted",
    CANNOT_GROW: "a claim can be made smaller, never larger",
    NOT_COVERED: "the grant does not cover this path with a claim to write",
}

_Outcome = (
    Released
    | Renewed
    | NotHeld
    | Done
    | Register
    | VersionDiffers
    | Failed
)  # fmt: skip


@wire(147)
@dataclass(frozen=True, slots=True)
class Transacted:
    """Every check held, and every step was carried out; here are their results, in order."""

    results: Annotated[tuple[_Outcome, ...], MaxItems(limits.TRANSACTION_ITEMS_MAX)]


@wire(148)
@dataclass(frozen=True, slots=True)
class Declined:
    """Nothing was carried out: this check did not hold, or this step was not possible; counted from 0."""

    part: Annotated[str, MaxBytes(8)]
    index: int
    reason: Annotated[str, MaxBytes(limits.DETAIL_BYTES_MAX)]


Result = (
    SessionOpened
    | SessionClosed
    | ClaimStatus
    | Pong
    | KeptAlive
    | Denied
    | DeadlockDetected
    | Cancelled
    | Renewed
    | NotHeld
    | Released
    | Failed
    | Done
    | Register
    | VersionDiffers
    | Transacted
    | Declined
    | Valid
    | ClaimPage
    | NamespaceInfo
    | RecordPage
    | EventPage
)
