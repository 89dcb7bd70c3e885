"""Leases by the name of their holder, as in Juju: what to ask of the service next, given what it answered.

Without any I/O: each function here is a generator that yields the operations to be carried out, is sent their results,
and returns what came of them. The service knows grants by their tokens alone; a name is looked up first, and since the
token decides what the next operation touches, nothing that happens in between can hit the lease of somebody else.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from ..core.checks import check_holder
from ..core.commands import Claim, Describe, Operation, Release, Renew
from ..core.resources import Mode, Resource
from ..core.results import ClaimInfo, ClaimPage, ClaimStatus, Denied, NotHeld, Renewed
from .errors import ServiceBusy
from .refusals import NotHeldError, Refused, refused

TRIES: Final = 5
"""How often to begin anew when the lease changes between the look and the deed: each time, somebody else got on."""

T = TypeVar("T")
Steps = Generator[Operation, Any, T]
"""Operations to carry out in turn; their results are sent back in."""


class ClaimDenied(Refused):
    """Somebody else holds the lease: certainly not held by this claim (Juju's ErrClaimDenied). `holder` is who."""

    def __init__(self, holder: str, why: str = "") -> None:
        """Name the one who holds it, or say why it is not free though nobody can be named."""
        super().__init__(f"{holder!r} holds it" if holder else f"it is not free{why and f': {why}'}")
        self.holder = holder


@dataclass(frozen=True, slots=True)
class Held:
    """A lease that its holder has, and until when on the lease clock at least."""

    token: int
    expires_at_ms: int


def lease_of(page: ClaimPage, path: tuple[str, ...], holder: str = "") -> ClaimInfo | None:
    """Return the lease on this very path (of this holder, if one is named), from a description of the path."""
    for info in page.claims:
        alone = any(resource.path == path and resource.mode == Mode.WRITE for resource in info.resources)
        if info.token and alone and holder in ("", info.holder):
            return info
    return None


def claim(namespace: str, path: tuple[str, ...], holder: str, ttl_ms: int, data: bytes = b"") -> Steps[Held]:
    """Take the lease for the holder if it is free, or have his own last until `ttl_ms` from now; never shorten it.

    Raises:
        ClaimDenied: somebody else holds it.
        ServiceBusy: it changed hands again and again meanwhile; nothing is known but that it is worth another try.
    """
    check_holder(holder)
    denied: Denied | None = None
    for _ in range(TRIES):
        page: ClaimPage = refused((yield Describe(namespace, path)))
        mine = lease_of(page, path, holder)
        if mine is not None:
            renewed: Renewed | NotHeld = yield Renew(mine.token, ttl_ms)
            if not isinstance(renewed, NotHeld):
                return Held(mine.token, refused(renewed).expires_at_ms)
            denied = None
            continue  # it ended meanwhile
        resources = (Resource(path, Mode.WRITE),)
        answer: ClaimStatus | Denied = refused(
            (yield Claim(namespace, resources, holder, data, ttl_ms, wait_ms=0, detached=True))
        )
        if isinstance(answer, ClaimStatus):
            return Held(answer.token, answer.expires_at_ms)
        denied = answer
        if denied.holder != holder or not denied.token:
            break  # else it may have been taken in his own name meanwhile
    if denied is None:
        raise ServiceBusy(f"the lease on {'/'.join(path)!r} changes too quickly; try again soon")
    raise ClaimDenied(denied.holder, denied.why)


def extend(namespace: str, path: tuple[str, ...], holder: str, ttl_ms: int) -> Steps[Held]:
    """Have the holder's lease last until `ttl_ms` from now at least: *to* then, not *by* so much.

    Raises:
        NotHeldError: he does not hold it.
        ServiceBusy: it changed again and again meanwhile.
    """
    check_holder(holder)
    for _ in range(TRIES):
        mine = yield from check(namespace, path, holder)
        renewed = yield Renew(mine.token, ttl_ms)
        if not isinstance(renewed, NotHeld):
            return Held(mine.token, refused(renewed).expires_at_ms)
    raise ServiceBusy(f"the lease on {'/'.join(path)!r} changes too quickly; try again soon")


def revoke(namespace: str, path: tuple[str, ...], holder: str) -> Steps[bool]:
    """End the holder's lease; False if nobody holds one.

    Raises:
        NotHeldError: somebody else holds it.
        ServiceBusy: it changed again and again meanwhile.
    """
    check_holder(holder)
    for _ in range(TRIES):
        page: ClaimPage = refused((yield Describe(namespace, path)))
        mine = lease_of(page, path, holder)
        if mine is None:
            other = lease_of(page, path)
            if other is None:
                return False
            raise NotHeldError(f"{other.holder!r} holds {'/'.join(path)!r}, not {holder!r}")
        if not isinstance((yield Release(mine.token)), NotHeld):
            return True
    raise ServiceBusy(f"the lease on {'/'.join(path)!r} changes too quickly; try again soon")


def check(namespace: str, path: tuple[str, ...], holder: str) -> Steps[ClaimInfo]:
    """Return the holder's lease (Juju's Token.Check).

    Raises:
        NotHeldError: he does not hold it.
    """
    check_holder(holder)
    page: ClaimPage = refused((yield Describe(namespace, path)))
    mine = lease_of(page, path, holder)
    if mine is None:
        raise NotHeldError(f"{holder!r} does not hold {'/'.join(path)!r}")
    return mine


@dataclass(frozen=True, slots=True)
class Token:
    """A claim that somebody holds something; a fact, though not necessarily a true one, until it is checked (Juju)."""

    namespace: str
    path: tuple[str, ...]
    holder: str

    def check(self) -> Steps[ClaimInfo]:
        """Return the lease, as `check` does."""
        return check(self.namespace, self.path, self.holder)
