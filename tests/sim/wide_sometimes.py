"""Interesting states of wide worlds, whose programs use the whole lease model: a swarm must have reached them all."""

from typing import TYPE_CHECKING, Any, Final

from lessor.core.commands import AttachSession, DropNamespace, Transact
from lessor.core.entries import Entry
from lessor.core.events import Event
from lessor.core.lease_state import Outcome
from lessor.core.resources import Mode
from lessor.core.results import (
    OUT_OF_SEQUENCE,
    WRONG_KEY,
    Declined,
    Done,
    Failed,
    NotHeld,
    SessionOpened,
    VersionDiffers,
)

from .checkers.base import Checker
from .checkers.wide_view import View, look

if TYPE_CHECKING:
    from .world import World

WIDE_SOMETIMES: Final = (
    "a set that waited on two paths",
    "a claim made smaller",
    "a grant after a shrink",
    "a lease of a whole namespace",
    "readers side by side",
    "a semaphore that was full",
    "a grant that something below had kept waiting",
    "a lease broken",
    "a lease adopted",
    "a lease held for as long as it may be",
    "an observer told that it is free",
    "an observer that saw the end",
    "a deadlock found",
    "a re-attach after a crash",
    "a session stolen",
    "a stolen session told",
    "a request of a stolen session",
    "a request of a stranger",
    "a wrong key refused",
    "a re-attach out of sequence",
    "a pinned lease that outlived its time",
    "a session with a new key",
    "an old key refused",
    "a session with grace",
    "a ttl that the namespace gave",
    "a register written",
    "a register with another version",
    "an old token refused",
    "a transaction carried out",
    "a transaction declined",
    "a namespace dropped with claims in it",
    "a semaphore deleted while it was held",
    "a name that was closed for a while",
    "a closed name that opened to one who waited",
    "a lease inherited with its session",
)


class WideObserver(Checker):
    """Marks these states; fails nothing."""

    wide = True

    def __init__(self, world: "World") -> None:
        """Start with no session that was attached."""
        super().__init__(world)
        self.old_keys: dict[bytes, None] = {}

    def outcome(self, slot: int, entry: Entry, outcome: Outcome) -> None:
        """Look at what a slot has brought about."""
        before, after = look(self.world)
        for place, event in enumerate(outcome.events):
            self._look_at(event, outcome.events[:place], before, after)
        opened = any(lapsed.closed_until_ms for lapsed in before.lapses)
        if opened and not any(lapsed.closed_until_ms for lapsed in after.lapses):
            granted = any(event.kind == "granted" and event.claim in before.claims for event in outcome.events)
            if granted and not any(event.kind in ("released", "cancelled", "timed_out") for event in outcome.events):
                self.world.mark("a closed name that opened to one who waited")
        for command, (_, result) in zip(self.world.ledger.commands, outcome.answers, strict=True):
            self._look_at_answer(command.operation, result, before)

    def _look_at(self, event: Event, earlier: list[Event], before: View, after: View) -> None:
        mark = self.world.mark
        match event.kind:
            case "granted":
                self._look_at_grant(event, earlier, before, after)
            case "broken":
                mark("a lease broken")
            case "adopted":
                mark("a lease adopted")
            case "cancelled" if event.why == "it is free":
                mark("an observer told that it is free")
            case "expired" if "as long as it may be" in event.why:
                mark("a lease held for as long as it may be")
            case "expired" if "its last pin is gone" in event.why:
                mark("an overdue lease that ended with its pin")
            case "semaphore_deleted" if any(one.kind == "broken" for one in earlier):
                mark("a semaphore deleted while it was held")
            case "session_expired":
                for one in after.claims.values():
                    old = before.claims.get(one.claim)
                    if old is not None and old.session == event.session and not one.ttl_ms and one.token:
                        mark("a pinned lease that outlived its session")
            case _:
                pass

    def _look_at_grant(self, event: Event, earlier: list[Event], before: View, after: View) -> None:
        mark, waited, claim = self.world.mark, before.claims.get(event.claim), after.claims.get(event.claim)
        if any(one.kind == "amended" and one.claim != event.claim for one in earlier):
            mark("a grant after a shrink")
        if waited is not None and len(waited.resources) > 1:
            mark("a set that waited on two paths")
        if claim is None:
            return
        if any(resource.path == () for resource in claim.resources):
            mark("a lease of a whole namespace")
        others = [one for one in after.claims.values() if one.token and one.claim != claim.claim]
        for resource in claim.resources:
            its = [each for one in others if one.namespace == claim.namespace for each in one.resources]
            if resource.mode == Mode.READ and any(each.path == resource.path for each in its):
                mark("readers side by side")
            limit = after.limits.get((claim.namespace, resource.path), resource.limit)
            taken = sum(each.units for each in its if each.path == resource.path) + resource.units
            if resource.mode == Mode.COUNT and taken == limit:
                mark("a semaphore that was full")
        if waited is not None and any(
            len(path) > len(resource.path) and path[: len(resource.path)] == resource.path
            for one in earlier
            if one.kind in ("released", "expired", "broken")
            for path in (one.path, *one.others)
            for resource in claim.resources
        ):
            mark("a grant that something below had kept waiting")

    def _look_at_answer(self, operation: Any, result: Any, before: View) -> None:
        mark = self.world.mark
        if isinstance(operation, AttachSession) and operation.new_key and isinstance(result, SessionOpened):
            self.old_keys[operation.key] = None
            mark("a session with a new key")
        elif isinstance(operation, AttachSession) and isinstance(result, Failed):
            if result.code == WRONG_KEY:
                mark("an old key refused" if operation.key in self.old_keys else "a wrong key refused")
            elif result.code == OUT_OF_SEQUENCE:
                mark("a re-attach out of sequence")
        elif isinstance(operation, DropNamespace) and isinstance(result, Done):
            if self.world.faulty and any(one.namespace == operation.name for one in before.claims.values()):
                mark("a namespace dropped with claims in it")
        elif isinstance(result, VersionDiffers):
            mark("a register with another version")
        elif isinstance(result, NotHeld):
            mark("an old token refused")
        elif isinstance(operation, Transact) and isinstance(result, Declined):
            mark("a transaction declined")
