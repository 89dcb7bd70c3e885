"""The commands that clients may have chosen into the log."""

from dataclasses import dataclass
from typing import Annotated, Final

from . import limits
from .encoding import INT_MAX, MaxBytes, MaxItems, wire
from .resources import Name, Path, Resource

Namespace = Annotated[str, MaxBytes(limits.NAMESPACE_BYTES_MAX)]
Holder = Annotated[str, MaxBytes(limits.HOLDER_BYTES_MAX)]
Data = Annotated[bytes, MaxBytes(limits.DATA_BYTES_MAX)]
Key = Annotated[bytes, MaxBytes(limits.SESSION_KEY_BYTES)]
Description = Annotated[str, MaxBytes(limits.DESCRIPTION_BYTES_MAX)]
Reason = Annotated[str, MaxBytes(limits.DESCRIPTION_BYTES_MAX)]
Resources = Annotated[tuple[Resource, ...], MaxItems(limits.RESOURCES_PER_CLAIM_MAX)]

FOREVER: Final = INT_MAX
"""A wait without end, as the value of `wait_ms`."""
KEEP: Final = INT_MAX - 1
"""As the value of a field that is to stay as it is."""
ANY_VERSION: Final = INT_MAX
"""A register is written whatever its version is."""
DEFAULT_NAMESPACE: Final = "default"

ATTACH_STEP: Final = 2**40
"""The requests of a session that was attached n times are numbered from n times this on: so whoever had it before can
be told by the numbers of his requests."""
PING_NUMBERS: Final = 4
"""Numbers of one ping in a `KeepAlive`."""


def proof_of(key: bytes) -> int:
    """Return what shows that a request comes from whoever is attached: as much of the session's key as fits a number.

    The numbers of sessions and of requests can be guessed, and are shown to everybody; these 63 bits are not.
    """
    return int.from_bytes(key[:8], "big") >> 1


# --- sessions --------------------------------------------------------------------------------------------------------


@wire(40)
@dataclass(frozen=True, slots=True)
class OpenSession:
    """Open the session of the client that drew `key`; a repetition answers with the same session."""

    key: Key
    timeout_ms: int
    description: Description
    namespace: Namespace = DEFAULT_NAMESPACE


@wire(51)
@dataclass(frozen=True, slots=True)
class AttachSession:
    """Take the session over, for its `attach`-th time, with the key that it was opened with (YDB).

    Whoever had it before is told that it was stolen: his requests bear smaller numbers. A repetition answers the same.
    `new_key` (empty: the old one goes on) is its key from now on: of two clients that use one ticket, the second is
    refused, and is not taken for a repetition of the first.
    """

    session: int
    key: Key
    attach: int
    timeout_ms: int
    description: Description
    new_key: Key = b""


@wire(41)
@dataclass(frozen=True, slots=True)
class CloseSession:
    """End the session; what it holds is released and what it waits for is withdrawn, at once."""


@wire(167)
@dataclass(frozen=True, slots=True)
class EndSession:
    """End the session of this number, as an operator; without effect if it has ended. No number is given twice."""

    session: int


@wire(42)
@dataclass(frozen=True, slots=True)
class Ping:
    """Keep the session alive; answered with the state of these claims, since a push may have been lost."""

    claims: Annotated[tuple[int, ...], MaxItems(limits.CLAIMS_PER_PING_MAX)]


@wire(52)
@dataclass(frozen=True, slots=True)
class KeepAlive:
    """Many pings as one command, made by the gateway: session, number, `acked_below` and proof of each in turn."""

    pings: Annotated[tuple[int, ...], MaxItems(PING_NUMBERS * limits.PINGS_FOLDED_MAX)]


# --- claims ----------------------------------------------------------------------------------------------------------


@wire(44)
@dataclass(frozen=True, slots=True)
class Claim:
    """Ask for the resources, all at once: granted when nothing conflicting stands before it in any queue.

    `ttl_ms` 0: lives as long as its session. `wait_ms` 0: now or not at all. `detached`: not owned by the session.
    `max_hold_ms` 0: no bound. `chain`: which flow of control of the session asks, and stands still until it is granted
    (0: none does, so that it takes part in no deadlock).
    """

    namespace: Namespace
    resources: Resources
    holder: Holder
    data: Data
    ttl_ms: int
    wait_ms: int
    detached: bool
    max_hold_ms: int = 0
    chain: int = 0


