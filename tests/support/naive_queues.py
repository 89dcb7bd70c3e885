"""The queues once more, as naively as can be: one list of claims, searched from end to end for each question."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from lessor.core.queues import Queues
from lessor.core.resources import Mode, Resource

Path = tuple[str, ...]


@dataclass
class Wish:
    """A claim that waits or holds."""

    number: int
    resources: tuple[Resource, ...]
    token: int = 0


def overlap(one: Path, other: Path) -> bool:
    """Whether one path equals the other or is a prefix of it."""
    return one[: len(other)] == other or other[: len(one)] == one


def share(one: Resource, other: Resource) -> bool:
    """Whether two wants that overlap can be had side by side, as far as no units are counted."""
    if one.mode == other.mode == Mode.READ:
        return True
    return one.path == other.path and Mode.WRITE not in (one.mode, other.mode)


@dataclass
class NaiveQueues:
    """Who waits and who holds, in the order of arrival."""

    limits: dict[Path, int] = field(default_factory=dict)
    wishes: list[Wish] = field(default_factory=list)

    def blockers(self, number: int, resource: Resource) -> set[int]:
        """Who keeps a claim from one resource."""
        found = set()
        for wish in self.wishes:
            for other in wish.resources:
                if not overlap(resource.path, other.path):
                    continue
                if wish.token and not share(resource, other):
                    found.add(wish.number)
                if not wish.token and wish.number < number:
                    found.add(wish.number)
        together = [(wish, r) for wish in self.wishes if wish.token for r in wish.resources if r.path == resource.path]
        if resource.mode != Mode.WRITE and not any(r.mode == Mode.WRITE for _, r in together):
            limit = self.limits.get(resource.path) or resource.limit
            limit = limit or next((r.limit for _, r in together if r.limit), 2**63)
            if sum(r.units for _, r in together) + resource.units > limit:
                found |= {wish.number for wish, _ in together}
        return found

    def in_the_way(self, number: int, resources: Sequence[Resource]) -> list[int]:
        return sorted({other for resource in resources for other in self.blockers(number, resource)})

    def ahead(self, number: int, resources: Sequence[Resource]) -> int:
        waiting = [wish for wish in self.wishes if not wish.token and wish.number < number]
        return sum(any(overlap(a.path, b.path) for a in wish.resources for b in resources) for wish in waiting)

    def held(self, path: Path) -> bool:
        return any(overlap(path, r.path) for wish in self.wishes if wish.token for r in wish.resources)


class Side:
    """The queues and the naive ones side by side; every question is put to both."""

    def __init__(self, limits: dict[Path, int] | None = None) -> None:
        self.queues, self.naive = Queues(), NaiveQueues(dict(limits or {}))
        self.queues.limits = dict(limits or {})
        self.last = self.last_token = 0
        self.granted: list[int] = []

    def come(self, resources: tuple[Resource, ...]) -> int:
        """A claim arrives; it holds or waits."""
        self.last += 1
        wish = Wish(self.last, resources)
        if self.agreed_ready(wish):
            self.grant(wish, waited=False)
        else:
            self.queues.wait(wish.number, resources)
        self.naive.wishes.append(wish)
        self.check()
        return wish.number

    def end(self, number: int) -> list[int]:
        """A claim leaves; return who is granted because of that, in their order."""
        wish = next(wish for wish in self.naive.wishes if wish.number == number)
        self.naive.wishes.remove(wish)
        if wish.token:
            self.queues.give_up(number, wish.resources)
        else:
            self.queues.leave(number, wish.resources)
        return self.serve(wish.resources, ended=wish.token > 0)

    def shrink(self, number: int, place: int, new: Resource) -> list[int]:
        """A claim wants less of one of its resources from now on."""
        wish = next(wish for wish in self.naive.wishes if wish.number == number)
        self.queues.shrink(number, wish.resources[place], new, held=wish.token > 0)
        wish.resources = (*wish.resources[:place], new, *wish.resources[place + 1 :])
        return self.serve(wish.resources)

    def serve(self, resources: tuple[Resource, ...], *, ended: bool = False) -> list[int]:
        before = len(self.granted)
        heads = set(self.queues.may_be_ready(resources, ended=ended))
        while ready := [
            w for w in self.naive.wishes if not w.token and not self.naive.in_the_way(w.number, w.resources)
        ]:
            wish = ready[0]
            assert wish.number in heads, f"{wish.number} is ready, and nobody looks at it: a lost wake-up (P7)"
            assert self.queues.ready(wish.number, wish.resources)
            self.grant(wish, waited=True)
            if any(resource.mode != Mode.WRITE for resource in wish.resources):
                heads |= set(self.queues.may_be_ready(wish.resources))
        self.check()
        return self.granted[before:]

    def grant(self, wish: Wish, *, waited: bool) -> None:
        self.queues.hold(wish.number, wish.resources, waited=waited)
        self.last_token += 1
        wish.token = self.last_token
        self.granted.append(wish.number)

    def agreed_ready(self, wish: Wish) -> bool:
        blockers = self.naive.in_the_way(wish.number, wish.resources)
        ready = self.queues.ready(wish.number, wish.resources)
        assert ready == (not blockers), f"{wish} is kept from it by {blockers}"
        assert self.queues.in_the_way(wish.number, wish.resources, 1000)[0] == blockers
        first = self.queues.first_in_the_way(wish.number, wish.resources)
        assert first in blockers or not first, f"{first} is in nobody's way"
        if blockers and not first:
            assert all(self.lies_below(number, wish) for number in blockers), "somebody could have been named"
        assert self.queues.ahead(wish.number, wish.resources, 1000) == self.naive.ahead(wish.number, wish.resources)
        return ready

    def lies_below(self, number: int, wish: Wish) -> bool:
        other = next(other for other in self.naive.wishes if other.number == number)
        pairs = [(a.path, b.path) for a in wish.resources for b in other.resources if overlap(a.path, b.path)]
        return any(len(theirs) > len(mine) for mine, theirs in pairs)

    def check(self) -> None:
        """Assert that nobody waits for what is free, and that both say the same of everybody."""
        for wish in self.naive.wishes:
            if not wish.token:
                assert not self.agreed_ready(wish), f"{wish} waits for what is free (P7)"
        assert self.queues.empty() == (not self.naive.wishes and not self.naive.limits), "nothing is left behind (P10)"
