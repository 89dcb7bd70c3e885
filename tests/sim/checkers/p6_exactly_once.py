"""P6: a retried command takes effect once and gets the same answer, and what names a grant touches no other."""

from typing import TYPE_CHECKING, Any

from lessor.core.commands import REPEATABLE, Cancel, Claim, CloseSession, Command, Release, Renew, Transact
from lessor.core.entries import Entry
from lessor.core.lease_state import Outcome
from lessor.core.results import ClaimStatus, Failed, Result

from .base import Checker

if TYPE_CHECKING:
    from ..world import World


class ExactlyOnce(Checker):
    """Remembers the first answer to every request, and asks of every change which command it was that named it."""

    promise = "P6"

    def __init__(self, world: "World") -> None:
        """Start with nothing answered."""
        super().__init__(world)
        self.first: dict[tuple[int, int], Result] = {}

    def outcome(self, slot: int, entry: Entry, outcome: Outcome) -> None:
        """Look at what the commands of a slot were answered, and at what they changed."""
        commands = self.world.ledger.commands
        if not commands and not outcome.events:
            return
        claimed = 0
        for command, (_, result) in zip(commands, outcome.answers, strict=True):
            claimed += self._answered(command, result)
        known = {event.claim: None for event in outcome.events if event.kind in ("queued", "granted")}
        stories = self.world.ledger.claims
        begun = sum(stories[claim].claim > self._last_claim for claim in known)
        self._last_claim = max([self._last_claim, *known])
        if begun > claimed:
            raise self.fail(f"slot {slot} began {begun} claims for {claimed} requests")
        for event in outcome.events:
            if event.kind == "released" and not any(_releases(command, event) for command in commands):
                raise self.fail(f"token {event.token} was released, which nobody has named")
            if event.kind == "renewed" and not any(
                isinstance(step, Renew) and step.token == event.token
                for command in commands
                for step in _steps(command)
            ):
                raise self.fail(f"token {event.token} was renewed, which nobody has named")

    _last_claim = 0

    def _answered(self, command: Command, result: Result) -> int:
        """Compare with the first answer; return 1 if a claim may have begun."""
        if isinstance(command.operation, REPEATABLE) or isinstance(result, Failed):
            return 0
        key = (command.session, command.number)
        first = self.first.get(key)
        if first is None:
            self.first[key] = result
            return int(isinstance(command.operation, Claim) and isinstance(result, ClaimStatus))
        self.world.mark("a retry that found its answer")
        if first != result:
            raise self.fail(f"{command} was answered {first}, and once more {result}")
        return 0


def _steps(command: Command) -> tuple[Any, ...]:
    return command.operation.steps if isinstance(command.operation, Transact) else (command.operation,)


def _releases(command: Command, event: object) -> bool:
    token, claim, session = getattr(event, "token", 0), getattr(event, "claim", 0), getattr(event, "session", 0)
    match command.operation:
        case Release(named):
            return bool(named == token)
        case Transact(_, steps):
            return any(isinstance(step, Release) and step.token == token for step in steps)
        case Cancel(named):
            return bool(named == claim and command.session == session)
        case CloseSession():
            return bool(command.session == session)
        case _:
            return False
