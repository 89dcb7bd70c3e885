"""The lease state as its records alone have it, and the rules of the lease model, each said as naively as can be."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

from lessor.core.commands import REPEATABLE, Command
from lessor.core.lease_state import LeaseState, Outcome
from lessor.core.records import ClaimRecord, LapsedRecord, PinRecord, RegisterRecord, SemaphoreRecord
from lessor.core.resources import Mode, Resource
from lessor.core.results import Failed, Result

if TYPE_CHECKING:
    from ..world import World

T = TypeVar("T", ClaimRecord, LapsedRecord, RegisterRecord)

Place = tuple[str, tuple[str, ...]]
"""Namespace and path."""


_VALUES = {
    kind: attrgetter(*(each.name for each in fields(kind))) for kind in (ClaimRecord, LapsedRecord, RegisterRecord)
}


def _copy(record: T) -> T:
    """Return a copy of a record, in a fifth of the time of `copy.copy`."""
    return type(record)(*_VALUES[type(record)](record))


@dataclass(slots=True)
class Held:
    """What is taken: by a grant, by a name that is closed, or by a client that believes to hold it."""

    who: str
    namespace: str
    resources: tuple[Resource, ...]
    token: int
    claim: int = 0
    closed: bool = False


@dataclass(slots=True)
class View:
    """Copies of all records after a slot."""

    clock_ms: int = 0
    claims: dict[int, ClaimRecord] = field(default_factory=dict)
    lapses: list[LapsedRecord] = field(default_factory=list)
    limits: dict[Place, int] = field(default_factory=dict)
    pins: dict[Place, tuple[str, ...]] = field(default_factory=dict)
    registers: dict[Place, RegisterRecord] = field(default_factory=dict)
    configs: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, state: LeaseState) -> "View":
        """Look at a state."""
        tables = state.tables
        semaphores: list[SemaphoreRecord] = tables["semaphores"].records()
        pins: list[PinRecord] = tables["pins"].records()
        return cls(
            state.clock_ms,
            {record.claim: _copy(record) for record in tables["claims"].records()},
            [_copy(record) for record in tables["lapses"].records()],
            {(record.namespace, record.path): record.limit for record in semaphores},
            {(record.namespace, record.path): record.entities for record in pins},
            {(record.namespace, record.path): _copy(record) for record in tables["registers"].records()},
            {record.name: record.config for record in tables["namespaces"].records()},
        )

    @property
    def held(self) -> list[Held]:
        """Everything that is taken."""
        grants = [
            Held(f"claim {claim.claim} of {claim.holder}", claim.namespace, claim.resources, claim.token, claim.claim)
            for claim in self.claims.values()
            if claim.token
        ]
        closed = [
            Held(
                f"a closed name (claim {lapsed.claim})",
                lapsed.namespace,
                lapsed.resources,
                lapsed.token,
                lapsed.claim,
                closed=True,
            )
            for lapsed in self.lapses
            if lapsed.closed_until_ms
        ]
        return grants + closed

    @property
    def waiting(self) -> list[ClaimRecord]:
        """Claims that wait in a queue, in the order of their coming."""
        return [claim for claim in self.claims.values() if not claim.token and not observes(claim)]

    @property
    def observers(self) -> list[ClaimRecord]:
        """Claims that only wait for others to end."""
        return [claim for claim in self.claims.values() if observes(claim)]


def observes(claim: ClaimRecord) -> bool:
    """Return whether a claim only looks."""
    return claim.resources[0].mode == Mode.OBSERVE


def overlap(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Return whether one path is the other, or a prefix of it."""
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def exclude(one: Resource, other: Resource) -> bool:
    """Return whether nobody may have the one while somebody has the other, however many units there are."""
    if not overlap(one.path, other.path):
        return False
    if one.path == other.path:
        return Mode.WRITE in (one.mode, other.mode)
    return not (one.mode == other.mode == Mode.READ)


def overlapping(one: Any, other: Any) -> bool:
    """Return whether two claims have to do with each other at all."""
    return one.namespace == other.namespace and any(
        overlap(mine.path, its.path) for mine in one.resources for its in other.resources
    )


