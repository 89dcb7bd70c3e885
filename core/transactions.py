"""Transactions: checks and steps that are carried out between two other commands, all or none (Juju's trapdoor)."""

from typing import Any

from .claims import Claims
from .commands import (
    EraseRegister,
    HeldBy,
    Pin,
    PutRegister,
    RegisterIs,
    Release,
    Renew,
    Step,
    TokenHeld,
    Transact,
    Unheld,
    Unpin,
    UpdateSemaphore,
)
from .errors import InvariantBroken
from .pins import Pins
from .queues import Queues
from .registers import Registers
from .resources import Mode
from .results import Declined, Failed, NotHeld, Result, Transacted, VersionDiffers, shortened
from .semaphores import Semaphores


class Transactions:
    """Looks at everything first, and then carries everything out."""

    def __init__(self, claims: Claims, pins: Pins, registers: Registers, semaphores: Semaphores) -> None:
        """Work on these parts of the state."""
        self._claims = claims
        self._pins = pins
        self._registers = registers
        self._semaphores = semaphores

    def look(self, operation: Transact) -> Declined | None:
        """Return the first check that does not hold or step that cannot be carried out, None if all can be."""
        for index, item in enumerate(operation.checks):
            reason = self._unmet(item)
            if reason:
                return Declined("check", index, shortened(reason))
        for index, step in enumerate(operation.steps):
            refusal = self._refusal(step, operation.steps[:index])
            if refusal is not None:
                return Declined("step", index, _said(refusal))
        return None

    def carry_out(self, operation: Transact, carry_out: Any) -> Transacted:
        """Carry out every step, each of which is known to be possible."""
        # What ends grants comes last: a register may be written under a token that is released by the same transaction,
        # and a lease that is overdue ends with its pin, unless it was renewed or released before.
        order = sorted(range(len(operation.steps)), key=lambda place: _turn(operation.steps[place]))
        results: list[Any] = [None] * len(order)
        for place in order:
            result: Result = carry_out(operation.steps[place])
            if isinstance(result, Failed | VersionDiffers | NotHeld):
                raise InvariantBroken(f"a step of a transaction failed that was found possible: {result}")
            results[place] = result
        return Transacted(tuple(results))

    def _unmet(self, item: Any) -> str:
        """Return why a check does not hold, "" if it does."""
        match item:
            case TokenHeld(token):
                return "" if self._claims.granted(token) is not None else f"no grant of token {token} is held"
            case HeldBy(namespace, path, holder):
                return "" if self._held_by(namespace, path, holder) else f"{holder!r} does not hold it"
            case Unheld(namespace, path):
                queues = self._claims.queues.get(namespace)
                return "" if queues is None or not queues.held(path) else "it is held"
            case RegisterIs(namespace, path, version):
                found = self._registers.version(namespace, path)
                return "" if found == version else f"the register has version {found}"
            case _:
                raise InvariantBroken(f"{type(item).__name__} is no check")

    def _held_by(self, namespace: str, path: tuple[str, ...], holder: str) -> bool:
        queues = self._claims.queues.get(namespace, Queues())
        for number in queues.claims_on(path):
            claim = self._claims.all.get(number)
            if claim is not None and claim.token and claim.holder == holder:
                return any(r.path == path and r.mode != Mode.OBSERVE for r in claim.resources)
        return False

    def _refusal(self, step: Step, before: tuple[Step, ...]) -> Result | None:
        """Return why a step could not be carried out after those before it: each of them may take up room."""
        match step:
            case PutRegister() | EraseRegister():
                return self._registers.refusal(step, sum(isinstance(one, PutRegister) for one in before))
            case Release(token):
                return None if self._claims.granted(token) is not None else NotHeld()
            case Renew(token, ttl_ms):
                claim = self._claims.granted(token)
                return NotHeld() if claim is None else self._claims.renewal_refused(claim, ttl_ms)
            case Pin(namespace, path):
                pins = [one for one in before if isinstance(one, Pin)]
                here = sum((one.namespace, one.path) == (namespace, path) for one in pins)
                return self._pins.refusal(step, here, len(pins))
            case UpdateSemaphore(namespace, path):
                return self._semaphores.missing(namespace, path)
            case Unpin():
                return None


def _turn(step: Step) -> int:
    return 2 if isinstance(step, Unpin) else int(isinstance(step, Release))


def _said(refusal: Result) -> str:
    match refusal:
        case NotHeld():
            return "the grant is not held"
        case VersionDiffers(version):
            return f"the register has version {version}"
        case Failed(_, detail):
            return detail
        case _:
            return type(refusal).__name__
