"""Several feeds as one: each event once, in order, and every gap named."""

import random

import pytest

from lessor.client.watch import HELD_BACK_MAX, PATIENCE_S, Missed, Order
from lessor.core.events import Event


def event(revision: int) -> Event:
    return Event(revision, 1, 0, "granted", "default", ("x",), 1, 1, 1, "me", 0)


def revisions(told: list[object]) -> list[int]:
    return [item.revision for item in told if isinstance(item, Event)]


def test_what_is_in_order_is_told_at_once() -> None:
    order = Order(last=5)
    assert order.take(event(6), 0.0) == [event(6)]
    assert order.take(event(7), 0.0) == [event(7)]
    assert order.gap_until is None


def test_what_a_second_feed_repeats_is_not_told_again() -> None:
    order = Order(last=5)
    order.take(event(6), 0.0)
    assert order.take(event(6), 0.0) == []
    assert order.take(event(3), 0.0) == []


def test_another_feed_closes_the_gap_of_the_first() -> None:
    order = Order(last=5)
    assert order.take(event(8), 0.0) == []
    assert order.take(event(6), 0.1) == [event(6)]
    assert order.take(event(7), 0.2) == [event(7), event(8)]
    assert order.gap_until is None


def test_a_gap_that_nobody_closes_is_named_after_a_while() -> None:
    order = Order(last=5)
    order.take(event(8), 1.0)
    assert order.gap_until == 1.0 + PATIENCE_S
    assert order.give_up(1.0 + PATIENCE_S / 2) == []
    assert order.give_up(1.0 + PATIENCE_S) == [Missed(6, 7), event(8)]
    assert order.give_up(9.0) == []


def test_each_gap_has_its_own_time() -> None:
    order = Order(last=5)
    order.take(event(7), 0.0)
    order.take(event(9), 0.0)
    assert order.give_up(PATIENCE_S) == [Missed(6, 6), event(7)]
    assert order.give_up(PATIENCE_S) == []
    assert order.give_up(2 * PATIENCE_S) == [Missed(8, 8), event(9)]


def test_what_the_nodes_have_told_and_no_feed_has_brought_was_missed() -> None:
    order = Order(last=5)
    assert order.know(5) == []
    assert order.know(9) == [Missed(6, 9)]
    order.take(event(12), 0.0)
    assert order.know(14) == [Missed(10, 11), event(12), Missed(13, 14)]
    assert order.last == 14


def test_a_gap_with_too_much_behind_it_is_given_up() -> None:
    """P10."""
    order = Order(last=0)
    told = [item for revision in range(2, HELD_BACK_MAX + 4) for item in order.take(event(revision), 0.0)]
    assert told[0] == Missed(1, 1)
    assert len(told) == HELD_BACK_MAX + 3


@pytest.mark.parametrize("seed", range(20))
def test_every_revision_is_told_once_or_named_as_missed(seed: int) -> None:
    """Two feeds that lose, delay and repeat."""
    chance = random.Random(seed)
    arrivals = sorted(
        (revision / 100 + chance.choice((0, 0, 0.05, 1.0)) * chance.random(), revision)
        for revision in range(1, 400)
        for _ in range(2)
        if chance.random() > 0.2
    )
    order = Order(last=0)
    told: list[object] = []
    for now, revision in arrivals:
        told += order.give_up(now)
        told += order.take(event(revision), now)
    told += order.know(399)
    covered: list[int] = []
    for item in told:
        covered += range(item.first, item.last + 1) if isinstance(item, Missed) else revisions([item])
    assert covered == list(range(1, 400))