@wire(45)
@dataclass(frozen=True, slots=True)
class Cancel:
    """Withdraw a claim, whether it still waits or was granted meanwhile."""

    claim: int


@wire(53)
@dataclass(frozen=True, slots=True)
class Amend:
    """Change a claim in its place: fewer units, from writing to reading, other data, another patience; never more.

    `count` KEEP: as it is. `wait_ms` counts anew for one that waits (KEEP: goes on, 0: now or never).
    """

    claim: int
    count: int = KEEP
    to_read: bool = False
    wait_ms: int = KEEP
    new_data: bool = False
    data: Data = b""


@wire(46)
@dataclass(frozen=True, slots=True)
class Renew:
    """Let the grant of `token` last until `ttl_ms` from now at least (0: its own ttl); never shortens."""

    token: int
    ttl_ms: int


@wire(47)
@dataclass(frozen=True, slots=True)
class Release:
    """Give back the grant of `token`: this grant and no other, whoever may hold the name by then (P6)."""

    token: int


@wire(54)
@dataclass(frozen=True, slots=True)
class Break:
    """An operator ends the grant of `token`; its holder is told the reason."""

    token: int
    reason: Reason


@wire(55)
@dataclass(frozen=True, slots=True)
class Adopt:
    """Make the grant of `token` this session's own; whoever had it is told."""

    token: int


# --- semaphores and pins ---------------------------------------------------------------------------------------------


@wire(56)
@dataclass(frozen=True, slots=True)
class CreateSemaphore:
    """Make a semaphore of `limit` units that stays until it is deleted."""

    namespace: Namespace
    path: Path
    limit: int
    data: Data


@wire(57)
@dataclass(frozen=True, slots=True)
class UpdateSemaphore:
    """Replace the data of a semaphore."""

    namespace: Namespace
    path: Path
    data: Data


@wire(58)
@dataclass(frozen=True, slots=True)
class DeleteSemaphore:
    """Remove a semaphore; with `force` also while it is held or waited for: holders and waiters are told."""

    namespace: Namespace
    path: Path
    force: bool


@wire(59)
@dataclass(frozen=True, slots=True)
class Pin:
    """Have no lease on this path expire while `entity` pins it, whoever holds it, now or later (Juju)."""

    namespace: Namespace
    path: Path
    entity: Name


@wire(150)
@dataclass(frozen=True, slots=True)
class Unpin:
    """Take the pin of `entity` away; a lease that is overdue ends at once."""

    namespace: Namespace
    path: Path
    entity: Name


# --- namespaces ------------------------------------------------------------------------------------------------------


@wire(151)
@dataclass(frozen=True, slots=True)
class NamespaceConfig:
    """How the claims of a namespace are treated. 0 stands for no such rule; KEEP, in a change, for what it was."""

    default_ttl_ms: int = 0
    ttl_max_ms: int = 0
    session_grace_ms: int = 0
    lock_delay_ms: int = 0
    claims_max: int = 0


@wire(152)
@dataclass(frozen=True, slots=True)
class CreateNamespace:
    """Make a namespace with a config of its own."""

    name: Namespace
    config: NamespaceConfig


@wire(153)
@dataclass(frozen=True, slots=True)
class AlterNamespace:
    """Change the config of a namespace."""

    name: Namespace
    config: NamespaceConfig


@wire(154)
@dataclass(frozen=True, slots=True)
class DropNamespace:
    """Remove a namespace; with `force` also what is in it."""

    name: Namespace
    force: bool


# --- registers and transactions --------------------------------------------------------------------------------------


@wire(155)
@dataclass(frozen=True, slots=True)
class PutRegister:
    """Write the register of a path, if the grant of `token` covers it and it has this version (0: there is none)."""

    namespace: Namespace
    path: Path
    token: int
    version: int
    data: Data


@wire(156)
@dataclass(frozen=True, slots=True)
class EraseRegister:
    """Remove the register of a path, on the conditions of `PutRegister`."""

    namespace: Namespace
    path: Path
    token: int
    version: int


@wire(157)
@dataclass(frozen=True, slots=True)
class HeldBy:
    """Check that a holder of this name holds the path (Juju's trapdoor: *only if X still holds Y*)."""

    namespace: Namespace
    path: Path
    holder: Holder


@wire(158)
@dataclass(frozen=True, slots=True)
class TokenHeld:
    """Check that the grant of this token is held."""

    token: int


