"""The queues of all resources of a namespace: a tree of paths that knows what stands in whose way.

A claim is granted when no claim that came before it and overlaps it still waits, and nothing that is held conflicts
(Locktopus; YDB's head of the line blocks everybody behind it, too). Every claim is counted at each prefix of its paths,
so that this is known by a look at each segment, however many claims there are. Claims are known by their numbers, which
grow in the order of arrival.
"""

import itertools
from collections import OrderedDict
from collections.abc import Iterator

from . import limits
from .encoding import INT_MAX
from .resources import ALL_UNITS, Mode, Resource

Wants = OrderedDict[int, Resource]

NOT_IN_THE_WAY = 0
"""Stands for what was looked at in vain; no claim has this number."""


class _Node:
    """One path. What is `below` lies under it and not on it."""

    __slots__ = (
        "below_held",
        "below_observers",
        "below_shared",
        "below_waiting",
        "busy",
        "capped",
        "children",
        "held",
        "limited",
        "observers",
        "parent",
        "segment",
        "shared",
        "units",
        "waiting",
    )

    def __init__(self, parent: "_Node | None", segment: str) -> None:
        self.parent = parent
        self.segment = segment
        self.children: dict[str, _Node] = {}
        self.busy: dict[str, _Node] = {}  # the children on or below which somebody waits or observes
        self.held: Wants = OrderedDict()
        self.waiting: Wants = OrderedDict()
        self.observers: Wants = OrderedDict()
        self.units = 0  # taken by those who read or count
        self.shared = 0  # how many of `held` only read
        self.limited: dict[int, int] = {}  # claims that bring their semaphore's limit with them: all the same limit
        self.capped = 0  # how many of them are held
        self.below_held = 0
        self.below_shared = 0
        self.below_observers = 0
        self.below_waiting: OrderedDict[int, int] = OrderedDict()  # by claim: on how many paths

    def empty(self) -> bool:
        return not (self.children or self.held or self.waiting or self.observers)


