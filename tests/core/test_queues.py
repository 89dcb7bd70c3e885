"""The tree of queues says the same as a list of claims searched from end to end, in every small case (P3, P7)."""

import itertools
from random import Random
from typing import Any

import pytest

from lessor.core.queues import Queues
from lessor.core.resources import Mode, Resource, covers, reduced

from ..support.naive_queues import NaiveQueues, Path, Side, Wish, overlap

PATHS: list[Path] = [(), ("a",), ("b",), ("a", "a"), ("a", "b")]
SINGLES = [
    *(Resource(path, mode) for path in PATHS for mode in (Mode.WRITE, Mode.READ)),
    *(Resource(path, Mode.COUNT, count, 2) for path in PATHS[:4] for count in (1, 2)),
]
SETS = [pair for pair in itertools.combinations(SINGLES, 2) if reduced(pair) == pair and pair[0].path != pair[1].path]


def set_(*resources: Resource) -> tuple[Resource, ...]:
    return resources


@pytest.mark.deep
def test_every_three_claims_are_granted_as_they_should_be_whatever_the_order_in_which_they_end() -> None:
    cases = 0
    for first, second, third in itertools.product(SINGLES, repeat=3):
        if not overlap(first.path, second.path) and not overlap(second.path, third.path):
            continue
        for order in ((1, 2, 3), (2, 1, 3), (3, 2, 1)) if cases % 3 else ((1, 3, 2), (2, 3, 1), (3, 1, 2)):
            side = Side()
            for resource in (first, second, third):
                side.come((resource,))
            for number in order:
                side.end(number)
            assert sorted(side.granted) == sorted(set(side.granted)), "nobody is granted twice"
            assert side.queues.empty()
        cases += 1
    assert cases > 3000


def test_every_set_of_two_and_what_comes_between_and_behind() -> None:
    chance = Random(0)
    for pair in SETS:
        for before, behind in zip(chance.sample(SINGLES, 10), chance.sample(SINGLES, 10), strict=True):
            side = Side()
            numbers = [side.come(resources) for resources in (set_(before), pair, set_(behind), pair)]
            chance.shuffle(numbers)
            for number in numbers:
                side.end(number)
            assert side.queues.empty()


@pytest.mark.parametrize("seed", range(20))
def test_long_random_histories_of_sets_with_created_limits_and_shrinking(seed: int) -> None:
    chance = Random(seed)
    for history in range(25):
        side = Side({("a",): 2, ("b",): 3} if history % 2 else {})
        for _ in range(30):
            there = list(side.naive.wishes)
            dice = chance.random()
            if there and dice < 0.42:
                side.end(chance.choice(there).number)
            elif there and dice < 0.52:
                shrink(side, chance.choice(there), chance)
            else:
                side.come(some_set(chance, limited=not history % 2))
            assert side.queues.held(("a",)) == side.naive.held(("a",)), f"seed {seed}"
        for wish in list(side.naive.wishes):
            side.end(wish.number)
        assert side.queues.empty() or side.naive.limits, "nothing is left behind (P10)"
        assert side.queues._root.empty()


def some_set(chance: Random, *, limited: bool) -> tuple[Resource, ...]:
    while True:
        chosen = [chance.choice(SINGLES) for _ in range(chance.choice((1, 1, 2, 3)))]
        if not limited:
            chosen = [
                Resource(r.path, r.mode, r.count) for r in chosen if r.mode != Mode.COUNT or r.path in (("a",), ("b",))
            ]
        resources = reduced(tuple(chosen))
        if resources and len({resource.path for resource in resources}) == len(resources):
            return resources


def shrink(side: Side, wish: Wish, chance: Random) -> None:
    place = chance.randrange(len(wish.resources))
    old = wish.resources[place]
    new = Resource(old.path, Mode.READ) if old.mode == Mode.WRITE else Resource(old.path, old.mode, 1, old.limit)
    if old.mode != Mode.READ:
        side.shrink(wish.number, place, new)


# --- by name ---------------------------------------------------------------------------------------------------------

W, R = Mode.WRITE, Mode.READ


def test_a_claim_that_came_later_keeps_nobody_waiting_by_the_limit_that_it_brings() -> None:  # P7
    side = Side()
    for _ in range(3):
        side.come((Resource(("p",), R),))
    side.come((Resource(("q",), W),))
    reader = side.come((Resource(("p",), R), Resource(("q",), W)))
    side.come((Resource(("p",), Mode.COUNT, 1, 2),))
    assert side.end(4) == [reader], "three readers are there, and the limit of two came behind it"


def test_a_queue_of_a_thousand_is_looked_at_by_its_head_alone() -> None:
    queues = Queues()
    queues.hold(1, (Resource(("a",)),), waited=False)
    for number in range(2, 1002):
        queues.wait(number, (Resource(("a", "x") if number % 2 else ("a",)),))
    assert list(queues.may_be_ready((Resource(("a",)),))) == [2], "whoever waits below came later"
    assert queues.ahead(1001, (Resource(("a",)),), 1000) == 999
    assert queues.ahead(1001, (Resource(("a",)),), 10) == 10
    assert queues.in_the_way(1001, (Resource(("a",)),), 100) == ([], 101), "there are more than it was to look at"
    assert queues.in_the_way(2, (Resource(("a",)),), 100) == ([1], 1), "nobody looks at those behind"


class Unseen(dict[str, Any]):
    """Paths that nobody may go through."""

    def values(self) -> Any:
        raise AssertionError("everybody below is looked at")


