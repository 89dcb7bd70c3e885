"""How claims are shown: who holds a path, who waits for it and in which place, and what overlaps it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..client.lease import LeaseView
from ..core.resources import Mode, Resource
from .names import Path
from .output import data_fields

NOBODY = {"holder": None, "token": None, "mode": None, "count": None, "ttl": None, "expires_in": None}
NOBODY |= {"held_for": None, "session": None, "detached": None, "data": None, "data_base64": None}


@dataclass(frozen=True, slots=True)
class Line:
    """The claims that concern one path: those that hold it, hold what overlaps it, wait in its line, or observe it."""

    path: Path
    holders: Sequence[LeaseView]
    overlapping: Sequence[LeaseView]
    waiting: Sequence[LeaseView]
    observing: int

    @property
    def held(self) -> bool:
        """Whether anybody holds the path, a part of it, or what it is a part of."""
        return bool(self.holders or self.overlapping)


def line_of(path: Path, views: Iterable[LeaseView]) -> Line:
    """Return the line at a path; whoever waits for what overlaps it stands in it, too, in the order of arrival."""
    ordered = sorted({view.claim: view for view in views}.values(), key=lambda view: (view.token, view.claim))
    waits = [view for view in ordered if view.waiting]
    observing = [view for view in waits if view.resources[0].mode == Mode.OBSERVE]
    held = [view for view in ordered if not view.waiting]
    on_it = [view for view in held if any(resource.path == path for resource in view.resources)]
    return Line(
        path=path,
        holders=on_it,
        overlapping=[view for view in held if view not in on_it],
        waiting=[view for view in waits if view not in observing],
        observing=len(observing),
    )


def lines(views: Iterable[LeaseView]) -> list[tuple[str, Line]]:
    """Return the line of each path that anybody holds or waits for, by namespace and path."""
    found: dict[tuple[str, Path], list[LeaseView]] = {}
    for view in views:
        for resource in view.resources:
            found.setdefault((view.namespace, resource.path), []).append(view)
    return [(namespace, line_of(path, found[namespace, path])) for namespace, path in sorted(found)]


def resource_at(view: LeaseView, path: Path) -> Resource:
    """Return what a claim wants of a path, or else of what overlaps it."""
    on_it = [resource for resource in view.resources if resource.path == path]
    return (on_it or [resource for resource in view.resources if overlap(resource.path, path)] or view.resources)[0]


def overlap(one: Path, other: Path) -> bool:
    """Return whether one path is the other, a part of it, or what it is a part of."""
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def stands_in_the_way(view: LeaseView, resource: Resource) -> bool:
    """Return whether a claim that is held keeps others from this resource, as far as can be told from its mode."""
    return any(
        overlap(other.path, resource.path) and not (other.mode == resource.mode == Mode.READ)
        for other in view.resources
    )


def mode(resource: Resource) -> str:
    """Return for what a resource is claimed."""
    if resource.mode == Mode.COUNT:
        return f"{resource.count} of {resource.limit} units" if resource.limit else f"{resource.count} units"
    return Mode(resource.mode).name.lower()


def holder_json(view: LeaseView, path: Path) -> dict[str, Any]:
    """Return one who holds a path as an object; times are in seconds."""
    resource = resource_at(view, path)
    return {
        "holder": view.holder,
        "token": view.token,
        "mode": Mode(resource.mode).name.lower(),
        "count": resource.count if resource.mode == Mode.COUNT else None,
        "ttl": view.ttl,
        "expires_in": view.expires_in,
        "held_for": view.held_for,
        "session": view.session,
        "detached": view.detached,
        **data_fields(view.data),
    }


def waiter_json(place: int, view: LeaseView, path: Path) -> dict[str, Any]:
    """Return one who waits as an object."""
    resource = resource_at(view, path)
    return {
        "place": place,
        "holder": view.holder,
        "mode": Mode(resource.mode).name.lower(),
        "count": resource.count if resource.mode == Mode.COUNT else None,
        "path": list(resource.path),
        "session": view.session,
        "waited_for": view.held_for,
    }


def as_json(namespace: str, line: Line) -> dict[str, Any]:
    """Return a line as an object that always has the same keys, the first holder's too: null where nobody holds it."""
    holders = [holder_json(view, line.path) for view in line.holders]
    return {
        "name": "/".join(line.path),
        "path": list(line.path),
        "namespace": namespace,
        **(holders[0] if holders else NOBODY),
        "holders": holders,
        "waiting": [waiter_json(place, view, line.path) for place, view in enumerate(line.waiting, start=1)],
        "observing": line.observing,
    }
