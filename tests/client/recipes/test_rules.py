"""What the recipes of both faces share: whose lease is the last, which tasks to try, what is too many."""

import random
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import pytest

from lessor import BadRequest
from lessor.client.recipes.rules import Deadline, Kept, Share
from lessor.client.watch import Missed
from lessor.core.events import Event


@dataclass(eq=False)
class Task:
    """What stands for a lease."""

    name: str
    held: bool = True
    gone: bool = False
    path: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.path = (self.name,)


def ended(*names: str, kind: str = "released") -> Event:
    first, *others = [(name,) for name in names]
    return Event(1, 1, 0, kind, "n", first, 1, 1, 1, "me", 0, tuple(others))


def share(*names: str, capacity: int = 2) -> Share:
    return Share(names, capacity, random.Random(1))


def test_all_tasks_are_tried_at_once_in_an_order_of_chance() -> None:
    names = [f"job-{n}" for n in range(10)]
    orders = {tuple(Share(names, 4, random.Random(seed)).to_try()) for seed in range(20)}
    assert len(orders) > 10
    assert {tuple(sorted(map(str, order))) for order in orders} == {tuple(sorted(names))}


def test_the_first_grants_are_kept_and_those_beyond_the_capacity_are_not() -> None:
    tasks = [Task("a"), Task("b"), Task("c")]
    mine = share("a", "b", "c")
    mine.to_try()
    assert mine.take(tasks) == tasks[2:]
    assert (mine.held, list(mine.won)) == (tasks[:2], tasks[:2])


def test_nothing_is_tried_while_there_is_no_room_and_then_only_what_may_be_free() -> None:
    a, b, c = Task("a"), Task("b"), Task("c")
    mine = share("a", "b", "c", "d", "e")
    mine.to_try()
    mine.take([a, b, c])
    assert mine.to_try() == []
    mine.told(ended("d"))
    mine.told(ended("e", kind="granted"))
    mine.told(ended("elsewhere"))
    a.held = False
    mine.prune()
    assert sorted(map(str, mine.to_try())) == ["a", "c", "d"]
    assert mine.to_try() == [], "each is tried once for each hint"


@pytest.mark.parametrize("told", [None, Missed(1, 2)])
def test_after_a_gap_or_a_long_silence_all_are_tried_but_those_that_are_held(told: Any) -> None:
    a = Task("a")
    mine = share("a", "b", "c")
    mine.to_try()
    mine.take([a])
    mine.told(told)
    assert sorted(map(str, mine.to_try())) == ["b", "c"]


def test_a_task_that_was_lost_before_it_was_handed_out_is_not_handed_out() -> None:
    a = Task("a")
    mine = share("a", "b")
    mine.to_try()
    mine.take([a])
    a.held = False
    mine.prune()
    assert (mine.held, list(mine.won), mine.to_try()) == ([], [], ["a"])


@pytest.mark.parametrize(("names", "capacity"), [([], 1), (["a"], 0), (["a"], True), (["a"], 1.5)])
def test_a_share_of_nothing_is_refused(names: list[str], capacity: Any) -> None:
    with pytest.raises(BadRequest):
        Share(names, capacity)


def test_each_flow_has_its_own_last_lease() -> None:
    a, b, c = Task("a"), Task("b"), Task("c")
    kept: Kept[Task] = Kept(attrgetter("gone"))
    for flow, lease in ((1, a), (2, b), (1, c)):
        kept.push(flow, lease)
    assert (kept.top(1), kept.top(2), kept.top(3)) == (c, b, None)
    assert [kept.pop(1), kept.pop(1)] == [c, a]
    with pytest.raises(BadRequest):
        kept.pop(1)
    assert kept.pop(2) is b, "nobody else has taken it"


def test_what_was_given_back_by_other_means_counts_no_more_and_is_not_kept() -> None:
    """P10: else each `with pool.acquire()` would leave an entry behind."""
    kept: Kept[Task] = Kept(attrgetter("gone"))
    first = Task("first")
    kept.push(1, first)
    for flow in range(1, 100):
        last = Task("last")
        kept.push(flow, last)
        last.gone = True
    assert kept.top(1) is first
    assert len(kept._entries) <= 2
    assert kept.pop(1) is first


def test_what_a_with_has_entered_is_left_by_its_end_alone_whoever_ends_it() -> None:
    outer, inner, acquired = Task("outer"), Task("inner"), Task("acquired")
    kept: Kept[Task] = Kept(attrgetter("gone"))
    kept.push(1, outer, scoped=True)
    kept.push(1, inner, scoped=True)
    kept.push(1, acquired)
    inner.gone = True
    assert [kept.pop(1), kept.top(1)] == [acquired, outer]
    with pytest.raises(BadRequest):
        kept.pop(1)
    assert [kept.leave(1), kept.leave(2)] == [inner, outer]


def test_a_deadline_is_shared_by_all_waits() -> None:
    now = [100.0]
    deadline = Deadline(lambda: now[0], 5)
    now[0] = 104.0
    assert (deadline.left(), deadline.left_at_most(10), deadline.left_at_most(0.5), deadline.over) == (1, 1, 0.5, False)
    now[0] = 106.0
    assert (deadline.left(), deadline.over) == (0, True)
    assert Deadline(lambda: now[0], None).left() is None
