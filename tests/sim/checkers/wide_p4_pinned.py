"""P4 for pins: what is pinned does not expire, whoever holds it; what is overdue and not pinned is over."""

from typing import TYPE_CHECKING

from lessor.core.commands import Command, DropNamespace, Pin, Transact, Unpin
from lessor.core.entries import Entry
from lessor.core.lease_state import Outcome
from lessor.core.results import Done, Result, Transacted

from .base import Checker
from .wide_view import Once, Place, View, look

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ..world import World


class WidePinned(Checker):
    """Keeps a list of pins of its own, from what was asked and answered alone."""

    promise = "P4"
    wide = True

    def __init__(self, world: "World") -> None:
        """Start with nothing pinned."""
        super().__init__(world)
        self.once = Once()
        self.pins: dict[Place, dict[str, None]] = {}

    def outcome(self, slot: int, entry: Entry, outcome: Outcome) -> None:
        """Follow what is pinned, and look at every end and at everything that is overdue."""
        before, after = look(self.world)
        for command, result in self.once.carried_out(self.world.ledger.commands, outcome):
            for operation, done in _parts(command, result):
                self._follow(operation, done)
        pins = {place: tuple(entities) for place, entities in self.pins.items() if entities}
        if pins != after.pins:
            raise self.fail(f"after slot {slot} there are the pins {after.pins}, and there were asked for {pins}")
        self._look_at_ends(outcome, before)
        for claim in after.claims.values():
            if claim.token and 0 < claim.ends_at_ms <= after.clock_ms:
                self.world.mark("a pinned lease that outlived its time")
                old = before.claims.get(claim.claim)
                if old is not None and claim.session and old.session != claim.session:
                    self.world.mark("an overdue pinned lease that changed hands")
                if not any((claim.namespace, resource.path) in after.pins for resource in claim.resources):
                    raise self.fail(f"claim {claim.claim} is overdue since {claim.ends_at_ms} ms, and nobody pins it")

    def _look_at_ends(self, outcome: Outcome, before: View) -> None:
        """Follow the events in their order: what is pinned at that moment does not expire."""
        pins = {place: dict.fromkeys(entities) for place, entities in before.pins.items()}
        for event in outcome.events:
            place, claim = (event.namespace, event.path), before.claims.get(event.claim)
            if event.kind == "pinned":
                pins.setdefault(place, {})[event.holder] = None
            elif event.kind == "unpinned":
                pins.get(place, {}).pop(event.holder, None)
            elif event.kind == "namespace_dropped":
                pins = {each: entities for each, entities in pins.items() if each[0] != event.namespace}
            elif event.kind == "expired" and claim is not None and claim.token:
                for resource in claim.resources:
                    if pins.get((claim.namespace, resource.path)):
                        raise self.fail(f"claim {claim.claim} expired, and {resource.path} is pinned")

    def _follow(self, operation: object, done: Result) -> None:
        match operation:
            case Pin(namespace, path, entity) if isinstance(done, Done):
                self.pins.setdefault((namespace, path), {}).setdefault(entity)
            case Unpin(namespace, path, entity) if isinstance(done, Done):
                self.pins.get((namespace, path), {}).pop(entity, None)
            case DropNamespace(name) if isinstance(done, Done):
                self.pins = {place: entities for place, entities in self.pins.items() if place[0] != name}
            case _:
                pass


def _parts(command: Command, result: Result) -> "Iterator[tuple[Any, Any]]":
    if isinstance(command.operation, Transact) and isinstance(result, Transacted):
        yield from zip(command.operation.steps, result.results, strict=True)
    else:
        yield command.operation, result
