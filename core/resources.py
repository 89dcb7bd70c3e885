"""Resources: paths in a namespace, what a claim wants of them, and which wants stand in each other's way."""

import enum
from dataclasses import dataclass
from typing import Annotated, Final

from . import limits
from .encoding import INT_MAX, MaxBytes, MaxItems, wire

Name = Annotated[str, MaxBytes(limits.NAME_BYTES_MAX)]
Path = Annotated[tuple[Name, ...], MaxItems(limits.PATH_SEGMENTS_MAX)]

ALL_UNITS: Final = INT_MAX
"""How many units a resource has that is no semaphore: nobody counts them out."""


class Mode(enum.IntEnum):
    """What a claim wants of a resource."""

    WRITE = 0
    """To have it alone: all its units (an exclusive claim of a semaphore)."""
    READ = 1
    """To share it with other readers: one unit."""
    COUNT = 2
    """So many units of a semaphore."""
    OBSERVE = 3
    """Nothing: to be told when the grants that stood when the claim came have ended. It is in nobody's way."""


@wire(43)
@dataclass(frozen=True, slots=True)
class Resource:
    """A path of segments in the claim's namespace, and what the claim wants of it. A plain name is one segment.

    Two paths overlap when one equals the other or is a prefix of it; the empty path is the whole namespace (Locktopus).
    `count` and `limit` matter in mode COUNT only: a `limit` makes the semaphore appear with its first claim and vanish
    with its last one; without it the semaphore must have been created (YDB).
    """

    path: Path
    mode: int = Mode.WRITE
    count: int = 0
    limit: int = 0

    @property
    def units(self) -> int:
        """How many units it takes of those who share the path; one that writes shares with nobody."""
        return self.count if self.mode == Mode.COUNT else 1


def covers(one: Resource, other: Resource) -> bool:
    """Return whether whoever has `one` has no need of `other` beside it (Locktopus calls it shadowing)."""
    if other.path[: len(one.path)] != one.path:
        return False
    return one.mode == Mode.WRITE or (one.mode == other.mode == Mode.READ)


def reduced(resources: tuple[Resource, ...]) -> tuple[Resource, ...]:
    """Return the resources without those that another one of them covers, in the same order."""
    if len(resources) == 1:
        return resources
    kept: list[Resource] = []
    for place, resource in enumerate(resources):
        before = any(covers(other, resource) for other in resources[:place])
        # of two that cover each other the first one stays
        after = any(covers(other, resource) and not covers(resource, other) for other in resources[place + 1 :])
        if not before and not after:
            kept.append(resource)
    return tuple(kept)


def shown(path: tuple[str, ...]) -> str:
    """Return a path as people read it, in quotes."""
    return repr("/".join(path))