@wire(159)
@dataclass(frozen=True, slots=True)
class Unheld:
    """Check that nobody holds the path, a part of it, or what it is a part of."""

    namespace: Namespace
    path: Path


@wire(160)
@dataclass(frozen=True, slots=True)
class RegisterIs:
    """Check that the register has this version (0: there is none)."""

    namespace: Namespace
    path: Path
    version: int


Check = HeldBy | TokenHeld | Unheld | RegisterIs
Step = PutRegister | EraseRegister | Release | Renew | Pin | Unpin | UpdateSemaphore


@wire(161)
@dataclass(frozen=True, slots=True)
class Transact:
    """Carry out the steps if every check holds and every step can be carried out; otherwise do nothing at all.

    All are looked at before the first is carried out, so no two steps may touch the same thing (as in etcd).
    """

    checks: Annotated[tuple[Check, ...], MaxItems(limits.TRANSACTION_ITEMS_MAX)]
    steps: Annotated[tuple[Step, ...], MaxItems(limits.TRANSACTION_ITEMS_MAX)]


# --- looking ---------------------------------------------------------------------------------------------------------


@wire(48)
@dataclass(frozen=True, slots=True)
class Describe:
    """Who holds the resource or overlaps it, who waits, and all that is known of it; read in the order of the log."""

    namespace: Namespace
    path: Path


@wire(49)
@dataclass(frozen=True, slots=True)
class ListClaims:
    """A page of the claims of a namespace ("" for all), in the order of their numbers, after claim `after`."""

    namespace: Namespace
    after: int
    limit: int


@wire(162)
@dataclass(frozen=True, slots=True)
class Validate:
    """Whether the grant of `token` is held (Chubby's CheckSequencer)."""

    token: int


@wire(163)
@dataclass(frozen=True, slots=True)
class GetRegister:
    """What the register of a path holds."""

    namespace: Namespace
    path: Path


@wire(164)
@dataclass(frozen=True, slots=True)
class DescribeNamespace:
    """The config of a namespace, and how much is in it."""

    name: Namespace


@wire(165)
@dataclass(frozen=True, slots=True)
class ListRecords:
    """A page of the records of one kind (`results.LISTED`) in a namespace ("" for all), after number `after`."""

    kind: Annotated[str, MaxBytes(32)]
    namespace: Namespace
    after: int
    limit: int


@wire(166)
@dataclass(frozen=True, slots=True)
class ReadEvents:
    """A page of the events after revision `after` that concern a path, or with `below` also what lies under it.

    "" as namespace: all events.
    """

    namespace: Namespace
    path: Path
    below: bool
    after: int
    limit: int


Look = Describe | ListClaims | Validate | GetRegister | DescribeNamespace | ListRecords | ReadEvents
Operation = (
    OpenSession
    | AttachSession
    | CloseSession
    | EndSession
    | Ping
    | KeepAlive
    | Claim
    | Cancel
    | Amend
    | Renew
    | Release
    | Break
    | Adopt
    | CreateSemaphore
    | UpdateSemaphore
    | DeleteSemaphore
    | Pin
    | Unpin
    | CreateNamespace
    | AlterNamespace
    | DropNamespace
    | PutRegister
    | EraseRegister
    | Transact
    | Describe
    | ListClaims
    | Validate
    | GetRegister
    | DescribeNamespace
    | ListRecords
    | ReadEvents
)
LOOKS: Final = (Describe, ListClaims, Validate, GetRegister, DescribeNamespace, ListRecords, ReadEvents)
"""Operations that change nothing."""
REPEATABLE: Final = (OpenSession, AttachSession, CloseSession, EndSession, Ping, KeepAlive, *LOOKS)
"""Operations that may run twice without harm, so that no answer of theirs is kept for retries."""
SESSIONLESS: Final = (OpenSession, AttachSession, EndSession, KeepAlive, *LOOKS)
"""Operations that need no session."""


@wire(50)
@dataclass(frozen=True, slots=True)
class Command:
    """An operation in the log: by whose session, under which number (retries carry the same), answered to which tag.

    The session has seen the answers to all its numbers below `acked_below`. The tag is meaningful only to the gateway
    of the leader that proposed the command. `strict`: a namespace is not made by being used. `proof`: see `proof_of`.
    """

    tag: int
    session: int
    number: int
    acked_below: int
    operation: Operation
    strict: bool = False
    proof: int = 0
