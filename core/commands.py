"""The commands that clients may have chosen into the log, and the check that none of them is wrong in itself."""

from dataclasses import dataclass
from typing import Annotated, Final

from . import limits
from .encoding import INT_MAX, MaxBytes, MaxItems, wire
from .errors import BadRequest

Name = Annotated[str, MaxBytes(limits.NAME_BYTES_MAX)]
Namespace = Annotated[str, MaxBytes(limits.NAMESPACE_BYTES_MAX)]
Holder = Annotated[str, MaxBytes(limits.HOLDER_BYTES_MAX)]
Path = Annotated[tuple[Name, ...], MaxItems(32)]

FOREVER: Final = INT_MAX
"""A wait without end, as the value of `wait_ms`."""


@wire(40)
@dataclass(frozen=True, slots=True)
class OpenSession:
    """Open the session of the client that drew `key`; a repetition answers with the same session."""

    key: Annotated[bytes, MaxBytes(limits.SESSION_KEY_BYTES)]
    timeout_ms: int
    description: Annotated[str, MaxBytes(limits.DESCRIPTION_BYTES_MAX)]


@wire(41)
@dataclass(frozen=True, slots=True)
class CloseSession:
    """End the session; what it holds is released and what it waits for is withdrawn, at once."""


@wire(42)
@dataclass(frozen=True, slots=True)
class Ping:
    """Keep the session alive; answered with the state of these claims, since a push may have been lost."""

    claims: Annotated[tuple[int, ...], MaxItems(limits.CLAIMS_PER_PING_MAX)]


@wire(43)
@dataclass(frozen=True, slots=True)
class Resource:
    """What a claim asks for: a path of segments in the claim's namespace. A plain name is a path of one segment."""

    path: Path


@wire(44)
@dataclass(frozen=True, slots=True)
class Claim:
    """Ask for the resources, all at once: granted when nothing conflicting stands before it in any queue.

    `ttl_ms` 0: lives as long as its session. `wait_ms` 0: now or not at all. `detached`: not owned by the session.
    """

    namespace: Namespace
    resources: Annotated[tuple[Resource, ...], MaxItems(1)]
    holder: Holder
    data: Annotated[bytes, MaxBytes(limits.DATA_BYTES_MAX)]
    ttl_ms: int
    wait_ms: int
    detached: bool


@wire(45)
@dataclass(frozen=True, slots=True)
class Cancel:
    """Withdraw a claim, whether it still waits or was granted meanwhile."""

    claim: int


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


@wire(48)
@dataclass(frozen=True, slots=True)
class Describe:
    """Who holds the resource, and who waits for it; read in the order of the log."""

    namespace: Namespace
    path: Path


@wire(49)
@dataclass(frozen=True, slots=True)
class ListClaims:
    """A page of the claims of a namespace ("" for all), in the order of their numbers, after claim `after`."""

    namespace: Namespace
    after: int
    limit: int


Operation = OpenSession | CloseSession | Ping | Claim | Cancel | Renew | Release | Describe | ListClaims
REPEATABLE = (OpenSession, CloseSession, Ping, Describe, ListClaims)
"""Operations that may run twice without harm, so that no answer of theirs is kept for retries."""
SESSIONLESS = (OpenSession, Describe, ListClaims)
"""Operations that need no session."""


@wire(50)
@dataclass(frozen=True, slots=True)
class Command:
    """An operation in the log: by whose session, under which number (retries carry the same), answered to which tag.

    The session has seen the answers to all its numbers below `acked_below`. The tag is meaningful only to the gateway
    of the leader that proposed the command.
    """

    tag: int
    session: int
    number: int
    acked_below: int
    operation: Operation


def check(operation: Operation) -> None:
    """Raise what is wrong with an operation in itself, whatever the state of the service.

    Raises:
        BadRequest: a name, size or duration is out of bounds; the text names the bound.
    """
    match operation:
        case OpenSession(key, timeout_ms, description):
            if description:
                _check_text("a description", description, limits.DESCRIPTION_BYTES_MAX)
            if len(key) != limits.SESSION_KEY_BYTES:
                raise BadRequest(f"a session key has {limits.SESSION_KEY_BYTES} bytes, not {len(key)}")
            _within("session timeout", timeout_ms, limits.SESSION_TIMEOUT_MS_MIN, limits.SESSION_TIMEOUT_MS_MAX)
        case Claim():
            _check_namespace(operation.namespace)
            if len(operation.resources) != 1:
                raise BadRequest(f"a claim needs a resource, and no more than one, not {len(operation.resources)}")
            for resource in operation.resources:
                _check_path(resource.path)
            check_holder(operation.holder)
            if len(operation.data) > limits.DATA_BYTES_MAX:
                raise BadRequest(f"data of {len(operation.data)} bytes is more than {limits.DATA_BYTES_MAX}")
            if operation.ttl_ms:
                _within("ttl", operation.ttl_ms, limits.TTL_MS_MIN, limits.TTL_MS_MAX)
            elif operation.detached:
                raise BadRequest("a detached claim needs a ttl: nothing else would ever end it")
            if operation.wait_ms != FOREVER:
                _within("wait", operation.wait_ms, 0, limits.WAIT_MS_MAX)
        case Ping(claims):
            for claim in claims:
                _check_number("claim", claim)
            if len(claims) > limits.CLAIMS_PER_PING_MAX:
                raise BadRequest(f"a ping asks for at most {limits.CLAIMS_PER_PING_MAX} claims, not {len(claims)}")
        case Cancel(claim):
            _check_number("claim", claim)
        case Release(token):
            _check_number("token", token)
        case Renew(token, ttl_ms):
            _check_number("token", token)
            if ttl_ms:
                _within("ttl", ttl_ms, limits.TTL_MS_MIN, limits.TTL_MS_MAX)
        case Describe(namespace, path):
            _check_namespace(namespace)
            _check_path(path)
        case ListClaims(namespace, after, limit):
            if namespace:
                _check_namespace(namespace)
            _check_number("claim", after)
            _within("page size", limit, 1, limits.LIST_PAGE_MAX, unit="")
        case _:
            pass


def check_holder(holder: str) -> None:
    """Raise if a holder's name is empty, too long or not printable.

    Raises:
        BadRequest: with the reason.
    """
    _check_text("a holder's name", holder, limits.HOLDER_BYTES_MAX)


def _check_number(what: str, number: int) -> None:
    if not 0 <= number <= INT_MAX:
        raise BadRequest(f"the number of a {what} is from 0 to {INT_MAX}, not {number}")


def _check_namespace(namespace: str) -> None:
    _check_text("a namespace", namespace, limits.NAMESPACE_BYTES_MAX)


def _check_path(path: tuple[str, ...]) -> None:
    if len(path) != 1:
        raise BadRequest(f"a resource is named by one segment, not {len(path)}")
    _check_text("a name", path[0], limits.NAME_BYTES_MAX)


def _check_text(what: str, text: str, bytes_max: int) -> None:
    if not text:
        raise BadRequest(f"{what} must not be empty")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise BadRequest(f"{what} must be valid Unicode text") from None
    if size > bytes_max:
        raise BadRequest(f"{what} may have {bytes_max} bytes in UTF-8, not {size}")
    if not text.isprintable():
        raise BadRequest(f"{what} must be printable: {text[:40]!r}")


def _within(what: str, value: int, low: int, high: int, unit: str = " ms") -> None:
    if not low <= value <= high:
        raise BadRequest(f"a {what} is from {low}{unit} to {high}{unit}, not {value}{unit}")
