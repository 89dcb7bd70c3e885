"""P5 for fenced registers: each is written only under a token that is held and covers it, and no version comes back."""

from typing import TYPE_CHECKING

from lessor.core.entries import Entry
from lessor.core.lease_state import Outcome
from lessor.core.resources import Mode

from .base import Checker
from .wide_view import Place, View, look

if TYPE_CHECKING:
    from lessor.core.events import Event

    from ..world import World

ENDS = ("released", "expired", "broken")


class WideRegisters(Checker):
    """Follows the events in their order: who is granted, who writes, and whose grant ends."""

    promise = "P5"
    wide = True

    def __init__(self, world: "World") -> None:
        """Start with nothing written."""
        super().__init__(world)
        self.held: dict[int, None] = {}
        self.versions: dict[Place, tuple[int, int]] = {}  # and the token under which it was written
        self.highest: dict[Place, int] = {}  # version that a register of the place ever had

    def outcome(self, slot: int, entry: Entry, outcome: Outcome) -> None:
        """Take in the events of a slot, and compare with the registers."""
        before, after = look(self.world)
        written: dict[Place, int] = {}  # under which token
        for event in outcome.events:
            place = (event.namespace, event.path)
            if event.kind == "granted":
                self.held[event.token] = None
            elif event.kind in ENDS and event.token:
                self.held.pop(event.token, None)
            elif event.kind in ("written", "erased"):
                self._must_cover(event, before, after)
                self.versions.pop(place, None)
                written.pop(place, None)
                if event.kind == "written":
                    written[place] = event.token
            elif event.kind == "namespace_dropped":
                self.versions = {key: found for key, found in self.versions.items() if key[0] != event.namespace}
                written = {key: token for key, token in written.items() if key[0] != event.namespace}
        found = {place: (record.version, record.token) for place, record in after.registers.items()}
        for place, token in written.items():
            self.versions[place] = (self._new_version(place, found), token)
        if found != self.versions:
            raise self.fail(f"after slot {slot} the registers are {found}, and were written to be {self.versions}")

    def _new_version(self, place: Place, found: dict[Place, tuple[int, int]]) -> int:
        """Return the version that was written: larger than all before it, also those of registers that were erased."""
        version, _ = found.get(place, (0, 0))
        highest = self.highest.get(place, 0)
        if version <= highest:
            raise self.fail(f"a register of {place} is written as version {version}, and one had {highest} before")
        self.highest[place] = version
        return version

    def _must_cover(self, event: "Event", before: View, after: View) -> None:
        if event.token not in self.held:
            raise self.fail(
                f"the register of {event.path} is {event.kind} under token {event.token}, which is not held"
            )
        wants = [
            (claim.namespace, resource)
            for view in (before, after)
            for claim in view.claims.values()
            if claim.token == event.token
            for resource in claim.resources
        ]
        covered = any(
            namespace == event.namespace
            and resource.mode == Mode.WRITE
            and event.path[: len(resource.path)] == resource.path
            for namespace, resource in wants
        )
        if wants and not covered:
            raise self.fail(f"token {event.token}, which has {wants}, does not cover the register of {event.path}")
        self.world.mark("a register written")