HELD_AND_WAITING: dict[str, tuple[Resource, Resource | None, list[int]]] = {
    "who waits above came before them": (Resource(("a",), R), Resource(()), [4]),
    "who waits on the path came before them": (Resource(("a",), R), Resource(("a",)), [4]),
    "nobody can be below units that are taken": (Resource(("a",), Mode.COUNT, 1, 9), None, []),
    "nobody can be below what is written": (Resource(()), None, []),
    "other readers keep those who write": (Resource(("a",), R), None, []),
    "other readers above keep those who write": (Resource((), R), None, []),
}


@pytest.mark.parametrize("why", HELD_AND_WAITING)
def test_an_end_above_many_who_wait_does_not_look_at_those_who_cannot_be_next(why: str) -> None:  # P10
    held, waits, expected = HELD_AND_WAITING[why]
    queues = Queues()
    for number in (1, 2, 3):
        queues.hold(number, (held,), waited=False)
    if waits is not None:
        queues.wait(4, (waits,))
    for number in range(5, 100):
        queues.wait(number, (Resource(("a", str(number))),))
    queues._root.children["a"].busy = Unseen(queues._root.children["a"].busy)
    queues.give_up(3, (held,))
    assert list(queues.may_be_ready((Resource(("a",), held.mode, held.count, held.limit),), ended=True)) == expected
    assert not queues.ready(5, (Resource(("a", "5")),))


def test_whoever_came_before_the_one_who_waits_above_him_is_looked_at() -> None:  # P7
    side = Side()
    reader, writer = side.come((Resource(("a",), R),)), side.come((Resource(("b",)),))
    first = side.come((Resource(("a", "x")),))
    above = side.come((Resource(()),))
    second = side.come((Resource(("a", "y")),))
    assert side.end(reader) == [first]
    assert side.end(first) == []
    assert side.end(writer) == [above]
    assert side.end(above) == [second]


def test_whoever_is_looked_at_in_vain_counts_as_looked_at() -> None:  # P10
    queues = Queues()
    for number in range(1, 51):
        queues.hold(number, (Resource(("a",), R),), waited=False)
    queues.wait(51, (Resource(("a",)),))
    for number in range(52, 102):
        queues.wait(number, (Resource(("a", str(number)), R),))
    assert queues.in_the_way(60, (Resource(("a", "60"), R),), 100) == ([51], 51), "readers do not keep each other"
    assert queues.in_the_way(60, (Resource(("a", "60"), R),), 50) == ([], 51)
    queues.hold(102, (Resource(("a", "b", "c"), R),), waited=False)
    assert queues.in_the_way(51, (Resource(("a",), R),), 100) == ([], 50 + 2), "the paths below, whoever is there"


def test_siblings_are_not_in_each_others_way() -> None:
    side = Side()
    for name in "abc":
        side.come((Resource(("x", name)),))
    assert side.granted == [1, 2, 3]


def test_who_stands_on_a_path_comes_before_those_above_and_below_it() -> None:
    queues = Queues()
    for number, path in enumerate([("a", "b"), ("c",)], start=1):
        queues.hold(number, (Resource(path),), waited=False)
    for number, path in enumerate([("a",), (), ("a", "b"), ("a", "b", "c")], start=3):
        queues.wait(number, (Resource(path),))
    assert list(queues.overlapping(("a", "b"))) == [1, 5, 3, 4, 6]
    assert list(queues.overlapping(("z",))) == [4]


def test_an_observer_is_free_when_the_grants_that_it_found_have_ended() -> None:
    queues, tokens = Queues(), {1: 1, 2: 2}
    queues.hold(1, (Resource(("a",), R),), waited=False)
    queues.hold(2, (Resource(("a",), R),), waited=False)
    assert not queues.free(("a",), 1, tokens)
    queues.give_up(1, (Resource(("a",), R),))
    assert queues.free(("a",), 1, tokens), "the other grant is younger"
    assert queues.free(("a", "b"), 1, tokens), "below it, too"
    assert not queues.free((), 1, tokens), "above it nothing may be held at all"
    queues.observe(3, ("a", "b"))
    queues.observe(4, ())
    assert sorted(queues.may_be_free((Resource(("a",)),))) == [3, 4]
    queues.look_away(3, ("a", "b"))
    queues.look_away(4, ())
    queues.give_up(2, (Resource(("a",), R),))
    assert queues.empty()


@pytest.mark.parametrize(
    ("resources", "left"),
    [
        ([(("a",), W), (("a",), W)], [0]),
        ([(("a",), W), (("a", "b"), W)], [0]),
        ([(("a", "b"), W), (("a",), W)], [1]),
        ([(("a",), R), (("a", "b"), W)], [0, 1]),
        ([(("a",), R), (("a",), W)], [1]),
        ([(("a",), R), (("a", "b"), R)], [0]),
        ([((), W), (("a",), W), (("b",), R)], [0]),
        ([(("a",), W), (("b",), W)], [0, 1]),
    ],
)
def test_what_another_resource_of_the_set_covers_is_left_out(
    resources: list[tuple[Path, Mode]], left: list[int]
) -> None:
    asked = tuple(Resource(path, mode) for path, mode in resources)
    assert reduced(asked) == tuple(asked[place] for place in left)


def test_what_covers_something_keeps_everybody_from_it_whom_that_would_keep() -> None:
    for one, other in itertools.product(SINGLES, repeat=2):
        if covers(one, other):
            for third in SINGLES:
                both, alone = NaiveQueues(), NaiveQueues()
                both.wishes, alone.wishes = [Wish(1, (one, other), 1)], [Wish(1, (one,), 1)]
                if third.mode != Mode.COUNT:
                    assert both.in_the_way(2, (third,)) == alone.in_the_way(2, (third,))
