"""The records that the lease state is made of, as they are kept in the lease tables and in snapshots."""

from dataclasses import dataclass
from typing import Annotated

from . import limits
from .ballot import NO_BALLOT, Ballot
from .commands import Holder, Namespace, Resource
from .encoding import MaxBytes, MaxItems, wire
from .results import Result


@wire(120)
@dataclass(slots=True)
class StateHeader:
    """What is neither a session nor a claim: how far the log is applied, the lease clock, and the last numbers given.

    `base_ms` is the lease clock when the leader of `term` took over: its stamps are counted from there.
    """

    applied_upto: int = 0
    clock_ms: int = 0
    base_ms: int = 0
    term: Ballot = NO_BALLOT
    last_token: int = 0
    last_claim: int = 0
    last_session: int = 0
    revision: int = 0


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
    key: Annotated[bytes, MaxBytes(limits.SESSION_KEY_BYTES)]
    timeout_ms: int
    description: Annotated[str, MaxBytes(limits.DESCRIPTION_BYTES_MAX)]
    expires_at_ms: int
    acked_below: int
    refused_below: int
    replies: Annotated[tuple[KeptReply, ...], MaxItems(limits.REPLIES_PER_SESSION_MAX)]


@wire(123)
@dataclass(slots=True)
class ClaimRecord:
    """A claim: waiting while its token is 0, granted after.

    `session` is 0 once it is owned by nobody but its ttl and its token. `ends_at_ms`, on the lease clock: of a granted
    claim when its ttl runs out (0: it has none), of a waiting one when its patience does (0: never).
    """

    claim: int
    namespace: Namespace
    resources: Annotated[tuple[Resource, ...], MaxItems(1)]
    holder: Holder
    data: Annotated[bytes, MaxBytes(limits.DATA_BYTES_MAX)]
    session: int
    detached: bool
    ttl_ms: int
    since_ms: int
    token: int
    ends_at_ms: int