class Queues:
    """Who holds, waits for and observes what in one namespace."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._root = _Node(None, "")
        self.limits: dict[tuple[str, ...], int] = {}
        """The units of the semaphores that were created."""
        self._observers = 0

    # --- changing ----------------------------------------------------------------------------------------------------

    def wait(self, claim: int, resources: tuple[Resource, ...]) -> None:
        """Put a claim at the end of every queue that it concerns."""
        for resource in resources:
            node = self._node(resource.path)
            node.waiting[claim] = resource
            self._count_limit(node, claim, resource)
            for above in _above(node):
                above.below_waiting[claim] = above.below_waiting.get(claim, 0) + 1
            self._mark_busy(node)

    def leave(self, claim: int, resources: tuple[Resource, ...]) -> None:
        """Take a claim that waits out of every queue."""
        for resource in resources:
            node = self._stop_waiting(claim, resource.path)
            node.limited.pop(claim, None)
            self._prune(node)

    def hold(self, claim: int, resources: tuple[Resource, ...], *, waited: bool) -> None:
        """Let a claim hold its resources; `waited`: it stood in their queues until now."""
        for resource in resources:
            node = self._stop_waiting(claim, resource.path) if waited else self._node(resource.path)
            node.held[claim] = resource
            self._count_limit(node, claim, resource)
            self._count_held(node, resource, 1)
            node.capped += bool(resource.limit)

    def give_up(self, claim: int, resources: tuple[Resource, ...]) -> None:
        """Let a claim hold its resources no longer."""
        for resource in resources:
            node = self._node(resource.path)
            del node.held[claim]
            node.limited.pop(claim, None)
            self._count_held(node, resource, -1)
            node.capped -= bool(resource.limit)
            self._prune(node)

    def observe(self, claim: int, path: tuple[str, ...]) -> None:
        """Add an observer of a path."""
        self._observers += 1
        node = self._node(path)
        node.observers[claim] = Resource(path, Mode.OBSERVE)
        for above in _above(node):
            above.below_observers += 1
        self._mark_busy(node)

    def look_away(self, claim: int, path: tuple[str, ...]) -> None:
        """Take an observer away."""
        self._observers -= 1
        node = self._node(path)
        del node.observers[claim]
        for above in _above(node):
            above.below_observers -= 1
        self._unmark_busy(node)
        self._prune(node)

    def shrink(self, claim: int, old: Resource, new: Resource, *, held: bool) -> None:
        """Replace what a claim wants of one path by less, in its place."""
        node = self._node(old.path)
        if held:
            self._count_held(node, old, -1)
            self._count_held(node, new, 1)
        wants = node.held if held else node.waiting
        wants[claim] = new

    def empty(self) -> bool:
        """Return whether there is nothing here at all."""
        return self._root.empty() and not self.limits

    # --- asking ------------------------------------------------------------------------------------------------------

    def ready(self, claim: int, resources: tuple[Resource, ...]) -> bool:
        """Return whether nothing that stands before the claim is in its way; it need not stand in a queue itself."""
        return all(self._passes(claim, resource) for resource in resources)

    def free(self, path: tuple[str, ...], watermark: int, token_of: dict[int, int]) -> bool:
        """Return whether none of the grants overlaps the path that were given up to token `watermark`.

        Of what lies below the path nothing may be held at all: which grant is the oldest there is not known.
        """
        node = self._root
        for segment in path:
            if node.held and token_of[next(iter(node.held))] <= watermark:
                return False
            child = node.children.get(segment)
            if child is None:
                return True
            node = child
        if node.below_held:
            return False
        return not node.held or token_of[next(iter(node.held))] > watermark

    def capacity(self, path: tuple[str, ...]) -> tuple[int, bool]:
        """Return the units of the semaphore of a path, and whether it was created."""
        created = self.limits.get(path)
        if created is not None:
            return created, True
        node = self._find(path)
        return (self._limit(node) if node is not None else ALL_UNITS), False

    def units(self, path: tuple[str, ...]) -> int:
        """Return how many units are held."""
        node = self._find(path)
        return node.units if node is not None else 0

    def occupied(self, path: tuple[str, ...]) -> bool:
        """Return whether anybody holds this very path or waits for it."""
        node = self._find(path)
        return node is not None and bool(node.held or node.waiting)

    def held(self, path: tuple[str, ...]) -> bool:
        """Return whether anything is held that overlaps the path."""
        node: _Node | None = self._root
        for segment in path:
            assert node is not None
            if node.held:
                return True
            node = node.children.get(segment)
            if node is None:
                return False
        assert node is not None
        return bool(node.held or node.below_held)

    def claims_on(self, path: tuple[str, ...]) -> list[int]:
        """Return those who hold this very path, then those who wait for it."""
        node = self._find(path)
        return [] if node is None else [*node.held, *node.waiting]

    def waiting_on(self, path: tuple[str, ...]) -> int:
        """Return how many wait for this very path."""
        node = self._find(path)
        return 0 if node is None else len(node.waiting)

    def overlapping(self, path: tuple[str, ...]) -> Iterator[int]:
        """Yield everyone who holds, waits for or observes the path, a part of it or what it is a part of.

        Those on the path itself come first, in the order in which they have it or will. A claim on several paths may
        come several times.
        """
        node: _Node | None = self._root
        above: list[_Node] = []
        for segment in path:
            assert node is not None
            above.append(node)
            node = node.children.get(segment)
            if node is None:
                break
        if node is not None:
            yield from itertools.chain(node.held, node.waiting, node.observers)
        for other in reversed(above):
            yield from itertools.chain(other.held, other.waiting)
        if node is not None:
            yield from _below(node)

    def ahead(self, claim: int, resources: tuple[Resource, ...], count_max: int) -> int:
        """Return how many who wait come before the claim, `count_max` if they are so many or more."""
        found: dict[int, None] = {}
        for resource in resources:
            for queue in self._queues_of(resource.path):
                for other in itertools.islice(queue, count_max):
                    if other >= claim:
                        break
                    found[other] = None
                    if len(found) >= count_max:
                        return count_max
        return len(found)

    def in_the_way(self, claim: int, resources: tuple[Resource, ...], look_max: int) -> tuple[list[int], int]:
        """Return who keeps this claim from being granted, by number, and at how many was looked to know it.

        Nobody is named when there are more than `look_max`: which of them a node meets first is not the same on all.
        """
        looks = (look for resource in resources for look in self._conflicts(claim, resource))
        looked = list(itertools.islice(looks, look_max + 1))
        found = dict.fromkeys(looked if len(looked) <= look_max else ())
        found.pop(NOT_IN_THE_WAY, None)
        return sorted(found), len(looked)

    def first_in_the_way(self, claim: int, resources: tuple[Resource, ...]) -> int:
        """Return one that keeps this claim from being granted; 0 if only what lies below its paths does.

        It is the same on every node, whatever the order is in which a node came to know the paths.
        """
        for resource in resources:
            shares = resource.mode == Mode.READ
            node: _Node | None = self._root
            for segment in resource.path:
                assert node is not None
                for other, has in node.held.items():
                    if not (shares and has.mode == Mode.READ):
                        return other
                if _first(node.waiting) < claim:
                    return _first(node.waiting)
                node = node.children.get(segment)
                if node is None:
                    break
            if node is not None and node.held and not self._shares_units(node, resource):
                return next(iter(node.held))
            if node is not None and _first(node.waiting) < claim:
                return _first(node.waiting)
        return 0

    # --- what a change makes possible --------------------------------------------------------------------------------

    def may_be_ready(self, resources: tuple[Resource, ...], *, ended: bool = False) -> Iterator[int]:
        """Yield the first in each queue that a change on these resources, or the end of a grant, may have left free.

        Left out is whoever comes behind one that waits above him, and whoever is below something held that nobody below
        can share: the end of that is another change, and so is its grant, unless to write, which keeps him as well.
        The end of one of several readers leaves nothing below free: readers did not wait for it, and others still do.
        """
        for resource in resources:
            node, before, others = self._root, INT_MAX, False
            for segment in resource.path:
                others = others or bool(node.held)
                if _first(node.waiting) < before:
                    before = _first(node.waiting)
                    yield before
                child = node.children.get(segment)
                if child is None or _alone(node):
                    break
                node = child
            else:
                below = not (ended and resource.mode == Mode.READ and (others or node.held))
                yield from _heads(node, before, below=below)

    def may_be_free(self, resources: tuple[Resource, ...]) -> Iterator[int]:
        """Yield the observers whom the end of a grant on these resources may concern."""
        for resource in resources if self._observers else ():
            node: _Node | None = self._root
            for segment in resource.path:
                assert node is not None
                yield from list(node.observers)
                node = node.children.get(segment)
                if node is None:
                    break
            if node is not None:
                yield from _observers(node)

    # --- parts -------------------------------------------------------------------------------------------------------

    def _passes(self, claim: int, resource: Resource) -> bool:
        shares = resource.mode == Mode.READ
        node = self._root
        for segment in resource.path:
            if len(node.held) > (node.shared if shares else 0) or _first(node.waiting) < claim:
                return False
            child = node.children.get(segment)
            if child is None:
                return True
            node = child
        if node.below_held > (node.below_shared if shares else 0) or _first(node.below_waiting) < claim:
            return False
        if _first(node.waiting) < claim:
            return False
        return not node.held or self._shares_units(node, resource)

    def _limit(self, node: _Node) -> int:
        return next(iter(node.limited.values()), ALL_UNITS)

    def _units_for(self, node: _Node, resource: Resource) -> int:
        """Return how many units those who share a path may have together.

        A limit that comes with a claim binds only itself and those who come beside it when it is held: nobody waits
        because of one who came later.
        """
        created = self.limits.get(resource.path)
        return created or resource.limit or (self._limit(node) if node.capped else ALL_UNITS)

    def _conflicts(self, claim: int, resource: Resource) -> Iterator[int]:
        """Yield who overlaps the resource and keeps the claim from it, and a 0 for whatever else is looked at."""
        shares = resource.mode == Mode.READ
        node = self._root
        for segment in resource.path:
            yield from _conflicts_on(node, claim, shares=shares)
            child = node.children.get(segment)
            if child is None:
                return
            node = child
        if resource.mode == Mode.OBSERVE or not self._shares_units(node, resource):
            yield from node.held
        yield from itertools.takewhile(lambda other: other < claim, node.waiting)
        yield from _conflicts_below(node, claim, shares=shares)

    def _shares_units(self, node: _Node, resource: Resource) -> bool:
        """Return whether the resource fits beside those who hold the same path."""
        first = next(iter(node.held.values()), None)
        if first is not None and Mode.WRITE in (resource.mode, first.mode):  # one that writes is alone on its path
            return False
        return node.units + resource.units <= self._units_for(node, resource)

    def _queues_of(self, path: tuple[str, ...]) -> Iterator[OrderedDict[int, Resource] | OrderedDict[int, int]]:
        node = self._root
        for segment in path:
            yield node.waiting
            child = node.children.get(segment)
            if child is None:
                return
            node = child
        yield node.waiting
        yield node.below_waiting

    def _find(self, path: tuple[str, ...]) -> _Node | None:
        node: _Node | None = self._root
        for segment in path:
            assert node is not None
            node = node.children.get(segment)
            if node is None:
                return None
        return node

    def _node(self, path: tuple[str, ...]) -> _Node:
        node = self._root
        for segment in path:
            child = node.children.get(segment)
            if child is None:
                child = node.children[segment] = _Node(node, segment)
            node = child
        return node

    def _stop_waiting(self, claim: int, path: tuple[str, ...]) -> _Node:
        node = self._node(path)
        del node.waiting[claim]
        for above in _above(node):
            left = above.below_waiting[claim] - 1
            if left:
                above.below_waiting[claim] = left
            else:
                del above.below_waiting[claim]
        self._unmark_busy(node)
        return node

    def _count_held(self, node: _Node, resource: Resource, change: int) -> None:
        shares = resource.mode == Mode.READ
        if resource.mode != Mode.WRITE:
            node.units += change * resource.units
        node.shared += change * shares
        for above in _above(node):
            above.below_held += change
            above.below_shared += change * shares

    def _count_limit(self, node: _Node, claim: int, resource: Resource) -> None:
        if resource.limit:
            node.limited[claim] = resource.limit

    def _mark_busy(self, node: _Node) -> None:
        while node.parent is not None and node.segment not in node.parent.busy:
            node.parent.busy[node.segment] = node
            node = node.parent

    def _unmark_busy(self, node: _Node) -> None:
        while node.parent is not None and not (node.waiting or node.observers or node.busy):
            node.parent.busy.pop(node.segment, None)
            node = node.parent

    def _prune(self, node: _Node) -> None:
        while node.parent is not None and node.empty():
            del node.parent.children[node.segment]
            node = node.parent


def _first(queue: OrderedDict[int, Resource] | OrderedDict[int, int]) -> int:
    return next(iter(queue), INT_MAX)


def _above(node: _Node) -> Iterator[_Node]:
    above = node.parent
    while above is not None:
        yield above
        above = above.parent


def _below(node: _Node) -> Iterator[int]:
    for child in node.children.values():
        yield from itertools.chain(child.held, child.waiting)
        yield from _below(child)


def _alone(node: _Node) -> bool:
    """Return whether something is held here that keeps everybody from what is below."""
    return len(node.held) > node.shared


def _heads(node: _Node, before: int, *, below: bool = True) -> Iterator[int]:
    first = _first(node.waiting)
    if first < before:
        yield first
        before = first
    if below and _first(node.below_waiting) < before and not _alone(node):
        for child in node.busy.values():
            yield from _heads(child, before)


def _observers(node: _Node) -> Iterator[int]:
    yield from list(node.observers)
    if node.below_observers:
        for child in list(node.busy.values()):
            yield from _observers(child)


def _conflicts_on(node: _Node, claim: int, *, shares: bool) -> Iterator[int]:
    yield from (NOT_IN_THE_WAY if shares and has.mode == Mode.READ else other for other, has in node.held.items())
    yield from itertools.takewhile(lambda other: other < claim, node.waiting)


def _conflicts_below(node: _Node, claim: int, *, shares: bool) -> Iterator[int]:
    if not node.below_held and _first(node.below_waiting) > claim:
        return
    for child in node.children.values():
        if not child.held and _first(child.waiting) > claim:
            yield NOT_IN_THE_WAY
        yield from _conflicts_on(child, claim, shares=shares)
        yield from _conflicts_below(child, claim, shares=shares)


assert limits.PATH_SEGMENTS_MAX < 500, "the walks here call themselves once for each segment"
