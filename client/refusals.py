"""Why the service refuses what is well-formed: one error for each reason, all definite (P9)."""

from typing import Any, Final

from ..core import results
from ..core.errors import BadRequest, LessorError
from ..core.results import ChainLink, Failed
from .errors import ServiceBusy, Unavailable


class Refused(LessorError):
    """The service refused, and nothing was changed; asking again helps only when something else has changed."""


class NotHeldError(Refused):
    """The grant that this names is not held: it was released, has ended, or never was (Juju's ErrNotHeld)."""


class NoSuchNamespace(Refused):
    """The namespace was not created."""


class NamespaceExists(Refused):
    """The namespace was created before."""


class NamespaceInUse(Refused):
    """The namespace is not empty; force would empty it."""


class NoSuchSemaphore(Refused):
    """The semaphore was not created (YDB's NOT_FOUND)."""


class SemaphoreExists(Refused):
    """The semaphore was created before (YDB's ALREADY_EXISTS)."""


class SemaphoreInUse(Refused):
    """The semaphore is held or waited for, or claims stand where it would be (YDB's PRECONDITION_FAILED)."""


class LimitDiffers(Refused):
    """The semaphore has another limit than the claim says, or was created with one."""


class CannotGrow(Refused):
    """A claim can be made smaller, never larger."""


class NotCovered(Refused):
    """The lease does not cover this path with a claim to write."""


class SessionStolen(Refused):
    """The session was taken over by another client."""


class SessionExpired(Refused):
    """The session of the ticket has ended: connect without it. What it held was released, or ends with its ttl."""


class WrongKey(Refused):
    """The session was opened with another key (YDB's protection key)."""


class OutOfSequence(Refused):
    """The session was attached again meanwhile, later than this."""


class VersionConflict(Refused):
    """The register has another version than was expected: `version`, 0 for none."""

    def __init__(self, version: int) -> None:
        """Say which version it has."""
        super().__init__(f"the register has version {version}" if version else "there is no such register")
        self.version = version


class TransactionDeclined(Refused):
    """A check did not hold, or a step was impossible: nothing was carried out.

    `part` is "check" or "step", and `index` says which one, from 0.
    """

    def __init__(self, part: str, index: int, reason: str) -> None:
        """Name what declined it."""
        super().__init__(f"{part} {index}: {reason}")
        self.part = part
        self.index = index
        self.reason = reason


class DeadlockDetected(Refused):
    """Not queued: those in `circle` all wait for each other, and this claim would have closed the circle.

    Each link says who holds which path under which token (0: it waits itself); the last one is the asking client's own.
    Of a circle too large to tell, so many links before the first are `left_out`.
    """

    def __init__(self, circle: tuple[ChainLink, ...], left_out: int = 0) -> None:
        """Name the circle."""
        links = [f"{'/'.join(link.path)!r} of {link.holder}" for link in circle]
        links[:0] = [f"{left_out} more"] if left_out else []
        super().__init__(f"this would wait for ever: {' <- '.join(links)}")
        self.circle = circle
        self.left_out = left_out


_ERRORS: Final[dict[str, type[LessorError]]] = {
    results.SESSION_STOLEN: SessionStolen,
    results.SESSION_EXPIRED: SessionExpired,
    results.WRONG_KEY: WrongKey,
    results.OUT_OF_SEQUENCE: OutOfSequence,
    results.NO_TTL: BadRequest,
    results.TTL_TOO_LONG: BadRequest,
    results.COUNT_TOO_LARGE: BadRequest,
    results.BAD_CONFIG: BadRequest,
    results.NO_SUCH_NAMESPACE: NoSuchNamespace,
    results.NAMESPACE_EXISTS: NamespaceExists,
    results.NAMESPACE_IN_USE: NamespaceInUse,
    results.NO_SUCH_SEMAPHORE: NoSuchSemaphore,
    results.SEMAPHORE_EXISTS: SemaphoreExists,
    results.SEMAPHORE_IN_USE: SemaphoreInUse,
    results.LIMIT_DIFFERS: LimitDiffers,
    results.CANNOT_GROW: CannotGrow,
    results.NOT_COVERED: NotCovered,
}


def refusal(failed: Failed, *, doubtful: bool = False) -> LessorError:
    """Return the error for a failure; `doubtful`: an earlier sending of the request may have had its effect."""
    if doubtful:
        return Unavailable(failed.detail, indefinite=True)
    return _ERRORS.get(failed.code, ServiceBusy)(failed.detail)


def refused(result: Any) -> Any:
    """Return a result, or raise what it says was refused."""
    match result:
        case results.NotHeld():
            raise NotHeldError("the grant is not held: it was released, has ended, or never was")
        case results.VersionDiffers(version):
            raise VersionConflict(version)
        case results.Declined(part, index, reason):
            raise TransactionDeclined(part, index, reason)
        case results.DeadlockDetected(circle, left_out):
            raise DeadlockDetected(circle, left_out)
        case Failed():
            raise refusal(result)
        case _:
            return result
