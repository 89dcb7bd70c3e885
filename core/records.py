"""The records that the lease state is made of, as they are kept in the lease tables and in snapshots."""

from dataclasses import dataclass
from typing import Annotated, Final

from . import limits
from .ballot import NO_BALLOT, Ballot
from .commands import DEFAULT_NAMESPACE, Data, Description, Holder, Key, Namespace, NamespaceConfig, Reason, Resources
from .encoding import MaxItems, wire
from .resources import Name, Path
from .results import Result


@wire(120)
@dataclass(slots=True)
class StateHeader:
    """What is neither a session nor a claim: how far the log is applied, the lease clock, and the last numbers given.

    `base_ms` is the lease clock when the leader of `term` took over: its stamps are counted from there. Items are
    semaphores, pins, registers, created namespaces and lapsed leases.
    """

    applied_upto: int = 0
    clock_ms: int = 0
    base_ms: int = 0
    term: Ballot = NO_BALLOT
    last_token: int = 0
    last_claim: int = 0
    last_session: int = 0
    revision: int = 0
    last_item: int = 0


@wire(121)
@dataclass(frozen=True, slots=True)
class KeptReply:
    """An answer that is kept until the client acknowledges it, so that a retry finds it (P6)."""

    number: int
    result: Result


@wire(122)
@dataclass(slots=True)
class SessionRecord:
    """A client's session. `replies` is brought up to date when the record is read.

    Requests below `refused_below` were refused for want of room, or overtaken by one that was.
    """

    session: int
    key: Key
    timeout_ms: int
    description: Description
    expires_at_ms: int
    acked_below: int
    refused_below: int
    replies: Annotated[tuple[KeptReply, ...], MaxItems(limits.REPLIES_PER_SESSION_MAX)]
    namespace: Namespace = DEFAULT_NAMESPACE
    attach: int = 0


@wire(123)
@dataclass(slots=True)
class ClaimRecord:
    """A claim: waiting while its token is 0, granted after.

    `session` is 0 once it is owned by nobody but its ttl and its token. `ends_at_ms`, on the lease clock: of a granted
    claim when its ttl or its maximum hold runs out (0: it has neither), of a waiting one when its patience does (0:
    never). An observer keeps in `watermark` the last token that was given when it came.
    """

    claim: int
    namespace: Namespace
    resources: Resources
    holder: Holder
    data: Data
    session: int
    detached: bool
    ttl_ms: int
    since_ms: int
    token: int
    ends_at_ms: int
    max_hold_ms: int = 0
    hold_until_ms: int = 0
    chain: int = 0
    watermark: int = 0


@wire(124)
@dataclass(slots=True)
class LapsedRecord:
    """A lease that ended by itself or by an operator; it can be read for a while, and may keep its name closed."""

    number: int
    claim: int
    namespace: Namespace
    resources: Resources
    holder: Holder
    token: int
    since_ms: int
    ended_at_ms: int
    closed_until_ms: int
    why: Reason


@wire(125)
@dataclass(slots=True)
class SemaphoreRecord:
    """A semaphore that was created, and stays until it is deleted."""

    number: int
    namespace: Namespace
    path: Path
    limit: int
    data: Data


@wire(126)
@dataclass(slots=True)
class PinRecord:
    """A path whose leases do not expire, and who wants that."""

    number: int
    namespace: Namespace
    path: Path
    entities: Annotated[tuple[Name, ...], MaxItems(limits.PINS_PER_NAME_MAX)]


@wire(127)
@dataclass(slots=True)
class RegisterRecord:
    """A fenced register: what a holder wrote under his token."""

    number: int
    namespace: Namespace
    path: Path
    version: int
    token: int
    data: Data


@wire(128)
@dataclass(slots=True)
class NamespaceRecord:
    """A namespace that was created."""

    number: int
    name: Namespace
    config: NamespaceConfig


RECORD_KINDS: Final[dict[str, type]] = {
    "sessions": SessionRecord,
    "claims": ClaimRecord,
    "lapses": LapsedRecord,
    "semaphores": SemaphoreRecord,
    "pins": PinRecord,
    "registers": RegisterRecord,
    "namespaces": NamespaceRecord,
}
"""Every kind of record beside the header, by the name of its table, in the order in which a snapshot holds them."""