def units_taken(held: Iterable[Any], namespace: str, path: tuple[str, ...]) -> int:
    """Return how many units of a path are taken, one for each who reads it."""
    return sum(
        resource.units
        for one in held
        if one.namespace == namespace
        for resource in one.resources
        if resource.path == path and resource.mode != Mode.WRITE
    )


def limit_of(view: View, held: Iterable[Any], namespace: str, path: tuple[str, ...]) -> int | None:
    """Return how many units there are: of a semaphore that was created, or as those say who hold some."""
    created = view.limits.get((namespace, path))
    if created is not None:
        return created
    said = [
        resource.limit
        for one in held
        if one.namespace == namespace
        for resource in one.resources
        if resource.path == path and resource.limit
    ]
    return min(said, default=None)


def conflict(view: View, held: list[Held]) -> str:
    """Return which two of those who hold cannot both do so, "" if all can."""
    for place, one in enumerate(held):
        for other in held[place + 1 :]:
            if one.namespace == other.namespace and any(
                exclude(mine, its) for mine in one.resources for its in other.resources
            ):
                return f"{one.who} and {other.who} both hold what they cannot share"
    for one in held:
        for resource in one.resources:
            limit = limit_of(view, held, one.namespace, resource.path)
            taken = units_taken(held, one.namespace, resource.path)
            if limit is not None and taken > limit:
                return f"{taken} units of {'/'.join(resource.path)!r} are held, and there are {limit}"
    return ""


def blockers(view: View, claim: ClaimRecord) -> list[Held]:
    """Return who keeps a claim from being granted: who holds what it cannot share, or waits before it."""
    held = view.held
    found: list[Held] = []
    for other in held:
        if other.namespace != claim.namespace:
            continue
        if observes(claim):
            if overlapping(claim, other) and other.token <= claim.watermark:
                found.append(other)
        elif any(exclude(mine, its) or _unfit(view, held, other, mine, its) for mine, its in _pairs(claim, other)):
            found.append(other)
    if not observes(claim):
        found += [
            Held(f"claim {one.claim}", one.namespace, one.resources, 0, one.claim)
            for one in view.waiting
            if one.claim < claim.claim and overlapping(one, claim)
        ]
    return found


def _pairs(one: Any, other: Any) -> Iterator[tuple[Resource, Resource]]:
    return ((mine, its) for mine in one.resources for its in other.resources)


def _unfit(view: View, held: list[Held], other: Held, mine: Resource, its: Resource) -> bool:
    """Return whether the units that are left of one path are too few."""
    if mine.path != its.path:
        return False
    limit = view.limits.get((other.namespace, mine.path)) or mine.limit
    limit = limit or limit_of(view, held, other.namespace, mine.path) or 0
    return bool(limit) and units_taken(held, other.namespace, mine.path) + mine.units > limit


def look(world: "World") -> tuple[View, View]:
    """Return the records before and after the slot that was just applied; to be asked for after each slot."""
    upto = world.referee.state.applied_upto
    if world.board.seen is None or world.board.seen[0] != upto:
        before = world.board.seen[2] if world.board.seen is not None else View()
        world.board.seen = (upto, before, View.of(world.referee.state))
    _, before, after = world.board.seen
    return before, after


class Once:
    """Tells the commands of each slot that were carried out from those that only found their answer once more."""

    def __init__(self) -> None:
        """Start with none answered."""
        self._seen: dict[tuple[int, int], None] = {}

    def carried_out(self, commands: list[Command], outcome: Outcome) -> Iterator[tuple[Command, Result]]:
        """Yield each command that had its effect in this slot, with its answer, in order."""
        for command, (_, result) in zip(commands, outcome.answers, strict=True):
            if isinstance(result, Failed):
                continue
            if not isinstance(command.operation, REPEATABLE):
                key = (command.session, command.number)
                if key in self._seen:
                    continue
                self._seen[key] = None
            yield command, result
